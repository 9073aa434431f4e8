// What a program reads of itself in /proc besides its memory: stat, statm and status, exe, cmdline,
// comm, environ, auxv, fd, task, mem; that the numbers follow what it does.
#include <dirent.h>
#include <link.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <thread>

#include "support.h"

namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (size_t at = 0; (at = text.find_first_not_of(" \n", at)) != std::string::npos;) {
    size_t end = std::min(text.find_first_of(" \n", at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}
std::vector<std::string> strings_of(const std::string& text) {
  std::vector<std::string> strings;
  for (size_t at = 0; at < text.size(); at += strings.back().size() + 1)
    strings.emplace_back(text.c_str() + at);
  return strings;
}
// The fields of stat after the name, which may hold blanks itself; the first is the state.
std::vector<std::string> stat_fields(const std::string& path = "/proc/self/stat") {
  std::string text = read_all(path.c_str());
  size_t close = text.rfind(')');
  REQUIRE(close != std::string::npos);
  return words_of(text.substr(close + 1));
}
// Of those that were joined: the joiner wakes before Linux has taken them away.
void await_end_of_threads() {
  for (int i = 0; i < 200 && atoi(stat_fields()[17].c_str()) != 1; ++i) sleep_ms(10);
}
// What /proc/self/fd lists, but for the descriptor that reads it.
std::vector<int> descriptors() {
  DIR* directory = opendir("/proc/self/fd");
  REQUIRE(directory != nullptr);
  std::vector<int> seen;
  while (dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(directory))
      seen.push_back(atoi(entry->d_name));
  }
  closedir(directory);
  std::sort(seen.begin(), seen.end());
  return seen;
}
bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}
std::string read_at(int directory, const char* name) {
  std::string text;
  const int file = openat(directory, name, O_RDONLY | O_CLOEXEC);
  char piece[4096];
  for (ssize_t size; (size = read(file, piece, sizeof piece)) > 0;)
    text.append(piece, static_cast<size_t>(size));
  close(file);
  return text;
}
int data_word = 1;

}  // namespace

CASE(status_lines) {
  std::string text = read_all("/proc/self/status");
  CHECK_EQ(field(text, "Pid"), getpid());
  CHECK_EQ(field(text, "Tgid"), getpid());
  CHECK_EQ(field(text, "PPid"), getppid());
  CHECK_EQ(field(text, "Uid"), getuid());
  CHECK_EQ(field(text, "Gid"), getgid());
  CHECK_EQ(field(text, "Threads"), 1);
  CHECK(text.find("Name:\tproc_files") == 0);
  CHECK(text.find("\nState:\tR (running)\n") != std::string::npos);
  for (const char* name : {"VmPeak", "VmSize", "VmRSS", "VmHWM", "VmData", "VmStk", "VmExe"})
    CHECK(field(text, name) > 0);
  CHECK(field(text, "VmPeak") >= field(text, "VmSize"));
  CHECK(field(text, "VmSize") >= field(text, "VmRSS"));
}

CASE(status_follows_memory_and_threads) {
  long size = field(read_all("/proc/self/status"), "VmSize"),
       rss = field(read_all("/proc/self/status"), "VmRSS");
  void* at = map_anonymous(32 * kMiB);
  std::string text = read_all("/proc/self/status");
  CHECK_EQ(field(text, "VmSize") - size, 32768);
  CHECK(field(text, "VmRSS") - rss < 4096);
  fill(at, 32 * kMiB, 1);
  text = read_all("/proc/self/status");
  CHECK(field(text, "VmRSS") - rss >= 32768 - 1024);
  munmap(at, 32 * kMiB);
  CHECK_EQ(field(read_all("/proc/self/status"), "VmSize"), size);
  CHECK(field(read_all("/proc/self/status"), "VmRSS") - rss < 4096);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&] {
      while (!stop) sleep_ms(1);
    });
  }
  CHECK_EQ(field(read_all("/proc/self/status"), "Threads"), 6);
  stop = true;
  for (auto& thread : threads) thread.join();
}

