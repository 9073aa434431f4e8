// Child processes that never outlive us: each leads a process group of its own, which is killed at
// its end, at a timeout, and when dbos-bench itself is interrupted or dies.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

namespace dbos::bench {

using Seconds = std::chrono::duration<double>;
using Command = std::vector<std::string>;

// Why a row could not be measured, as a sentence.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(other.number_) { other.number_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor() { close(); }
  int number() const { return number_; }
  void close();

 private:
  int number_;
};

enum class Output { kDiscard, kCapture };

class Process {
 public:
  // Standard input is /dev/null. Throws Failure.
  Process(const Command& command, Output output);
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  pid_t id() const { return id_; }
  bool is_alive() const;

  // Waits for its end, reading its output. Throws Failure at the timeout (the group is killed).
  void await(Seconds timeout);
  void kill_group();

  // After await():
  bool succeeded() const;
  std::string how_it_ended() const;  // with the first line of its standard error
  const std::string& output() const { return output_; }
  const std::string& errors() const { return errors_; }

 private:
  bool collect(Seconds timeout);
  void reap();

  std::string name_;
  pid_t id_ = -1;
  int status_ = 0;
  bool reaped_ = false;
  Descriptor handle_;  // pidfd
  Descriptor output_end_;
  Descriptor errors_end_;
  std::string output_;
  std::string errors_;
};

// Runs a command to its end; its standard output. Throws Failure unless it exits with 0.
std::string output_of(const Command& command, Seconds timeout);

// How long a command takes from fork to its end, output discarded.
double milliseconds_of(const Command& command, Seconds timeout);

// SIGINT, SIGTERM and SIGHUP end our children before us.
void end_children_with_us();

}  // namespace dbos::bench
