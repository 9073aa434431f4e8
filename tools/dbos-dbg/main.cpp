// dbos-dbg: looks into programs that run under dbos-run.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <exception>
#include <string>
#include <thread>

#include "tools/dbos-dbg/connection.h"
#include "tools/dbos-dbg/machines.h"
#include "tools/dbos-dbg/show.h"
#include "tools/dbos-dbg/table.h"
#include "tools/dbos-dbg/trace.h"

namespace dbos::dbg {
namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

constexpr const char* kDescription =
    R"(Looks into a program that runs under dbos-run, without stopping or slowing it: what its processes
do, its memory, page tables and snapshots, and what its system calls and exits cost. It attaches to
programs of the same user; root attaches to all.)";

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

Exit status: 0, 1 where there is nothing to attach to or the program has ended, 2 for wrong options.)";

struct Options {
  std::string process;
  std::string space;
  std::string address;
  std::string interval;
  std::string trace_process;
  TraceOptions trace;
  bool json = false;
};

uint64_t parse_number(const std::string& text, const char* what) {
  try {
    size_t end = 0;
    const uint64_t value = std::stoull(text, &end, 0);
    if (end == text.size() && text.front() != '-') return value;
  } catch (const std::exception&) {
  }
  throw Failure(
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
    if (is_known && value > 0 && value * scale <= 86400) return value * scale;
  } catch (const std::exception&) {
  }
  throw Failure(fmt::format("'{}' is no interval; write 5s, 500ms or 2m", text));
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
  return Connection(choose_machine(options.process).socket);
}

using Text = std::string (*)(const Json&);

void show(const Options& options, const char* command, const Json& arguments, Text text) {
  const Json result = attach(options).ask(command, arguments);
  print(options, result, text(result));
}

// Since the start, or over an interval in which everything is timed.
void show_counts(const Options& options, const char* command,
                 std::string (*text)(const Json&, double)) {
  Connection connection(choose_machine(options.process).socket);
  if (options.interval.empty()) {
    const Json result = connection.ask(command);
    print(options, result, text(result, 0));
    return;
  }
  const double seconds = parse_interval(options.interval);
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
  Connection connection(choose_machine(options.process).socket);
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
  command->add_option("--process", trace.process, "Only of this process")->type_name("PROCESS");
  command->add_option("--thread", trace.thread, "Only of this thread")->type_name("THREAD");
  declare_space(*command, options);
  command->add_flag("-t,--time", trace.shows_time, "Begin each line with the time of day");
  command->add_option("--count", trace.count, "End after so many calls")->type_name("N");
  command->add_option("--seconds", trace.seconds, "End after that long")->type_name("S");
  command->final_callback([&] { run_trace(options); });
}

void declare(CLI::App& app, Options& options, bool& wants_version) {
  app.footer(kFooter);
  app.set_help_flag("-h,--help", "Print this text and exit");
  app.set_help_all_flag("--help-all", "... and that of every command");
  app.add_flag("--version", wants_version, "Print the version and exit");
  app.add_option("-p,--program", options.process, "The program: a process id, or a name")
      ->type_name("PROGRAM");
  app.add_flag("--json", options.json, "Print JSON");
  app.fallthrough();
  app.require_subcommand(0, 1);
  declare_looking(app, options);
  declare_counting(app, options);
  declare_trace(app, options);
}

int run(int argc, char** argv) {
  CLI::App app(kDescription, "dbos-dbg");
  Options options;
  bool wants_version = false;
  declare(app, options, wants_version);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "dbos-dbg: {}; 'dbos-dbg --help' says how to write it\n", error.what());
    return kUsage;
  }
  if (wants_version) {
    fmt::print("dbos-dbg {}\n", DBOS_VERSION);
  } else if (app.get_subcommands().empty()) {
    fmt::print(stderr, "dbos-dbg: name a command; 'dbos-dbg --help' lists them\n");
    return kUsage;
  }
  return 0;
}

}  // namespace
}  // namespace dbos::dbg

int main(int argc, char** argv) {
  try {
    return dbos::dbg::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "dbos-dbg: {}\n", error.what());
    return dbos::dbg::kFailed;
  }
}
