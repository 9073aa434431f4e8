// What the marshaller needs of the program's memory beyond user_copy.h. marshal_memory.cpp binds it
// to the address space and the frame allocator, the unit tests to memory of their own.
#pragma once

#include "guest/lib/result.h"
#include "guest/lib/types.h"

namespace dbos::marshal_memory {

enum class HostAccess : u8 { kRead, kWrite };

struct Segment {
  PhysicalAddress address;
  u64 size;
};

struct Segments {
  u32 count;
  u64 bytes;  // fewer than asked for: no room for more segments, or no access to the next byte
  bool is_fault;
  bool is_exhausted;  // no memory was left for the next byte
};

// Makes program memory present, and privately writable for kWrite, and keeps it as it is until
// release(): the frames stay the program's while Linux uses them. Neighbouring frames are merged.
Segments resolve(VirtualAddress address, u64 size, HostAccess access, Segment* segments,
                 u32 capacity);

// Lets go of everything that resolve() holds for this vCPU.
void release();

// Whether the program may write all of these bytes. Changes none.
bool is_writable(VirtualAddress address, u64 size);

// As Linux does it to who needs memory when there is none. It may come back: the caller goes on.
void kill_for_memory();

// Physically contiguous memory of the kernel, not cleared.
Result<PhysicalAddress> allocate_contiguous(u64 bytes);
void free_contiguous(PhysicalAddress address, u64 bytes);

// Lets the program's signals wait, and come again.
void hold_signals();
void release_signals();

}  // namespace dbos::marshal_memory
