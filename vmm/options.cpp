#include "vmm/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <sstream>
#include <string_view>

#include "vmm/size_text.h"

namespace dbos::vmm {
namespace {

constexpr const char* kDescription =
    "Runs a Linux x86-64 program, as it is, in a small virtual machine of its own: the program "
    "owns\n"
    "its page tables, so what its fork() costs does not grow with its memory. Everything else is\n"
    "the host's: files, sockets, users, process ids and signals are those that the program has\n"
    "without dbos-run, and its exit status is passed on.\n";

constexpr const char* kFooter =
    R"(PROGRAM is looked for in PATH. All that follows it belongs to the program; '--' before it ends the
options. A SIZE is a number of bytes with K, M, G or T (powers of 1024), or a percentage. The pages
in docs/ are in the source tree, and installed below share/doc/dbos/.

Examples:
  dbos-run /bin/echo hello
  dbos-run redis-server --port 6379 --save 60 1000
      Redis: a save takes a snapshot of its memory without copying its page tables.
  dbos-run --memory 16G --prefault 4G redis-server redis.conf --daemonize no
      up to 16 GiB of memory, 4 GiB of it taken from Linux before the program starts.
  dbos-run --snapshot=ready redis-server redis.conf --daemonize no
      page tables for the next save are made ahead, in the background.
  dbos-run --stats=run.json --env LANG=C -- ./my-program -v
  dbos-run --trace ./my-program 2> trace.txt
  dbos-run --gdb :1234 ./my-program
      and elsewhere: gdb -ex 'target remote :1234'
  dbos-run --kernel my-runtime.elf input.txt
      boots another guest kernel; docs/hypercall-abi.md says how to write one.
  dbos-run --metrics 9180 redis-server
      and 'dbos-dbg ls' finds it, 'dbos-dbg trace' shows its system calls live.
  dbos-run --ring-check

dbos-run needs read and write access to /dev/kvm, on a processor with Intel VT-x or AMD SVM. Where
there is none (a container, a cloud machine without nested virtualization), dbos-vm starts an
emulated machine that has one, to try and test dbos-run in:
  dbos-vm run -- dbos-run /bin/echo hello

Exit status: the program's own (128 + N in a shell if signal N ended it), or
   70  the guest kernel found a bug of its own, or KVM could not go on
  125  dbos-run failed: wrong options, no usable KVM, not enough memory, output that is lost
  126  PROGRAM was found, but can't be run
  127  PROGRAM was not found)";

constexpr size_t kHelpWidth = 100;
constexpr size_t kHelpColumn = 28;

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* /*app*/, std::string /*name*/) const override {
    return "Usage: dbos-run [OPTION]... [--] PROGRAM [ARGUMENT]...\n"
           "       dbos-run [OPTION]... --kernel FILE [--] [ARGUMENT]...\n"
           "       dbos-run --ring-check | --version | --help\n";
  }
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    std::string name = CLI::Formatter::make_option_name(option, is_positional);
    // CLI11 shows the value that a flag has without '='.
    const size_t brace = name.find('{');
    if (brace != std::string::npos) name = name.substr(0, brace) + "[=FILE]";
    return name;
  }
  // CLI11 does not break lines.
  std::string make_option_desc(const CLI::Option* option) const override {
    std::istringstream words(option->get_description());
    std::string result;
    size_t column = 0;
    for (std::string word; words >> word; column += word.size()) {
      if (column + 1 + word.size() > kHelpWidth - kHelpColumn) {
        result += '\n';
        column = 0;
      } else if (column != 0) {
        result += ' ';
        ++column;
      }
      result += word;
    }
    return result;
  }
};

// What CLI11 stores, before it means anything.
struct RawOptions {
  std::string memory = std::to_string(kMemoryDefaultPercent) + "%";
  std::string prefault = "0";
  std::string statistics;
  std::string metrics;
  std::string clock = "auto";
  std::string snapshot = "shared";
  std::string cow_limit;
  std::string cow_policy = "throttle";
  std::string ready_copies = std::to_string(kReadyCopiesDefault);
  std::string log_level = "warning";
  bool no_large_pages = false;
  bool no_control = false;
  bool ring_check = false;
  bool version = false;
};

// What --stats without =FILE stands for: standard error.
constexpr const char* kNoFile = "-";

// These four in the order of --help.
void declare_program_options(CLI::App& app, RawOptions& raw, Options& options) {
  app.add_option("--memory", raw.memory,
                 "The most memory that the program gets; a percentage is of this machine's RAM, or "
                 "of its cgroup's limit where that is less (default 80%). Taken from Linux only as "
                 "it is used")
      ->type_name("SIZE");
  app.add_option("--prefault", raw.prefault,
                 "Take that much memory from Linux before the program starts; a percentage is of "
                 "--memory (default 0)")
      ->type_name("SIZE");
  app.add_option("--env", options.environment,
                 "Set a variable of the program's environment; may be repeated")
      ->option_text("NAME=VALUE")
      ->allow_extra_args(false);
}

