// Calls that ask or tell the system something: clocks and sleeps, limits, usage, scheduling,
// identities, prctl, random numbers, system information; unknown calls.
#include <linux/capability.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/utsname.h>

#include <thread>

#include "support.h"

namespace {
bool later_or_equal(const timespec& a, const timespec& b) {
  return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec >= b.tv_nsec);
}
}  // namespace

CASE(every_clock_can_be_read) {
  for (clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID,
                          CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE,
                          CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME, CLOCK_TAI}) {
    timespec time = {-1, -1}, resolution = {-1, -1};
    CHECK_EQ(clock_gettime(clock, &time), 0);
    CHECK(time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < 1000000000);
    CHECK_EQ(clock_getres(clock, &resolution), 0);
    CHECK(resolution.tv_sec == 0 && resolution.tv_nsec > 0);
    timespec direct = {};
    CHECK_EQ(syscall(SYS_clock_gettime, clock, &direct), 0);
    CHECK(later_or_equal(direct, time) || clock == CLOCK_REALTIME_COARSE ||
          clock == CLOCK_MONOTONIC_COARSE);
  }
  timespec time = {};
  CHECK_ERRNO(clock_gettime(static_cast<clockid_t>(77), &time), EINVAL);
  CHECK_ERRNO(clock_getres(static_cast<clockid_t>(77), &time), EINVAL);
}

// Linux stamps files with the time of its last tick.
CASE(files_are_not_older_than_the_coarse_time) {
  const int file = memfd_create("times", MFD_CLOEXEC);
  REQUIRE(file >= 0);
  auto changed = [&] {
    REQUIRE(ftruncate(file, 0) == 0);
    struct stat status = {};
    REQUIRE(fstat(file, &status) == 0);
    return status.st_mtim;
  };
  for (int i = 0; i < 200; ++i) {
    timespec time = {};
    clock_gettime(CLOCK_REALTIME_COARSE, &time);
    CHECK(later_or_equal(changed(), time));
  }
  // Around the beginning of a second.
  for (int i = 0; i < 3; ++i) {
    timespec now = {};
    clock_gettime(CLOCK_REALTIME, &now);
    sleep_ms((999'900'000 - std::min(now.tv_nsec, 999'000'000L)) / 1'000'000);
    const time_t before = time(nullptr);
    for (time_t seen = before; seen == before;) {
      seen = time(nullptr);
      CHECK(changed().tv_sec >= seen);
      const time_t called = syscall(SYS_time, nullptr);
      CHECK(changed().tv_sec >= called);
    }
  }
  close(file);
}

CASE(clocks_never_go_back) {
  for (clockid_t clock :
       {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE,
        CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID}) {
    timespec before = {}, now = {};
    clock_gettime(clock, &before);
    for (int i = 0; i < 1000; ++i) {
      clock_gettime(clock, &now);
      REQUIRE(later_or_equal(now, before));
      before = now;
    }
  }
}

CASE(library_and_system_call_read_the_same_clock) {
  for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME}) {
    for (int i = 0; i < 200; ++i) {
      timespec first = {}, second = {}, third = {};
      clock_gettime(clock, &first);
      syscall(SYS_clock_gettime, clock, &second);
      clock_gettime(clock, &third);
      REQUIRE(later_or_equal(second, first) && later_or_equal(third, second));
    }
  }
}

CASE(clock_is_the_same_on_every_thread_and_in_a_child) {
  timespec before = {}, inside = {}, after = {};
  for (int i = 0; i < 20; ++i) {
    clock_gettime(CLOCK_MONOTONIC, &before);
    std::thread([&] { clock_gettime(CLOCK_MONOTONIC, &inside); }).join();
    clock_gettime(CLOCK_MONOTONIC, &after);
    REQUIRE(later_or_equal(inside, before) && later_or_equal(after, inside));
  }
  clock_gettime(CLOCK_MONOTONIC, &before);
  CHECK(exited(run_child([=] {
    timespec now = {};
    clock_gettime(CLOCK_MONOTONIC, &now);
    CHECK(later_or_equal(now, before));
  })));
}

