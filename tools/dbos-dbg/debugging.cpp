#include "tools/dbos-dbg/debugging.h"

#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "tools/dbos-dbg/debug_commands.h"

namespace dbos::dbg {
namespace {

enum class Layout { kWide, kLine };

void print(const Answer& answer, const DebugOptions& options, Layout layout) {
  if (options.json) {
    // In ASCII: a terminal may obey control characters that JSON lets through (C1).
    fmt::print("{}\n", answer.json.dump(layout == Layout::kWide ? 2 : -1, ' ', true,
                                        Json::error_handler_t::replace));
  } else {
    fmt::print("{}", answer.text);
  }
  std::fflush(stdout);
  if (std::ferror(stdout) != 0) throw Failure("can't write the answer");
}

void wait_for_stops(DebugCommands& commands, const DebugOptions& options) {
  for (uint64_t i = 0; i < options.stops && !commands.is_over(); ++i) {
    Answer stop = commands.perform({"continue"});
    if (!commands.is_over()) {
      const Answer chain = commands.perform({"bt"});
      stop.json["frames"] = chain.json[0]["frames"];
      stop.text += chain.text.substr(chain.text.find('\n') + 1);  // the first is there
    }
    const bool was_interrupted = stop.json.value("cause", "") == "interrupt";
    print(stop, options, Layout::kLine);
    if (was_interrupted) return;
  }
}

// At a terminal.
void perform_and_complain(DebugCommands& commands, const std::string& line,
                          const DebugOptions& options) {
  try {
    print(commands.perform(words_of(line)), options, Layout::kLine);
  } catch (const Failure& failure) {
    fmt::print(stderr, "{}\n", failure.what());
  }
}

}  // namespace

bool waits_for_stops(const std::string& command) {
  return command == "break" || command == "watch" || command == "awatch";
}

void debug_once(const Address& address, const std::vector<std::string>& words,
                const DebugOptions& options) {
  Target target(address);
  if (options.thread != 0) target.choose(options.thread);
  DebugCommands commands(target);
  const Answer answer = commands.perform(words);
  const bool waits = waits_for_stops(words.front());
  print(answer, options, waits ? Layout::kLine : Layout::kWide);
  if (waits) wait_for_stops(commands, options);
}

void debug_session(const Address& address, const std::vector<std::string>& lines,
                   const DebugOptions& options) {
  Target target(address);
  if (options.thread != 0) target.choose(options.thread);
  DebugCommands commands(target);
  for (const std::string& line : lines) {
    if (!commands.is_over()) print(commands.perform(words_of(line)), options, Layout::kLine);
  }
  if (!lines.empty()) return;
  const bool is_terminal = isatty(STDIN_FILENO) != 0;
  std::string line;
  while (!commands.is_over()) {
    if (is_terminal) {
      fmt::print("(dbos-dbg) ");
      std::fflush(stdout);
    }
    if (!std::getline(std::cin, line)) return;
    if (is_terminal) {
      perform_and_complain(commands, line, options);
    } else {
      print(commands.perform(words_of(line)), options, Layout::kLine);
    }
  }
}

}  // namespace dbos::dbg