void declare_debugging_options(CLI::App& app, RawOptions& raw, Options& options,
                               CLI::Option*& statistics) {
  app.add_flag("--trace", options.trace, "Print each system call of the program on standard error");
  statistics = app.add_flag("--stats{-}", raw.statistics,
                            "When the program ends, print counters as JSON: on standard error, or "
                            "to FILE with --stats=FILE. Not if a signal that dumps no core ends "
                            "it, or if it executes another program");
  app.add_option(
         "--gdb", options.gdb_address,
         "Stop before the program's first instruction and wait for gdb there ('target "
         "remote'): HOST:PORT, :PORT (on this machine only), or the path of a socket, which "
         "has a '/' in it, as ./gdb.sock")
      ->type_name("ADDRESS");
  app.add_flag(
      "--crash-report", options.crash_report,
      "When the program's first process dies by a signal that dumps core, say on standard error "
      "where, with its backtrace");
  app.add_option("--core", options.core_file,
                 "When it dies by such a signal, write a core for gdb to FILE, with or without "
                 "--crash-report")
      ->type_name("FILE");
  app.add_option("--metrics", raw.metrics,
                 "Serve counters and latencies in Prometheus's format at http://ADDRESS/metrics; "
                 "without a host only to this machine (docs/metrics.md)")
      ->type_name("[HOST:]PORT");
  app.add_flag("--no-control", raw.no_control,
               "No socket that dbos-dbg can attach to, and no thread that serves it");
}

void declare_snapshot_options(CLI::App& app, RawOptions& raw) {
  app.add_option("--snapshot", raw.snapshot,
                 "How fork() gets its page tables: 'shared' (default) with the parent, and each "
                 "side copies what it changes; 'ready' from complete copies that a helper makes "
                 "ahead, each 1/512 of the memory in use (docs/snapshots.md)")
      ->type_name("shared|ready");
  app.add_option("--ready-copies", raw.ready_copies,
                 "How many copies --snapshot=ready keeps, 1 to 8 (default 2)")
      ->type_name("N");
  app.add_option("--cow-limit", raw.cow_limit,
                 "How much memory may be kept for the children of fork() alone: old versions of "
                 "what the program has written since; a percentage is of --memory (default: no "
                 "limit)")
      ->type_name("SIZE");
  app.add_option("--cow-policy", raw.cow_policy,
                 "What happens beyond --cow-limit: 'throttle' (default) slows down the program's "
                 "writes to what a child still sees, the more the further beyond; 'kill-snapshot' "
                 "kills the child that keeps most")
      ->type_name("throttle|kill-snapshot");
}

void declare_machine_options(CLI::App& app, RawOptions& raw, Options& options) {
  app.add_flag("--no-large-pages", raw.no_large_pages,
               "Map memory in pages of 4 KiB only, never of 2 MiB");
  app.add_option("--clock", raw.clock,
                 "How the program reads the time: 'tsc' in the guest from the time stamp counter, "
                 "'host' by asking Linux each time, 'auto' (default) by the counter if Linux, the "
                 "processor or a test at the start says that it is steady")
      ->type_name("auto|tsc|host");
  app.add_option("--log-level", raw.log_level,
                 "What dbos-run says about itself on standard error (default warning)")
      ->type_name("error|warning|info|debug");
  app.add_option(
         "--kernel", options.kernel,
         "Boot this image in place of the built-in guest kernel; the image gets the remaining "
         "words as its arguments or, if it loads programs, runs them as PROGRAM")
      ->type_name("FILE");
  app.add_flag("--ring-check", raw.ring_check,
               "Say whether this machine's KVM runs ring 0 on the processor, and exit");
}

void declare_options(CLI::App& app, RawOptions& raw, Options& options, CLI::Option*& statistics) {
  app.formatter(std::make_shared<HelpFormatter>());
  app.get_formatter()->column_width(kHelpColumn);
  app.footer(kFooter);
  // The first word that is no option ends the parsing: the rest is the program's.
  app.prefix_command();
  app.set_help_flag("-h,--help", "Print this text and exit");
  app.add_flag("--version", raw.version, "Print the version and exit");
  declare_program_options(app, raw, options);
  declare_debugging_options(app, raw, options, statistics);
  declare_snapshot_options(app, raw);
  declare_machine_options(app, raw, options);
}

template <typename Value>
Value choose(const std::string& option, const std::string& name,
             const std::map<std::string, Value>& choices) {
  const auto found = choices.find(name);
  if (found != choices.end()) return found->second;
  std::string known;
  for (const auto& choice : choices) known += (known.empty() ? "" : ", ") + choice.first;
  throw OptionError(option + " takes no '" + name + "'; it is one of: " + known);
}

