// Lines for the person who started dbos-run, on standard error, each written by one write(2): no
// lock, so that a process killed in the middle leaves none behind.
#pragma once

#include <string_view>

namespace dbos::vmm {

// "dbos-run: TEXT\n".
void write_log_line(std::string_view text);

// The descriptor that lines go to: standard error, or a private copy of it once that has been made
// (the program may close its own).
void keep_log_descriptor();

}  // namespace dbos::vmm
