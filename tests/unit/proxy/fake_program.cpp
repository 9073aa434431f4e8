#include "tests/unit/proxy/fake_program.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/platform.h"
#include "guest/syscalls/marshal_memory.h"

namespace dbos::test {

namespace {

constexpr uint64_t kArenaSize = 256 * kMiB;
constexpr uint64_t kScatteredAt = 128 * kMiB;  // scattered frames come from the upper half

void map_at(uint64_t address, uint64_t size, int protection = PROT_READ | PROT_WRITE) {
  void* const wanted = reinterpret_cast<void*>(address);
  void* const got = mmap(wanted, size, protection,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (got != wanted) {
    std::perror("the test can't map the guest's memory");
    std::exit(1);
  }
}

}  // namespace

FakeProgram& program() {
  static FakeProgram the_program;
  return the_program;
}

FakeProgram::FakeProgram() {
  map_at(kVcpuRegionBase, kVcpuStride);
  map_at(kArenaBase, kArenaSize);
  memory.add(kVcpuRegionBase, kVcpuStride);
  memory.add(kArenaBase, kArenaSize);
  map_at(syscalls::kFaultHoleBase, syscalls::kFaultHoleSize, PROT_NONE);
}

uint64_t FakeProgram::take_frames(uint64_t count) {
  const uint64_t frame = next_frame_;
  next_frame_ += count;
  if (next_frame_ > kScatteredAt / kPageSize) std::abort();
  return kArenaBase + frame * kPageSize;
}

uint64_t FakeProgram::map(uint64_t pages, Layout layout, Rights rights) {
  const uint64_t address = next_address_;
  next_address_ += (pages + 16) * kPageSize;
  const uint64_t first = layout == Layout::kContiguous ? take_frames(pages) : 0;
  for (uint64_t i = 0; i < pages; i++) {
    uint64_t frame = first + i * kPageSize;
    if (layout == Layout::kScattered) {  // every second frame, downwards
      next_scattered_ += 2;
      if (next_scattered_ * kPageSize > kArenaSize - kScatteredAt) next_scattered_ = 2;
      frame = kArenaBase + kArenaSize - next_scattered_ * kPageSize;
    }
    std::memset(reinterpret_cast<void*>(frame), 0xee, kPageSize);
    pages_[address / kPageSize + i] = {frame, rights == Rights::kReadWrite};
  }
  return address;
}

uint64_t FakeProgram::across_pages(uint64_t bytes) {
  const uint64_t pages = bytes / kPageSize + 2;
  return map(pages) + kPageSize - std::min(bytes / 2, kPageSize / 2);
}

uint8_t* FakeProgram::at(uint64_t address, bool write) const {
  const auto page = pages_.find(address / kPageSize);
  if (page == pages_.end() || (write && !page->second.writable)) return nullptr;
  return reinterpret_cast<uint8_t*>(page->second.frame + address % kPageSize);
}

bool FakeProgram::read(void* destination, uint64_t address, uint64_t size) const {
  auto* to = static_cast<uint8_t*>(destination);
  while (size != 0) {
    const uint64_t part = std::min(size, kPageSize - address % kPageSize);
    const uint8_t* from = at(address, false);
    if (from == nullptr) return false;
    std::memcpy(to, from, part);
    to += part;
    address += part;
    size -= part;
  }
  return true;
}

bool FakeProgram::write(uint64_t address, const void* source, uint64_t size) const {
  const auto* from = static_cast<const uint8_t*>(source);
  while (size != 0) {
    const uint64_t part = std::min(size, kPageSize - address % kPageSize);
    uint8_t* to = at(address, true);
    if (to == nullptr) return false;
    std::memcpy(to, from, part);
    from += part;
    address += part;
    size -= part;
  }
  return true;
}

std::string FakeProgram::text(uint64_t address, uint64_t size) const {
  std::string text(size, '\0');
  if (!read(text.data(), address, size)) text = "(not mapped)";
  return text;
}

uint64_t FakeProgram::put_text(const std::string& text) {
  const uint64_t address = across_pages(text.size() + 1);
  write(address, text.c_str(), text.size() + 1);
  return address;
}

int64_t call(long number, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
             uint64_t a5) {
  const uint64_t arguments[6] = {a0, a1, a2, a3, a4, a5};
  program().host_calls.clear();
  program().log.clear();
  return proxy_system_call(static_cast<uint32_t>(number), arguments);
}

}  // namespace dbos::test

namespace dbos {

using test::program;

void panic(const char* message, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, message);
  std::abort();
}

// What ring 0 offers.
namespace platform {

void* direct_map(PhysicalAddress address) {
  return reinterpret_cast<void*>(address.value());
}
PhysicalAddress physical_of(const void* pointer) {
  return PhysicalAddress(reinterpret_cast<u64>(pointer));
}
u32 current_vcpu() {
  return 0;
}

}  // namespace platform

i64 hypercall(u32 number, u64 a0, u64 a1, u64 a2, u64 a3, u64 a4, u64 a5) {
  if (is(number, Service::kLog)) {
    program().log.append(reinterpret_cast<const char*>(a0), a1);
    program().log += '\n';
    return 0;
  }
  static const volatile uint32_t no_signal = 0;
  program().host_calls.push_back(number);
  const Call call{number, 0, {a0, a1, a2, a3, a4, a5}, 0};
  return vmm::execute_call(program().memory, call, &no_signal);
}

// guest/memory/user_copy.h
Result<void> copy_from_program(void* destination, VirtualAddress source, u64 size) {
  if (!program().read(destination, source.value(), size)) return Error(EFAULT);
  return {};
}
Result<void> copy_to_program(VirtualAddress destination, const void* source, u64 size) {
  if (!program().write(destination.value(), source, size)) return Error(EFAULT);
  return {};
}
Result<u64> copy_string_from_program(char* destination, VirtualAddress source, u64 capacity) {
  for (u64 i = 0; i < capacity; i++) {
    const u8* byte = program().at(source.value() + i, false);
    if (byte == nullptr) return Error(EFAULT);
    destination[i] = static_cast<char>(*byte);
    if (*byte == 0) return i;
  }
  return Error(ENAMETOOLONG);
}

namespace marshal_memory {

Segments resolve(VirtualAddress address, u64 size, HostAccess access, Segment* segments,
                 u32 capacity) {
  Segments found{0, 0, false, false};
  while (found.bytes < size) {
    const u64 at = address.value() + found.bytes;
    const u8* byte = program().at(at, access == HostAccess::kWrite);
    if (program().resolved_bytes + found.bytes >= program().resolved_bytes_max) {
      found.is_exhausted = true;
      break;
    }
    if (byte == nullptr) {
      found.is_fault = true;
      break;
    }
    const u64 physical = reinterpret_cast<u64>(byte);
    const u64 part = std::min(size - found.bytes, kPageSize - at % kPageSize);
    if (found.count != 0 &&
        segments[found.count - 1].address.value() + segments[found.count - 1].size == physical) {
      segments[found.count - 1].size += part;
    } else if (found.count == capacity) {
      break;
    } else {
      segments[found.count++] = {PhysicalAddress(physical), part};
    }
    found.bytes += part;
  }
  program().resolved_bytes += found.bytes;
  return found;
}

void release() {}

bool is_writable(VirtualAddress address, u64 size) {
  if (size == 0) return true;
  if (!is_program_range(address, size)) return false;
  const u64 end = address.value() + size;
  for (u64 at = address.value(); at < end; at = align_down(at, kPageSize) + kPageSize) {
    if (program().at(at, true) == nullptr) return false;
  }
  return true;
}

void kill_for_memory() {
  program().kills_for_memory++;
}

Result<PhysicalAddress> allocate_contiguous(u64 bytes) {
  program().contiguous_allocations++;
  return PhysicalAddress(program().take_frames(align_up(bytes, kPageSize) / kPageSize));
}
void free_contiguous(PhysicalAddress, u64) {
  program().contiguous_frees++;
}

void hold_signals() {}
void release_signals() {}

}  // namespace marshal_memory
}  // namespace dbos
