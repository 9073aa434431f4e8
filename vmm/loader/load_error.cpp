#include "vmm/loader/load_error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace dbos::vmm {

int execution_error(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EACCES;
  // The effective user counts, and a file system mounted noexec.
  if (faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) != 0) return errno;
  return 0;
}

void refuse_to_execute(const std::string& path, int error) {
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

}  // namespace dbos::vmm