CASE(statm_and_stat_agree_with_status) {
  auto pages = words_of(read_all("/proc/self/statm"));
  CHECK_EQ(pages.size(), 7);
  std::string text = read_all("/proc/self/status");
  CHECK(labs(atol(pages[0].c_str()) * 4 - field(text, "VmSize")) < 1024);
  CHECK(labs(atol(pages[1].c_str()) * 4 - field(text, "VmRSS")) < 2048);
  auto stat = stat_fields();
  CHECK_EQ(stat.size(), 50);
  CHECK(stat[0] == "R");
  CHECK_EQ(atoi(stat[1].c_str()), getppid());
  CHECK_EQ(atoi(stat[2].c_str()), getpgrp());
  CHECK_EQ(atoi(stat[3].c_str()), getsid(0));
  await_end_of_threads();
  CHECK_EQ(atoi(stat_fields()[17].c_str()), 1);
  CHECK(labs(atol(stat[20].c_str()) / 1024 - field(text, "VmSize")) < 1024);
  CHECK(labs(atol(stat[21].c_str()) * 4 - field(text, "VmRSS")) < 2048);
  CHECK_EQ(atoi(read_all("/proc/self/stat").c_str()), getpid());
}

CASE(stat_counts_cpu_time_and_faults) {
  auto before = stat_fields();
  double start = seconds(CLOCK_PROCESS_CPUTIME_ID);
  while (seconds(CLOCK_PROCESS_CPUTIME_ID) - start < 0.05) {
  }
  auto after = stat_fields();
  CHECK(atol(after[11].c_str()) + atol(after[12].c_str()) >
        atol(before[11].c_str()) + atol(before[12].c_str()));
  CHECK(atol(after[19].c_str()) > 0);  // start time
}

CASE(names_of_the_program) {
  char path[4096] = "";
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  CHECK(length > 0);
  CHECK(check::self == path);
  auto command = strings_of(read_all("/proc/self/cmdline"));
  int count = 0;
  while (check::arguments[count] != nullptr) ++count;
  CHECK_EQ(command.size(), count);
  for (int i = 0; i < count; ++i) CHECK(command[static_cast<size_t>(i)] == check::arguments[i]);
  std::string name = check::self.substr(check::self.rfind('/') + 1).substr(0, 15);
  CHECK(read_all("/proc/self/comm") == name + "\n");
  CHECK(read_all("/proc/self/stat").find("(" + name + ")") != std::string::npos);
  CHECK_ERRNO(open("/proc/self/exe", O_WRONLY | O_CLOEXEC), ETXTBSY);
  CHECK_ERRNO(open("/proc/self/exe", O_RDWR | O_TRUNC | O_CLOEXEC), ETXTBSY);
  int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  char magic[4] = "";
  CHECK_EQ(read(file, magic, 4), 4);
  CHECK(memcmp(magic, "\177ELF", 4) == 0);
  close(file);
}

CASE(file_of_the_program_is_behind_its_link) {
  const char* link = "/proc/self/exe";
  struct stat by_name = {}, by_link = {};
  CHECK_EQ(fstatat(AT_FDCWD, check::self.c_str(), &by_name, 0), 0);
  auto is_same = [&] {
    return by_link.st_ino == by_name.st_ino && by_link.st_dev == by_name.st_dev;
  };
  CHECK_EQ(syscall(SYS_stat, link, &by_link), 0);
  CHECK(is_same() && by_link.st_size == by_name.st_size);
  by_link = {};
  CHECK_EQ(fstatat(AT_FDCWD, link, &by_link, 0), 0);
  CHECK(is_same());
  CHECK_EQ(fstatat(AT_FDCWD, link, &by_link, AT_SYMLINK_NOFOLLOW), 0);
  CHECK(S_ISLNK(by_link.st_mode));
  struct statx extended = {};
  CHECK_EQ(statx(AT_FDCWD, link, 0, STATX_BASIC_STATS, &extended), 0);
  CHECK_EQ(extended.stx_ino, by_name.st_ino);
  CHECK_EQ(access(link, X_OK), 0);
  CHECK_EQ(faccessat(AT_FDCWD, link, R_OK, 0), 0);
  CHECK_ERRNO(fstatat(AT_FDCWD, link, nowhere<struct stat>(), 0), EFAULT);
  CHECK_ERRNO(access(link, 0x100), EINVAL);
}

