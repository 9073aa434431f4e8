#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cerrno>
#include <filesystem>
#include <string>

#include "tests/unit/skipped.h"
#include "vmm/proxy/descriptor_link.h"
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

// A /proc of the program's own, with which it would answer for the files behind its descriptors.
void make_false_proc(const std::filesystem::path& root) {
  std::filesystem::create_directories(root / "proc/self/fd");
  close(open((root / "proc/self/fd/x").c_str(), O_CREAT | O_WRONLY, 0600));
  for (int number = 0; number < 64; ++number) {
    std::filesystem::create_symlink("x", root / "proc/self/fd" / std::to_string(number));
  }
}

// In a child: there is no way back from a root directory. False: `path` below /proc was not refused
// there with each of the flags.
bool refused_below(const char* root, const char* path, std::initializer_list<int> flags) {
  const pid_t child = fork();
  if (child == 0) {
    const int proc = open("/proc", O_PATH | O_DIRECTORY);
    bool is_right = chroot(root) == 0;
    for (const int one : flags) {
      is_right = is_right && refused(SYS_openat, openat(proc, path, one)) == -EACCES;
    }
    _exit(is_right ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0;
}

}  // namespace

TEST_CASE("files are looked at by whatever call they are opened") {
  dbos::vmm::keep_proc_folder();
  for (const long number : {SYS_open, SYS_openat, SYS_openat2, SYS_open_by_handle_at}) {
    for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR}) {
      CHECK(refused(number, open("/proc/self/mem", flags)) == -EACCES);
    }
    CHECK(refused(number, open("/proc/self/maps", O_RDONLY)) == -EACCES);
    CHECK(refused(number, open("/proc/self/limits", O_RDONLY)) == 0);
    CHECK(refused(number, open("/dev/null", O_RDWR)) == 0);
  }
}

// Before Linux 6.9 they are on no file system of their own, and no handle leads to one.
TEST_CASE("a process can't be opened by a handle") {
  const auto process = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
  REQUIRE(process >= 0);
  struct statfs file_system = {};
  REQUIRE(fstatfs(process, &file_system) == 0);
  constexpr long kPidFileSystem = 0x50494446;
  const int64_t expected = file_system.f_type == kPidFileSystem ? -EACCES : 0;
  CHECK(refused(SYS_open_by_handle_at, process) == expected);
}

TEST_CASE("a root directory of the program's own hides no file") {
  if (geteuid() != 0) return skip_case("only root may have one");
  dbos::vmm::keep_proc_folder();
  char root[] = "/tmp/dbos-root-XXXXXX";
  REQUIRE(mkdtemp(root) != nullptr);
  make_false_proc(root);
  CHECK(refused_below(root, "self/mem", {O_WRONLY, O_RDONLY, O_RDWR}));
  CHECK(refused_below(root, "self/maps", {O_RDONLY}));
  std::filesystem::remove_all(root);
  const std::string of_process = "/proc/" + std::to_string(getpid());
  CHECK(refused_below(of_process.c_str(), (of_process.substr(6) + "/maps").c_str(), {O_RDONLY}));
}
