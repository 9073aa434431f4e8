// What the portable part of the guest kernel needs from below. guest/arch implements it in ring 0,
// tests/unit/host_platform.cpp on the host, where the same code is tested under sanitizers.
#pragma once

#include "guest/lib/result.h"
#include "guest/lib/types.h"
#include "hypercall/observe.h"

namespace dbos {
class AddressSpace;
}

namespace dbos::platform {

// The kernel's pointer to a byte of guest-physical memory.
void* direct_map(PhysicalAddress address);
PhysicalAddress physical_of(const void* direct_map_pointer);

// Adds arena chunk number `index` (kArenaBase + index * kArenaChunkSize) and returns how many bytes
// of it may be used; ENOMEM at the limit. Memory that is new reads as zero.
Result<u64> arena_grow(u64 index);

// Gives frames back to the host; they read as zero when next used. After an error they may hold
// what they held.
Result<void> memory_release(PhysicalAddress begin, u64 bytes);

// Forgets translations of `range` (or of everything, when it is large) on every vCPU that runs in
// this address space, this one included, and returns when none of them can use one any more.
// Called with the address space's lock held.
void shootdown(AddressSpace& space, VirtualRange range);

// Forgets the translation of one page on this vCPU only: enough where rights were added, because
// the others take a spurious fault at most.
void flush_local(VirtualAddress address);

// No frame was left. Without locks, by who needs one: makes memory free that is kept for snapshots
// only, if it may, and waits for it. Returns whether another try is worth it: more frames are free
// than `free_before`, or a snapshot has ended.
bool make_room(u64 free_before);

// Snapshots keep `kept` bytes, more than copy_limit(), and so many pages have just been copied
// for their sake. Without locks: slows the caller down, or ends a snapshot.
void limit_copies(u64 kept, u32 copied_pages);

// Host mappings of files and shared memory (Service::kWindowMap and so on). They may block, so no
// lock is held when they are called.
Result<PhysicalAddress> window_map(int descriptor, u64 offset, u64 length, int protection,
                                   int flags);
void window_unmap(PhysicalAddress begin, u64 length);
// Copies a page of a window to a frame. EFAULT: it is not there any more, because its file was cut.
// Leaves the guest for a page alone that Linux has dropped since it was mapped: KVM reads it again.
Result<void> copy_window_page(PhysicalAddress frame, PhysicalAddress window_page);
Result<void> window_populate(PhysicalAddress begin, u64 length, bool write);

// Waiting for another vCPU, for a lock or for its flush: one object a wait. Each turn takes what
// other vCPUs wait for; after 50 us of them the next one lets the host run something else.
struct Wait {
  void turn();
  u64 began_ticks = 0;  // turn()'s own: when the first one was, or the last sleep
};
// Between pieces of long work: takes what other vCPUs wait for, and never sleeps.
void pause();

// This vCPU's thread is dead, and another one runs it to release what it holds: long work ends.
bool is_dying();

// The vCPU that this code runs on, 0..kVcpuCountMax-1.
u32 current_vcpu();

// What this vCPU counts, for those who look from outside (hypercall/observe.h).
VcpuCounters& counters();

}  // namespace dbos::platform