CASE(text_files_can_be_read_alone) {
  for (const char* path : {"/proc/self/statm", "/proc/self/maps"}) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_EQ(fcntl(file, F_GETFL) & O_ACCMODE, O_RDONLY);
    CHECK_EQ(fcntl(file, F_GETFD), FD_CLOEXEC);
    CHECK_ERRNO(write(file, "x", 1), EBADF);
    char byte = 0;
    CHECK_EQ(read(file, &byte, 1), 1);
    close(file);
  }
}

CASE(environment_is_the_one_at_the_start) {
  auto variables = strings_of(read_all("/proc/self/environ"));
  size_t count = 0;
  for (char** e = environ; *e != nullptr; ++e, ++count) {
    CHECK(count < variables.size() && variables[count] == *e);
  }
  CHECK_EQ(variables.size(), count);
}

CASE(auxiliary_vector_file_is_the_vector) {
  std::string text = read_all("/proc/self/auxv");
  CHECK(text.size() % sizeof(ElfW(auxv_t)) == 0);
  int found = 0;
  for (size_t at = 0; at + sizeof(ElfW(auxv_t)) <= text.size(); at += sizeof(ElfW(auxv_t))) {
    ElfW(auxv_t) entry;
    memcpy(&entry, text.data() + at, sizeof entry);
    if (entry.a_type != AT_PHDR && entry.a_type != AT_ENTRY && entry.a_type != AT_RANDOM) continue;
    CHECK_EQ(entry.a_un.a_val, getauxval(entry.a_type));
    ++found;
  }
  CHECK_EQ(found, 3);
}

CASE(descriptors_are_listed) {
  int file = open("/dev/null", O_RDONLY | O_CLOEXEC),
      other = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  std::vector<int> seen = descriptors();
  CHECK(std::find(seen.begin(), seen.end(), file) != seen.end());
  CHECK(std::find(seen.begin(), seen.end(), other) != seen.end());
  char path[64], target[256] = "";
  snprintf(path, sizeof path, "/proc/self/fd/%d", other);
  CHECK_EQ(readlink(path, target, sizeof target), 9);
  CHECK(strncmp(target, "/dev/zero", 9) == 0);
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", other);
  CHECK_EQ(field(read_all(path), "pos"), 0);
  close(file);
  close(other);
  seen = descriptors();
  CHECK(std::find(seen.begin(), seen.end(), other) == seen.end());
}

CASE(only_the_programs_own_descriptors_are_listed) {
  // A program that closes what it finds here must hit nobody else's.
  check::print("descriptors:");
  for (int one : descriptors()) check::print(" %d", one);
  check::print("\n");
}

CASE(threads_are_listed) {
  std::atomic<bool> stop{false};
  std::atomic<int> id{0};
  std::thread thread([&] {
    prctl(PR_SET_NAME, "lister");
    id = gettid();
    while (!stop) sched_yield();
  });
  while (id == 0) sched_yield();
  DIR* directory = opendir("/proc/self/task");
  REQUIRE(directory != nullptr);
  std::vector<int> seen;
  while (dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') seen.push_back(atoi(entry->d_name));
  }
  closedir(directory);
  CHECK(std::find(seen.begin(), seen.end(), getpid()) != seen.end());
  CHECK(std::find(seen.begin(), seen.end(), id.load()) != seen.end());
  std::string path = "/proc/self/task/" + std::to_string(id) + "/comm";
  CHECK(read_all(path.c_str()) == "lister\n");
  stop = true;
  thread.join();
}

CASE(threads_that_ended_are_not_listed) {
  std::atomic<int> id{0};
  std::thread([&] { id = gettid(); }).join();
  const std::string path = "/proc/self/task/" + std::to_string(id);
  // Linux wakes who joins a little before it takes the thread away.
  for (int tries = 0; tries < 20 && access(path.c_str(), F_OK) == 0; ++tries) sleep_ms(10);
  CHECK_ERRNO(access(path.c_str(), F_OK), ENOENT);
}

