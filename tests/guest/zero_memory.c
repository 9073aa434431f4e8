// Before anything else writes there: what docs/hypercall-abi.md gives no content reads as zero.
#include "kernel.h"

extern const char _end[];  // of the image

static bool is_zero(uint64_t begin, uint64_t end) {
  const uint64_t* const last = direct(end);
  for (const uint64_t* word = direct((begin + 7) & ~UINT64_C(7)); word < last; ++word) {
    if (*word != 0) return false;
  }
  return true;
}

const char* zero_kernel_region(void) {
  CHECK(is_zero(DBOS_CLOCK_PAGE_ADDRESS + sizeof(struct dbos_clock_page),
                DBOS_CLOCK_PAGE_ADDRESS + DBOS_PAGE_SIZE));
  CHECK(is_zero(DBOS_BOOT_INFORMATION_ADDRESS + boot()->size,
                DBOS_BOOT_INFORMATION_ADDRESS + DBOS_BOOT_INFORMATION_SIZE_MAX));
  CHECK(is_zero(physical(_end), DBOS_IMAGE_ADDRESS + DBOS_IMAGE_SIZE_MAX));
  return NULL;
}

// The named pieces of the kernel region leave no gap for the VMM to use.
#define IS_BEHIND(address, last, size) \
  _Static_assert((address) == (last) + (size), #address " is not behind " #last)
IS_BEHIND(DBOS_CLOCK_PAGE_ADDRESS, DBOS_KERNEL_REGION_BASE, 0);
IS_BEHIND(DBOS_OBSERVE_PAGE_ADDRESS, DBOS_CLOCK_PAGE_ADDRESS, DBOS_PAGE_SIZE);
IS_BEHIND(DBOS_BOOT_INFORMATION_ADDRESS, DBOS_OBSERVE_PAGE_ADDRESS, DBOS_PAGE_SIZE);
IS_BEHIND(DBOS_IMAGE_ADDRESS, DBOS_BOOT_INFORMATION_ADDRESS, DBOS_BOOT_INFORMATION_SIZE_MAX);
IS_BEHIND(DBOS_RING_CHECK_ADDRESS, DBOS_IMAGE_ADDRESS, DBOS_IMAGE_SIZE_MAX);
IS_BEHIND(DBOS_TABLES_ADDRESS, DBOS_RING_CHECK_ADDRESS, DBOS_PAGE_SIZE);
IS_BEHIND(DBOS_KERNEL_REGION_BASE + DBOS_KERNEL_REGION_SIZE, DBOS_TABLES_ADDRESS,
          DBOS_TABLES_SIZE_MAX);

static bool is_zero_but_for_page(uint64_t block) {
  const uint64_t page = block + DBOS_VCPU_HYPERCALL_OFFSET;
  return is_zero(block, page) && is_zero(page + DBOS_PAGE_SIZE, block + DBOS_VCPU_STRIDE);
}

const char* zero_vcpu_blocks(void) {
  const uint64_t first = DBOS_VCPU_REGION_BASE;
  CHECK(is_zero(first, first + DBOS_VCPU_STACK_OFFSET));  // then comes the stack that this runs on
  CHECK(is_zero(first + DBOS_VCPU_STACK_TOP, first + DBOS_VCPU_HYPERCALL_OFFSET));
  CHECK(is_zero(first + DBOS_VCPU_COUNTERS_OFFSET, first + DBOS_VCPU_STRIDE));
  CHECK(is_zero_but_for_page(first + DBOS_VCPU_STRIDE));
  CHECK(is_zero_but_for_page(first + (DBOS_VCPU_COUNT_MAX - 1) * DBOS_VCPU_STRIDE));
  return NULL;
}