CASE(ways_to_tell_the_time_agree) {
  timespec before = {}, after = {};
  timeval of_day = {};
  clock_gettime(CLOCK_REALTIME, &before);
  CHECK_EQ(gettimeofday(&of_day, nullptr), 0);
  const time_t seconds_now = time(nullptr);
  clock_gettime(CLOCK_REALTIME, &after);
  CHECK(before.tv_sec <= of_day.tv_sec && of_day.tv_sec <= after.tv_sec);
  // time() counts Linux's ticks, which are behind the clock by less than a second.
  CHECK(before.tv_sec - 1 <= seconds_now && seconds_now <= after.tv_sec);
  CHECK(of_day.tv_usec >= 0 && of_day.tv_usec < 1000000);
  CHECK(seconds_now > 1600000000);
  timespec boot = {}, monotonic = {};
  clock_gettime(CLOCK_MONOTONIC, &monotonic);
  clock_gettime(CLOCK_BOOTTIME, &boot);
  CHECK(later_or_equal(boot, monotonic));
}

CASE(cpu_time_counts_work_and_not_sleep) {
  double cpu = seconds(CLOCK_THREAD_CPUTIME_ID), wall = seconds();
  sleep_ms(20);
  CHECK(seconds(CLOCK_THREAD_CPUTIME_ID) - cpu < seconds() - wall);
  double before = seconds(CLOCK_PROCESS_CPUTIME_ID);
  while (seconds(CLOCK_PROCESS_CPUTIME_ID) - before < 0.005) {
  }
  CHECK(clock() > 0);
}

CASE(sleeping_lasts_at_least_as_long) {
  timespec time = {0, 5'000'000};
  double start = seconds();
  CHECK_EQ(nanosleep(&time, nullptr), 0);
  CHECK(seconds() - start >= 0.005);
  start = seconds();
  CHECK_EQ(clock_nanosleep(CLOCK_REALTIME, 0, &time, nullptr), 0);
  CHECK(seconds() - start >= 0.0049);
  timespec until = {};
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec -= 1;
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr), 0);  // long past
  time = {0, 1'000'000'000};
  CHECK_ERRNO(nanosleep(&time, nullptr), EINVAL);
  time = {-1, 0};
  CHECK_ERRNO(nanosleep(&time, nullptr), EINVAL);
  CHECK_EQ(clock_nanosleep(static_cast<clockid_t>(77), 0, &until, nullptr), EINVAL);
}

CASE(limits_are_read_and_set) {
  CHECK(exited(run_child([] {
    rlimit limit = {}, again = {};
    for (auto resource :
         {RLIMIT_AS, RLIMIT_CORE, RLIMIT_CPU, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_MEMLOCK,
          RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_RSS, RLIMIT_STACK, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE,
          RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_RTTIME}) {
      CHECK_EQ(getrlimit(resource, &limit), 0);
      CHECK(limit.rlim_cur <= limit.rlim_max);
      CHECK_EQ(setrlimit(resource, &limit), 0);
    }
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = 50;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_EQ(prlimit(0, RLIMIT_NOFILE, nullptr, &again), 0);
    CHECK_EQ(again.rlim_cur, 50);
    CHECK_EQ(sysconf(_SC_OPEN_MAX), 50);
    limit.rlim_cur = limit.rlim_max;
    ++limit.rlim_cur;
    if (limit.rlim_max != RLIM_INFINITY) CHECK_ERRNO(setrlimit(RLIMIT_NOFILE, &limit), EINVAL);
    CHECK_ERRNO(getrlimit(static_cast<__rlimit_resource>(99), &limit), EINVAL);
    CHECK_ERRNO(prlimit(0x3ffffff, RLIMIT_NOFILE, nullptr, &again), ESRCH);
  })));
}

CASE(usage_grows) {
  rusage before = {}, after = {};
  CHECK_EQ(getrusage(RUSAGE_SELF, &before), 0);
  double start = seconds(CLOCK_PROCESS_CPUTIME_ID);
  while (seconds(CLOCK_PROCESS_CPUTIME_ID) - start < 0.02) {
  }
  CHECK_EQ(getrusage(RUSAGE_SELF, &after), 0);
  auto used = [](const rusage& usage) {
    return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
  };
  CHECK(used(after) > used(before));
  CHECK(after.ru_maxrss >= 500);
  CHECK_EQ(getrusage(RUSAGE_THREAD, &after), 0);
  CHECK_ERRNO(getrusage(static_cast<__rusage_who>(77), &after), EINVAL);
  tms now = {};
  CHECK(times(&now) != -1);
  CHECK(now.tms_utime >= 0 && now.tms_cutime >= 0);
}

