// What dbos-run says about itself, by level.
#include "vmm/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <string>

#include "vmm/printable.h"

namespace dbos::vmm {
namespace {

// What `write` puts on standard error.
template <typename Write>
std::string written_by(Write write) {
  int ends[2];
  REQUIRE(pipe2(ends, O_NONBLOCK) == 0);
  const int saved = dup(STDERR_FILENO);
  dup2(ends[1], STDERR_FILENO);
  write();
  dup2(saved, STDERR_FILENO);
  std::string text(4096, '\0');
  const ssize_t size = read(ends[0], text.data(), text.size());
  text.resize(size < 0 ? 0 : static_cast<size_t>(size));
  for (const int descriptor : {ends[0], ends[1], saved}) close(descriptor);
  return text;
}

std::string written_at(LogLevel level) {
  set_log_level(level);
  std::string text = written_by([] {
    log_line(LogLevel::kError, "{}", 1);
    log_line(LogLevel::kWarning, "{}", 2);
    log_line(LogLevel::kInfo, "{}", 3);
    log_line(LogLevel::kDebug, "{}", 4);
    write_log_line("asked for");
  });
  set_log_level(LogLevel::kWarning);
  return text;
}

TEST_CASE("a level of the log shows itself and what is graver") {
  const std::string asked_for = "dbos-run: asked for\n";
  std::string lines = "dbos-run: 1\n";
  CHECK(written_at(LogLevel::kError) == lines + asked_for);
  lines += "dbos-run: 2\n";
  CHECK(written_at(LogLevel::kWarning) == lines + asked_for);
  lines += "dbos-run: 3\n";
  CHECK(written_at(LogLevel::kInfo) == lines + asked_for);
  lines += "dbos-run: 4\n";
  CHECK(written_at(LogLevel::kDebug) == lines + asked_for);
}

TEST_CASE("a line of the log holds nothing that a terminal obeys, nor another line") {
  const std::string line = written_by(
      [] { write_log_line("\033[2J\ndbos-run: forged\x7f\u009b \xc2\xa0\u00e4 \xff \xc3"); });
  CHECK(line == "dbos-run: ?[2J?dbos-run: forged??? \u00a0\u00e4 ? ?\n");
}

TEST_CASE("what is printable is UTF-8 without controls") {
  CHECK(printable("a \u00e9\u20ac\U0001f600~") == "a \u00e9\u20ac\U0001f600~");
  CHECK(printable("\u0080\u009f\u00a0") == "????\u00a0");
  CHECK(printable("\xe0\x82\x9b|\xf0\x80\x82\x9b") == "???|????");  // CSI, written too long
  CHECK(printable("\x9b\xf5\x80\xe2\x82") == "?????");
  CHECK(printable(std::string("\0\t\r", 3)) == "???");
}

TEST_CASE("a line of the log that is too long is cut, and no format is read into its text") {
  CHECK(written_by([] { write_log_line(LogLevel::kError, "{} %s {"); }) == "dbos-run: {} %s {\n");
  const std::string line =
      written_by([] { log_line(LogLevel::kError, "{}", std::string(3000, 'x')); });
  CHECK(line.size() == 1200);
  CHECK(line.back() == '\n');
}

sigset_t pending() {
  sigset_t set;
  sigpending(&set);
  return set;
}

TEST_CASE("a line of the log that nobody can read raises no signal of the program's") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  close(ends[0]);
  const int saved = dup(STDERR_FILENO);
  dup2(ends[1], STDERR_FILENO);
  static volatile sig_atomic_t raised;
  raised = 0;
  const auto before = signal(SIGPIPE, [](int) { raised = raised + 1; });
  write_log_line(LogLevel::kError, "to nobody");
  CHECK(raised == 0);
  const sigset_t left = pending();
  CHECK(sigismember(&left, SIGPIPE) == 0);
  // One that waited before goes on waiting.
  sigset_t pipe_signal;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  sigprocmask(SIG_BLOCK, &pipe_signal, nullptr);
  raise(SIGPIPE);
  write_log_line(LogLevel::kError, "to nobody");
  const sigset_t kept = pending();
  CHECK(sigismember(&kept, SIGPIPE) == 1);
  sigprocmask(SIG_UNBLOCK, &pipe_signal, nullptr);
  CHECK(raised == 1);
  signal(SIGPIPE, before);
  dup2(saved, STDERR_FILENO);
  close(saved);
  close(ends[1]);
}

}  // namespace
}  // namespace dbos::vmm
