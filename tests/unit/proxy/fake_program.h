// A program's memory for the proxy's tests: pages of virtual addresses on frames that lie in any
// order in a real mapping at the arena's address. The guest's marshaller and the VMM's executor run
// over it in one process, so every call is Linux's own.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "guest/syscalls/proxy.h"
#include "vmm/host/descriptor_guard.h"
#include "vmm/proxy/execute.h"

namespace dbos::test {

enum class Layout { kContiguous, kScattered };
enum class Rights { kReadWrite, kReadOnly };

class FakeProgram {
 public:
  FakeProgram();

  // Fresh pages, filled with 0xee, with unmapped pages around them. Returns their address.
  uint64_t map(uint64_t pages, Layout layout = Layout::kScattered,
               Rights rights = Rights::kReadWrite);

  // An address for `bytes` bytes that lie across the end of a page.
  uint64_t across_pages(uint64_t bytes);

  // nullptr: not mapped (or, for writing, read-only).
  uint8_t* at(uint64_t address, bool write) const;
  bool read(void* destination, uint64_t address, uint64_t size) const;
  bool write(uint64_t address, const void* source, uint64_t size) const;
  std::string text(uint64_t address, uint64_t size) const;

  template <typename T>
  uint64_t put(const T& value) {
    const uint64_t address = across_pages(sizeof(T));
    write(address, &value, sizeof value);
    return address;
  }
  template <typename T>
  T get(uint64_t address) const {
    T value;
    std::memset(static_cast<void*>(&value), 0, sizeof value);
    read(&value, address, sizeof value);
    return value;
  }
  uint64_t put_text(const std::string& text);

  vmm::GuestMemory memory;
  vmm::DescriptorGuard& guard = vmm::own_descriptors();
  std::vector<uint32_t> host_calls;  // numbers, in order
  std::string log;
  uint64_t resolved_bytes = 0;
  uint64_t resolved_bytes_max = UINT64_MAX;  // no memory is left for more
  uint32_t kills_for_memory = 0;
  uint32_t contiguous_allocations = 0;
  uint32_t contiguous_frees = 0;

  uint64_t take_frames(uint64_t count);  // contiguous; their address

 private:
  struct Page {
    uint64_t frame;
    bool writable;
  };
  std::map<uint64_t, Page> pages_;
  uint64_t next_address_ = 0x10000000;
  uint64_t next_frame_ = 0;
  uint64_t next_scattered_ = 0;
};

// The one program; frames are never given back.
FakeProgram& program();

// A system call of the program.
int64_t call(long number, uint64_t a0 = 0, uint64_t a1 = 0, uint64_t a2 = 0, uint64_t a3 = 0,
             uint64_t a4 = 0, uint64_t a5 = 0);

}  // namespace dbos::test