CASE(largest_resident_size_is_the_programs) {
  // In a child, whose largest size is not yet that of other cases.
  CHECK(exited(run_child([] {
    const size_t length = 64 * kMiB;
    void* at = map_anonymous(length);
    memset(at, 1, length);
    rusage before = {}, after = {};
    CHECK_EQ(getrusage(RUSAGE_SELF, &before), 0);
    CHECK(before.ru_maxrss >= 64 * 1024 && before.ru_maxrss < 96 * 1024);
    munmap(at, length);
    at = map_anonymous(2 * kMiB);
    memset(at, 1, 2 * kMiB);
    CHECK_EQ(getrusage(RUSAGE_SELF, &after), 0);
    CHECK(after.ru_maxrss >= before.ru_maxrss && after.ru_maxrss < before.ru_maxrss + 1024);
    CHECK(after.ru_minflt > before.ru_minflt);
    munmap(at, 2 * kMiB);
  })));
}

CASE(scheduling_calls) {
  cpu_set_t set, one;
  CPU_ZERO(&set);
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  int count = CPU_COUNT(&set);
  CHECK(count >= 1);
  CHECK_EQ(sysconf(_SC_NPROCESSORS_ONLN) >= count, 1);
  std::thread([&] {
    CPU_ZERO(&one);
    int first = 0;
    while (!CPU_ISSET(static_cast<size_t>(first), &set)) ++first;
    CPU_SET(static_cast<size_t>(first), &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CPU_ZERO(&one);
    CHECK_EQ(sched_getaffinity(0, sizeof one, &one), 0);
    CHECK_EQ(CPU_COUNT(&one), 1);
    sched_yield();
  }).join();
  CPU_ZERO(&one);
  CHECK_ERRNO(sched_setaffinity(0, sizeof one, &one), EINVAL);
  CHECK_ERRNO(sched_getaffinity(0x3ffffff, sizeof one, &one), ESRCH);
  CHECK_EQ(sched_yield(), 0);
  CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
  CHECK(sched_get_priority_max(SCHED_FIFO) > sched_get_priority_min(SCHED_FIFO));
  sched_param parameters = {};
  CHECK_EQ(sched_getparam(0, &parameters), 0);
  CHECK_EQ(parameters.sched_priority, 0);
  CHECK_EQ(sched_setscheduler(0, SCHED_OTHER, &parameters), 0);
  CHECK_ERRNO(sched_setscheduler(0, 99, &parameters), EINVAL);
  unsigned cpu = ~0u, node = ~0u;
  CHECK_EQ(getcpu(&cpu, &node), 0);
  CHECK(cpu < 100000);
  CHECK(sched_getcpu() >= 0);
  std::thread([] {
    cpu_set_t allowed, here;
    CHECK_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (!CPU_ISSET(i, &allowed)) continue;
      CPU_ZERO(&here);
      CPU_SET(i, &here);
      CHECK_EQ(sched_setaffinity(0, sizeof here, &here), 0);
      CHECK_EQ(sched_getcpu(), i);
    }
  }).join();
  CHECK_ERRNO(syscall(SYS_getcpu, nowhere(), nullptr, nullptr), EFAULT);
  CHECK_EQ(syscall(SYS_getcpu, nullptr, nullptr, nullptr), 0);
  CHECK(exited(run_child([] {
    errno = 0;
    int before = getpriority(PRIO_PROCESS, 0);
    CHECK_EQ(setpriority(PRIO_PROCESS, 0, before + 3), 0);
    CHECK_EQ(getpriority(PRIO_PROCESS, 0), std::min(before + 3, 19));
    CHECK_EQ(nice(1), std::min(before + 4, 19));
  })));
}

CASE(identities_are_consistent) {
  uid_t real = 0, effective = 0, saved = 0;
  CHECK_EQ(getresuid(&real, &effective, &saved), 0);
  CHECK_EQ(real, getuid());
  CHECK_EQ(effective, geteuid());
  gid_t group = 0, effective_group = 0, saved_group = 0;
  CHECK_EQ(getresgid(&group, &effective_group, &saved_group), 0);
  CHECK_EQ(group, getgid());
  int count = getgroups(0, nullptr);
  CHECK(count >= 0);
  std::vector<gid_t> groups(static_cast<size_t>(count) + 1);
  CHECK_EQ(getgroups(count + 1, groups.data()), count);
  CHECK_EQ(getpid(), syscall(SYS_getpid));
  CHECK_EQ(gettid(), syscall(SYS_gettid));
  CHECK_EQ(getppid(), syscall(SYS_getppid));
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  CHECK_EQ(syscall(SYS_capget, &header, data), 0);
  header.version = 1;
  CHECK_ERRNO(syscall(SYS_capget, &header, data), EINVAL);
  CHECK_EQ(header.version, _LINUX_CAPABILITY_VERSION_3);
}

