// What the errors of include/dbos/dbos.h mean, in the order of their numbers.
#include "dbos/dbos.h"

const char* dbos_error_text(dbos_error error) {
  static const char* const texts[] = {
      "no error",
      "an argument is null or out of range",
      "the handle was released or taken already, or never was one",
      "the handle belongs to the process that this one was forked from",
      "no memory, or no further process or thread",
      "too many snapshots, runs or open files",
      "the run has not ended in time",
      "the snapshot's process has ended",
      "the result is larger than the buffer",
      "another thread waits for this run",
      "Linux refused a call; errno says why",
  };
  const size_t index = (size_t)error;
  return index < sizeof texts / sizeof texts[0] ? texts[index] : "no such error";
}
