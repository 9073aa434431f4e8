// A pipe that carries single bytes between a measure and its child.
#pragma once

#include <unistd.h>

#include <stdexcept>

namespace dbos::bench {

struct Pipe {
  Pipe() {
    if (pipe(ends) != 0) throw std::runtime_error("pipe failed");
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    for (int& end : ends) close_end(end);
  }
  bool receive() const {
    char byte = 0;
    return read(ends[0], &byte, 1) == 1;
  }
  bool send() const { return write(ends[1], "x", 1) == 1; }

  static void close_end(int& end) {
    if (end >= 0) close(end);
    end = -1;
  }

  int ends[2] = {-1, -1};
};

}  // namespace dbos::bench
