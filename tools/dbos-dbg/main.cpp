// dbos-dbg: looks into programs that run under dbos-run.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tools/dbos-dbg/connection.h"
#include "tools/dbos-dbg/debugging.h"
#include "tools/dbos-dbg/gdb_bridge.h"
#include "tools/dbos-dbg/machines.h"
#include "tools/dbos-dbg/number.h"
#include "tools/dbos-dbg/show.h"
#include "tools/dbos-dbg/table.h"
#include "tools/dbos-dbg/trace.h"
#include "tools/standard_output.h"

namespace dbos::dbg {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

constexpr const char* kDescription =
    R"(Looks into a program that runs under dbos-run, without stopping it or slowing it by much: what its
processes do, its memory, page tables and snapshots, and what its system calls and exits cost. From
'regs' on the commands stop the program's first process for as long as they take; it runs on when they
end, however they end. It attaches to programs of the same user, root to all, as far as Linux lets them
be traced.)";

constexpr const char* kFooter =
    R"(Where one program runs under dbos-run, it is meant; -p chooses among several. Numbers are decimal,
or hexadecimal with 0x. An address space is named by a process id, or by the address of its root as
'ps' and 'snapshots' print it; without --space it is the program's first.

Examples:
  dbos-dbg ls
  dbos-dbg -p redis-server ps
  dbos-dbg pt 0x7f1234567000 --space 4711
      the walk of the page table in the snapshot that process 4711 (redis's BGSAVE, say) runs in.
  dbos-dbg calls 5s
      the system calls of the next five seconds, each of them timed.
  dbos-dbg trace read write --thread 4711
  dbos-dbg trace --json | jq -r .name
  dbos-dbg bt --all
  dbos-dbg break setCommand --count 3
      stops there three times, shows who called it, and lets the program go on.
  dbos-dbg debug -e 'break dbAdd' -e continue -e 'x/s *($rsi+8)'
      several commands in one stop; without -e they are read from standard input.
  gdb -ex 'target remote | dbos-dbg gdb'

Exit status: 0 (also where the program ends while a command waits for it), 1 where there is nothing to
attach to or no answer, 2 for wrong options.)";

struct Options {
  std::string process;
  std::string space;
  std::string address;
  std::string interval;
  TraceOptions trace;
  std::vector<std::string> words;  // of a command that stops the program
  DebugOptions debug;
  bool all = false;
  bool json = false;
};

constexpr double kIntervalMax_s = 86400;

uint64_t parse_number(const std::string& text, const char* what) {
  if (const auto value = number_in(text)) return *value;
  throw UsageError(
      fmt::format("{} '{}' is no number; write it decimal, or hexadecimal with 0x", what, text));
}

// "5s", "500ms", "2": seconds.
double parse_interval(const std::string& text) {
  try {
    size_t end = 0;
    const double value = std::stod(text, &end);
    const std::string unit = text.substr(end);
    const double scale = unit == "ms" ? 0.001 : unit == "m" ? 60 : 1;
    const bool is_known = unit.empty() || unit == "s" || unit == "ms" || unit == "m";
    if (is_known && value * scale > kIntervalMax_s) {
      throw UsageError(fmt::format("'{}' is too long; an interval is at most a day, 1440m", text));
    }
    if (is_known && value > 0) return value * scale;
  } catch (const std::logic_error&) {  // stod's
  }
  throw UsageError(fmt::format("'{}' is no interval; write 5s, 500ms or 2m", text));
}

// A whole number above 0. CLI11 itself takes '-1' for 2^64 - 1, and '010' for 8.
void add_number(CLI::App& command, const char* name, uint64_t& value, const char* type,
                const char* help) {
  const auto to_decimal = [](std::string& text) {
    const uint64_t number = number_in(text).value_or(0);
    if (number == 0) return "'" + text + "' is no whole number above 0";
    text = std::to_string(number);
    return std::string();
  };
  command.add_option(name, value, help)->type_name(type)->transform(CLI::Validator(to_decimal, ""));
}

