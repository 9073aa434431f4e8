// The program's x87, SSE, AVX ... registers, which stay in the CPU while the kernel runs: the
// kernel itself is compiled without them.
//
// The layout in memory is Linux's in a signal frame: the XSAVE area in standard format, with 48
// bytes of software use at offset 464 that say how long it is, and a second magic number behind it.
#pragma once

#include "guest/lib/result.h"
#include "guest/lib/types.h"

namespace dbos {

inline constexpr u64 kExtendedStateAlignment = 64;
inline constexpr u64 kExtendedStateLegacySize = 512;  // FXSAVE's part
// AVX-512 with protection keys takes 2,696 bytes.
inline constexpr u64 kExtendedStateSizeMax = 4096;

struct alignas(kExtendedStateAlignment) ExtendedStateBuffer {
  u8 bytes[kExtendedStateSizeMax];
};

// Bytes of the area in a signal frame, with the second magic number.
u64 extended_state_frame_size();
bool has_xsave();

// Fills the first extended_state_frame_size() bytes of `buffer` from the registers.
void save_extended_state(ExtendedStateBuffer& buffer);

// How many bytes belong to the area whose first 512 bytes are in the buffer.
u64 extended_state_size_of(ExtendedStateBuffer& legacy_part);

// Loads the registers from an area of a signal frame that the program may have changed. False: the
// registers would not take it, and are as at the program's start.
bool restore_extended_state(ExtendedStateBuffer& buffer);

// What a signal handler starts with.
void reset_extended_state();

}  // namespace dbos
