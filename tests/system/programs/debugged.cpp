// A program for the debugger's tests: debugged CASE. Not optimized, with debug information.
#include <immintrin.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

int counter = 0;
int signals = 0;

int work(int number, const char* text) {
  __atomic_fetch_add(&counter, number, __ATOMIC_SEQ_CST);  // others add while a debugger holds us
  return counter + (text[0] == 'b' ? 1 : 0);
}

int deeper(int depth) {
  if (depth == 0) return work(42, "bottom");
  return deeper(depth - 1) + 1;
}

void on_signal(int) {
  ++signals;
}

void* run_thread(void* argument) {
  for (int i = 0; i < 1000; ++i) __atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST);
  work(static_cast<int>(reinterpret_cast<long>(argument)), "thread");
  return nullptr;
}

int loop() {
  for (int i = 1; i <= 5; ++i) work(i, "loop");
  std::printf("counter %d\n", counter);
  return 0;
}

int threads() {
  pthread_t all[3];
  for (long i = 0; i < 3; ++i)
    pthread_create(&all[i], nullptr, run_thread, reinterpret_cast<void*>(i + 1));
  for (pthread_t thread : all) pthread_join(thread, nullptr);
  std::printf("counter %d\n", counter);
  return 0;
}

int with_child() {
  work(1, "before");
  const pid_t child = fork();
  if (child == 0) {
    work(10, "child");
    std::printf("child %d\n", counter);
    std::fflush(stdout);
    _exit(3);
  }
  int status = 0;
  waitpid(child, &status, 0);
  work(2, "after");
  std::printf("counter %d status %d\n", counter, WEXITSTATUS(status));
  return 0;
}

int print_end_of(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  std::printf("status %d\n", status);
  return 0;
}

// Both sides come to work() at once.
int racing_child() {
  const pid_t child = fork();
  work(10, child == 0 ? "child" : "parent");
  if (child == 0) _exit(3);
  return print_end_of(child);
}

// A child that shares the memory.
int borrowing_child() {
  const pid_t child = vfork();
  if (child == 0) _exit(3);
  return print_end_of(child);
}

// A handler ends the read.
int interrupted_read() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  sigaction(SIGALRM, &action, nullptr);
  int ends[2];
  char byte;
  if (pipe(ends) != 0) return 1;
  ualarm(200'000, 0);
  const ssize_t result = read(ends[0], &byte, 1);
  std::printf("result %zd error %s signals %d\n", result, strerrorname_np(errno), signals);
  return 0;
}

// Timers' signals all the while.
int ticking() {
  signal(SIGALRM, on_signal);
  ualarm(200'000, 200'000);
  while (signals < 3) pause();
  for (int i = 0; i < 2000; ++i) deeper(2);
  std::printf("counter %d\n", counter);
  return 0;
}

// Has 64 MiB without a zero, and is in and out of host calls.
int full_heap() {
  constexpr size_t kSize = size_t{64} << 20;
  char* const heap = static_cast<char*>(malloc(kSize));
  std::memset(heap, 7, kSize);
  char* const secret = static_cast<char*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::strcpy(secret, "not to be ");
  std::strcat(secret, "dumped");
  madvise(secret, 4096, MADV_DONTDUMP);
  std::printf("%p\n", static_cast<void*>(heap));
  std::fflush(stdout);
  while (poll(nullptr, 0, 3) == 0) work(1, heap);
  return 0;
}

void* crash_together(void* barrier) {
  pthread_barrier_wait(static_cast<pthread_barrier_t*>(barrier));
  *reinterpret_cast<volatile char*>(16) = 1;
  return nullptr;
}

int crashes() {
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, 4);
  pthread_t threads[4];
  for (pthread_t& thread : threads) pthread_create(&thread, nullptr, crash_together, &barrier);
  for (pthread_t thread : threads) pthread_join(thread, nullptr);
  return 0;
}

// When its standard input ends.
int give_up() {
  std::printf("ready\n");
  std::fflush(stdout);
  char byte;
  while (read(0, &byte, 1) > 0) continue;
  abort();
}

int with_signal() {
  signal(SIGUSR1, on_signal);
  raise(SIGUSR1);
  std::printf("signals %d\n", signals);
  return 0;
}

// Answers a line with the same line. A read that ends with EINTR ends the program.
int echo() {
  std::printf("ready\n");
  std::fflush(stdout);
  char line[64];
  for (;;) {
    const ssize_t size = read(0, line, sizeof line);
    if (size < 0) std::printf("error\n");
    if (size <= 0) return size < 0 ? 1 : 0;
    work(static_cast<int>(size), line);
    if (write(1, line, static_cast<size_t>(size)) != size) return 1;
  }
}

[[gnu::target("avx2")]] int vectors() {
  alignas(32) int values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  asm volatile("vmovdqa %0, %%ymm7\n\tmov %1, %%rdx\n\tint3"
               :
               : "m"(values), "i"(0x1234)
               : "ymm7", "rdx");
  return 0;
}

int crash(const char* address) {
  return work(*address, "crash");
}

// Ring 0 lets a program do this: the guest kernel's own record of its thread becomes nonsense.
int damage_kernel() {
  constexpr unsigned long kDirectMap = 0xffff800000000000;
  constexpr unsigned long kCpuData = 0x1100010000;  // of vCPU 0: hypercall/layout.h
  auto* const data = reinterpret_cast<volatile char*>(kDirectMap + kCpuData + 0x30);
  for (int i = 0; i < 0x60; ++i) data[i] = 0x41;
  return getppid() == 0 ? 1 : 0;
}

int main(int argc, char** argv) {
  const char* const what = argc > 1 ? argv[1] : "loop";
  if (std::strcmp(what, "threads") == 0) return threads();
  if (std::strcmp(what, "fork") == 0) return with_child();
  if (std::strcmp(what, "signal") == 0) return with_signal();
  if (std::strcmp(what, "race") == 0) return racing_child();
  if (std::strcmp(what, "vfork") == 0) return borrowing_child();
  if (std::strcmp(what, "interrupted") == 0) return interrupted_read();
  if (std::strcmp(what, "ticking") == 0) return ticking();
  if (std::strcmp(what, "heap") == 0) return full_heap();
  if (std::strcmp(what, "crashes") == 0) return crashes();
  if (std::strcmp(what, "abort") == 0) return give_up();
  if (std::strcmp(what, "echo") == 0) return echo();
  if (std::strcmp(what, "vectors") == 0) return vectors();
  if (std::strcmp(what, "deep") == 0) return deeper(5) == 48 ? 0 : 1;
  if (std::strcmp(what, "crash") == 0) return crash(reinterpret_cast<const char*>(16));
  if (std::strcmp(what, "damage") == 0) return damage_kernel();
  return loop();
}