CASE(process_controls) {
  char name[16] = "", old[16] = "";
  CHECK_EQ(prctl(PR_GET_NAME, old), 0);
  CHECK_EQ(prctl(PR_SET_NAME, "renamed"), 0);
  CHECK_EQ(prctl(PR_GET_NAME, name), 0);
  CHECK(strcmp(name, "renamed") == 0);
  CHECK(read_all("/proc/self/comm") == "renamed\n");
  CHECK_EQ(prctl(PR_SET_NAME, old), 0);
  CHECK(exited(run_child([] {
    CHECK_EQ(prctl(PR_SET_DUMPABLE, 0), 0);
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
    CHECK_ERRNO(prctl(PR_SET_DUMPABLE, 2), EINVAL);
    CHECK_EQ(prctl(PR_SET_DUMPABLE, 1), 0);
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
    CHECK(exited(run_child([] { CHECK_EQ(prctl(PR_GET_DUMPABLE), 1); })));
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    int death = -1;
    CHECK_EQ(prctl(PR_SET_PDEATHSIG, SIGTERM), 0);
    CHECK_EQ(prctl(PR_GET_PDEATHSIG, &death), 0);
    CHECK_EQ(death, SIGTERM);
    CHECK_EQ(prctl(PR_SET_TIMERSLACK, 100000), 0);
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 100000);
    CHECK_ERRNO(prctl(99999), EINVAL);
    CHECK_ERRNO(prctl(PR_SET_PDEATHSIG, 99), EINVAL);
  })));
}

CASE(large_pages_can_be_given_up_by_a_process_and_its_children) {
  auto eligible = [] {
    const std::string status = read_all("/proc/self/status");
    return status.find("THP_enabled:\t1\n") != std::string::npos;
  };
  const bool was_eligible = eligible();
  CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
  CHECK(exited(run_child([&] {
    CHECK_EQ(prctl(PR_SET_THP_DISABLE, 7, 0, 0, 0), 0);
    CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
    CHECK(!eligible());
    CHECK(exited(run_child([&] {
      CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
      CHECK_EQ(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0), 0);
      CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
      CHECK_EQ(eligible(), was_eligible);
    })));
    CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
    const size_t size = size_t{4} << 20;
    char* memory = static_cast<char*>(map_anonymous(size));
    memset(memory, 1, size);
    CHECK_EQ(memory[size - 1], 1);
  })));
  CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
  for (int bad = 2; bad < 5; ++bad) {
    unsigned long a[5] = {PR_SET_THP_DISABLE, 1, 0, 0, 0};
    a[bad] = 1;
    CHECK_ERRNO(syscall(SYS_prctl, a[0], a[1], a[2], a[3], a[4]), EINVAL);
  }
  for (int bad = 1; bad < 5; ++bad) {
    unsigned long a[5] = {PR_GET_THP_DISABLE, 0, 0, 0, 0};
    a[bad] = 1;
    CHECK_ERRNO(syscall(SYS_prctl, a[0], a[1], a[2], a[3], a[4]), EINVAL);
  }
  CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 0);
}

CASE(random_bytes) {
  unsigned char first[64] = {}, second[64] = {};
  CHECK_EQ(getrandom(first, sizeof first, 0), sizeof first);
  CHECK_EQ(getrandom(second, sizeof second, GRND_NONBLOCK), sizeof second);
  CHECK(memcmp(first, second, sizeof first) != 0);
  CHECK_ERRNO(getrandom(first, 1, 0x1234), EINVAL);
  CHECK_EQ(getentropy(first, 64), 0);
  CHECK_ERRNO(getentropy(nowhere(), 257), EIO);
  std::vector<unsigned char> big(100000);
  CHECK_EQ(getrandom(big.data(), big.size(), 0), 100000);
  std::vector<unsigned char> large(4 * kMiB + 5);
  CHECK_EQ(getrandom(large.data(), large.size(), 0), large.size());
  CHECK(memcmp(large.data(), large.data() + 2 * kMiB, kMiB) != 0);
  CHECK(!all_are(large.data() + 4 * kMiB - 64, 69, 0));
  int counts[256] = {};
  for (unsigned char one : big) ++counts[one];
  for (int count : counts) CHECK(count > 200 && count < 700);
}

