#include "vmm/log.h"

#include <asm/unistd.h>

#include <cstring>

#include "vmm/machine/keep_descriptor.h"
#include "vmm/process/host_call.h"

namespace dbos::vmm {
namespace {

int log_descriptor = 2;

}  // namespace

void write_log_line(std::string_view text) {
  constexpr std::string_view kPrefix = "dbos-run: ";
  char line[1200];
  if (text.size() > sizeof line - kPrefix.size() - 1) {
    text = text.substr(0, sizeof line - kPrefix.size() - 1);
  }
  std::memcpy(line, kPrefix.data(), kPrefix.size());
  std::memcpy(line + kPrefix.size(), text.data(), text.size());
  const size_t size = kPrefix.size() + text.size() + 1;
  line[size - 1] = '\n';
  raw_call(__NR_write, static_cast<uint64_t>(log_descriptor), reinterpret_cast<uint64_t>(line),
           size);
}

void keep_log_descriptor() {
  const int64_t copy = raw_call(__NR_dup, 2);
  if (copy >= 0) log_descriptor = keep_descriptor(static_cast<int>(copy));
}

}  // namespace dbos::vmm
