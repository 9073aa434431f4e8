#include "vmm/loader/load_program.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "vmm/loader/elf_file.h"
#include "vmm/loader/elf_segments.h"
#include "vmm/loader/load_error.h"
#include "vmm/printable.h"

namespace dbos::vmm {
namespace {

[[noreturn]] void refuse(const std::string& sentence) {
  throw LoadError(ExitStatus::kCannotExecute, sentence);
}

// Opening a device or a FIFO has effects, so the kind is looked at first, and again on what was
// opened, which another process may have put there in between.
FileDescriptor open_executable(const std::string& path, struct stat& status) {
  if (const int error = execution_error(path); error != 0) refuse_to_execute(path, error);
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!file.is_open() && errno == EACCES) {
    refuse("no permission to read '" + path +
           "'; dbos-run reads what it runs, give it with chmod +r");
  }
  if (!file.is_open()) {
    refuse("cannot open '" + path + "': " + std::strerror(errno) +
           "; check the file and the limit of open files");
  }
  if (fstat(file.number(), &status) != 0) {
    refuse("cannot look at '" + path + "': " + std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    refuse("'" + path + "' became another kind of file while it was opened; start it again");
  }
  return file;
}

// The path of what was really opened, as /proc/self/exe would show it.
std::string opened_path(int descriptor, const std::string& path) {
  char buffer[PATH_MAX];
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  const ssize_t length = readlink(link.c_str(), buffer, sizeof(buffer));
  if (length > 0 && buffer[0] == '/') return std::string(buffer, static_cast<size_t>(length));
  if (realpath(path.c_str(), buffer) != nullptr) return buffer;
  refuse("cannot resolve the path of '" + path + "': " + std::strerror(errno) +
         "; mount /proc or name the program by its absolute path");
}

bool has_privileges(int descriptor, const struct stat& status) {
  const bool set_user = (status.st_mode & S_ISUID) != 0 && status.st_uid != geteuid();
  // Set-group-ID without group execution meant mandatory locking.
  const bool set_group = (status.st_mode & S_ISGID) != 0 && (status.st_mode & S_IXGRP) != 0 &&
                         status.st_gid != getegid();
  return set_user || set_group || fgetxattr(descriptor, "security.capability", nullptr, 0) > 0;
}

FileDescriptor open_interpreter(const std::string& path, const std::string& program) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
    refuse("cannot run '" + program + "': its interpreter '" + printable(path) +
           "' is missing; install the C library it was built for (a package such as libc6 or "
           "musl), or link the program statically");
  }
  try {
    return open_executable(path, status);
  } catch (const LoadError& error) {
    refuse("cannot run '" + program +
           "': its interpreter can't be used: " + printable(error.what()));
  }
}

}  // namespace

void LoadedProgram::hand_over_descriptors() {
  program_file.release();
  interpreter_file.release();
}

LoadImage load_image(int descriptor, const std::string& path) {
  return make_load_image(read_elf_file(descriptor, path, ImageRole::kInterpreter), path);
}

LoadedProgram no_program() {
  LoadedProgram none{};
  none.program.descriptor = -1;
  none.interpreter.descriptor = -1;
  return none;
}

LoadedProgram load_program(const std::string& path) {
  LoadedProgram loaded = no_program();
  struct stat status;
  loaded.program_file = open_executable(path, status);
  const int descriptor = loaded.program_file.number();
  const ElfFile file = read_elf_file(descriptor, path, ImageRole::kProgram);
  loaded.program = make_load_image(file, path);
  loaded.program.descriptor = descriptor;
  loaded.real_path = opened_path(descriptor, path);
  loaded.privileges_ignored = has_privileges(descriptor, status);

  loaded.interpreter_path = read_interpreter_path(descriptor, path, file);
  if (!loaded.interpreter_path.empty()) {
    loaded.interpreter_file = open_interpreter(loaded.interpreter_path, path);
    loaded.interpreter =
        load_image(loaded.interpreter_file.number(), printable(loaded.interpreter_path));
    loaded.interpreter.descriptor = loaded.interpreter_file.number();
  }
  return loaded;
}

}  // namespace dbos::vmm
