// The table's sizes against Linux's own headers.
#include <linux/stat.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <termios.h>
#include <utime.h>

#include <catch2/catch.hpp>
#include <string>

#include "hypercall/syscall_table.h"

using namespace dbos::syscalls;

namespace {

uint32_t unit(long number, int argument) {
  return find(static_cast<uint32_t>(number))->arguments[argument].unit;
}
uint32_t request_unit(long number, unsigned long request) {
  return find_request(static_cast<uint32_t>(number), request)->argument.unit;
}

}  // namespace

TEST_CASE("sizes of structures") {
  CHECK(unit(SYS_stat, 1) == sizeof(struct stat));
  CHECK(unit(SYS_statx, 4) == sizeof(struct statx));
  CHECK(unit(SYS_statfs, 1) == sizeof(struct statfs));
  CHECK(unit(SYS_epoll_wait, 1) == sizeof(epoll_event));
  CHECK(unit(SYS_epoll_ctl, 3) == sizeof(epoll_event));
  CHECK(unit(SYS_poll, 0) == sizeof(pollfd));
  CHECK(unit(SYS_readv, 1) == sizeof(iovec));
  CHECK(unit(SYS_recvmmsg, 1) == sizeof(mmsghdr));
  CHECK(unit(SYS_getrusage, 1) == sizeof(rusage));
  CHECK(unit(SYS_wait4, 3) == sizeof(rusage));
  CHECK(unit(SYS_waitid, 2) == sizeof(siginfo_t));
  CHECK(unit(SYS_rt_sigtimedwait, 1) == sizeof(siginfo_t));
  CHECK(unit(SYS_timer_create, 1) == sizeof(sigevent));
  CHECK(unit(SYS_timer_settime, 2) == sizeof(itimerspec));
  CHECK(unit(SYS_setitimer, 1) == sizeof(itimerval));
  CHECK(unit(SYS_sysinfo, 0) == sizeof(struct sysinfo));
  CHECK(unit(SYS_times, 0) == sizeof(struct tms));
  CHECK(unit(SYS_adjtimex, 0) == sizeof(timex));
  CHECK(unit(SYS_uname, 0) == sizeof(utsname));
  CHECK(unit(SYS_mq_open, 3) == sizeof(mq_attr));
  CHECK(unit(SYS_semop, 1) == sizeof(sembuf));
  CHECK(unit(SYS_utime, 1) == sizeof(utimbuf));
  CHECK(unit(SYS_prlimit64, 2) == sizeof(rlimit));
  CHECK(request_unit(SYS_semctl, IPC_STAT) == sizeof(semid_ds));
  CHECK(request_unit(SYS_semctl, IPC_INFO) == sizeof(seminfo));
  CHECK(request_unit(SYS_msgctl, IPC_STAT) == sizeof(msqid_ds));
  CHECK(request_unit(SYS_msgctl, IPC_INFO) == sizeof(msginfo));
  CHECK(request_unit(SYS_fcntl, F_SETLK) == sizeof(struct flock));
  CHECK(request_unit(SYS_fcntl, F_SETOWN_EX) == sizeof(f_owner_ex));
  CHECK(request_unit(SYS_ioctl, TIOCGWINSZ) == sizeof(winsize));
}

TEST_CASE("requests that tell their size") {
  for (const Request& request : detail::kRequests.list) {
    if (request.call != SYS_ioctl || request.number >> 30 == 0) continue;
    if (!request.argument.is_pointer()) continue;
    const std::string name = request.name;
    // Linux copies an int although their numbers say long.
    if (name == "FS_IOC_GETFLAGS" || name == "FS_IOC_SETFLAGS" || name == "FS_IOC_GETVERSION" ||
        name == "BLKBSZGET" || name == "BLKGETSIZE64" || name == "TUNSETIFF") {
      continue;
    }
    INFO(name);
    CHECK(request.argument.unit == (request.number >> 16 & 0x3fff));
  }
}

TEST_CASE("looking up") {
  CHECK(std::string(find(SYS_read)->name) == "read");
  CHECK(find(335) == nullptr);
  CHECK(find(451) == nullptr);
  CHECK(find(0xffffffff) == nullptr);
  CHECK(std::string(find_request(SYS_ioctl, 0xffffffff00005401)->name) == "TCGETS");
  CHECK(std::string(find_request(SYS_quotactl, 0x80000702)->name) == "Q_GETQUOTA");
  CHECK(find_request(SYS_prctl, 35) == nullptr);
}
