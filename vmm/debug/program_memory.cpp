// Reading and writing the program's memory while it is stopped.
#include <cstring>
#include <vector>

#include "vmm/debug/debug_state.h"
#include "vmm/debug/guest_walk.h"
#include "vmm/machine/machine.h"
#include "vmm/observe/page_walk.h"

namespace dbos::vmm {
namespace {

constexpr size_t kAuxiliarySizeMax = 1024;
// As many as vm.max_map_count, the guest kernel's own limit, is set to; but it may lie.
constexpr size_t kMappingsMax = 1 << 20;

const BootInformation& boot_information() {
  return *reinterpret_cast<const BootInformation*>(kBootInformationAddress);
}

// The root of the program's page tables: the same for the whole life of its process, and known
// also while a thread is on its way back from a host call. The guest may write there: any will do.
uint64_t table_root() {
  uint64_t root = 0;
  for_each_debugged([&](const Vcpu& vcpu, const ThreadStop&) {
    if (root == 0) root = space_root(vcpu.index);
  });
  return root;
}

// Without what hides the breakpoints.
size_t read_raw(uint64_t address, uint8_t* bytes, size_t size) {
  const uint64_t root = table_root();
  size_t done = 0;
  while (done < size) {
    done += read_virtual(machine().memory(), root, address + done, bytes + done, size - done);
    if (done == size) break;
    // A page that is not there: the guest kernel gets it, and one page at a time will do.
    const uint64_t at = address + done;
    const size_t in_page = kPageSize - at % kPageSize;
    const size_t part = size - done < in_page ? size - done : in_page;
    const size_t moved =
        transfer_by_agent(DebugOperation::kRead, *debug_state().process, at, bytes + done, part);
    done += moved;
    if (moved < part) break;
  }
  return done;
}

}  // namespace

size_t read_program(uint64_t address, void* destination, size_t size) {
  if (!is_any_debugged() || address >= kProgramEnd || !is_stopped()) return 0;
  auto* const bytes = static_cast<uint8_t*>(destination);
  const size_t done = read_raw(address, bytes, size);
  hide_breakpoints(debug_state().software, address, {bytes, done});
  return done;
}

size_t read_present(uint64_t address, void* destination, size_t size) {
  if (!is_stopped()) return 0;
  auto* const bytes = static_cast<uint8_t*>(destination);
  const size_t done = read_virtual(machine().memory(), table_root(), address, bytes, size);
  hide_breakpoints(debug_state().software, address, {bytes, done});
  return done;
}

uint64_t absent_from(uint64_t address) {
  const uint64_t root = table_root();
  if (root == 0 || !is_stopped()) return kPageSize;
  return absent_bytes(walk_page_table(machine().memory(), root, address), address);
}

size_t write_program(uint64_t address, const void* source, size_t size) {
  if (!is_any_debugged() || !is_stopped()) return 0;
  const auto* const bytes = static_cast<const uint8_t*>(source);
  std::vector<uint8_t> kept(bytes, bytes + size);
  keep_breakpoints(debug_state().software, address, kept);
  return transfer_by_agent(DebugOperation::kWrite, *debug_state().process, address, kept.data(),
                           size);
}

AddressRange auxiliary_vector_range() {
  // The guest may have written there since, and may do so now.
  const uint64_t begin = __atomic_load_n(&boot_information().auxiliary_begin, __ATOMIC_RELAXED);
  const uint64_t end = __atomic_load_n(&boot_information().auxiliary_end, __ATOMIC_RELAXED);
  if (end < begin || end - begin > kAuxiliarySizeMax) return {0, 0};
  return {begin, end};
}

std::vector<uint8_t> read_auxiliary_vector() {
  const auto [begin, end] = auxiliary_vector_range();
  std::vector<uint8_t> bytes(end - begin);
  bytes.resize(read_program(begin, bytes.data(), bytes.size()));
  return bytes;
}

std::vector<DebugMapping> program_mappings() {
  std::vector<DebugMapping> all;
  if (!is_any_debugged() || !is_stopped()) return all;
  std::vector<DebugMapping> part(kDebugDataMax / sizeof(DebugMapping));
  uint64_t from = 0;
  do {
    part.resize(kDebugDataMax / sizeof(DebugMapping));
    const size_t bytes = transfer_by_agent(DebugOperation::kMappings, *debug_state().process, from,
                                           part.data(), part.size() * sizeof(DebugMapping));
    part.resize(bytes / sizeof(DebugMapping));
    for (DebugMapping& mapping : part) {
      mapping.path[sizeof mapping.path - 1] = 0;
      const bool is_right = mapping.begin >= from && mapping.end > mapping.begin &&
                            mapping.end <= kProgramEnd && mapping.end % kPageSize == 0;
      if (!is_right) return all;
      from = mapping.end;
      all.push_back(mapping);
    }
  } while (!part.empty() && all.size() < kMappingsMax);
  return all;
}

std::string program_path() {
  // The guest may have written there since.
  const uint64_t offset =
      __atomic_load_n(&boot_information().executable_path_offset, __ATOMIC_RELAXED);
  if (offset >= kBootInformationSizeMax) return {};
  const char* const text = reinterpret_cast<const char*>(&boot_information()) + offset;
  return {text, strnlen(text, kBootInformationSizeMax - offset)};
}

uint64_t extended_state_features() {
  return machine().extended_state_mask();
}

}  // namespace dbos::vmm
