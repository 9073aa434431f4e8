// The VMM's descriptors, looked for and tried.
#include "kernel.h"

static uint8_t byte;

// Linux's names of DBOS_CALL_BATCH_MAX descriptors from `first` on, with one exit for all.
enum { NAME_SIZE = 32 };
static char names[DBOS_CALL_BATCH_MAX][NAME_SIZE];

static bool read_names(uint32_t first) {
  static char paths[DBOS_CALL_BATCH_MAX][NAME_SIZE];
  for (uint32_t i = 0; i < DBOS_CALL_BATCH_MAX; ++i) {
    static const char directory[] = "/proc/self/fd/";
    char* at = paths[i];
    for (const char* from = directory; *from != 0;) *at++ = *from++;
    for (uint32_t unit = 1000, rest = first + i; unit != 0; rest %= unit, unit /= 10) {
      if (first + i >= unit) *at++ = (char)('0' + rest / unit);
    }
    *at = 0;
    for (uint32_t n = 0; n < NAME_SIZE; ++n) names[i][n] = 0;
    own_page()->calls[i] = (struct dbos_call){
        .number = SYS_READLINK, .arguments = {physical(paths[i]), physical(names[i]), NAME_SIZE}};
  }
  return exit_to_host(DBOS_CALL_BATCH_MAX) == DBOS_CALL_BATCH_MAX;
}

// A virtual machine or vCPU.
static bool is_of_kvm(const char* name) {
  static const char wanted[] = "anon_inode:kvm-v";
  for (size_t i = 0; i < sizeof wanted - 1; ++i) {
    if (name[i] != wanted[i]) return false;
  }
  return true;
}

// In a message to ourselves: the result of sendmsg.
static int64_t send_descriptor(uint32_t descriptor) {
  static int32_t ends[2];
  static struct {
    uint64_t length;
    uint32_t level, type;
    uint32_t descriptor;
  } control;
  static uint64_t vector[2], message[7];
  if (CALL(SYS_SOCKETPAIR, 1, 1, 0, physical(ends)) != 0) return -1;
  control.length = 20, control.level = 1, control.type = 1;  // SOL_SOCKET, SCM_RIGHTS
  control.descriptor = descriptor;
  vector[0] = physical(&byte), vector[1] = 1;
  message[2] = physical(vector), message[3] = 1;
  message[4] = physical(&control), message[5] = 20;
  const int64_t result = CALL(SYS_SENDMSG, (uint32_t)ends[0], physical(message), 0);
  CALL(SYS_CLOSE, (uint32_t)ends[0]);
  CALL(SYS_CLOSE, (uint32_t)ends[1]);
  return result;
}

// Found by their names, which Linux shows. Far below their place, one may be on its way there:
// Linux gives a new descriptor the lowest number.
const char* descriptors_of_the_vmm(void) {
  int found = 0;
  for (uint32_t first = 256; first < 5000; first += DBOS_CALL_BATCH_MAX) {
    CHECK(read_names(first));
    for (uint32_t i = 0; i < DBOS_CALL_BATCH_MAX; ++i) {
      if (!is_of_kvm(names[i])) continue;
      ++found;
      CHECK(CALL(SYS_READ, first + i, physical(&byte), 1) == -EBADF);
      CHECK(CALL(DBOS_SERVICE_WINDOW_MAP, first + i, 0, 4096, 3, 1) == -EBADF);
      CHECK(send_descriptor(first + i) == -EBADF);
    }
  }
  CHECK(send_descriptor(2) == 1);
  CHECK(found >= 2);  // the machine and a vCPU at least
  return NULL;
}

// The numbers of the test's own have one digit or two.
const char* listings_of_descriptors(void) {
  static const char path[] = "/proc/self/fd";
  static const uint32_t calls[] = {SYS_GETDENTS, SYS_GETDENTS64};
  static char listing[4096];
  for (int i = 0; i < 2; ++i) {
    const int64_t folder = CALL(SYS_OPENAT, -100, physical(path), 0200000);  // O_DIRECTORY
    const int64_t size = CALL(calls[i], folder, physical(listing), sizeof listing);
    CHECK(folder >= 0 && size > 0);
    for (int64_t at = 0; at < size; at += *(const uint16_t*)(listing + at + 16)) {
      const char* name = listing + at + 18 + i;
      CHECK(name[0] == '.' || name[1] == 0 || name[2] == 0);
    }
    CHECK(CALL(SYS_CLOSE, folder) == 0);
    // The VMM would have to touch a page there, which could be gone.
    const int64_t page = CALL(DBOS_SERVICE_WINDOW_MAP, -1, 0, DBOS_PAGE_SIZE, 3, 1);
    const int64_t again = CALL(SYS_OPENAT, -100, physical(path), 0200000);
    CHECK(page > 0 && CALL(calls[i], again, page, DBOS_PAGE_SIZE) == -EFAULT);
    CHECK(CALL(DBOS_SERVICE_WINDOW_UNMAP, page, DBOS_PAGE_SIZE) == 0);
    CHECK(CALL(SYS_CLOSE, again) == 0);
  }
  return NULL;
}
