// What a vCPU's exits to the VMM were, and how long they took here.
#pragma once

#include <cstdint>

#include "hypercall/observe.h"

namespace dbos::vmm {

enum class ExitKind : uint32_t {
  kSystemCall,   // one or more calls for Linux
  kPark,         // a thread sleeps (Service::kPark)
  kService,      // any other service of the VMM
  kInterrupted,  // a signal ended the run
  kLostPage,     // a page of a file mapping is no more
  kOther,
  kCount,
};
inline constexpr uint32_t kExitKindCount = static_cast<uint32_t>(ExitKind::kCount);
inline constexpr const char* kExitKindNames[kExitKindCount] = {
    "system_call", "park", "service", "interrupted", "lost_page", "other"};

// Written by the thread that runs the vCPU alone; a reader sees each number as of a moment ago.
struct ExitStatistics {
  uint64_t exits[kExitKindCount];
  LatencyHistogram handling[kExitKindCount];  // from the exit to the next entry
  uint64_t system_calls;                      // calls of all exits
  uint64_t services[kServiceCount];
  uint32_t until_sample;
};

}  // namespace dbos::vmm
