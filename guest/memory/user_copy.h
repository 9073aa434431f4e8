// Copies between the kernel and the program's memory, with faults resolved on the way (demand
// paging, copy-on-write). EFAULT where the program itself would get SIGSEGV or SIGBUS. May make
// host calls (file pages), so no lock may be held.
#pragma once

#include "guest/lib/result.h"
#include "guest/lib/types.h"

namespace dbos {

Result<void> copy_from_program(void* destination, VirtualAddress source, u64 size);
Result<void> copy_to_program(VirtualAddress destination, const void* source, u64 size);
Result<void> clear_program(VirtualAddress destination, u64 size);

// Copies a NUL-terminated string of at most `capacity` bytes, the NUL included. Returns its length
// without the NUL; ENAMETOOLONG where no NUL lies within `capacity`.
Result<u64> copy_string_from_program(char* destination, VirtualAddress source, u64 capacity);

// What is present: copies from the beginning up to the first byte that would fault, and returns how
// many bytes that were.
u64 peek_program_bytes(void* destination, VirtualAddress source, u64 size);

template <typename T>
Result<T> read_program(VirtualAddress source) {
  T value;
  DBOS_RETURN_IF_ERROR(copy_from_program(&value, source, sizeof value));
  return value;
}
template <typename T>
Result<void> write_program(VirtualAddress destination, const T& value) {
  return copy_to_program(destination, &value, sizeof value);
}
// Writes nothing to address 0.
template <typename T>
Result<void> write_if_given(VirtualAddress destination, const T& value) {
  return destination.value() == 0 ? Result<void>() : write_program(destination, value);
}

// Compare-and-exchange on an aligned 32-bit word of the program: the old value, or EFAULT.
Result<u32> compare_exchange_program(VirtualAddress address, u32 expected, u32 desired);

}  // namespace dbos