uint64_t size_option(const std::string& option, const std::string& text, uint64_t whole) {
  try {
    return align_down(parse_size(text, whole), kLargePageSize);
  } catch (const SizeError& error) {
    throw OptionError(option + ": " + error.what());
  }
}

uint64_t memory_size(const RawOptions& raw, uint64_t host_memory) {
  const uint64_t size = size_option("--memory", raw.memory, host_memory);
  if (size < kMemorySizeMin) {
    throw OptionError("--memory " + raw.memory + " is too little; give at least 64M");
  }
  if (size > kArenaSizeMax) {
    // A share of a very large machine is no mistake of the user's.
    if (raw.memory.back() == '%') return kArenaSizeMax;
    throw OptionError("--memory " + raw.memory + " is too much; dbos-run manages at most " +
                      std::to_string(kArenaSizeMax / kGiB) + "G");
  }
  return size;
}

// `words` begins with an option that CLI11 does not know, or with '--', or with the program.
std::vector<std::string> command_of(std::vector<std::string> words) {
  if (words.empty()) return words;
  const std::string& first = words.front();
  if (first == "--") {
    words.erase(words.begin());
  } else if (first.size() > 1 && first.front() == '-') {
    throw OptionError("unknown option '" + first +
                      "'; 'dbos-run --help' lists them, the program's own follow its name");
  }
  return words;
}

uint64_t prefault_size(const RawOptions& raw, uint64_t memory) {
  const uint64_t size = size_option("--prefault", raw.prefault, memory);
  if (size == 0 && parse_size(raw.prefault, memory) != 0) {
    throw OptionError("--prefault " + raw.prefault + " is too little; give 0, or at least 2M");
  }
  if (size > memory) {
    throw OptionError("--prefault " + raw.prefault +
                      " is more than --memory; give less, or more memory");
  }
  return size;
}

uint64_t cow_limit(const CLI::App& app, const RawOptions& raw, uint64_t memory) {
  if (app.count("--cow-limit") == 0) {
    if (app.count("--cow-policy") == 0) return 0;
    throw OptionError("--cow-policy needs --cow-limit");
  }
  const uint64_t limit = size_option("--cow-limit", raw.cow_limit, memory);
  if (limit == 0) {
    throw OptionError("--cow-limit " + raw.cow_limit + " is too little; give at least 2M");
  }
  if (limit > memory) {
    throw OptionError("--cow-limit " + raw.cow_limit +
                      " is more than --memory; give less, or more memory");
  }
  return limit;
}

uint32_t ready_copies(const CLI::App& app, const RawOptions& raw) {
  const bool is_ready =
      choose<bool>("--snapshot", raw.snapshot, {{"shared", false}, {"ready", true}});
  if (!is_ready && app.count("--ready-copies") != 0) {
    throw OptionError("--ready-copies needs --snapshot=ready");
  }
  const char* const end = raw.ready_copies.data() + raw.ready_copies.size();
  uint32_t copies = 0;
  const auto [rest, error] = std::from_chars(raw.ready_copies.data(), end, copies);
  if (error != std::errc() || rest != end || copies < 1 || copies > kReadyCopiesMax) {
    throw OptionError("--ready-copies " + raw.ready_copies + " is no number of copies; give 1 to " +
                      std::to_string(kReadyCopiesMax));
  }
  return is_ready ? copies : 0;
}

[[noreturn]] void refuse_empty(const std::string& option) {
  throw OptionError(option +
                    " is given an empty value; 'dbos-run --help' says which values it takes");
}

// Options whose value may be any text but none. `words`: the options, without what follows them.
void check_given_values(const CLI::App& app, const RawOptions& raw, const Options& options,
                        std::span<const std::string> words) {
  const std::pair<const char*, const std::string&> values[] = {{"--metrics", raw.metrics},
                                                               {"--gdb", options.gdb_address},
                                                               {"--core", options.core_file},
                                                               {"--kernel", options.kernel}};
  for (const auto& [name, value] : values) {
    if (app.count(name) != 0 && value.empty()) refuse_empty(name);
  }
  // CLI11 takes the next word for the value, or none.
  for (const std::string& word : words) {
    const bool is_empty = word.compare(0, 2, "--") == 0 && word.find('=') == word.size() - 1;
    if (is_empty) refuse_empty(word.substr(0, word.size() - 1));
  }
}

NetworkAddress metrics_address(const std::string& text) {
  try {
    NetworkAddress address = parse_network_address(text);
    if (is_ip_address(address.host)) return address;
    throw std::invalid_argument("has a HOST that is no IP address; write one, as 127.0.0.1:9100");
  } catch (const std::invalid_argument& error) {
    throw OptionError("--metrics " + text + " " + error.what());
  }
}