CASE(however_they_are_opened) {
  struct {
    uint64_t flags, mode, resolve;
  } how = {O_RDONLY | O_CLOEXEC, 0, 0};
  const auto file =
      static_cast<int>(syscall(SYS_openat2, AT_FDCWD, "/proc/self/maps", &how, sizeof how));
  REQUIRE(file != -1);
  char begin[64] = "";
  CHECK(read(file, begin, sizeof begin - 1) > 20);
  CHECK(strchr(begin, '-') != nullptr);
  CHECK_EQ(close(file), 0);
  for (const int flags : {O_NOFOLLOW, O_CREAT, O_NONBLOCK}) {
    const int other = open("/proc/self/statm", O_RDONLY | O_CLOEXEC | flags, 0600);
    CHECK(other != -1);
    close(other);
  }
  CHECK_ERRNO(open("/proc/self/maps", O_RDONLY | O_DIRECTORY), ENOTDIR);
  CHECK_ERRNO(open("/proc/self/maps", O_RDONLY | O_CREAT | O_EXCL, 0600), EEXIST);
}

// As crates for /proc do: a descriptor of the directory, and names in it.
CASE(by_a_descriptor_of_the_directory) {
  const std::string own = "/proc/" + std::to_string(getpid());
  await_end_of_threads();
  for (const char* path : {"/proc/self", own.c_str()}) {
    const int directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(directory >= 0);
    CHECK(contains(read_at(directory, "maps"), "[stack]"));
    CHECK(words_of(read_at(directory, "statm"))[0] == words_of(read_all("/proc/self/statm"))[0]);
    CHECK_EQ(field(read_at(directory, "status"), "Threads"), 1);
    char link[4096];
    char relative_link[4096];
    const ssize_t size = readlink("/proc/self/exe", link, sizeof link);
    REQUIRE(size > 0);
    CHECK_EQ(readlinkat(directory, "exe", relative_link, sizeof relative_link), size);
    CHECK(memcmp(link, relative_link, static_cast<size_t>(size)) == 0);
    close(directory);
  }
  const int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  CHECK(contains(read_at(proc, "self/maps"), "[stack]"));
  CHECK(contains(read_at(proc, "meminfo"), "MemTotal"));
  close(proc);
  char here[4096];
  REQUIRE(getcwd(here, sizeof here) != nullptr);
  REQUIRE(chdir("/proc/self") == 0);
  CHECK(contains(read_all("maps"), "[stack]"));
  CHECK_ERRNO(open("map", O_RDONLY), ENOENT);
  REQUIRE(chdir(here) == 0);
}

CASE(blocked_signals_are_those_of_the_named_thread) {
  const auto blocked_in = [](const std::string& path) {
    const std::string text = read_all(path.c_str());
    const size_t at = text.find("SigBlk:");
    return at == std::string::npos ? "none" : text.substr(at, text.find('\n', at) - at);
  };
  sigset_t users;
  sigemptyset(&users);
  sigaddset(&users, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &users, nullptr);
  const std::string mine = blocked_in("/proc/thread-self/status");
  CHECK(mine == blocked_in("/proc/self/status"));
  std::thread other([&] {
    sigaddset(&users, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &users, nullptr);
    const std::string its = blocked_in("/proc/thread-self/status");
    CHECK(its != mine);
    CHECK(its == blocked_in("/proc/self/task/" + std::to_string(gettid()) + "/status"));
    CHECK(mine == blocked_in("/proc/self/task/" + std::to_string(getpid()) + "/status"));
    CHECK(mine == blocked_in("/proc/self/status"));
  });
  other.join();
  sigdelset(&users, SIGUSR2);
  pthread_sigmask(SIG_UNBLOCK, &users, nullptr);
}

