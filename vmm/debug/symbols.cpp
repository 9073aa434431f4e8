#include "vmm/debug/symbols.h"

#include <cxxabi.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <gelf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>

#include "vmm/printable.h"

namespace dbos::vmm {
namespace {

using Image = std::span<const std::byte>;

// libelf only reads what has this machine's byte order.
Elf* open_image(const Image& image) {
  auto* const bytes = const_cast<std::byte*>(image.data());
  return elf_memory(reinterpret_cast<char*>(bytes), image.size());
}

// `image`: where report_image() has put it; nullptr for a file.
int find_elf(Dwfl_Module*, void** image, const char*, Dwarf_Addr, char**, Elf** elf) {
  if (*image != nullptr) *elf = open_image(*static_cast<const Image*>(*image));
  return -1;
}

// An image has what it has in itself.
int find_debug_file(Dwfl_Module* module, void** image, const char* name, Dwarf_Addr base,
                    const char* file, const char* link, GElf_Word checksum, char** found) {
  if (*image != nullptr) return -1;
  return dwfl_standard_find_debuginfo(module, image, name, base, file, link, checksum, found);
}

char* debug_path = nullptr;  // libdwfl's default: /usr/lib/debug and beside the file

constexpr Dwfl_Callbacks kCallbacks = {find_elf, find_debug_file, dwfl_offline_section_address,
                                       &debug_path};

// Only C++'s and Rust's names: the demangler takes C's `f` for a type, float.
std::string demangled(const char* name) {
  if (std::strncmp(name, "_Z", 2) != 0) return name;
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &status), std::free);
  return status == 0 && text ? text.get() : name;
}

