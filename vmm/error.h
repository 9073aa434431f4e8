// Errors of starting up: one clear sentence and the exit status that goes with it. The run path
// uses plain results instead, because it also runs in processes that must not unwind.
#pragma once

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace dbos::vmm {

class StartError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;

  // What Linux answered: a positive error number.
  template <typename... Arguments>
  static StartError with_code(int code, fmt::format_string<Arguments...> format,
                              Arguments&&... arguments) {
    return StartError(fmt::format(format, std::forward<Arguments>(arguments)...) + ": " +
                      std::strerror(code) + (code == EMFILE ? "; raise ulimit -n" : ""));
  }

  // For libc's functions alone: what returns -errno does not set it.
  template <typename... Arguments>
  static StartError with_errno(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    return with_code(errno, format, std::forward<Arguments>(arguments)...);
  }
};

}  // namespace dbos::vmm
