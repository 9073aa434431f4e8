#include "vmm/loader/find_program.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "vmm/loader/load_error.h"

namespace dbos::vmm {
namespace {

// What glibc's execvp searches when PATH is not set.
constexpr const char* kDefaultSearchPath = "/bin:/usr/bin";

// The error with which execve would refuse the file before looking into it; 0: none.
int execution_error(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EACCES;
  // The effective user counts, and a file system mounted noexec.
  if (faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0) return errno;
  return 0;
}

std::string real_path_of(const std::string& path) {
  char buffer[PATH_MAX];
  if (realpath(path.c_str(), buffer) == nullptr) {
    throw LoadError(ExitStatus::kCannotExecute, "cannot resolve the path of '" + path +
                                                    "': " + std::strerror(errno) +
                                                    "; name the program by its absolute path");
  }
  return buffer;
}

[[noreturn]] void refuse_path(const std::string& path, int error) {
  if (error == ENOENT || error == ENOTDIR) {
    throw LoadError(ExitStatus::kNotFound, "cannot find the program '" + path +
                                               "': " + std::strerror(error) + "; check the path");
  }
  struct stat status;
  if (error == EACCES && stat(path.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) {
      throw LoadError(ExitStatus::kCannotExecute,
                      "'" + path + "' is a directory; name the program in it");
    }
    if (!S_ISREG(status.st_mode)) {
      throw LoadError(ExitStatus::kCannotExecute,
                      "'" + path + "' is not a regular file; name an executable file");
    }
    throw LoadError(ExitStatus::kCannotExecute,
                    "no permission to execute '" + path +
                        "'; give it with chmod +x, and check that its file system is not mounted "
                        "noexec");
  }
  throw LoadError(ExitStatus::kCannotExecute, "cannot execute '" + path +
                                                  "': " + std::strerror(error) +
                                                  "; check the path and its permissions");
}

// Errors after which execvp tries the next folder: the folder is not there, or out of reach.
bool is_worth_the_next_folder(int error) {
  return error == ENOENT || error == ENOTDIR || error == ESTALE || error == ENODEV ||
         error == ETIMEDOUT || error == EACCES;
}

FoundProgram search(const std::string& name, std::string_view folders) {
  std::string not_permitted;
  for (size_t begin = 0;;) {
    const size_t end = folders.find(':', begin);
    std::string candidate(folders.substr(begin, end - begin));
    if (!candidate.empty()) candidate += '/';  // an empty entry is the current directory
    candidate += name;
    const int error = execution_error(candidate);
    if (error == 0) return {real_path_of(candidate), candidate, name};
    if (!is_worth_the_next_folder(error)) refuse_path(candidate, error);
    if (error == EACCES && not_permitted.empty()) not_permitted = candidate;
    if (end == std::string_view::npos) break;
    begin = end + 1;
  }
  if (!not_permitted.empty()) refuse_path(not_permitted, EACCES);
  throw LoadError(ExitStatus::kNotFound, "cannot find the program '" + name +
                                             "' in PATH; install it, or give its path (./" + name +
                                             " for the current directory)");
}

}  // namespace

FoundProgram find_program(const std::string& name, const char* search_path) {
  if (name.empty()) {
    throw LoadError(ExitStatus::kNotFound, "the program's name is empty; name the program to run");
  }
  if (name.find('/') == std::string::npos) {
    return search(name, search_path != nullptr ? search_path : kDefaultSearchPath);
  }
  const int error = execution_error(name);
  if (error != 0) refuse_path(name, error);
  return {real_path_of(name), name, name};
}

}  // namespace dbos::vmm
