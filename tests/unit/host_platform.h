// The platform of guest/platform.h on the host: an arena in this process, so that
// the kernel's portable code runs natively, under sanitizers, in tests and benchmarks.
#pragma once

#include <functional>

#include "guest/lib/types.h"

namespace dbos {
class AddressSpace;
}

namespace dbos::host {

// Reserves the arena and the window, and gives every thread vCPU 0 until it says otherwise.
// Memory beyond `arena_bytes` is refused.
void start(u64 arena_bytes);
void set_arena_limit(u64 arena_bytes);

// The vCPU that this thread is.
void set_vcpu(u32 vcpu);

// What platform::is_dying() answers to this thread.
extern thread_local bool is_dying;

// Called for platform::shootdown() and platform::flush_local().
extern std::function<void(AddressSpace&, VirtualRange)> on_shootdown;
extern std::function<void(VirtualAddress)> on_flush_local;
extern std::function<void(PhysicalAddress)> on_populate;

// Called when no frame is free, before more of the arena is given.
extern std::function<void()> on_arena_grow;

// Called for platform::make_room() and platform::limit_copies().
extern std::function<bool()> on_no_memory;
extern std::function<void(u64, u32)> on_copy_limit;

// Windows. Each is zero at first; populating beyond `file_length` fails with EFAULT.
PhysicalAddress make_window(u64 length, u64 file_length);
// Another one onto the same memory, from `address` in a window on.
PhysicalAddress duplicate_window(PhysicalAddress address, u64 length);
void cut_window(PhysicalAddress window, u64 file_length);
u64 open_windows();
bool is_window(PhysicalAddress address);
u64 populate_calls();

// Blocks that memory_release() gave back.
u64 released_bytes();
void fail_releases(bool on);

// Makes a failed assertion a C++ exception (std::runtime_error), or an abort again.
void throw_on_panic(bool on);

}  // namespace dbos::host
