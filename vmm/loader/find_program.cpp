#include "vmm/loader/find_program.h"

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

std::string real_path_of(const std::string& path) {
  char buffer[PATH_MAX];
  if (realpath(path.c_str(), buffer) == nullptr) {
    throw LoadError(ExitStatus::kCannotExecute, "cannot resolve the path of '" + path +
                                                    "': " + std::strerror(errno) +
                                                    "; name the program by its absolute path");
  }
  return buffer;
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
    if (!is_worth_the_next_folder(error)) refuse_to_execute(candidate, error);
    if (error == EACCES && not_permitted.empty()) not_permitted = candidate;
    if (end == std::string_view::npos) break;
    begin = end + 1;
  }
  if (!not_permitted.empty()) refuse_to_execute(not_permitted, EACCES);
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
  if (error != 0) refuse_to_execute(name, error);
  return {real_path_of(name), name, name};
}

}  // namespace dbos::vmm
