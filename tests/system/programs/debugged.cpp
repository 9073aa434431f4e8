// A program for the debugger's tests: debugged CASE. Not optimized, with debug information.
#include <immintrin.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

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
  if (std::strcmp(what, "echo") == 0) return echo();
  if (std::strcmp(what, "vectors") == 0) return vectors();
  if (std::strcmp(what, "deep") == 0) return deeper(5) == 48 ? 0 : 1;
  if (std::strcmp(what, "crash") == 0) return crash(reinterpret_cast<const char*>(16));
  if (std::strcmp(what, "damage") == 0) return damage_kernel();
  return loop();
}