CASE(system_information) {
  utsname name = {};
  CHECK_EQ(uname(&name), 0);
  CHECK(strcmp(name.sysname, "Linux") == 0);
  CHECK(strcmp(name.machine, "x86_64") == 0);
  CHECK(atoi(name.release) >= 4);
  struct sysinfo info = {};
  CHECK_EQ(sysinfo(&info), 0);
  CHECK(info.totalram > 0 && info.uptime > 0 && info.mem_unit >= 1 && info.procs > 0);
  char host[256] = "";
  CHECK_EQ(gethostname(host, sizeof host), 0);
  CHECK(strcmp(host, name.nodename) == 0);
  CHECK_EQ(sysconf(_SC_PAGESIZE), 4096);
  CHECK_EQ(sysconf(_SC_CLK_TCK), 100);
  CHECK(sysconf(_SC_PHYS_PAGES) > 1000);
  CHECK_EQ(personality(0xffffffff), 0);
}

CASE(unknown_calls_are_refused) {
  CHECK_ERRNO(syscall(1000), ENOSYS);
  CHECK_ERRNO(syscall(5000), ENOSYS);
  CHECK_ERRNO(syscall(-1), ENOSYS);
  CHECK_ERRNO(syscall(1l << 31), ENOSYS);
  CHECK_EQ(syscall(1l << 32 | SYS_getpid), getpid());  // the number has 32 bits
}

CASE(registers_survive_a_system_call) {
  // Linux changes rax, rcx and r11 and nothing else.
  uint64_t in[10], out[10];
  for (uint64_t i = 0; i < 10; ++i) in[i] = mix(5, i);
  asm volatile(
      "movq 0(%0), %%rbx\n\tmovq 8(%0), %%rdx\n\tmovq 16(%0), %%r8\n\tmovq 24(%0), %%r9\n\tmovq "
      "32(%0), %%r10\n\t"
      "movq 40(%0), %%r12\n\tmovq 48(%0), %%r13\n\tmovq 56(%0), %%r14\n\tmovq 64(%0), %%r15\n\t"
      "movl %2, %%eax\n\tsyscall\n\t"
      "movq %%rbx, 0(%1)\n\tmovq %%rdx, 8(%1)\n\tmovq %%r8, 16(%1)\n\tmovq %%r9, 24(%1)\n\tmovq "
      "%%r10, 32(%1)\n\t"
      "movq %%r12, 40(%1)\n\tmovq %%r13, 48(%1)\n\tmovq %%r14, 56(%1)\n\tmovq %%r15, 64(%1)"
      :
      : "S"(in), "D"(out), "i"(SYS_getppid)
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
  for (int i = 0; i < 9; ++i) CHECK_EQ(in[i], out[i]);
}

CASE(rcx_and_r11_hold_the_return_address_and_flags) {
  uint64_t rcx = 0, r11 = 0, expected = 0;
  asm volatile(
      "movl %3, %%eax\n\tsyscall\n1:\tmovq %%rcx, %0\n\tmovq %%r11, %1\n\tleaq 1b(%%rip), %2"
      : "=&r"(rcx), "=&r"(r11), "=&r"(expected)
      : "i"(SYS_getppid)
      : "rax", "rcx", "r11", "memory");
  CHECK_EQ(rcx, expected);
  CHECK_EQ(r11 & 0x202, 0x202);
}

CASE(red_zone_survives_a_system_call) {
  uint64_t value = 0x123456789abcdef0, back = 0;
  for (int i = 0; i < 100; ++i) {
    asm volatile(
        "movq %1, -8(%%rsp)\n\tmovq %1, -128(%%rsp)\n\tmovl %2, %%eax\n\tsyscall\n\t"
        "movq -8(%%rsp), %0\n\tsubq -128(%%rsp), %0\n\taddq -8(%%rsp), %0"
        : "=&r"(back)
        : "r"(value), "i"(SYS_getppid)
        : "rax", "rcx", "r11", "memory", "cc");
    REQUIRE(back == value);
  }
}

CHECK_MAIN