CASE(limits_follow_what_is_set) {
  CHECK(exited(run_child([] {
    rlimit limit = {};
    CHECK_EQ(getrlimit(RLIMIT_STACK, &limit), 0);
    limit.rlim_cur = 1 << 20;
    CHECK_EQ(setrlimit(RLIMIT_STACK, &limit), 0);
    CHECK(contains(read_all("/proc/self/limits"), "\nMax stack size            1048576 "));
  })));
}

CASE(own_memory_file) {
  int file = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
  if (file == -1) SKIP("no /proc/self/mem");
  void* at = map_anonymous(2 * kPage);
  strcpy(static_cast<char*>(at), "before");
  char text[8] = "";
  CHECK_EQ(pread(file, text, 7, static_cast<off_t>(reinterpret_cast<uintptr_t>(at))), 7);
  CHECK(strcmp(text, "before") == 0);
  CHECK_EQ(pwrite(file, "after!", 7, static_cast<off_t>(reinterpret_cast<uintptr_t>(at))), 7);
  CHECK(strcmp(static_cast<char*>(at), "after!") == 0);
  munmap(at, 2 * kPage);
  CHECK_ERRNO(pread(file, text, 7, static_cast<off_t>(reinterpret_cast<uintptr_t>(at))), EIO);
  close(file);
}

CASE(a_child_reads_its_own_files) {
  CHECK(exited(run_child([] {
    CHECK_EQ(field(read_all("/proc/self/status"), "Pid"), getpid());
    CHECK_EQ(field(read_all("/proc/self/status"), "PPid"), getppid());
    char path[4096] = "";
    CHECK(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
    CHECK(check::self == path);
    int here = 0;
    CHECK(map_of(&here).name == "[stack]");
    CHECK(map_of(&data_word).permissions == "rw-p");
  })));
}

CASE(a_child_that_offers_itself_to_the_oom_killer_offers_itself_alone) {
  const std::string before = read_all("/proc/self/oom_score_adj");
  for (const char* path : {"/proc/self/oom_score_adj", "/proc/thread-self/oom_score_adj"}) {
    CHECK(exited(run_child([=] {
      int file = open(path, O_WRONLY | O_CLOEXEC);
      REQUIRE(file != -1);
      CHECK_EQ(write(file, "1000", 4), 4);
      close(file);
    })));
  }
  CHECK(read_all("/proc/self/oom_score_adj") == before);
  pid_t child = vfork();
  if (child == 0) {
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    bool written = write(file, "1000", 4) == 4;
    close(file);
    char value[8] = "";
    file = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
    written = written && read(file, value, sizeof value - 1) == 5 && strcmp(value, "1000\n") == 0;
    close(file);
    _exit(written ? 0 : 1);
  }
  CHECK(exited(status_of(child)));
  CHECK(read_all("/proc/self/oom_score_adj") == before);
}

CASE(by_number_as_by_self) {
  std::string path = "/proc/" + std::to_string(getpid());
  CHECK_EQ(field(read_all((path + "/status").c_str()), "Pid"), getpid());
  CHECK_EQ(lines_of(read_all((path + "/maps").c_str())).size(),
           lines_of(read_all("/proc/self/maps")).size());
  pid_t child = start_child([] {
    for (;;) pause();
  });
  path = "/proc/" + std::to_string(child);
  CHECK_EQ(field(read_all((path + "/status").c_str()), "PPid"), getpid());
  kill(child, SIGKILL);
  CHECK(killed(status_of(child), SIGKILL));
  CHECK(access(path.c_str(), F_OK) == -1);
}

CASE(system_files) {
  CHECK(field(read_all("/proc/meminfo"), "MemTotal") > 1000);
  CHECK(read_all("/proc/cpuinfo").find("processor") == 0);
  CHECK(read_all("/proc/version").find("Linux version") == 0);
  CHECK(words_of(read_all("/proc/loadavg")).size() == 5);
  CHECK(words_of(read_all("/proc/uptime")).size() == 2);
  CHECK(!read_all("/proc/self/limits").empty());
  CHECK(!read_all("/proc/self/mounts").empty());
}

CHECK_MAIN
