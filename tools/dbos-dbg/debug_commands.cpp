#include "tools/dbos-dbg/debug_commands.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <utility>

#include "tools/dbos-dbg/number.h"
#include "tools/dbos-dbg/table.h"
#include "vmm/control/control_request.h"
#include "vmm/debug/core_file.h"

namespace dbos::dbg {
namespace {

constexpr uint64_t kStepsMax = 1'000'000;

uint64_t number_of(const std::string& text, const char* what) {
  const auto value = number_in(text);
  if (!value) throw Failure(fmt::format("'{}' is no {}", text, what));
  return *value;
}

std::string joined(const std::vector<std::string>& words, size_t from, size_t to) {
  std::string text;
  for (size_t i = from; i < to; ++i) text += (text.empty() ? "" : " ") + words[i];
  return text;
}

// "EXPRESSION [NUMBER]": the number, if the last word is one and what is before it is whole.
struct Place {
  std::string expression;
  std::optional<uint64_t> number;
};
Place place_of(const std::vector<std::string>& words) {
  const size_t count = words.size();
  const bool may_have_number = count > 2 &&
                               std::strchr("+-*(", words[count - 2].back()) == nullptr &&
                               std::isdigit(static_cast<unsigned char>(words.back().front())) != 0;
  if (!may_have_number) return {joined(words, 1, count), std::nullopt};
  return {joined(words, 1, count - 1), number_of(words.back(), "number")};
}

Answer done() {
  return {true, {}};
}

// The event of a step after which Ctrl-C lets no other one follow.
Json interrupted(Json event) {
  event["cause"] = "interrupt";
  return event;
}

}  // namespace

struct DebugCommands::Command {
  const char* name;
  const char* abbreviation;  // empty: none
  const char* usage;
  const char* help;
  Answer (DebugCommands::*perform)(const Words& words);
};

const std::vector<DebugCommands::Command>& DebugCommands::commands() {
  static const std::vector<Command> all = {
      {"regs", "r", "regs [all]",
       "the thread's registers; all: also the floating point and vector ones",
       &DebugCommands::registers},
      {"bt", "where", "bt [all]", "the call chain of the thread, or of all",
       &DebugCommands::backtrace},
      {"x", "", "x[/COUNT FORMAT SIZE] PLACE",
       "memory; FORMAT x d u c s (strings) i (instructions), SIZE b h w g",
       &DebugCommands::examine_memory},
      {"disas", "disassemble", "disas [PLACE [COUNT]]",
       "instructions, by default those around the thread's", &DebugCommands::disassemble},
      {"break", "b", "break PLACE", "stop at an instruction: a function's name, an address",
       &DebugCommands::set_breakpoint},
      {"watch", "", "watch PLACE [LENGTH]", "stop when 1, 2, 4 or 8 bytes (8) are written",
       &DebugCommands::set_watchpoint},
      {"awatch", "", "awatch PLACE [LENGTH]", "... or read", &DebugCommands::set_access_watchpoint},
      {"points", "", "points", "the breakpoints and watchpoints", &DebugCommands::points},
      {"delete", "d", "delete [NUMBER]", "remove a breakpoint, or all", &DebugCommands::remove},
      {"step", "s", "step [COUNT]", "one instruction of the thread, or several; Ctrl-C stops it",
       &DebugCommands::step},
      {"continue", "c", "continue", "let the program go on until it stops; Ctrl-C stops it",
       &DebugCommands::go_on},
      {"threads", "", "threads", "the threads, and what each does", &DebugCommands::list_threads},
      {"thread", "t", "thread ID", "the thread that the other commands mean",
       &DebugCommands::choose_thread},
      {"core", "", "core FILE", "write a core file, that gdb opens", &DebugCommands::write_core},
      {"help", "h", "help", "this list", &DebugCommands::print_help},
      {"quit", "q", "quit", "let the program run on, and end", &DebugCommands::quit},
  };
  return all;
}

Answer DebugCommands::perform(const std::vector<std::string>& words) {
  if (words.empty()) return done();
  for (const Command& command : commands()) {
    if (words.front() == command.name || words.front() == command.abbreviation) {
      return (this->*command.perform)(words);
    }
  }
  throw Failure(fmt::format("there is no command '{}'; 'help' lists them", words.front()));
}

std::string DebugCommands::help() {
  std::string text;
  for (const Command& command : commands()) {
    text += fmt::format("  {:<28} {}\n", command.usage, command.help);
  }
  return text;
}

// ---- Looking ----

Answer DebugCommands::registers(const Words& words) {
  const bool wants_all = words.size() > 1 && words[1] == "all";
  if (words.size() > (wants_all ? 2 : 1)) throw Failure("regs takes nothing but 'all'");
  Json json = target_.registers(wants_all ? Target::Which::kAll : Target::Which::kGeneral);
  json["thread"] = target_.thread();
  constexpr const char* kOrder[] = {
      "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8",     "r9",      "r10",
      "r11", "r12", "r13", "r14", "r15", "rip", "cs",  "ss",  "eflags", "fs_base", "gs_base"};
  std::string text;
  const auto add = [&](const std::string& name, const Json& value) {
    const std::string shown = value.is_null()     ? "unknown"
                              : value.is_string() ? value.get<std::string>()
                                                  : hex_text(value.get<uint64_t>());
    text += fmt::format("{:<10} {}\n", name, shown);
  };
  const Json& values = json["registers"];
  for (const char* name : kOrder) add(name, values.value(name, Json()));
  for (const auto& [name, value] : values.items()) {
    if (std::find(std::begin(kOrder), std::end(kOrder), name) == std::end(kOrder)) add(name, value);
  }
  return {std::move(json), std::move(text)};
}

Answer DebugCommands::backtrace(const Words& words) {
  const bool wants_all = words.size() > 1 && words[1] == "all";
  if (words.size() > (wants_all ? 2 : 1)) throw Failure("bt takes nothing but 'all'");
  const uint64_t chosen = target_.thread();
  std::vector<uint64_t> threads = {chosen};
  if (wants_all) {
    threads.clear();
    for (const Json& entry : target_.threads()) threads.push_back(entry["thread"]);
  }
  Answer answer{Json::array(), {}};
  for (const uint64_t thread : threads) {
    target_.choose(thread);
    Json frames = Json::array();
    if (wants_all) answer.text += fmt::format("thread {}\n", thread);
    const std::vector<CallFrame> chain = target_.backtrace();
    for (const CallFrame& frame : chain) frames.push_back(frame_json(frame));
    answer.text += vmm::format_backtrace(chain);
    answer.json.push_back({{"thread", thread}, {"frames", std::move(frames)}});
  }
  target_.choose(chosen);
  return answer;
}

Answer DebugCommands::examine_memory(const Words& words) {
  const bool has_format = words.size() > 1 && words[1].front() == '/';
  const ExamineFormat format = has_format ? parse_examine_format(words[1]) : ExamineFormat();
  const std::string place = joined(words, has_format ? 2 : 1, words.size());
  if (place.empty()) throw Failure("x needs an address: x/8xg $rsp");
  return examine(target_, target_.evaluate(place), format);
}

Answer DebugCommands::disassemble(const Words& words) {
  if (words.size() == 1) return disassembly_here(target_);
  constexpr uint64_t kCount = 10;
  const Place place = place_of(words);
  return disassembly(target_, target_.evaluate(place.expression), place.number.value_or(kCount));
}

Answer DebugCommands::list_threads(const Words&) {
  const Json threads = target_.threads();
  const uint64_t chosen = target_.thread();
  std::string text;
  for (const Json& entry : threads) {
    text += fmt::format("{} {} {}\n", entry["thread"] == chosen ? "*" : " ",
                        entry["thread"].get<uint64_t>(), entry["state"].get<std::string>());
  }
  return {threads, text};
}

Answer DebugCommands::choose_thread(const Words& words) {
  if (words.size() != 2) throw Failure("thread needs an id; 'threads' lists them");
  target_.choose(number_of(words[1], "thread's id"));
  const CallFrame frame = target_.describe(target_.register_value("rip").value_or(0));
  return {{{"thread", target_.thread()}, {"frame", frame_json(frame)}},
          vmm::format_backtrace({frame})};
}

// ---- Breakpoints ----

Answer DebugCommands::add(SetPoint point) {
  const int number = ++last_number_;
  const bool is_break = point.kind == "software";
  const CallFrame frame = target_.describe(point.address);
  const std::string place = place_text(frame);
  const std::string shown =
      fmt::format("{} {} at {:#x}{}{}\n", is_break ? "Breakpoint" : "Watchpoint", number,
                  point.address, place.empty() ? "" : " " + place,
                  point.kind == "stepped" ? ", by stepping: no debug registers here" : "");
  Json json = {{"number", number}, {"kind", point.kind}, {"address", point.address}};
  if (!is_break) json["length"] = point.length;
  points_[number] = std::move(point);
  return {std::move(json), shown};
}

Answer DebugCommands::set_breakpoint(const Words& words) {
  if (words.size() < 2) throw Failure("break needs a place: break setCommand");
  const std::string text = joined(words, 1, words.size());
  const uint64_t address = target_.evaluate(text);
  target_.ask("break", {{"kind", "software"}, {"address", address}});
  return add({"software", address, 1, text, 0});
}

uint64_t DebugCommands::value_at(const SetPoint& point) {
  uint64_t value = 0;
  if (target_.read(point.address, &value, point.length) < point.length) {
    throw Failure(fmt::format("there is no memory at {:#x}", point.address));
  }
  return value;
}

Answer DebugCommands::watch(const std::string& kind, const Words& words) {
  if (words.size() < 2) throw Failure("watch needs a place: watch counter 4");
  const Place place = place_of(words);
  SetPoint point{kind, target_.evaluate(place.expression), place.number.value_or(8),
                 place.expression, 0};
  const bool is_size =
      point.length == 1 || point.length == 2 || point.length == 4 || point.length == 8;
  if (!is_size) throw Failure("1, 2, 4 or 8 bytes can be watched");
  point.value = value_at(point);
  try {
    target_.ask("break", {{"kind", kind}, {"address", point.address}, {"length", point.length}});
  } catch (const Failure& failure) {
    const bool can_step = kind == "write" && failure.code() == vmm::kNoDebugRegisters;
    if (!can_step) throw;
    point.kind = "stepped";
  }
  return add(std::move(point));
}

Answer DebugCommands::set_watchpoint(const Words& words) {
  return watch("write", words);
}

Answer DebugCommands::set_access_watchpoint(const Words& words) {
  return watch("access", words);
}

Answer DebugCommands::points(const Words&) {
  Answer answer{Json::array(), {}};
  for (const auto& [number, point] : points_) {
    answer.json.push_back({{"number", number}, {"kind", point.kind}, {"address", point.address}});
    answer.text += fmt::format("{} {} {:#x} {}\n", number, point.kind, point.address, point.text);
  }
  return answer;
}

Answer DebugCommands::remove(const Words& words) {
  std::vector<int> numbers;
  if (words.size() > 1) {
    numbers = {static_cast<int>(number_of(words[1], "breakpoint's number") & 0x7fffffff)};
  } else {
    for (const auto& entry : points_) numbers.push_back(entry.first);
  }
  for (const int number : numbers) {
    const auto found = points_.find(number);
    if (found == points_.end()) throw Failure(fmt::format("there is no breakpoint {}", number));
    const SetPoint point = found->second;
    points_.erase(found);
    // Two may lie on one instruction.
    const bool is_shared = std::any_of(points_.begin(), points_.end(), [&](const auto& other) {
      return other.second.kind == "software" && point.kind == "software" &&
             other.second.address == point.address;
    });
    if (point.kind == "stepped" || is_shared) continue;
    target_.ask("unbreak",
                {{"kind", point.kind}, {"address", point.address}, {"length", point.length}});
  }
  return done();
}

// ---- Going on ----

// With a watchpoint that has no debug register, the thread goes instruction by instruction.
Json DebugCommands::run_watching(Target::Go go) {
  const auto steps = [](const auto& entry) { return entry.second.kind == "stepped"; };
  const bool is_stepping = std::any_of(points_.begin(), points_.end(), steps);
  if (!is_stepping) return target_.run(go);
  for (;;) {
    Json event = target_.run(Target::Go::kOneInstruction);
    if (event["event"] != "stop" || event["cause"] != "step") return event;
    for (const auto& [number, point] : points_) {
      const bool has_changed = point.kind == "stepped" && value_at(point) != point.value;
      const bool is_hit =
          point.kind == "software" && point.address == target_.register_value("rip");
      if (is_hit) event["cause"] = "breakpoint";
      if (has_changed) event.update({{"cause", "watchpoint"}, {"address", point.address}});
      if (is_hit || has_changed) return event;
    }
    if (go == Target::Go::kOneInstruction) return event;
    if (InterruptGuard::was_interrupted()) return interrupted(std::move(event));
  }
}

std::string DebugCommands::describe_cause(const Json& event, Json& json) {
  const auto cause = event["cause"].get<std::string>();
  const uint64_t here = target_.register_value("rip").value_or(0);
  for (auto& [number, point] : points_) {
    const bool is_break = point.kind == "software";
    if (cause == "breakpoint" && is_break && point.address == here) {
      json["number"] = number;
      return fmt::format("Breakpoint {}", number);
    }
    if (cause == "watchpoint" && !is_break && point.address == event["address"]) {
      const uint64_t before = std::exchange(point.value, value_at(point));
      json.update({{"number", number}, {"before", before}, {"after", point.value}});
      return fmt::format("Watchpoint {} ({}): {:#x}, was {:#x}", number, point.text, point.value,
                         before);
    }
  }
  if (cause == "signal") {
    const int signal = event["signal"].get<int>();
    const char* const name = sigabbrev_np(signal);
    json["signal"] = name == nullptr ? std::to_string(signal) : std::string("SIG") + name;
    return fmt::format("Signal {} ({})", json["signal"].get<std::string>(), strsignal(signal));
  }
  return cause == "step" ? "Step" : "Stopped";
}

Answer DebugCommands::stopped(const Json& event) {
  if (event["event"] == "end") {
    is_over_ = true;
    const bool by_signal = event.contains("signal");
    return {event, by_signal ? fmt::format("The program was ended by signal {} ({})\n",
                                           event["signal"].get<int>(),
                                           strsignal(event["signal"].get<int>()))
                             : fmt::format("The program has ended with status {}\n",
                                           event["status"].get<int>())};
  }
  Json json = {{"cause", event["cause"]}, {"thread", target_.thread()}};
  const std::string cause = describe_cause(event, json);
  const uint64_t here = target_.register_value("rip").value_or(0);
  const CallFrame frame = target_.describe(here);
  json["frame"] = frame_json(frame);
  const Answer code = disassembly(target_, here, 1);
  const Json& instructions = code.json["instructions"];
  if (!instructions.empty()) json["instruction"] = instructions[0]["text"];
  return {std::move(json), fmt::format("{}, thread {}\n{}{}", cause, target_.thread(), code.text,
                                       vmm::format_backtrace({frame}))};
}

Answer DebugCommands::step(const Words& words) {
  const uint64_t count = words.size() > 1 ? number_of(words[1], "count of instructions") : 1;
  if (count == 0 || count > kStepsMax) {
    throw Failure(fmt::format("step takes a count from 1 to {}", kStepsMax));
  }
  const InterruptGuard guard;
  for (uint64_t i = 1;; ++i) {
    Json event = run_watching(Target::Go::kOneInstruction);
    const bool goes_on = event["event"] == "stop" && event["cause"] == "step";
    if (i == count || !goes_on) return stopped(event);
    if (InterruptGuard::was_interrupted()) return stopped(interrupted(std::move(event)));
  }
}

Answer DebugCommands::go_on(const Words&) {
  const InterruptGuard guard;
  return stopped(run_watching(Target::Go::kOn));
}

// ---- The rest ----

std::string DebugCommands::core_failure(int file) {
  try {
    target_.write_core(file);
    return {};
  } catch (const Failure& failure) {
    return failure.what();
  }
}

Answer DebugCommands::write_core(const Words& words) {
  if (words.size() != 2) throw Failure("core needs a file: core /tmp/core");
  const std::string path = std::filesystem::absolute(words[1]);
  const vmm::CoreFile file = vmm::open_core_file(path);
  std::string error = file.error;
  if (error.empty()) {
    error = core_failure(file.descriptor);
    close(file.descriptor);
  }
  if (error.empty()) return {{{"file", path}}, fmt::format("core: {}\n", path)};
  if (file.is_new) unlink(path.c_str());  // a part of a core is of no use
  throw Failure(fmt::format("no core in {}: {}", path, error));
}

Answer DebugCommands::quit(const Words&) {
  is_over_ = true;
  return done();
}

Answer DebugCommands::print_help(const Words&) {
  return {help(), help()};
}

std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  std::istringstream stream(line);
  for (std::string word; stream >> word;) {
    const size_t slash = words.empty() ? word.find('/') : std::string::npos;
    words.push_back(word.substr(0, slash));  // "x/4xg" is "x" and "/4xg"
    if (slash != std::string::npos) words.push_back(word.substr(slash));
  }
  return words;
}

}  // namespace dbos::dbg
