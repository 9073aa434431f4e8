// Which calls a virtual CPU may make that no thread of the program runs.
#include "vmm/process/allowed_calls.h"

#include <asm/unistd.h>
#include <linux/futex.h>

#include <catch2/catch.hpp>

namespace dbos::vmm {

constexpr uint64_t kPageInMemory = kWindowBase + 5 * kPageSize;

bool Window::is_in_memory(uint64_t page) const {
  return page == kPageInMemory;
}

}  // namespace dbos::vmm

namespace {

using namespace dbos;
using namespace dbos::vmm;

bool may_make(Role role, uint32_t number, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0) {
  static GuestMemory memory;
  static const Window window(-1, memory);
  static Vcpu vcpu = {};
  vcpu.role.store(role);
  return is_allowed(vcpu, {number, 0, {a0, a1, a2}, 0}, window);
}

bool may_populate(Role role, uint64_t address, uint64_t length) {
  return may_make(role, static_cast<uint32_t>(Service::kWindowPopulate), address, length, 1);
}

}  // namespace

TEST_CASE("an adopted virtual CPU gets a page of the window that is in memory, and no more") {
  CHECK(may_populate(Role::kAdopted, kPageInMemory, kPageSize));
  CHECK_FALSE(may_populate(Role::kAdopted, kPageInMemory, 0));
  CHECK_FALSE(may_populate(Role::kAdopted, kPageInMemory, 2 * kPageSize));
  CHECK_FALSE(may_populate(Role::kAdopted, kPageInMemory + kPageSize, kPageSize));
  CHECK_FALSE(may_populate(Role::kHelper, kPageInMemory, kPageSize));
  CHECK(may_populate(Role::kAgent, kWindowBase, 16 * kPageSize));
  CHECK(may_populate(Role::kProgram, kWindowBase, 16 * kPageSize));
}

TEST_CASE("an adopted virtual CPU wakes who waits, and makes none of the program's calls") {
  CHECK(may_make(Role::kAdopted, __NR_futex, 0, FUTEX_WAKE | FUTEX_PRIVATE_FLAG));
  CHECK_FALSE(may_make(Role::kAdopted, __NR_futex, 0, FUTEX_WAIT));
  CHECK_FALSE(may_make(Role::kAdopted, __NR_read));
  CHECK_FALSE(may_make(Role::kAdopted, static_cast<uint32_t>(Service::kWindowMap)));
  CHECK(may_make(Role::kAdopted, static_cast<uint32_t>(Service::kWindowUnmap)));
}
