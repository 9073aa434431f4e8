// From high addresses to low (System V ABI, AMD64 supplement 3.4.1; Linux's create_elf_tables):
//
//   8 zero bytes | path of the program | environment strings | argument strings |
//   "x86_64" | 16 random bytes | (16-byte aligned) auxiliary vector | environment pointers, 0 |
//   argument pointers, 0 | argument count   <- stack pointer
#include "guest/process/initial_stack.h"

#include <linux/auxvec.h>
#include <linux/mman.h>

#include "guest/memory/address_space.h"
#include "guest/memory/user_copy.h"
#include "guest/process/extended_state.h"

namespace dbos {
namespace {

// What Linux maps at first; the rest comes by stack growth.
constexpr u64 kStackMappedMin = 132 * kKiB;
constexpr char kPlatform[] = "x86_64";
// Linux's minimal frame is the signal frame and the extended state, and some slack for alignment.
constexpr u64 kSignalFrameSlack = 440 + 64 + 16;

struct Strings {
  const char* begin;
  u64 size;
};

// `count` NUL-terminated strings one behind the other.
Strings strings_at(const char* begin, u64 count) {
  const char* end = begin;
  for (u64 i = 0; i < count; ++i) end += __builtin_strlen(end) + 1;
  return Strings{begin, static_cast<u64>(end - begin)};
}

class StackWriter {
 public:
  explicit StackWriter(u64 address) : address_(address) {}

  void put(u64 value) {
    words_[count_++] = value;
    if (count_ == kWords) flush();
  }
  void put_auxiliary(u64 key, u64 value) {
    put(key);
    put(value);
  }
  // Pointers to strings that lie one behind the other from `address`, and a null.
  void put_pointers(const Strings& strings, u64 address) {
    for (u64 offset = 0; offset < strings.size;) {
      put(address + offset);
      offset += __builtin_strlen(strings.begin + offset) + 1;
    }
    put(0);
  }
  u64 address() const { return address_ + count_ * 8; }
  Result<void> finish() {
    flush();
    return failed_ ? Result<void>(Error(EFAULT)) : Result<void>();
  }

 private:
  static constexpr u64 kWords = 64;
  void flush() {
    if (copy_to_program(VirtualAddress(address_), words_, count_ * 8).is_error()) failed_ = true;
    address_ += count_ * 8;
    count_ = 0;
  }
  u64 address_;
  u64 words_[kWords];
  u64 count_ = 0;
  bool failed_ = false;
};

constexpr u64 kAuxiliaryEntries = 21;

void put_auxiliary_vector(StackWriter& out, const BootInformation& boot, const StackImage& image,
                          u64 random, u64 platform, u64 path) {
  out.put_auxiliary(AT_SYSINFO_EHDR, image.vdso);
  out.put_auxiliary(51 /* AT_MINSIGSTKSZ */, extended_state_frame_size() + kSignalFrameSlack);
  out.put_auxiliary(AT_HWCAP, boot.hardware_capabilities);
  out.put_auxiliary(AT_PAGESZ, kPageSize);
  out.put_auxiliary(AT_CLKTCK, boot.clock_ticks);
  out.put_auxiliary(AT_PHDR, image.program_headers);
  out.put_auxiliary(AT_PHENT, boot.program.program_header_size);
  out.put_auxiliary(AT_PHNUM, boot.program.program_header_count);
  out.put_auxiliary(AT_BASE, image.interpreter_base);
  out.put_auxiliary(AT_FLAGS, 0);
  out.put_auxiliary(AT_ENTRY, image.entry);
  out.put_auxiliary(AT_UID, boot.user_id);
  out.put_auxiliary(AT_EUID, boot.effective_user_id);
  out.put_auxiliary(AT_GID, boot.group_id);
  out.put_auxiliary(AT_EGID, boot.effective_group_id);
  out.put_auxiliary(AT_SECURE, boot.secure);
  out.put_auxiliary(AT_RANDOM, random);
  out.put_auxiliary(AT_HWCAP2, boot.hardware_capabilities_2);
  out.put_auxiliary(AT_EXECFN, path);
  out.put_auxiliary(AT_PLATFORM, platform);
  out.put_auxiliary(AT_NULL, 0);
}

}  // namespace

Result<u64> write_initial_stack(AddressSpace& space, const BootInformation& boot,
                                const StackImage& image, ProgramLayout& layout) {
  const auto* const base = reinterpret_cast<const char*>(&boot);
  const Strings arguments = strings_at(base + boot.arguments_offset, boot.argument_count);
  const Strings environment = strings_at(base + boot.environment_offset, boot.environment_count);
  const Strings path = strings_at(base + boot.executable_name_offset, 1);

  const u64 path_address = image.top - 8 - path.size;
  const u64 environment_address = path_address - environment.size;
  const u64 arguments_address = environment_address - arguments.size;
  const u64 platform_address = align_down(arguments_address, 16) - 16;
  const u64 random_address = platform_address - sizeof boot.random;
  const u64 words =
      1 + boot.argument_count + 1 + boot.environment_count + 1 + kAuxiliaryEntries * 2;
  const u64 stack_pointer = align_down(random_address - words * 8, 16);

  u64 mapped = align_up(image.top - stack_pointer, kPageSize);
  if (mapped < kStackMappedMin) mapped = kStackMappedMin;
  const int executable = boot.program.stack_executable != 0 ? PROT_EXEC : 0;
  DBOS_TRY(space.map_anonymous(
      VirtualAddress(image.top - mapped), mapped, PROT_READ | PROT_WRITE | executable,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, VmaName::kStack));
  DBOS_RETURN_IF_ERROR(copy_to_program(VirtualAddress(path_address), path.begin, path.size));
  DBOS_RETURN_IF_ERROR(
      copy_to_program(VirtualAddress(environment_address), environment.begin, environment.size));
  DBOS_RETURN_IF_ERROR(
      copy_to_program(VirtualAddress(arguments_address), arguments.begin, arguments.size));
  DBOS_RETURN_IF_ERROR(
      copy_to_program(VirtualAddress(platform_address), kPlatform, sizeof kPlatform));
  DBOS_RETURN_IF_ERROR(
      copy_to_program(VirtualAddress(random_address), boot.random, sizeof boot.random));

  StackWriter out(stack_pointer);
  out.put(boot.argument_count);
  out.put_pointers(arguments, arguments_address);
  out.put_pointers(environment, environment_address);
  layout.auxiliary_start = out.address();
  put_auxiliary_vector(out, boot, image, random_address, platform_address, path_address);
  layout.auxiliary_end = out.address();
  DBOS_RETURN_IF_ERROR(out.finish());

  layout.stack_start = stack_pointer;
  layout.arguments_start = arguments_address;
  layout.arguments_end = layout.environment_start = environment_address;
  layout.environment_end = path_address;
  return stack_pointer;
}

}  // namespace dbos
