// What the tests of the snapshot API share: a snapshot that goes away with its scope, and functions
// that run in one.
#pragma once

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "dbos/dbos.h"

class Snapshot {
 public:
  explicit Snapshot(uint32_t runs_max = 4, size_t result_bytes_max = 4096) {
    const dbos_snapshot_options options{runs_max, result_bytes_max};
    REQUIRE(dbos_snapshot_create(&options, &handle) == DBOS_OK);
  }
  ~Snapshot() { (void)dbos_snapshot_release(handle); }
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  template <typename Argument>
  dbos_run start(dbos_function function, const Argument& argument) const {
    dbos_run run{};
    REQUIRE(dbos_run_start(handle, function, &argument, sizeof argument, &run) == DBOS_OK);
    return run;
  }

  dbos_snapshot handle{};
};

inline int32_t wait_for_status(dbos_run run) {
  int32_t status = -1;
  REQUIRE(dbos_run_wait(run, -1, &status, nullptr, 0, nullptr) == DBOS_OK);
  return status;
}

// The argument is a pointer into the creator's memory, as it was.
inline int32_t read_int(const void* argument, size_t, dbos_result*) {
  const int* address;
  memcpy(&address, argument, sizeof address);
  return *address;
}

// How a child of this process answers.
template <typename Question>
int answer_of_child(Question question) {
  const pid_t child = fork();
  if (child == 0) _exit(question());
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Whether /proc/self/maps has a shared mapping of at least `size` bytes that begins below `end` and
// ends beyond `begin`; `begin` is then where it begins.
struct Wanted {
  uint64_t begin, end, size;
};
inline bool find_shared_mapping(Wanted& wanted) {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    uint64_t begin = 0, end = 0;
    char rights[5] = "";
    if (sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, rights) != 3 || rights[3] != 's')
      continue;
    if (end - begin < wanted.size || begin >= wanted.end || end <= wanted.begin) continue;
    wanted.begin = begin;
    return true;
  }
  return false;
}

inline int32_t sleep_for_ever(const void*, size_t, dbos_result*) {
  for (;;) poll(nullptr, 0, -1);
}

inline int32_t kill_itself(const void*, size_t, dbos_result*) {
  raise(SIGKILL);
  return 0;
}
