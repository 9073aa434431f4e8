#include "vmm/proxy/descriptor_link.h"

#include <asm/unistd.h>
#include <fcntl.h>

#include <cstring>

#include "vmm/host/host_call.h"
#include "vmm/host/keep_descriptor.h"

namespace dbos::vmm {
namespace {

int proc_folder = -1;

// Of a link below /proc; a call of the program's must not allocate.
class LinkName {
 public:
  explicit LinkName(int descriptor) {
    // Not self/: the first thread may have ended, and shows no descriptors then.
    static constexpr char kFolder[] = "thread-self/fd/";
    std::memcpy(text_, kFolder, sizeof kFolder);
    append(descriptor, text_ + sizeof kFolder - 1);
  }
  uint64_t address() const { return reinterpret_cast<uint64_t>(text_); }

 private:
  static void append(int number, char* end) {
    char digits[12];
    int count = 0;
    do {
      digits[count++] = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    while (count > 0) *end++ = digits[--count];
    *end = 0;
  }

  char text_[32];
};

}  // namespace

void keep_proc_folder() {
  const int folder = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) proc_folder = keep_descriptor(folder);
}

int64_t open_again(int descriptor, uint64_t flags) {
  return raw_call(__NR_openat, static_cast<uint64_t>(proc_folder), LinkName(descriptor).address(),
                  flags);
}

bool read_descriptor_link(int descriptor, char* target, size_t size) {
  const int64_t length =
      raw_call(__NR_readlinkat, static_cast<uint64_t>(proc_folder), LinkName(descriptor).address(),
               reinterpret_cast<uint64_t>(target), size - 1);
  target[length < 0 ? 0 : length] = 0;
  return length >= 0;
}

}  // namespace dbos::vmm
