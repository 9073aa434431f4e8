// An ELF core of the program, as Linux would dump it, so that gdb opens it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "hypercall/debug.h"
#include "vmm/debug/registers.h"

namespace dbos::vmm {

struct CoreThread {
  uint32_t thread_id;
  Registers registers;
};

struct CoreProgram {
  uint32_t process_id;
  int signal;                       // that it died by; 0: none
  std::string path;                 // of the program's file
  uint64_t extended_features;       // XCR0
  std::vector<CoreThread> threads;  // the first one is the one that matters
  std::vector<DebugMapping> mappings;
  std::vector<uint8_t> auxiliary_vector;
};

// Reads one page of a mapping. 0: it is read; otherwise so many bytes, whole pages, are not there
// from `address` on: they read as zeros.
using CoreReader = std::function<uint64_t(const DebugMapping& mapping, uint64_t address,
                                          void* destination, size_t size)>;

// Writes the core to an open, empty file, from its start; pages that are not there become holes.
// Shared mappings are listed without their contents. Result: empty, or what failed.
std::string write_core(int descriptor, const CoreProgram& program, const CoreReader& read);

// A file that a core may be written to: a new one, for its owner's eyes alone, or one that is there
// already, if it is a regular one of this user's that has no other name.
struct CoreFile {
  int descriptor = -1;
  bool is_new = false;
  std::string error;  // why there is none
};
CoreFile open_core_file(const std::string& path);

}  // namespace dbos::vmm
