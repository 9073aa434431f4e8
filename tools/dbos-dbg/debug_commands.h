// The commands that stop the program: what they do with words that come from the command line or
// from a session's prompt.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tools/dbos-dbg/examine.h"
#include "tools/dbos-dbg/target.h"

namespace dbos::dbg {

// A breakpoint or watchpoint.
struct SetPoint {
  std::string kind;  // as the request "break" has it; "stepped": watched by stepping
  uint64_t address = 0;
  uint64_t length = 1;
  std::string text;    // as the user wrote it
  uint64_t value = 0;  // of what is watched, when it was seen last
};

class DebugCommands {
 public:
  explicit DebugCommands(Target& target) : target_(target) {}

  // "x", "/4xg", "$rsp". Throws Failure.
  Answer perform(const std::vector<std::string>& words);
  // "quit" was performed, or the program has ended.
  bool is_over() const { return is_over_; }

  // One line for each command.
  static std::string help();

 private:
  using Words = std::vector<std::string>;
  struct Command;
  static const std::vector<Command>& commands();

  Answer registers(const Words& words);
  Answer backtrace(const Words& words);
  Answer examine_memory(const Words& words);
  Answer disassemble(const Words& words);
  Answer set_breakpoint(const Words& words);
  Answer set_watchpoint(const Words& words);
  Answer set_access_watchpoint(const Words& words);
  Answer points(const Words& words);
  Answer remove(const Words& words);
  Answer step(const Words& words);
  Answer go_on(const Words& words);
  Answer list_threads(const Words& words);
  Answer choose_thread(const Words& words);
  Answer write_core(const Words& words);
  std::string core_failure(int file);  // empty: it is written
  Answer quit(const Words& words);
  Answer print_help(const Words& words);

  Answer watch(const std::string& kind, const Words& words);
  Answer add(SetPoint point);
  Json run_watching(Target::Go go);
  Answer stopped(const Json& event);
  std::string describe_cause(const Json& event, Json& json);
  uint64_t value_at(const SetPoint& point);

  Target& target_;
  std::map<int, SetPoint> points_;
  int last_number_ = 0;
  bool is_over_ = false;
};

// The words of a line. There are no quotes: a place with spaces is put together again.
std::vector<std::string> words_of(const std::string& line);

}  // namespace dbos::dbg
