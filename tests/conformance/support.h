// What several conformance programs share: pages and patterns, catching a fault, children and their
// statuses, pipes, sockets and threads, a look at /proc/self/maps.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

#include <algorithm>
#include <utility>

#include "check.h"

inline constexpr size_t kPage = 4096;
inline constexpr size_t kKiB = 1024;
inline constexpr size_t kMiB = 1024 * kKiB;
inline constexpr size_t kGiB = 1024 * kMiB;
inline constexpr size_t kLarge = 2 * kMiB;  // what one page-directory entry maps

using Bytes = volatile unsigned char*;
inline Bytes bytes(void* address, size_t offset = 0) {
  return static_cast<Bytes>(address) + offset;
}
inline char* offset(void* address, size_t by) {
  return static_cast<char*>(address) + by;
}

inline void* map_anonymous(size_t length, int protection = PROT_READ | PROT_WRITE, int flags = 0) {
  void* at = mmap(nullptr, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  REQUIRE(at != MAP_FAILED);
  return at;
}

// A pointer to memory that nobody has, opaque to the compiler.
inline volatile uintptr_t nowhere_address = 8;
template <typename T = void>
T* nowhere() {
  return reinterpret_cast<T*>(nowhere_address);
}

// A range that begins at a multiple of 2 MiB. Unmap it with munmap(at, length).
inline void* map_aligned(size_t length, size_t alignment = kLarge,
                         int protection = PROT_READ | PROT_WRITE) {
  char* raw = static_cast<char*>(map_anonymous(length + alignment, protection, MAP_NORESERVE));
  uintptr_t start = (reinterpret_cast<uintptr_t>(raw) + alignment - 1) & ~(alignment - 1);
  size_t before = start - reinterpret_cast<uintptr_t>(raw);
  if (before != 0) munmap(raw, before);
  if (alignment != before) munmap(raw + before + length, alignment - before);
  return raw + before;
}

// A value that depends on the seed and the index, so that a misplaced page shows.
inline uint64_t mix(uint64_t seed, uint64_t index) {
  uint64_t x = seed * 0x9e3779b97f4a7c15u + index + 1;
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 29;
  return x;
}
// One word per `step` bytes.
inline void fill(void* at, size_t length, uint64_t seed, size_t step = kPage) {
  for (size_t i = 0; i + sizeof(uint64_t) <= length; i += step) {
    *reinterpret_cast<volatile uint64_t*>(offset(at, i)) = mix(seed, i);
  }
}
inline bool filled(void* at, size_t length, uint64_t seed, size_t step = kPage) {
  for (size_t i = 0; i + sizeof(uint64_t) <= length; i += step) {
    if (*reinterpret_cast<volatile uint64_t*>(offset(at, i)) != mix(seed, i)) return false;
  }
  return true;
}
inline bool all_are(void* at, size_t length, unsigned char value) {
  for (size_t i = 0; i < length; ++i) {
    if (bytes(at)[i] != value) return false;
  }
  return true;
}

// Runs `action`; says which fault signal ended it, if any.
struct Fault {
  int signal = 0;
  int code = 0;
  void* address = nullptr;
  gregset_t registers = {};
};
namespace fault_detail {
inline thread_local sigjmp_buf back;
inline thread_local Fault seen;
inline void handler(int signal, siginfo_t* info, void* context) {
  seen = {signal, info->si_code, info->si_addr};
  memcpy(seen.registers, static_cast<ucontext_t*>(context)->uc_mcontext.gregs, sizeof(gregset_t));
  siglongjmp(back, 1);
}
}  // namespace fault_detail
template <typename Action>
[[gnu::noinline]] Fault fault_of(Action action) {
  static constexpr int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
  struct sigaction old[5], mine = {};
  mine.sa_sigaction = fault_detail::handler;
  mine.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < 5; ++i) sigaction(signals[i], &mine, &old[i]);
  fault_detail::seen = {};
  if (sigsetjmp(fault_detail::back, 1) == 0) action();
  for (int i = 0; i < 5; ++i) sigaction(signals[i], &old[i], nullptr);
  return fault_detail::seen;
}
inline bool readable(void* at) {
  return fault_of([at] { static_cast<void>(*bytes(at)); }).signal == 0;
}
inline bool writable(void* at) {
  return fault_of([at] { *bytes(at) = *bytes(at); }).signal == 0;
}