// CLI11's own check would print its range, in 300 digits.
void add_seconds(CLI::App& command, const char* name, double& value, const char* help) {
  const auto check = [](const std::string& text) {
    const double number = std::strtod(text.c_str(), nullptr);
    const bool is_right = number > 0 && number <= kTraceSecondsMax;
    return is_right ? std::string()
                    : fmt::format("'{}' is no number above 0 and up to {}", text, kTraceSecondsMax);
  };
  command.add_option(name, value, help)->type_name("S")->check(CLI::Validator(check, ""));
}

Json space_arguments(const Options& options) {
  Json arguments = Json::object();
  if (!options.space.empty()) arguments["space"] = parse_number(options.space, "--space");
  return arguments;
}

void print(const Options& options, const Json& result, const std::string& text) {
  fmt::print("{}", options.json ? result.dump(2) + "\n" : text);
}

void list_machines(const Options& options) {
  Json list = Json::array();
  Table table({{"PROCESS", Align::kRight}, {"NAME", Align::kLeft}, {"COMMAND", Align::kLeft}});
  for (const Machine& machine : find_machines()) {
    list.push_back(
        {{"process", machine.process}, {"name", machine.name}, {"command", machine.command}});
    table.add({std::to_string(machine.process), machine.name, machine.command});
  }
  print(options, list, table.text());
}

Connection attach(const Options& options) {
  return Connection(choose_machine(options.process).address);
}

using Text = std::string (*)(const Json&);

void show(const Options& options, const char* command, const Json& arguments, Text text) {
  const Json result = attach(options).ask(command, arguments);
  print(options, result, text(result));
}

// Since the start, or over an interval in which everything is timed.
void show_counts(const Options& options, const char* command,
                 std::string (*text)(const Json&, double)) {
  const double seconds = options.interval.empty() ? 0 : parse_interval(options.interval);
  Connection connection(choose_machine(options.process).address);
  if (options.interval.empty()) {
    const Json result = connection.ask(command);
    print(options, result, text(result, 0));
    return;
  }
  connection.ask("time_all", {{"on", true}});
  const Json before = connection.ask(command);
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  const Json result = difference(connection.ask(command), before);
  print(options, result, text(result, seconds));
}

void show_page_walk(const Options& options) {
  Json arguments = space_arguments(options);
  arguments["address"] = parse_number(options.address, "ADDRESS");
  show(options, "pt", arguments, walk_text);
}

void run_trace(Options options) {
  options.trace.json = options.json;
  if (!options.space.empty()) options.trace.space = parse_number(options.space, "--space");
  Connection connection(choose_machine(options.process).address);
  trace(connection, options.trace);
}

void declare_space(CLI::App& command, Options& options) {
  command
      .add_option("--space", options.space, "The address space: a process id, or a root's address")
      ->type_name("SPACE");
}

void declare_looking(CLI::App& app, Options& options) {
  app.add_subcommand("ls", "The programs that run under dbos-run")->final_callback([&] {
    list_machines(options);
  });
  app.add_subcommand("ps", "Processes and threads, and what each does now")->final_callback([&] {
    show(options, "ps", Json::object(), processes_text);
  });
  auto* const maps = app.add_subcommand("maps", "The mappings of an address space");
  declare_space(*maps, options);
  maps->final_callback([&] { show(options, "maps", space_arguments(options), maps_text); });
  auto* const walk =
      app.add_subcommand("pt", "The walk of the page table for an address, entry by entry");
  walk->add_option("ADDRESS", options.address, "A virtual address")->required();
  declare_space(*walk, options);
  walk->final_callback([&] { show_page_walk(options); });
  app.add_subcommand("snapshots",
                     "Snapshots (forks that live): age, what they hold, what was copied")
      ->final_callback([&] { show(options, "snapshots", Json::object(), snapshots_text); });
  app.add_subcommand("frames", "What the machine's memory is used for")->final_callback([&] {
    show(options, "frames", Json::object(), frames_text);
  });
}

