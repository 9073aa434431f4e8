// The helper: a vCPU that runs no program, and does with the first process's memory what its
// threads should not wait for. With ready copies (--snapshot=ready) it makes them and keeps them in
// step; when a snapshot has ended it puts the 2 MiB pages together again that were split because of
// it. With ready copies it runs from the start, else from the first fork on.
#pragma once

#include "guest/process/process.h"
#include "hypercall/abi.h"

namespace dbos {

inline constexpr u64 kHelperStart = 1;  // its start argument: no address of anything

// At boot: asks the VMM for the helper, which will work on the address space of `first`.
void prepare_helper(Process& first, const BootInformation& boot);

// The helper's entry.
[[noreturn]] void run_helper();

enum class HelperWork : u8 { kSnapshotTaken, kSnapshotEnded };

// Without locks: there is something to do. An exit where the helper sleeps.
void wake_helper(HelperWork work);

// The first process is about to be released: a helper that begins later finds nothing to do.
void leave_helper(Process& first);

}  // namespace dbos
