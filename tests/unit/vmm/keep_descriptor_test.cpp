#include "vmm/host/keep_descriptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <thread>

#include "vmm/host/descriptor_guard.h"

using dbos::vmm::close_kept;
using dbos::vmm::DescriptorGuard;
using dbos::vmm::keep_descriptor;
using dbos::vmm::own_descriptors;

TEST_CASE("a descriptor is guarded while others are closed") {
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop.load()) close_kept(keep_descriptor(open("/dev/null", O_RDONLY)));
  });
  int unguarded = 0;
  for (int i = 0; i < 20'000; ++i) {
    const int kept = keep_descriptor(open("/dev/null", O_RDONLY));
    sched_yield();  // so that the other thread gets as far as to tell the guard
    unguarded += own_descriptors().is_ours(kept) ? 0 : 1;
    close_kept(kept);
  }
  stop.store(true);
  other.join();
  CHECK(unguarded == 0);
}

namespace {

// In a child, whose table grows large. 0: as it should be; 2: this machine has no such numbers.
int keep_with_all_numbers_taken() {
  constexpr rlim_t kMax = DescriptorGuard::kDescriptorsMax;
  const rlimit limit = {kMax + 8, kMax + 8};
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return 2;
  const int file = open("/dev/null", O_RDONLY);
  while (dup(file) < static_cast<int>(kMax)) {
  }
  const int low = open("/dev/null", O_RDONLY);
  return keep_descriptor(low) == -EMFILE && fcntl(low, F_GETFD) < 0 ? 0 : 1;
}

}  // namespace

TEST_CASE("a descriptor that the guard can't know is not kept") {
  const pid_t child = fork();
  if (child == 0) _exit(keep_with_all_numbers_taken());
  int status = 0;
  waitpid(child, &status, 0);
  if (WEXITSTATUS(status) == 2) WARN("fs.nr_open is too low here for this test");
  CHECK(WEXITSTATUS(status) != 1);
  CHECK(WIFEXITED(status));
}