std::string base_name(const char* path) {
  const char* const slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

struct AddressRange {
  GElf_Addr begin;
  GElf_Addr end;  // 0: there is none
};

// As dwfl_report_elf() finds it.
AddressRange loaded_range(Elf* elf) {
  AddressRange range = {0, 0};
  size_t count = 0;
  if (elf_getphdrnum(elf, &count) != 0) return range;
  for (size_t i = 0; i < count; ++i) {
    GElf_Phdr segment;
    if (gelf_getphdr(elf, static_cast<int>(i), &segment) == nullptr) break;
    if (segment.p_type != PT_LOAD) continue;
    if (range.end == 0) range.begin = segment.p_vaddr & ~(segment.p_align - 1);
    range.end = segment.p_vaddr + segment.p_memsz;
  }
  return range;
}

// Of the guest kernel, which dbos-run has in its own memory. No file is made of it: libdwfl trusts
// what it reads, and the program could change that meanwhile.
void report_image(Dwfl* dwfl, const Image& image) {
  Elf* const elf = open_image(image);
  if (elf == nullptr) return;
  const AddressRange range = loaded_range(elf);
  elf_end(elf);
  Dwfl_Module* const module =
      range.end == 0 ? nullptr : dwfl_report_module(dwfl, "libdbos.elf", range.begin, range.end);
  void** for_callbacks = nullptr;
  if (module == nullptr) return;
  dwfl_module_info(module, &for_callbacks, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
  *for_callbacks = const_cast<Image*>(&image);
}

// The guest's memory names the files: a pipe among them would never open, or block.
void report_file(Dwfl* dwfl, const LoadedModule& module) {
  const int descriptor = open(module.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) return;
  struct stat file = {};
  const bool is_file = fstat(descriptor, &file) == 0 && S_ISREG(file.st_mode);
  const char* const path = module.path.c_str();
  const bool reported =
      is_file && dwfl_report_elf(dwfl, path, path, descriptor, module.bias, true) != nullptr;
  if (!reported) close(descriptor);
}

struct Search {
  const std::string& name;
  bool demangles;
  std::optional<uint64_t> address;
};

bool has_name(const Search& search, const char* name) {
  // "pthread_cond_wait@@GLIBC_2.3.2"
  if (!search.demangles) return search.name == std::string_view(name, std::strcspn(name, "@"));
  // With a '.' it is a part of a function that the compiler has split off.
  if (std::strncmp(name, "_Z", 2) != 0 || std::strchr(name, '.') != nullptr) return false;
  return without_arguments(demangled(name)) == search.name;
}

int search_module(Dwfl_Module* module, void**, const char*, Dwarf_Addr, void* argument) {
  auto& search = *static_cast<Search*>(argument);
  const int count = dwfl_module_getsymtab(module);
  for (int i = 1; i < count; ++i) {
    GElf_Sym symbol;
    GElf_Addr address = 0;
    GElf_Word section = 0;
    const char* const name =
        dwfl_module_getsym_info(module, i, &symbol, &address, &section, nullptr, nullptr);
    const int type = GELF_ST_TYPE(symbol.st_info);
    const bool is_place = type == STT_FUNC || type == STT_OBJECT || type == STT_NOTYPE;
    if (name == nullptr || section == SHN_UNDEF || !is_place || !has_name(search, name)) continue;
    search.address = address;
    return DWARF_CB_ABORT;
  }
  return DWARF_CB_OK;
}

std::string source_text(const char* file, int line) {
  return file == nullptr ? "" : printable(fmt::format("{}:{}", base_name(file), line));
}

// "page_tree.cpp:120"; empty where debug information does not tell.
std::string source_of(Dwfl_Module* module, uint64_t address) {
  int line = 0;
  if (Dwfl_Line* const found = dwfl_module_getsrc(module, address)) {
    const char* const file = dwfl_lineinfo(found, nullptr, &line, nullptr, nullptr, nullptr);
    return source_text(file, line);
  }
  // libdwfl finds a unit by .debug_aranges, which clang does not write.
  Dwarf_Addr bias = 0;
  Dwarf_Die* unit = nullptr;
  while ((unit = dwfl_module_nextcu(module, unit, &bias)) != nullptr) {
    if (dwarf_haspc(unit, address - bias) <= 0) continue;
    Dwarf_Line* const found = dwarf_getsrc_die(unit, address - bias);
    if (found == nullptr || dwarf_lineno(found, &line) != 0) return {};
    return source_text(dwarf_linesrc(found, nullptr, nullptr), line);
  }
  return {};
}

}  // namespace

std::string without_arguments(const std::string& function) {
  constexpr std::string_view kUnnamed = "(anonymous namespace)";
  size_t end = function.find_first_of("([");  // "work[abi:cxx11](int)"
  while (end != std::string::npos && function.compare(end, kUnnamed.size(), kUnnamed) == 0) {
    end = function.find_first_of("([", end + kUnnamed.size());
  }
  std::string name = function.substr(0, end);
  constexpr size_t kHashSize = 19;  // "::h" and 16 digits
  if (name.size() <= kHashSize || name.compare(name.size() - kHashSize, 3, "::h") != 0) return name;
  const bool is_hash =
      name.find_first_not_of("0123456789abcdef", name.size() - kHashSize + 3) == std::string::npos;
  return is_hash ? name.substr(0, name.size() - kHashSize) : name;
}

void Symbols::End::operator()(Dwfl* dwfl) const {
  dwfl_end(dwfl);
}

Symbols::Symbols(const std::vector<LoadedModule>& modules, std::span<const std::byte> kernel)
    : kernel_(kernel), dwfl_(dwfl_begin(&kCallbacks)) {
  if (!dwfl_) throw std::bad_alloc();
  dwfl_report_begin(dwfl_.get());
  for (const LoadedModule& module : modules) {
    report_file(dwfl_.get(), module);
  }
  if (!kernel_.empty()) report_image(dwfl_.get(), kernel_);
  dwfl_report_end(dwfl_.get(), nullptr, nullptr);
}

CallFrame Symbols::describe(uint64_t address, uint64_t lookup) const {
  CallFrame frame{address, {}, 0, {}, {}};
  Dwfl_Module* const module = dwfl_addrmodule(dwfl_.get(), lookup);
  if (module == nullptr) return frame;
  if (const char* const path =
          dwfl_module_info(module, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr)) {
    frame.module = printable(base_name(path));
  }
  GElf_Off offset = 0;
  GElf_Sym symbol;
  const char* const name =
      dwfl_module_addrinfo(module, lookup, &offset, &symbol, nullptr, nullptr, nullptr);
  if (name != nullptr) {
    frame.function = printable(demangled(name));
    frame.offset = offset + (address - lookup);
  }
  frame.source = source_of(module, lookup);
  return frame;
}

std::optional<uint64_t> Symbols::find(const std::string& name) const {
  if (name.empty()) return std::nullopt;  // sections have no name
  Search search{name, false, std::nullopt};
  dwfl_getmodules(dwfl_.get(), search_module, &search, 0);
  if (search.address) return search.address;
  search.demangles = true;
  dwfl_getmodules(dwfl_.get(), search_module, &search, 0);
  return search.address;
}

}  // namespace dbos::vmm
