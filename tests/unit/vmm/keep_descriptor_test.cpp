#include "vmm/host/keep_descriptor.h"

#include <fcntl.h>
#include <sched.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <cerrno>
#include <memory>
#include <thread>

#include "vmm/host/descriptor_guard.h"

using dbos::vmm::close_kept;
using dbos::vmm::DescriptorGuard;
using dbos::vmm::keep_descriptor;
using dbos::vmm::own_descriptors;
using dbos::vmm::set_own_descriptors;

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

TEST_CASE("a descriptor that the guard can't know is not kept") {
  const int number = keep_descriptor(open("/dev/null", O_RDONLY));
  close_kept(number);
  DescriptorGuard& usual = own_descriptors();
  const auto small = std::make_unique<DescriptorGuard>(number);
  set_own_descriptors(*small);
  const int file = open("/dev/null", O_RDONLY);
  CHECK(keep_descriptor(file) == -EMFILE);  // Linux moves it to the same number again
  CHECK(fcntl(file, F_GETFD) == -1);
  CHECK(fcntl(number, F_GETFD) == -1);
  set_own_descriptors(usual);
}
