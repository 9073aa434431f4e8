#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>

#include "vmm/proxy/opened_files.h"

using dbos::Call;
using dbos::vmm::refuse_opened_file;

namespace {

// 0: the program may have the file that a call of this number has opened.
int64_t refused(long number, int file) {
  const int64_t result = refuse_opened_file(Call{static_cast<uint32_t>(number), 0, {}, 0}, file);
  if (result >= 0) close(file);
  return result < 0 ? result : 0;
}

}  // namespace

TEST_CASE("files are looked at by whatever call they are opened") {
  for (const long number : {SYS_open, SYS_openat, SYS_openat2, SYS_open_by_handle_at}) {
    for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) {
      CHECK(refused(number, open("/proc/self/mem", flags)) == -EACCES);
    }
    CHECK(refused(number, open("/proc/self/maps", O_RDONLY)) == -EACCES);
    CHECK(refused(number, open("/proc/self/limits", O_RDONLY)) == 0);
    CHECK(refused(number, open("/dev/null", O_RDWR)) == 0);
  }
}
