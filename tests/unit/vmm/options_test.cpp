#include "vmm/options.h"

#include <catch2/catch.hpp>

#include "vmm/size_text.h"

namespace dbos::vmm::test {
namespace {

constexpr uint64_t kHostMemory = 10 * kGiB;
using Words = std::vector<std::string>;

Options parse(const Words& words, uint64_t host_memory = kHostMemory) {
  return parse_options(words, host_memory);
}

std::string option_refusal(const Words& words) {
  try {
    parse(words);
  } catch (const OptionError& error) {
    return error.what();
  }
  return "";
}

void require_refusal(const Words& words, std::initializer_list<const char*> parts) {
  const std::string message = option_refusal(words);
  for (const char* part : parts) REQUIRE_THAT(message, Catch::Contains(part));
  REQUIRE_THAT(message, !Catch::Contains("\n"));
}

}  // namespace

TEST_CASE("sizes have units of 1024") {
  REQUIRE(parse_size("0", 0) == 0);
  REQUIRE(parse_size("4096", 0) == 4096);
  REQUIRE(parse_size("7B", 0) == 7);
  REQUIRE(parse_size("3k", 0) == 3 * kKiB);
  REQUIRE(parse_size("3K", 0) == 3 * kKiB);
  REQUIRE(parse_size("3MiB", 0) == 3 * kMiB);
  REQUIRE(parse_size("3gib", 0) == 3 * kGiB);
  REQUIRE(parse_size("3T", 0) == 3 * kTiB);
  REQUIRE(parse_size("18446744073709551615", 0) == UINT64_MAX);
}

TEST_CASE("a percentage is one of the whole, without overflow") {
  REQUIRE(parse_size("50%", 1000) == 500);
  REQUIRE(parse_size("33%", 10) == 3);
  REQUIRE(parse_size("0%", 1000) == 0);
  REQUIRE(parse_size("100%", UINT64_MAX) == UINT64_MAX);
  REQUIRE_THROWS_WITH(parse_size("101%", 1), Catch::Contains("more than the whole"));
}

TEST_CASE("what is no size is refused") {
  for (const char* text : {"", "G", "-1", "+1", " 1", "x1", "0x", "%"}) {
    CAPTURE(text);
    REQUIRE_THROWS_AS(parse_size(text, 1), SizeError);
  }
  for (const char* text : {"1GB", "1 G", "1Gi", "1X", "1kk", "1%%", "1BB"}) {
    CAPTURE(text);
    REQUIRE_THROWS_WITH(parse_size(text, 1), Catch::Contains("unknown unit"));
  }
  REQUIRE_THROWS_WITH(parse_size("18446744073709551616", 1), Catch::Contains("too large"));
  REQUIRE_THROWS_WITH(parse_size("16777216T", 1), Catch::Contains("too large"));
}

TEST_CASE("all from the program's name on is the program's") {
  REQUIRE(parse({"redis-server"}).command == Words{"redis-server"});
  REQUIRE(parse({"db", "--trace", "--", "-h", "--help"}).command ==
          Words{"db", "--trace", "--", "-h", "--help"});
  REQUIRE_FALSE(parse({"db", "--trace"}).trace);
  REQUIRE(parse({"--trace", "--", "db", "--"}).command == Words{"db", "--"});
  REQUIRE(parse({"--trace", "--", "db", "--"}).trace);
  REQUIRE(parse({"db"}).control);
  REQUIRE_FALSE(parse({"db"}).metrics);
  REQUIRE_FALSE(parse({"--no-control", "db"}).control);
  REQUIRE(parse({"--metrics", "[::1]:9100", "db"}).metrics->host == "::1");
  REQUIRE(parse({"--", "--odd-name", "x"}).command == Words{"--odd-name", "x"});
  REQUIRE(parse({"db", "", "a b"}).command == Words{"db", "", "a b"});
}

TEST_CASE("without options there are defaults") {
  const Options options = parse({"db"});
  REQUIRE(options.action == Action::kRun);
  REQUIRE(options.memory_size == 8 * kGiB);
  REQUIRE(options.prefault_size == 0);
  REQUIRE(options.large_pages);
  REQUIRE_FALSE(options.statistics);
  REQUIRE(options.clock == ClockSource::kAutomatic);
  REQUIRE(options.log_level == LogLevel::kWarning);
}

TEST_CASE("memory is rounded to large pages and kept within the arena") {
  REQUIRE(parse({"--memory", "1G", "db"}).memory_size == kGiB);
  REQUIRE(parse({"--memory=4294967297", "db"}).memory_size == 4 * kGiB);
  REQUIRE(parse({"--memory", "25%", "db"}).memory_size == 2560 * kMiB);
  REQUIRE(parse({"db"}, 4 * kTiB).memory_size == kArenaSizeMax);
  REQUIRE(parse({"--memory", "768G", "db"}).memory_size == kArenaSizeMax);
  require_refusal({"--memory", "769G", "db"}, {"--memory 769G", "too much", "768G"});
  require_refusal({"--memory", "63M", "db"}, {"--memory 63M", "too little", "64M"});
  require_refusal({"--memory", "4GB", "db"}, {"--memory", "4GB", "unknown unit"});
  require_refusal({"--memory", "1.5G", "db"}, {"--memory", "1.5G", "no whole number"});
  require_refusal({"--memory", "1G", "--cow-limit", "2G", "db"}, {"--cow-limit 2G", "--memory"});
  require_refusal({"--memory"}, {"--memory", "needs a value"});
  require_refusal({"--memory", "1G", "--memory", "2G", "db"}, {"--memory", "more than once"});
}

TEST_CASE("prefault is a part of the memory") {
  REQUIRE(parse({"--memory", "4G", "--prefault", "50%", "db"}).prefault_size == 2 * kGiB);
  REQUIRE(parse({"--memory", "4G", "--prefault", "4G", "db"}).prefault_size == 4 * kGiB);
  require_refusal({"--memory", "4G", "--prefault", "5G", "db"}, {"--prefault 5G", "--memory"});
  require_refusal({"--memory", "4G", "--prefault", "1M", "db"}, {"--prefault 1M", "at least 2M"});
  REQUIRE(parse({"--memory", "4G", "--prefault", "0", "db"}).prefault_size == 0);
}

TEST_CASE("each --env sets one variable") {
  const Options options = parse({"--env", "A=1", "--env=B=x=y", "--env", "C=", "db", "D=4"});
  REQUIRE(options.environment == Words{"A=1", "B=x=y", "C="});
  REQUIRE(options.command == Words{"db", "D=4"});
  require_refusal({"--env", "A", "db"}, {"--env", "'A'", "NAME=VALUE"});
  require_refusal({"--env", "=1", "db"}, {"--env", "'=1'", "NAME=VALUE"});
}

TEST_CASE("--stats takes a file only behind an equals sign") {
  REQUIRE(parse({"--stats", "db"}).statistics);
  REQUIRE(parse({"--stats", "db"}).statistics_file.empty());
  REQUIRE(parse({"--stats", "db"}).command == Words{"db"});
  REQUIRE(parse({"--stats=-", "db"}).statistics_file.empty());
  REQUIRE(parse({"--stats=run.json", "db"}).statistics_file == "run.json");
  REQUIRE(parse({"--stats=run.json", "db"}).statistics);
  require_refusal({"--stats=a", "--stats=b", "db"}, {"--stats", "more than once"});
}

TEST_CASE("--cow-limit is a part of the memory, and --cow-policy goes with it") {
  REQUIRE(parse({"db"}).cow_limit == 0);
  REQUIRE(parse({"--memory", "4G", "--cow-limit", "25%", "db"}).cow_limit == kGiB);
  REQUIRE_FALSE(parse({"--cow-limit", "64M", "db"}).cow_kill);
  REQUIRE(parse({"--cow-limit=64M", "--cow-policy=kill-snapshot", "db"}).cow_kill);
  require_refusal({"--cow-limit", "1M", "db"}, {"--cow-limit 1M", "at least 2M"});
  require_refusal({"--cow-limit", "much", "db"}, {"--cow-limit", "much"});
  require_refusal({"--cow-policy", "throttle", "db"}, {"--cow-policy", "--cow-limit"});
  require_refusal({"--cow-limit", "1G", "--cow-policy", "stop", "db"},
                  {"--cow-policy", "'stop'", "kill-snapshot, throttle"});
}

TEST_CASE("--snapshot=ready keeps copies, and --ready-copies says how many") {
  REQUIRE(parse({"db"}).ready_copies == 0);
  REQUIRE(parse({"--snapshot=shared", "db"}).ready_copies == 0);
  REQUIRE(parse({"--snapshot=ready", "db"}).ready_copies == 2);
  REQUIRE(parse({"--snapshot", "ready", "--ready-copies", "8", "db"}).ready_copies == 8);
  require_refusal({"--snapshot", "fork", "db"}, {"--snapshot", "'fork'", "ready, shared"});
  require_refusal({"--ready-copies", "2", "db"}, {"--ready-copies", "--snapshot=ready"});
  for (const char* wrong : {"0", "9", "-1", "many", "2x", ""}) {
    require_refusal({"--snapshot=ready", "--ready-copies", wrong, "db"},
                    {"--ready-copies", wrong, "1 to 8"});
  }
}

TEST_CASE("the other options are as they are called") {
  REQUIRE_FALSE(parse({"--no-large-pages", "db"}).large_pages);
  REQUIRE(parse({"--clock", "tsc", "db"}).clock == ClockSource::kTsc);
  REQUIRE(parse({"--clock=host", "db"}).clock == ClockSource::kHost);
  REQUIRE(parse({"--clock=auto", "db"}).clock == ClockSource::kAutomatic);
  REQUIRE(parse({"--log-level", "debug", "db"}).log_level == LogLevel::kDebug);
  require_refusal({"--clock", "sun", "db"}, {"--clock", "'sun'", "auto, host, tsc"});
  require_refusal({"--log-level", "loud", "db"}, {"--log-level", "'loud'", "warning"});
  require_refusal({"--trace=maybe", "db"}, {"no value", "--trace"});
  require_refusal({"--metrics", "localhost", "db"}, {"--metrics localhost", "HOST"});
  require_refusal({"--metrics", "localhost:9100", "db"}, {"localhost:9100", "no IP address"});
}

TEST_CASE("an empty value is refused, not ignored") {
  for (const char* option : {"--stats", "--metrics", "--gdb", "--core", "--kernel"}) {
    require_refusal({std::string(option) + "=", "db"}, {option, "empty value"});
  }
  for (const char* option : {"--metrics", "--gdb", "--core", "--kernel"}) {
    require_refusal({option, "", "db"}, {option, "empty value"});
  }
  REQUIRE(parse({"--env=A=", "db", "--x="}).environment == Words{"A="});
}

TEST_CASE("an unknown option is refused, not run") {
  require_refusal({"--bogus", "db"}, {"unknown option '--bogus'", "--help"});
  require_refusal({"-x"}, {"unknown option '-x'"});
  require_refusal({"--bogus", "--", "db"}, {"unknown option '--bogus'"});
}

TEST_CASE("a program is asked for, except by the checks") {
  require_refusal({}, {"name the program"});
  require_refusal({"--trace"}, {"name the program"});
  require_refusal({"--"}, {"name the program"});
  REQUIRE(parse({"--ring-check"}).action == Action::kRingCheck);
  require_refusal({"--ring-check", "db"}, {"--ring-check", "'db'"});
  require_refusal({"--ring-check", "--kernel", "k"}, {"--ring-check", "--kernel"});
}

TEST_CASE("help and version are texts to print") {
  for (const Words& words : {Words{"--help"}, Words{"-h"}, Words{"--trace", "--help", "db"}}) {
    const Options options = parse(words);
    REQUIRE(options.action == Action::kPrint);
    for (const char* part : {"Usage: dbos-run", "--memory SIZE", "--stats[=FILE]", "redis-server",
                             "dbos-vm", "125", "126", "127"}) {
      REQUIRE_THAT(options.text, Catch::Contains(part));
    }
    REQUIRE_THAT(options.text, !Catch::Contains("{"));
  }
  REQUIRE(parse({"--version"}).action == Action::kPrint);
  REQUIRE_THAT(parse({"--version"}).text, Catch::StartsWith("dbos-run "));
  REQUIRE(parse({"db", "--version"}).action == Action::kRun);
}

TEST_CASE("no line of the help is wider than a terminal of 100 columns") {
  std::istringstream lines(parse({"--help"}).text);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 100);
}

TEST_CASE("--env replaces a variable in its place, or adds it at the end") {
  const char* const inherited[] = {"PATH=/bin", "AB=2", "A=1", nullptr};
  const Words changes = {"A=x", "NEW=y", "NEW=z"};
  REQUIRE(merge_environment(inherited, changes) == Words{"PATH=/bin", "AB=2", "A=x", "NEW=z"});
  const char* const nothing[] = {nullptr};
  REQUIRE(merge_environment(nothing, {}).empty());
}

TEST_CASE("another guest kernel takes what follows as its arguments") {
  const Options options = parse({"--kernel", "my.elf", "--", "-v", "file"});
  REQUIRE(options.action == Action::kRun);
  REQUIRE(options.kernel == "my.elf");
  REQUIRE(options.command == Words{"-v", "file"});
  REQUIRE(parse({"--kernel=my.elf"}).command.empty());
  REQUIRE(parse({"db", "--kernel", "my.elf"}).kernel.empty());
  require_refusal({"--kernel", "", "db"}, {"--kernel", "empty value"});
  require_refusal({"--kernel"}, {"--kernel", "value"});
}

}  // namespace dbos::vmm::test
