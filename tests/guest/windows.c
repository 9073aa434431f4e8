// The window: files, shared memory and System V segments in it.
#include "kernel.h"

static uint8_t buffer[DBOS_PAGE_SIZE] __attribute__((aligned(DBOS_PAGE_SIZE)));
static const uint64_t pattern = 0x5ca1ab1e0ddba11;

// Linux would round the length up, over what lies behind in the window.
const char* window_of_huge_pages(void) {
  static const char name[] = "huge";
  const int64_t file = CALL(SYS_MEMFD_CREATE, physical(name), 4);  // MFD_HUGETLB
  if (file >= 0) CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, file, 0, 4096, 3, 1) == -ENOMEM);
  CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, -1, 0, 4096, 3, 0x40001) == -EINVAL);  // MAP_HUGETLB
  CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, -1, 0, 4096, 3, 3) == -EINVAL);        // MAP_SHARED_VALIDATE
  CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, -1, 0, DBOS_WINDOW_SIZE_MAX + 4096, 3, 1) == -ENOMEM);
  return NULL;
}

const char* window_of_files(void) {
  const int64_t file = open_file();
  CHECK(file >= 0);
  CHECK(CALL(SYS_READ, file, physical(buffer), DBOS_PAGE_SIZE) == DBOS_PAGE_SIZE);
  CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, file, 8, 4096, 1, 2) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, file, 0, 0, 1, 2) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, file, 0, 4096, 1, 0x20) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, 999, 0, 4096, 1, 2) == -EBADF);
  const int64_t at = CALL(DBOS_SERVICE_WINDOW_MAP, file, 0, 1 << 20, 1, 2);
  CHECK(at >= (int64_t)DBOS_WINDOW_BASE);
  const uint64_t* const mapped = direct((uint64_t)at);
  for (size_t i = 0; i < DBOS_PAGE_SIZE / 8; ++i) CHECK(mapped[i] == ((uint64_t*)buffer)[i]);
  CHECK(CALL(DBOS_SERVICE_WINDOW_POPULATE, at, DBOS_PAGE_SIZE, 0) == 0);
  CHECK(CALL(DBOS_SERVICE_WINDOW_POPULATE, at, 1 << 20, 0) == -EFAULT);  // past the end of the file
  CHECK(CALL(DBOS_SERVICE_WINDOW_POPULATE, at + 8, DBOS_PAGE_SIZE, 0) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_WINDOW_UNMAP, DBOS_ARENA_BASE, DBOS_PAGE_SIZE) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_WINDOW_UNMAP, at, 1 << 20) == 0);
  const int64_t shared = CALL(DBOS_SERVICE_WINDOW_MAP, -1, 0, 8192, 3, 1);
  CHECK(shared > 0);
  *(volatile uint64_t*)direct((uint64_t)shared + 4096) = pattern;
  const int64_t again = CALL(DBOS_SERVICE_WINDOW_DUPLICATE, shared + 4096, 4096);
  CHECK(again > 0 && *(volatile uint64_t*)direct((uint64_t)again) == pattern);
  return NULL;
}

// Of a segment of two pages: what lies behind them in the window stays another's.
const char* window_of_segments(void) {
  enum { kIpcRemove = 0, kReadOnly = 010000, kRemap = 040000 };
  const int64_t id = CALL(SYS_SHMGET, 0, 2 * DBOS_PAGE_SIZE, 0600);
  CHECK(id >= 0);
  CHECK(CALL(DBOS_SERVICE_WINDOW_ATTACH, id, 0, 0) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_WINDOW_ATTACH, id, DBOS_PAGE_SIZE, kRemap) == -EINVAL);
  CHECK(CALL(DBOS_SERVICE_WINDOW_ATTACH, id, DBOS_WINDOW_SIZE_MAX + 4096, 0) == -ENOMEM);
  CHECK(CALL(DBOS_SERVICE_WINDOW_ATTACH, -1, DBOS_PAGE_SIZE, 0) == -EINVAL);
  const int64_t one = CALL(DBOS_SERVICE_WINDOW_ATTACH, id, DBOS_PAGE_SIZE, 0);
  const int64_t behind = CALL(DBOS_SERVICE_WINDOW_MAP, -1, 0, DBOS_PAGE_SIZE, 3, 1);
  CHECK(one > 0 && behind == one + DBOS_PAGE_SIZE);
  *(volatile uint64_t*)direct((uint64_t)one) = pattern;
  CHECK(*(volatile uint64_t*)direct((uint64_t)behind) == 0);
  const int64_t all = CALL(DBOS_SERVICE_WINDOW_ATTACH, id, 2 * DBOS_PAGE_SIZE, kReadOnly);
  CHECK(all > 0 && *(volatile uint64_t*)direct((uint64_t)all) == pattern);
  CHECK(CALL(DBOS_SERVICE_WINDOW_POPULATE, all, 2 * DBOS_PAGE_SIZE, 1) != 0);  // not for writing
  const int64_t more = CALL(DBOS_SERVICE_WINDOW_ATTACH, id, 3 * DBOS_PAGE_SIZE, 0);
  CHECK(more > 0);
  CHECK(CALL(DBOS_SERVICE_WINDOW_POPULATE, more, 3 * DBOS_PAGE_SIZE, 0) == -EFAULT);
  CHECK(CALL(SYS_SHMCTL, id, kIpcRemove, 0) == 0);
  CHECK(CALL(DBOS_SERVICE_WINDOW_UNMAP, one, DBOS_PAGE_SIZE) == 0);
  CHECK(CALL(DBOS_SERVICE_WINDOW_UNMAP, all, 2 * DBOS_PAGE_SIZE) == 0);
  CHECK(CALL(DBOS_SERVICE_WINDOW_UNMAP, more, 3 * DBOS_PAGE_SIZE) == 0);
  CHECK(CALL(DBOS_SERVICE_WINDOW_ATTACH, id, DBOS_PAGE_SIZE, 0) == -EINVAL);  // it is gone
  return NULL;
}
