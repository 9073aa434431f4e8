// What Linux says a descriptor is open on. Looked up in a folder that is kept open: the program's
// root directory, in which the threads of its calls look paths up, may hold a /proc of its own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dbos::vmm {

// Opens /proc for what follows; without it, or without a /proc, all fails. Once, before the program
// runs.
void keep_proc_folder();

// Opens the file behind the descriptor once more. The new descriptor or -errno.
int64_t open_again(int descriptor, uint64_t flags);

// As much of the link in /proc/thread-self/fd as there is room for, with a 0 at its end. False: it
// can't be read.
bool read_descriptor_link(int descriptor, char* target, size_t size);

template <size_t kSize>
bool read_descriptor_link(int descriptor, char (&target)[kSize]) {
  return read_descriptor_link(descriptor, target, kSize);
}

}  // namespace dbos::vmm
