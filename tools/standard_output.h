// What a command prints must arrive: a full disk behind standard output is a failure, not a
// success.
#pragma once

#include <fmt/core.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <stdexcept>

namespace dbos {

// At the end of a command. Throws a sentence if anything that was printed is lost.
inline void finish_output() {
  errno = 0;
  const bool is_flushed = std::fflush(stdout) == 0;
  const int error = errno;
  if (is_flushed && std::ferror(stdout) == 0 && std::cout.flush().good()) return;
  throw std::runtime_error(fmt::format("standard output can't be written{}{}",
                                       error == 0 ? "" : ": ",
                                       error == 0 ? "" : std::strerror(error)));
}

}  // namespace dbos