void check_environment(const std::vector<std::string>& variables) {
  for (const std::string& variable : variables) {
    const size_t equals = variable.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw OptionError("--env '" + variable + "' names no variable; write --env NAME=VALUE");
    }
  }
}

void interpret(const CLI::App& app, const RawOptions& raw, uint64_t host_memory, Options& options) {
  options.memory_size = memory_size(raw, host_memory);
  options.prefault_size = prefault_size(raw, options.memory_size);
  options.large_pages = !raw.no_large_pages;
  options.cow_limit = cow_limit(app, raw, options.memory_size);
  options.cow_kill =
      choose<bool>("--cow-policy", raw.cow_policy, {{"throttle", false}, {"kill-snapshot", true}});
  options.ready_copies = ready_copies(app, raw);
  options.control = !raw.no_control;
  if (!raw.metrics.empty()) options.metrics = metrics_address(raw.metrics);
  options.clock = choose<ClockSource>("--clock", raw.clock,
                                      {{"auto", ClockSource::kAutomatic},
                                       {"tsc", ClockSource::kTsc},
                                       {"host", ClockSource::kHost}});
  options.log_level = choose<LogLevel>("--log-level", raw.log_level,
                                       {{"error", LogLevel::kError},
                                        {"warning", LogLevel::kWarning},
                                        {"info", LogLevel::kInfo},
                                        {"debug", LogLevel::kDebug}});
  check_environment(options.environment);
  const bool debugs = options.wants_gdb() || options.wants_crash_report();
  if (debugs && !options.kernel.empty()) {
    throw OptionError(
        "--gdb, --crash-report and --core need the built-in guest kernel: leave out --kernel");
  }
}

}  // namespace

Options parse_options(std::span<const std::string> arguments, uint64_t host_memory) {
  Options options;
  RawOptions raw;
  CLI::App app(kDescription, "dbos-run");
  CLI::Option* statistics = nullptr;
  declare_options(app, raw, options, statistics);
  try {
    // CLI11 takes the last argument first.
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::CallForHelp&) {
    options.action = Action::kPrint;
    options.text = app.help();
    return options;
  } catch (const CLI::ArgumentMismatch& error) {
    // It says "--memory: 1 required SIZE missing", and "At most 1 required" of one given twice.
    const std::string what = error.what();
    const std::string name = what.substr(0, what.find(':'));
    const bool twice = what.find("At Most") != std::string::npos;
    throw OptionError(name + (twice ? " is given more than once; give it once"
                                    : " needs a value; 'dbos-run --help' says which"));
  } catch (const CLI::ConversionError& error) {
    // "Could not convert: --trace = maybe": only flags are anything but text to CLI11.
    throw OptionError("this option takes no value (" + std::string(error.what()) +
                      "); write it alone");
  } catch (const CLI::ParseError& error) {
    throw OptionError(std::string(error.what()) + "; 'dbos-run --help' says how to write it");
  }
  options.command = command_of(app.remaining());
  if (raw.version) {
    options.action = Action::kPrint;
    options.text = "dbos-run " DBOS_VERSION "\n";
    return options;
  }
  const size_t option_count = arguments.size() - app.remaining().size();
  check_given_values(app, raw, options, arguments.subspan(0, option_count));
  interpret(app, raw, host_memory, options);
  // CLI11 takes the last one of a flag.
  if (statistics->count() > 1) throw OptionError("--stats is given more than once; give it once");
  options.statistics = statistics->count() != 0;
  if (options.statistics && raw.statistics != kNoFile) options.statistics_file = raw.statistics;
  if (raw.ring_check) {
    options.action = Action::kRingCheck;
    if (!options.command.empty()) {
      throw OptionError("--ring-check runs no program; leave out '" + options.command[0] + "'");
    }
    if (!options.kernel.empty()) {
      throw OptionError("--ring-check boots no guest kernel; leave out --kernel");
    }
  } else if (options.command.empty() && options.kernel.empty()) {
    throw OptionError("name the program to run: dbos-run PROGRAM [ARGUMENT]...; see --help");
  }
  return options;
}

std::vector<std::string> merge_environment(const char* const* inherited,
                                           std::span<const std::string> changes) {
  std::vector<std::string> result;
  for (; *inherited != nullptr; ++inherited) result.emplace_back(*inherited);
  for (const std::string& change : changes) {
    const std::string_view name(change.data(), change.find('=') + 1);  // with the '='
    const auto place = std::find_if(result.begin(), result.end(), [&](const std::string& variable) {
      return variable.compare(0, name.size(), name) == 0;
    });
    if (place != result.end()) {
      *place = change;
    } else {
      result.push_back(change);
    }
  }
  return result;
}

}  // namespace dbos::vmm