void declare_counting(CLI::App& app, Options& options) {
  auto* const exits = app.add_subcommand(
      "exits", "Exits to dbos-run by reason, services, page faults by kind; with latencies");
  exits->final_callback([&] { show_counts(options, "exits", exits_text); });
  auto* const calls = app.add_subcommand("calls", "System calls with counts, errors and latencies");
  calls->final_callback([&] { show_counts(options, "calls", calls_text); });
  for (CLI::App* command : {exits, calls}) {
    command->add_option("INTERVAL", options.interval,
                        "Over this long (5s, 500ms, 2m), with each one timed; without it since the "
                        "program's start, with one in 17 timed");
  }
  app.add_subcommand("metrics", "The figures that dbos-run --metrics serves")->final_callback([&] {
    const Json text = attach(options).ask("metrics");
    print(options, text, text.get<std::string>());
  });
}

void declare_trace(CLI::App& app, Options& options) {
  auto* const command = app.add_subcommand(
      "trace",
      "System calls as they end, as strace prints them, until Ctrl-C. Lost ones are counted");
  TraceOptions& trace = options.trace;
  command->add_option("CALL", trace.calls, "Only these system calls");
  command->add_flag("--in-guest", trace.in_guest,
                    "Also those that the guest kernel does itself, without an exit");
  add_number(*command, "--process", trace.process, "PROCESS", "Only of this process");
  add_number(*command, "--thread", trace.thread, "THREAD", "Only of this thread");
  declare_space(*command, options);
  command->add_flag("-t,--time", trace.shows_time, "Begin each line with the time of day");
  add_number(*command, "--count", trace.count, "N", "End after so many calls");
  add_seconds(*command, "--seconds", trace.seconds, "End after that long");
  command->final_callback([&] { run_trace(options); });
}

// A command of debug_commands.h, and what it takes.
struct StoppingCommand {
  const char* name;
  const char* help;
  const char* argument;  // null: none
  const char* argument_help;
};
constexpr const char* kPlaceHelp =
    "A number, $REGISTER or symbol; sums of them; *PLACE for the 8 bytes there";
constexpr StoppingCommand kStoppingCommands[] = {
    {"regs", "Registers", nullptr, nullptr},
    {"bt", "The call chain: in the guest kernel, the libraries and the program", nullptr, nullptr},
    {"x", "Memory as gdb prints it: x /4xg '$rsp', x /s 0x7f1234567890, x /5i main", "PLACE",
     "[/COUNT FORMAT SIZE] PLACE: FORMAT is x, d, u, c, s or i; SIZE b, h, w or g"},
    {"disas", "Instructions; where no place is named those around the thread's, which is marked",
     "PLACE", "PLACE [COUNT]"},
    {"step", "Perform one instruction, or several", "COUNT", "How many"},
    {"continue", "Wait until the program gets a signal that dumps core by default, or ends",
     nullptr, nullptr},
    {"break", "Wait until the program comes to a place; show how it came there", "PLACE",
     kPlaceHelp},
    {"watch", "Wait until memory is written; show by whom", "PLACE",
     "PLACE [LENGTH]: 1, 2, 4 or 8 bytes; 8 without it"},
    {"awatch", "... or read", "PLACE", "PLACE [LENGTH]"},
    {"core", "Write a core of the program, which gdb opens", "FILE", "To be written over"},
};

CLI::App* declare_stopping_command(CLI::App& app, Options& options,
                                   const StoppingCommand& description) {
  auto* const command = app.add_subcommand(description.name, description.help);
  add_number(*command, "--thread", options.debug.thread, "THREAD",
             "Of this thread; without it, the first");
  if (description.argument != nullptr) {
    const std::string name = description.name;
    command->add_option(description.argument, options.words, description.argument_help)
        ->required(name != "disas" && name != "step");
  }
  command->final_callback([&options, name = description.name] {
    std::vector<std::string> words = {name};
    if (words[0] == "step" && !options.words.empty()) parse_number(options.words[0], "COUNT");
    words.insert(words.end(), options.words.begin(), options.words.end());
    if (options.all) words.emplace_back("all");
    options.debug.json = options.json;
    debug_once(choose_machine(options.process).address, words, options.debug);
  });
  return command;
}

