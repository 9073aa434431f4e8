// A guest that lies: pointers outside of its memory, sizes that overflow, structures that change
// while they are looked at.
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <thread>

#include "tests/fuzz/proxy_checker.h"
#include "tests/fuzz/proxy_guest.h"
#include "tests/unit/proxy/fake_program.h"

using namespace dbos;
using namespace dbos::test;

namespace {

const volatile uint32_t kNoSignal = 0;

int64_t execute(long number, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0, uint64_t a3 = 0,
                uint64_t a4 = 0, uint64_t a5 = 0) {
  const Call call{static_cast<uint32_t>(number), 0, {a0, a1, a2, a3, a4, a5}, 0};
  return vmm::execute_call(program().memory, call, &kNoSignal);
}

template <typename T>
T& at(uint64_t address) {
  return *reinterpret_cast<T*>(address);
}

uint64_t address_of(const void* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

}  // namespace

TEST_CASE("memory that is not the guest's") {
  char secret[64] = "the VMM's";
  const int null = open("/dev/null", O_WRONLY);
  const int zero = open("/dev/zero", O_RDONLY);
  const auto sink = static_cast<uint64_t>(null);
  const auto source = static_cast<uint64_t>(zero);
  const uint64_t frame = program().take_frames(1);
  CHECK(execute(SYS_write, sink, address_of(secret), 5) == -EFAULT);
  CHECK(execute(SYS_read, source, address_of(secret), 5) == -EFAULT);
  CHECK(execute(SYS_write, sink, kArenaBase - 1, 5) == -EFAULT);
  CHECK(execute(SYS_write, sink, frame, ~uint64_t{0}) == -EFAULT);
  CHECK(execute(SYS_write, sink, frame, kArenaSizeMax) == -EFAULT);
  CHECK(execute(SYS_fstat, sink, address_of(secret)) == -EFAULT);
  CHECK(execute(SYS_openat, static_cast<uint64_t>(AT_FDCWD), address_of("/"), O_RDONLY) == -EFAULT);
  CHECK(execute(SYS_write, sink, frame, 5) == 5);
  CHECK(std::string(secret) == "the VMM's");

  at<iovec>(frame) = {secret, 5};
  CHECK(execute(SYS_readv, source, frame, 1) == -EFAULT);
  CHECK(execute(SYS_readv, source, frame, 2000) == -EINVAL);
  CHECK(execute(SYS_readv, source, frame, uint64_t{1} << 60) == 0);  // Linux: unsigned int
  CHECK(execute(SYS_readv, source, frame, (uint64_t{1} << 60) + 1) == -EFAULT);
  at<iovec>(frame) = {reinterpret_cast<void*>(frame), ~size_t{0}};
  CHECK(execute(SYS_readv, source, frame, 1) == -EFAULT);
  CHECK(std::string(secret) == "the VMM's");

  std::memset(reinterpret_cast<void*>(frame), 'x', kPageSize);
  const uint64_t last = kArenaBase + 256 * kMiB - 8;
  std::memset(reinterpret_cast<void*>(last), 'x', 8);
  CHECK(execute(SYS_openat, static_cast<uint64_t>(AT_FDCWD), last, O_RDONLY) == -EFAULT);
  close(null);
  close(zero);
}

TEST_CASE("messages that point outside") {
  char secret[64] = "the VMM's";
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  REQUIRE(write(ends[1], "overwritten", 11) == 11);
  const auto reader = static_cast<uint64_t>(ends[0]);
  const uint64_t frame = program().take_frames(1);
  const uint64_t vector = frame + 512;
  at<iovec>(vector) = {reinterpret_cast<void*>(frame + 1024), 100};
  auto& message = at<msghdr>(frame);
  message = {};
  message.msg_iov = reinterpret_cast<iovec*>(vector);
  message.msg_iovlen = 1;
  SECTION("name") {
    message.msg_name = secret;
    message.msg_namelen = 16;
    CHECK(execute(SYS_recvmsg, reader, frame, 0) == -EFAULT);
  }
  SECTION("control") {
    message.msg_control = secret;
    message.msg_controllen = 16;
    CHECK(execute(SYS_recvmsg, reader, frame, 0) == -EFAULT);
  }
  SECTION("iovec array") {
    message.msg_iov = reinterpret_cast<iovec*>(secret);
    CHECK(execute(SYS_recvmsg, reader, frame, 0) == -EFAULT);
  }
  SECTION("iovec") {
    at<iovec>(vector).iov_base = secret;
    CHECK(execute(SYS_recvmsg, reader, frame, 0) == -EFAULT);
  }
  SECTION("the message itself") {
    CHECK(execute(SYS_recvmsg, reader, address_of(&message) - 1 * kTiB, 0) == -EFAULT);
    CHECK(execute(SYS_recvmmsg, reader, frame, 65, 0, 0) == -EINVAL);
  }
  SECTION("nothing") {
    CHECK(execute(SYS_recvmsg, reader, frame, 0) == 11);
  }
  CHECK(std::string(secret) == "the VMM's");
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("calls that could touch the VMM's memory") {
  for (const long number : {SYS_mmap,
                            SYS_munmap,
                            SYS_mprotect,
                            SYS_brk,
                            SYS_mremap,
                            SYS_madvise,
                            SYS_ptrace,
                            SYS_process_vm_writev,
                            SYS_userfaultfd,
                            SYS_set_robust_list,
                            SYS_set_tid_address,
                            SYS_rseq,
                            SYS_arch_prctl,
                            SYS_clone,
                            SYS_fork,
                            SYS_execve,
                            SYS_exit_group,
                            SYS_rt_sigaction,
                            SYS_rt_sigreturn,
                            SYS_io_uring_setup,
                            SYS_io_setup,
                            SYS_shmat,
                            SYS_seccomp,
                            SYS_bpf,
                            SYS_vmsplice,
                            SYS_sigaltstack,
                            SYS_remap_file_pages,
                            5000}) {
    CHECK(execute(number) == -ENOSYS);
  }
  CHECK(execute(SYS_prctl, 35 /* PR_SET_MM */) == -EINVAL);
  CHECK(execute(SYS_prctl, 22 /* PR_SET_SECCOMP */, 1) == -EINVAL);
  CHECK(execute(SYS_ioctl, 0, 0xae80 /* KVM_RUN */) == -ENOTTY);
  CHECK(execute(SYS_ioctl, 0, 0x8946 /* SIOCETHTOOL */) == -ENOTTY);
}

TEST_CASE("the VMM's descriptors do not exist") {
  const int own = fcntl(open("/dev/null", O_RDWR), F_DUPFD, 500);
  REQUIRE(own >= 500);
  program().guard.add(own);
  const auto ours = static_cast<uint64_t>(own);
  const uint64_t frame = program().take_frames(1);
  CHECK(execute(SYS_close, ours) == -EBADF);
  CHECK(execute(SYS_close, ours | uint64_t{1} << 40) == -EBADF);
  CHECK(execute(SYS_dup2, 0, ours) == -EBADF);
  CHECK(execute(SYS_dup3, 0, ours, 0) == -EBADF);
  CHECK(execute(SYS_fcntl, ours, F_GETFD) == -EBADF);
  CHECK(execute(SYS_write, ours, frame, 1) == -EBADF);
  std::vector<int> others;
  for (const int number : {own - 2, own - 1, own + 1, own + 7}) {
    others.push_back(fcntl(own, F_DUPFD, number));
  }
  CHECK(execute(SYS_close_range, others.front(), ~0u, 0) == 0);
  CHECK(fcntl(own, F_GETFD) >= 0);
  for (const int other : others) CHECK(fcntl(other, F_GETFD) == -1);
  CHECK(execute(SYS_close_range, ours, ours, 0) == 0);
  CHECK(execute(SYS_close_range, ours + 1, ours, 0) == -EINVAL);
  CHECK(fcntl(own, F_GETFD) >= 0);
  program().guard.remove(own);
  close(own);
}

TEST_CASE("a process has descriptors of the VMM's that another has not") {
  const auto parent = std::make_unique<vmm::DescriptorGuard>();
  const auto child = std::make_unique<vmm::DescriptorGuard>();
  parent->add(770);
  child->add(5000);  // of whoever had the record before
  child->copy_from(*parent);
  parent->add(791);
  child->add(792);
  CHECK(child->is_ours(770));
  CHECK(!child->is_ours(791));
  CHECK(!child->is_ours(5000));
  CHECK(child->next_ours(771) == 792);
  CHECK(child->next_ours(793) == -1);
  CHECK(!parent->is_ours(792));
}

// Some threads of the VMM keep rights that the program gives up.
TEST_CASE("the VMM's memory is not opened to a user whom the program has become") {
  constexpr uint64_t kHighBit = uint64_t{1} << 32;  // Linux looks at the low half of the option
  CHECK(execute(SYS_prctl, PR_SET_DUMPABLE, 0) == 0);
  CHECK(execute(SYS_prctl, PR_SET_DUMPABLE, 1) < 0);
  CHECK(execute(SYS_prctl, kHighBit | PR_SET_DUMPABLE, 1) < 0);
  CHECK(execute(SYS_prctl, PR_SET_PTRACER, static_cast<uint64_t>(-1)) == -EINVAL);
  CHECK(prctl(PR_GET_DUMPABLE) == 0);
  prctl(PR_SET_DUMPABLE, 1);
}

TEST_CASE("the guest's memory does not become executable in this process") {
  const int before = personality(0xffffffff);
  CHECK(execute(SYS_personality, READ_IMPLIES_EXEC) == -EINVAL);
  CHECK(execute(SYS_personality, READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE) == -EINVAL);
  CHECK(execute(SYS_personality, 0xffffffff) == before);
  personality(static_cast<unsigned long>(before));
}

TEST_CASE("events bring no opened files") {
  constexpr uint64_t kReportIds = 0x200;  // FAN_REPORT_FID
  CHECK(execute(SYS_fanotify_init, 0, O_RDWR) == -EPERM);
  const int64_t events = execute(SYS_fanotify_init, kReportIds, O_RDWR);
  CHECK((events >= 0 || geteuid() != 0 || events == -EPERM));
  if (events >= 0) close(static_cast<int>(events));
}

TEST_CASE("threads keep one table of descriptors, and processes one set of ids") {
  CHECK(execute(SYS_unshare, CLONE_FILES) == -EINVAL);
  CHECK(execute(SYS_unshare, CLONE_NEWPID | CLONE_NEWUSER) == -EINVAL);
  const pid_t child = fork();  // one thread, so Linux might do it
  if (child == 0) _exit(execute(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS) == -EINVAL ? 0 : 1);
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(execute(SYS_unshare, CLONE_FS) == 0);
  CHECK(execute(SYS_close_range, 400, 410, CLOSE_RANGE_UNSHARE) == -EINVAL);
  const int ids = open("/proc/self/ns/pid", O_RDONLY);
  REQUIRE(ids >= 0);
  CHECK(execute(SYS_setns, static_cast<uint64_t>(ids), 0) == -EINVAL);
  CHECK(execute(SYS_setns, static_cast<uint64_t>(ids), CLONE_NEWPID) == -EINVAL);
  CHECK(execute(SYS_setns, 999, 0) == -EBADF);
  close(ids);
}

TEST_CASE("memory slots are added once, however often they are told, and only so many") {
  vmm::GuestMemory memory;
  CHECK(memory.add(kArenaBase, kPageSize));
  CHECK(memory.add(kArenaBase, kPageSize));
  CHECK(memory.add(kArenaBase + kPageSize, kPageSize));
  CHECK(memory.contains(kArenaBase, 2 * kPageSize));
  for (uint32_t i = 1; i < vmm::GuestMemory::kRangesMax; ++i) {
    CHECK(memory.add(kArenaBase + 4 * i * kPageSize, kPageSize));
  }
  CHECK(!memory.add(kArenaBase + kGiB, kPageSize));
  CHECK(!memory.contains(kArenaBase + kGiB, 1));
}

TEST_CASE("who takes a lock of somebody dead is told") {
  vmm::HostLock lock;
  std::thread([&] { lock.lock(); }).join();
  CHECK(lock.lock() == vmm::HostLock::Taken::kFromTheDead);
  lock.unlock();
  CHECK(lock.lock() == vmm::HostLock::Taken::kFree);
}

TEST_CASE("the VMM's descriptors do not travel in messages") {
  const int own = fcntl(open("/dev/null", O_RDWR), F_DUPFD, 500);
  program().guard.add(own);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  const auto sender = static_cast<uint64_t>(ends[0]);
  const auto reader = static_cast<uint64_t>(ends[1]);
  const uint64_t frame = program().take_frames(8);
  struct Rights {
    uint64_t length;
    int level, type;
    int descriptors[2];
  };
  auto& control = at<Rights[2]>(frame + 1024);
  control[0] = {CMSG_LEN(8), SOL_SOCKET, SCM_RIGHTS, {ends[0], ends[1]}};
  control[1] = control[0];
  at<iovec>(frame + 512) = {reinterpret_cast<void*>(frame + 768), 1};
  auto& message = at<mmsghdr[2]>(frame);
  message[0] = {};
  message[0].msg_hdr.msg_iov = reinterpret_cast<iovec*>(frame + 512);
  message[0].msg_hdr.msg_iovlen = 1;
  message[0].msg_hdr.msg_control = &control;
  message[0].msg_hdr.msg_controllen = sizeof control;
  SECTION("the first or the last of a message") {
    control[0].descriptors[0] = own;
    CHECK(execute(SYS_sendmsg, sender, frame, 0) == -EBADF);
    std::swap(control[0].descriptors[0], control[1].descriptors[1]);
    CHECK(execute(SYS_sendmsg, sender, frame, 0) == -EBADF);
    CHECK(execute(SYS_sendmmsg, sender, frame, 1, 0) == -EBADF);
    CHECK(control[1].descriptors[1] == own);  // the guest's own memory stays as it is
  }
  SECTION("of the second message") {
    message[1] = message[0];
    message[1].msg_hdr.msg_control = reinterpret_cast<void*>(frame + 2048);
    at<Rights[2]>(frame + 2048)[0] = control[0];
    at<Rights[2]>(frame + 2048)[1] = control[1];
    at<Rights[2]>(frame + 2048)[1].descriptors[0] = own;
    CHECK(execute(SYS_sendmmsg, sender, frame, 2, 0) == 1);
  }
  SECTION("what is malformed, or too much, is Linux's to refuse") {
    control[1].length = sizeof control;
    CHECK(execute(SYS_sendmsg, sender, frame, 0) == -EINVAL);
    message[0].msg_hdr.msg_controllen = 20 * 1024 + 1;
    CHECK(execute(SYS_sendmsg, sender, frame, 0) == -ENOBUFS);
    CHECK(execute(SYS_sendmsg, 12345, frame, 0) == -EBADF);
  }
  SECTION("others do") {
    CHECK(execute(SYS_sendmsg, sender, frame, 0) == 1);
  }
  char byte = 0;
  while (execute(SYS_read, reader, frame + 4096, 1) == 1) byte++;
  CHECK(byte <= 1);
  program().guard.remove(own);
  for (const int descriptor : {own, ends[0], ends[1]}) close(descriptor);
}

TEST_CASE("the VMM's descriptors do not exist in structures either") {
  const int own = fcntl(memfd_create("the VMM's", 0), F_DUPFD, 500);
  program().guard.add(own);
  const int file = memfd_create("the program's", 0);
  const auto ours = static_cast<uint64_t>(own);
  const auto others = static_cast<uint64_t>(file);
  const uint64_t frame = program().take_frames(1);
  at<uint64_t[4]>(frame)[0] = ours;
  CHECK(execute(SYS_ioctl, others, 0x4020940d /* FICLONERANGE */, frame) == -EBADF);
  const auto self = static_cast<uint64_t>(getpid());
  CHECK(execute(SYS_kcmp, self, self, 0 /* KCMP_FILE */, others, others) == 0);
  CHECK(execute(SYS_kcmp, self, self, 0, ours, others) == -EBADF);
  CHECK(execute(SYS_kcmp, self, self, 0, others, ours) == -EBADF);
  CHECK(execute(SYS_fsconfig, others, 5 /* FSCONFIG_SET_FD */, 0, 0, ours) == -EBADF);
  CHECK(execute(SYS_pidfd_open, self, O_EXCL /* PIDFD_THREAD */) == -EINVAL);
  const int64_t process = execute(SYS_pidfd_open, self, O_NONBLOCK);
  REQUIRE(process >= 0);
  CHECK(execute(SYS_pidfd_getfd, static_cast<uint64_t>(process), ours, 0) == -EBADF);
  program().guard.remove(own);
  for (const int descriptor : {own, file, static_cast<int>(process)}) close(descriptor);
}

TEST_CASE("results whose size the call does not tell") {
  const int file = socket(AF_INET, SOCK_DGRAM, 0);
  const auto descriptor = static_cast<uint64_t>(file);
  const uint64_t frame = program().take_frames(1);
  at<uint32_t>(frame) = 64;
  for (const uint64_t option : {41, 48}) {  // IP_MSFILTER, MCAST_MSFILTER
    CHECK(execute(SYS_getsockopt, descriptor, 0, option, frame + 64, frame) == -ENOPROTOOPT);
  }
  CHECK(execute(SYS_getsockopt, descriptor, 41, 48, frame + 64, frame) == -ENOPROTOOPT);
  using syscalls::OptionDirection;  // TCP_AO_GET_KEYS: Linux itself has it from 6.7 on, at most
  CHECK_FALSE(syscalls::is_plain_socket_option(OptionDirection::kGet, 6, 41));
  CHECK(syscalls::is_plain_socket_option(OptionDirection::kSet, 6, 41));
  std::strcpy(&at<char>(frame), "/");
  at<uint32_t>(frame + 64) = 128;
  const auto handle_of_root = [&](uint64_t flags) {
    return execute(SYS_name_to_handle_at, static_cast<uint64_t>(AT_FDCWD), frame, frame + 64,
                   frame + 512, flags);
  };
  CHECK(handle_of_root(1 /* AT_HANDLE_MNT_ID_UNIQUE */) == -EINVAL);
  CHECK(handle_of_root(AT_SYMLINK_FOLLOW) != -EINVAL);
  close(file);
}

TEST_CASE("a structure that another vCPU changes all the time") {
  constexpr uint64_t kSize = 64 * kKiB;
  const uint64_t frame = program().take_frames(kSize / kPageSize);
  constexpr int kOwn = 1000;
  program().guard.add(kOwn);
  std::atomic<bool> stop{false};
  static uint64_t secret = 0;
  const HostileMemory memory{frame, frame + kSize, address_of(&secret)};
  std::thread other([&] {
    std::mt19937_64 random(1);
    uint8_t input[512];
    while (!stop.load()) {
      for (auto& byte : input) byte = static_cast<uint8_t>(random() >> 20);
      Bytes bytes(input, sizeof input);
      fill_hostile(bytes, memory, 40);
    }
  });
  std::mt19937_64 random(2);
  uint32_t accepted = 0;
  for (int i = 0; i < 50000; i++) {
    uint8_t input[128];
    for (auto& byte : input) byte = static_cast<uint8_t>(random() >> 20);
    Bytes bytes(input, sizeof input);
    Call call = hostile_call(bytes, memory);
    static constexpr long kNested[] = {SYS_readv,    SYS_writev,     SYS_sendmsg, SYS_recvmsg,
                                       SYS_sendmmsg, SYS_getsockopt, SYS_accept,  SYS_pselect6};
    call.number = static_cast<uint32_t>(kNested[i % 8]);
    if (i % 8 < 2) call.arguments[2] = random() % 3;
    if (i % 3 == 0) send_descriptors(bytes, memory, call);
    const syscalls::SystemCall& entry = *syscalls::find(call.number);
    vmm::CallArguments arguments(program().memory, program().guard, call.number, entry,
                                 call.arguments);
    if (arguments.prepare() != 0) continue;
    accepted++;
    const std::string fault =
        CallChecker(program().memory, program().guard, arguments, call.number).find_fault();
    if (!fault.empty()) FAIL(fault);
  }
  stop.store(true);
  other.join();
  program().guard.remove(kOwn);
  CHECK(accepted > 0);
}