inline bool is(const Fault& fault, int signal, int code, void* address) {
  if (fault.signal == signal && fault.code == code && fault.address == address) return true;
  check::print("fault: signal %d code %d, expected %d %d, address %s\n", fault.signal, fault.code,
               signal, code, fault.address == address ? "right" : "wrong");
  return false;
}

// Children.
inline int status_of(pid_t pid) {
  int status = -1;
  pid_t got;
  do got = waitpid(pid, &status, 0);
  while (got == -1 && errno == EINTR);
  REQUIRE(got == pid);
  return status;
}
template <typename Action>
pid_t start_child(Action action) {
  pid_t pid = fork();
  REQUIRE(pid != -1);
  if (pid == 0) {
    int before = check::failures.load();
    action();
    _exit(check::failures.load() == before ? 0 : 1);
  }
  return pid;
}
template <typename Action>
int run_child(Action action) {
  return status_of(start_child(std::move(action)));
}
inline bool exited(int status, int code = 0) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == code) return true;
  check::print("status %#x, expected exit %d\n", static_cast<unsigned>(status), code);
  return false;
}
inline bool killed(int status, int signal) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == signal) return true;
  check::print("status %#x, expected signal %d\n", static_cast<unsigned>(status), signal);
  return false;
}

// One byte through a pipe: the order of two processes or threads.
struct Pipe {
  int end[2] = {-1, -1};
  Pipe() { REQUIRE(pipe2(end, O_CLOEXEC) == 0); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close_read();
    close_write();
  }
  int in() const { return end[0]; }
  int out() const { return end[1]; }
  void close_read() {
    if (end[0] != -1) close(end[0]);
    end[0] = -1;
  }
  void close_write() {
    if (end[1] != -1) close(end[1]);
    end[1] = -1;
  }
  void post(char byte = 'x') const { REQUIRE(write(end[1], &byte, 1) == 1); }
  // The byte, or 0 at end of file.
  char take() const {
    char byte = 0;
    ssize_t n;
    do n = read(end[0], &byte, 1);
    while (n == -1 && errno == EINTR);
    REQUIRE(n >= 0);
    return n == 1 ? byte : '\0';
  }
};

// Sockets that are connected with one another.
struct SocketPair {
  int end[2];
  explicit SocketPair(int type = SOCK_STREAM) {
    REQUIRE(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, end) == 0);
  }
  SocketPair(const SocketPair&) = delete;
  SocketPair& operator=(const SocketPair&) = delete;
  ~SocketPair() {
    close(end[0]);
    close(end[1]);
  }
};

// Threads.
inline pthread_t start_thread(void* (*body)(void*), void* argument = nullptr,
                              const pthread_attr_t* attributes = nullptr) {
  pthread_t thread;
  REQUIRE(pthread_create(&thread, attributes, body, argument) == 0);
  return thread;
}
inline void* join_thread(pthread_t thread) {
  void* result = nullptr;
  REQUIRE(pthread_join(thread, &result) == 0);
  return result;
}
inline void* as_pointer(intptr_t value) {
  return reinterpret_cast<void*>(value);
}

