#include "tools/dbos-dbg/trace.h"

#include <fmt/core.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "tools/dbos-dbg/table.h"

namespace dbos::dbg {
namespace {

volatile std::sig_atomic_t is_stopped = 0;

void stop(int) {
  is_stopped = 1;
}

// Without SA_RESTART: a signal ends the wait for the next line.
void stop_on_signals(double seconds) {
  struct sigaction action = {};
  action.sa_handler = stop;
  for (const int signal : {SIGINT, SIGTERM, SIGALRM}) sigaction(signal, &action, nullptr);
  if (seconds <= 0) return;
  // A timer of nothing would be none.
  const auto time_us = std::max<int64_t>(1, static_cast<int64_t>(seconds * 1e6));
  itimerval timer = {};
  timer.it_value.tv_sec = time_us / 1'000'000;
  timer.it_value.tv_usec = time_us % 1'000'000;
  setitimer(ITIMER_REAL, &timer, nullptr);
}

Json arguments_of(const TraceOptions& options) {
  Json arguments = {{"in_guest", options.in_guest}};
  if (!options.calls.empty()) arguments["calls"] = options.calls;
  if (options.process != 0) arguments["process"] = options.process;
  if (options.thread != 0) arguments["thread"] = options.thread;
  if (options.space != 0) arguments["space"] = options.space;
  return arguments;
}

std::string time_text(uint64_t time_ns) {
  const auto seconds = static_cast<time_t>(time_ns / 1'000'000'000);
  tm parts = {};
  localtime_r(&seconds, &parts);
  return fmt::format("{:02}:{:02}:{:02}.{:06} ", parts.tm_hour, parts.tm_min, parts.tm_sec,
                     time_ns / 1000 % 1'000'000);
}

void print_event(const Json& event, const TraceOptions& options) {
  if (options.json) {
    fmt::print("{}\n", event.dump());
    return;
  }
  if (event["event"] == "lost") {
    fmt::print("{}\n", red(fmt::format("... {} lost ...", event["count"].get<uint64_t>())));
    return;
  }
  const auto text = event["text"].get<std::string>();
  const bool has_failed = event["event"] == "fault" || event["result"].get<int64_t>() < 0;
  fmt::print("{}{}\n", options.shows_time ? time_text(event["time_ns"].get<uint64_t>()) : "",
             has_failed ? red(text) : text);
}

}  // namespace

void trace(Connection& connection, const TraceOptions& options) {
  connection.ask("trace", arguments_of(options));
  stop_on_signals(options.seconds);
  uint64_t seen = 0;
  uint64_t lost = 0;
  bool has_ended = false;
  while (is_stopped == 0 && (options.count == 0 || seen < options.count)) {
    const auto event = connection.receive(Connection::Wait::kForATurn);
    if (!event && !connection.has_ended()) continue;
    if (!event) {
      has_ended = true;
      break;
    }
    if (!event->contains("event")) continue;
    if ((*event)["event"] == "lost") {
      lost += (*event)["count"].get<uint64_t>();
    } else {
      ++seen;
    }
    print_event(*event, options);
    std::fflush(stdout);
    if (std::ferror(stdout) != 0) throw Failure("can't write the trace");
  }
  fmt::print(stderr, "dbos-dbg: {} calls, {} lost{}\n", seen, lost,
             has_ended ? "; the program has ended" : "");
}

}  // namespace dbos::dbg
