// Lines for the person who started dbos-run, on standard error, each written by one write(2).
// spdlog filters and passes them on, to a sink of ours: without a lock, so that a process killed in
// the middle leaves none behind, and without its registry, patterns and threads.
#pragma once

#include <fmt/core.h>

#include <atomic>
#include <string_view>

namespace dbos::vmm {

// From the gravest: a level shows itself and those before it.
enum class LogLevel { kError, kWarning, kInfo, kDebug };

void set_log_level(LogLevel level);  // kWarning without
bool is_logged(LogLevel level);

// "dbos-run: TEXT\n", if the level is logged. What a terminal would obey becomes '?'.
void write_log_line(LogLevel level, std::string_view text);
// What the user asked for by an option of its own, such as --trace: whatever the level is.
void write_log_line(std::string_view text);

// The same, formatted. A line of up to 500 bytes allocates nothing.
void write_formatted_line(LogLevel level, fmt::string_view format, fmt::format_args values);
template <typename... Values>
void log_line(LogLevel level, fmt::format_string<Values...> format, Values&&... values) {
  write_formatted_line(level, format, fmt::make_format_args(values...));
}

// ... and once in all for each flag, which is false at first: who asks again and again does not say
// so each time.
template <typename... Values>
void log_once(std::atomic<bool>& is_told, LogLevel level, fmt::format_string<Values...> format,
              Values&&... values) {
  if (!is_told.exchange(true))
    write_formatted_line(level, format, fmt::make_format_args(values...));
}

// Writes the text unchanged, at every log level. Async-signal-safe; raises no signal.
void write_to_log(std::string_view text);

// Lines go to standard error, or to a private copy of it once that has been made: the program may
// close its own. Before anything is opened, which might get its number if it is closed.
void keep_log_descriptor();
// In a child of the process that keeps it, before it runs: who reads standard error up to its end
// waits for the program's own descriptors alone. The child's lines go to its standard error while
// that is what it was.
void give_up_log_descriptor();

}  // namespace dbos::vmm
