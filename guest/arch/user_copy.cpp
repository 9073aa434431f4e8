// guest/memory/user_copy.h in ring 0: the program's memory is accessed directly, and the page fault
// handler resolves what is missing, or goes on at the fixup (entry.S).
#include "guest/memory/user_copy.h"

#include "guest/arch/cpu.h"
#include "guest/platform.h"
#include "guest/process/futex_memory.h"
#include "guest/process/thread.h"

extern "C" {
dbos::u64 copy_program_bytes(void* destination, const void* source, dbos::u64 size);
dbos::u64 clear_program_bytes(void* destination, dbos::u64 size);
dbos::i64 copy_program_string(char* destination, const char* source, dbos::u64 capacity);
dbos::i64 compare_exchange_program_word(void* address, dbos::u32 expected, dbos::u32 desired);
dbos::i64 load_program_word(const void* address);
}

namespace dbos {
namespace {

void* pointer(VirtualAddress address) {
  return reinterpret_cast<void*>(address.value());
}

}  // namespace

Result<void> copy_from_program(void* destination, VirtualAddress source, u64 size) {
  if (!is_program_range(source, size)) return Error(EFAULT);
  if (copy_program_bytes(destination, pointer(source), size) != 0) return Error(EFAULT);
  return {};
}

Result<void> copy_to_program(VirtualAddress destination, const void* source, u64 size) {
  if (!is_program_range(destination, size)) return Error(EFAULT);
  if (copy_program_bytes(pointer(destination), source, size) != 0) return Error(EFAULT);
  return {};
}

Result<void> clear_program(VirtualAddress destination, u64 size) {
  if (!is_program_range(destination, size)) return Error(EFAULT);
  if (clear_program_bytes(pointer(destination), size) != 0) return Error(EFAULT);
  return {};
}

Result<u64> copy_string_from_program(char* destination, VirtualAddress source, u64 capacity) {
  if (source.value() >= kProgramEnd) return Error(EFAULT);
  const u64 left = kProgramEnd - source.value();
  const u64 most = capacity < left ? capacity : left;
  const i64 result =
      copy_program_string(destination, static_cast<const char*>(pointer(source)), most);
  if (result >= 0) return static_cast<u64>(result);
  return Error(result == -2 && most == capacity ? ENAMETOOLONG : EFAULT);
}

Result<void> platform::copy_window_page(PhysicalAddress frame, PhysicalAddress window_page) {
  const u64 missed = copy_program_bytes(direct_map(frame), direct_map(window_page), kPageSize);
  return missed == 0 ? Result<void>() : Error(EFAULT);
}

Result<u32> compare_exchange_program(VirtualAddress address, u32 expected, u32 desired) {
  if (!is_program_range(address, sizeof(u32))) return Error(EFAULT);
  const i64 old = compare_exchange_program_word(pointer(address), expected, desired);
  if (old < 0) return Error(EFAULT);
  return static_cast<u32>(old);
}

u64 peek_program_bytes(void* destination, VirtualAddress source, u64 size) {
  if (!is_program_range(source, size)) return 0;
  arch::Cpu& cpu = arch::current_cpu();
  cpu.no_fault = true;
  const u64 missed = copy_program_bytes(destination, pointer(source), size);
  cpu.no_fault = false;
  return size - missed;
}

Result<u32> peek_program_nofault(VirtualAddress address) {
  if (!is_program_range(address, sizeof(u32))) return Error(EFAULT);
  arch::Cpu& cpu = arch::current_cpu();
  cpu.no_fault = true;
  const i64 value = load_program_word(pointer(address));
  cpu.no_fault = false;
  if (value < 0) return Error(EFAULT);
  return static_cast<u32>(value);
}

Result<u32> compare_exchange_program_nofault(VirtualAddress address, u32 expected, u32 desired) {
  arch::Cpu& cpu = arch::current_cpu();
  cpu.no_fault = true;
  const auto old = compare_exchange_program(address, expected, desired);
  cpu.no_fault = false;
  return old;
}

}  // namespace dbos
