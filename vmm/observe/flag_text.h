// Flags and constants of Linux by their names.
#pragma once

#include <cstdint>

#include "hypercall/syscall_kinds.h"
#include "vmm/observe/text.h"

namespace dbos::vmm {

// A value in the words of its format; false: the format has no names of its own.
bool put_named(Text& text, syscalls::Format format, uint64_t value);

// "SIGTERM"; the number where it has no name.
void put_signal(Text& text, uint64_t signal);

// "AF_INET"; the number where it has no name.
void put_family(Text& text, uint64_t family);

}  // namespace dbos::vmm