void declare_stopping(CLI::App& app, Options& options) {
  for (const StoppingCommand& description : kStoppingCommands) {
    CLI::App* const command = declare_stopping_command(app, options, description);
    const std::string name = description.name;
    if (name == "regs") {
      command->add_flag("--all", options.all, "Also the floating point and vector registers");
    } else if (name == "bt") {
      command->add_flag("--all", options.all, "Of all threads");
    } else if (waits_for_stops(name)) {
      add_number(*command, "--count", options.debug.stops, "N", "End after so many stops");
    }
  }
}

void declare_sessions(CLI::App& app, Options& options) {
  auto* const session = app.add_subcommand(
      "debug", "Several of the commands above in one stop, from standard input; 'help' lists them");
  session->add_option("-e,--execute", options.words, "Perform these and end; may be repeated")
      ->type_name("COMMAND")
      ->expected(1)
      ->take_all();
  add_number(*session, "--thread", options.debug.thread, "THREAD", "Begin with this thread");
  session->final_callback([&] {
    options.debug.json = options.json;
    debug_session(choose_machine(options.process).address, options.words, options.debug);
  });
  auto* const gdb = app.add_subcommand(
      "gdb", "gdb's remote protocol, on standard input and output or at an address");
  gdb->add_option("ADDRESS", options.address,
                  "HOST:PORT, :PORT of this machine alone, or the path of a Unix socket, which has "
                  "a '/' in it, as ./gdb.sock");
  gdb->final_callback([&] { serve_gdb(options.process, options.address); });
}

void declare(CLI::App& app, Options& options, bool& wants_version) {
  app.footer(kFooter);
  app.set_help_flag("-h,--help", "Print this text and exit");
  app.set_help_all_flag("--help-all", "... and that of every command");
  app.add_flag("--version", wants_version, "Print the version and exit");
  app.add_option("-p,--program", options.process, "The program: a process id, or a name")
      ->type_name("PROGRAM")
      ->check([](const std::string& text) {
        return std::string(text.empty() ? "an empty name names no program" : "");
      });
  app.add_flag("--json", options.json, "Print JSON");
  app.fallthrough();
  app.require_subcommand(0, 1);
  declare_looking(app, options);
  declare_counting(app, options);
  declare_trace(app, options);
  declare_stopping(app, options);
  declare_sessions(app, options);
}

// The word that stands where a command should; empty: it is something else that is wrong.
std::string unknown_command(const CLI::App& app) {
  const std::vector<std::string> words = app.remaining();
  const bool is_command = app.get_subcommands().empty() && !words.empty() && words[0][0] != '-';
  return is_command ? words[0] : "";
}

void parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    const std::string command = unknown_command(app);
    if (command.empty()) throw;
    throw UsageError(
        fmt::format("there is no command '{}'; 'dbos-dbg --help' lists them", command));
  }
}

int run(int argc, char** argv) {
  CLI::App app(kDescription, "dbos-dbg");
  Options options;
  bool wants_version = false;
  declare(app, options, wants_version);
  try {
    parse(app, argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    throw UsageError(
        fmt::format("{}; 'dbos-dbg --help' says how to write it", std::string(error.what())));
  }
  if (wants_version) {
    fmt::print("dbos-dbg {}\n", DBOS_VERSION);
  } else if (app.get_subcommands().empty()) {
    throw UsageError("name a command; 'dbos-dbg --help' lists them");
  }
  return 0;
}

}  // namespace
}  // namespace dbos::dbg

int main(int argc, char** argv) {
  // libdwfl would ask servers for debug information, for minutes, while the program is stopped.
  unsetenv("DEBUGINFOD_URLS");
  try {
    const int status = dbos::dbg::run(argc, argv);
    dbos::finish_output();
    return status;
  } catch (const dbos::dbg::UsageError& error) {
    fmt::print(stderr, "dbos-dbg: {}\n", error.what());
    return dbos::dbg::kUsage;
  } catch (const std::exception& error) {
    fmt::print(stderr, "dbos-dbg: {}\n", error.what());
    return dbos::dbg::kFailed;
  }
}
