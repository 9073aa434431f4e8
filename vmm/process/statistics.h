// --stats: what the machine did, as JSON, when the first process ends.
#pragma once

#include <string>

namespace dbos::vmm {

// Where the counters shall go: a file, or standard error when `file` is empty. Throws StartError if
// the file can't be written.
void enable_statistics(const std::string& file);

// In a child of the first process, which doesn't write them: as give_up_log_descriptor() (log.h).
void give_up_statistics();

// Writes the counters, if they were asked for. Called at the end of the first process. False: they
// could not be written, and the log says so.
bool write_statistics();

}  // namespace dbos::vmm