inline void sleep_ms(long ms) {
  timespec time = {ms / 1000, ms % 1000 * 1000000};
  while (nanosleep(&time, &time) == -1 && errno == EINTR) {
  }
}
inline double seconds(clockid_t clock = CLOCK_MONOTONIC) {
  timespec time = {};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

inline struct sigaction install(int signal, void (*handler)(int), int flags = 0) {
  struct sigaction action = {}, old = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  REQUIRE(sigaction(signal, &action, &old) == 0);
  return old;
}
inline struct sigaction install(int signal, void (*handler)(int, siginfo_t*, void*),
                                int flags = 0) {
  struct sigaction action = {}, old = {};
  action.sa_sigaction = handler;
  action.sa_flags = flags | SA_SIGINFO;
  REQUIRE(sigaction(signal, &action, &old) == 0);
  return old;
}
template <typename... Signals>
sigset_t set_of(Signals... signals) {
  sigset_t set;
  sigemptyset(&set);
  (sigaddset(&set, signals), ...);
  return set;
}

// /proc/self/maps
struct MapLine {
  uintptr_t start, end;
  std::string permissions, name;
};
inline std::string read_all(const char* path) {
  std::string text;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file == -1) return text;
  char block[16384];
  for (ssize_t n; (n = read(file, block, sizeof block)) > 0;)
    text.append(block, static_cast<size_t>(n));
  close(file);
  return text;
}
inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}
inline std::vector<MapLine> read_maps() {
  std::vector<MapLine> maps;
  for (const std::string& line : lines_of(read_all("/proc/self/maps"))) {
    unsigned long start = 0, end = 0;
    char permissions[8] = "";
    int name_at = 0;
    if (sscanf(line.c_str(), "%lx-%lx %7s %*s %*s %*s %n", &start, &end, permissions, &name_at) < 3)
      continue;
    std::string name = name_at > 0 ? line.substr(static_cast<size_t>(name_at)) : "";
    maps.push_back({start, end, permissions, name});
  }
  return maps;
}
// The line of the maps in which the address lies.
inline MapLine map_of(const void* address) {
  uintptr_t at = reinterpret_cast<uintptr_t>(address);
  for (const MapLine& line : read_maps()) {
    if (line.start <= at && at < line.end) return line;
  }
  return {0, 0, "none", ""};
}
// The number in a "Name: 123 kB" line.
inline long field(const std::string& text, const std::string& name) {
  size_t at = text.compare(0, name.size() + 1, name + ":") == 0 ? 0 : text.find("\n" + name + ":");
  if (at == std::string::npos) return -1;
  return strtol(text.c_str() + text.find(':', at) + 1, nullptr, 10);
}

// "rw-p:3 hole:1 r--p:1": what is mapped within [at, at + length), with sizes in pages. Neighbours
// with the same permissions count as one: when Linux joins them is its own affair.
inline std::string layout_of(void* at, size_t length) {
  uintptr_t begin = reinterpret_cast<uintptr_t>(at), end = begin + length;
  std::vector<std::pair<std::string, uintptr_t>> parts;
  auto add = [&parts](const std::string& permissions, uintptr_t size) {
    if (size == 0) return;
    if (parts.empty() || parts.back().first != permissions) parts.emplace_back(permissions, 0);
    parts.back().second += size;
  };
  for (const MapLine& line : read_maps()) {
    uintptr_t low = std::max(line.start, begin), high = std::min(line.end, end);
    if (low >= high) continue;
    add("hole", low - begin);
    add(line.permissions, high - low);
    begin = high;
  }
  add("hole", end - begin);
  std::string text;
  for (const auto& [permissions, size] : parts) {
    text += (text.empty() ? "" : " ") + permissions + ":" + std::to_string(size / kPage);
  }
  return text;
}
// How many lines of the maps lie within [at, at + length), at least partly.
inline int map_lines(void* at, size_t length) {
  uintptr_t begin = reinterpret_cast<uintptr_t>(at);
  int lines = 0;
  for (const MapLine& line : read_maps()) lines += line.end > begin && line.start < begin + length;
  return lines;
}
inline bool layout_is(void* at, size_t length, const char* expected) {
  std::string text = layout_of(at, length);
  if (text == expected) return true;
  check::print("layout '%s', expected '%s'\n", text.c_str(), expected);
  return false;
}
