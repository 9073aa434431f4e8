#include <elf.h>
#include <link.h>

#include <cstring>

#include "vmm/debug/backtrace.h"

namespace dbos::vmm {
namespace {

constexpr size_t kModulesMax = 512;
constexpr size_t kPathMax = 4096;
constexpr size_t kHeadersMax = 64;
constexpr size_t kDynamicMax = 256;

template <typename Value>
bool read_value(const MemoryReader& read, uint64_t address, Value* value) {
  return read(address, value, sizeof *value) == sizeof *value;
}

uint64_t auxiliary_value(const MemoryReader& read, uint64_t begin, uint64_t end, uint64_t type) {
  Elf64_auxv_t entry;
  for (; begin + sizeof entry <= end && read_value(read, begin, &entry); begin += sizeof entry) {
    if (entry.a_type == type) return entry.a_un.a_val;
  }
  return 0;
}

std::string read_string(const MemoryReader& read, uint64_t address) {
  std::string text;
  for (char c = 0; text.size() < kPathMax && read_value(read, address + text.size(), &c);) {
    if (c == 0) return text;
    text += c;
  }
  return {};
}

// What the program's headers tell: the bias, and where its dynamic section lies (0: none).
struct Headers {
  uint64_t bias = 0;
  uint64_t dynamic = 0;
};
Headers read_headers(const MemoryReader& read, uint64_t address, uint64_t count) {
  Headers headers;
  if (count > kHeadersMax) return headers;
  Elf64_Phdr header;
  bool tells_itself = false;
  for (uint64_t i = 0; i < count && read_value(read, address + i * sizeof header, &header); ++i) {
    if (header.p_type == PT_PHDR) {
      headers.bias = address - header.p_vaddr;
      tells_itself = true;
    }
    // A static PIE of GNU ld has no PT_PHDR; the table comes behind the file's first header.
    if (header.p_type == PT_LOAD && header.p_offset == 0 && !tells_itself) {
      headers.bias = address - sizeof(Elf64_Ehdr) - header.p_vaddr;
    }
    if (header.p_type == PT_DYNAMIC) headers.dynamic = header.p_vaddr;
  }
  if (headers.dynamic != 0) headers.dynamic += headers.bias;
  return headers;
}

uint64_t debug_address(const MemoryReader& read, uint64_t dynamic) {
  Elf64_Dyn entry;
  for (size_t i = 0; i < kDynamicMax && read_value(read, dynamic + i * sizeof entry, &entry); ++i) {
    if (entry.d_tag == DT_NULL) return 0;
    if (entry.d_tag == DT_DEBUG) return entry.d_un.d_ptr;
  }
  return 0;
}

}  // namespace

std::vector<LoadedModule> loaded_modules(const MemoryReader& read, const std::string& program,
                                         uint64_t auxiliary_begin, uint64_t auxiliary_end) {
  const auto value = [&](uint64_t type) {
    return auxiliary_value(read, auxiliary_begin, auxiliary_end, type);
  };
  const Headers headers = read_headers(read, value(AT_PHDR), value(AT_PHNUM));
  std::vector<LoadedModule> modules = {{program, headers.bias}};
  const uint64_t debug = headers.dynamic == 0 ? 0 : debug_address(read, headers.dynamic);
  r_debug linker = {};
  if (debug == 0 || !read_value(read, debug, &linker)) return modules;
  auto next = reinterpret_cast<uint64_t>(linker.r_map);
  for (size_t i = 0; next != 0 && i < kModulesMax; ++i) {  // in damaged memory it may go round
    link_map map = {};
    if (!read_value(read, next, &map)) break;
    std::string path = read_string(read, reinterpret_cast<uint64_t>(map.l_name));
    if (path.starts_with('/')) modules.push_back({std::move(path), map.l_addr});
    next = reinterpret_cast<uint64_t>(map.l_next);
  }
  return modules;
}

}  // namespace dbos::vmm
