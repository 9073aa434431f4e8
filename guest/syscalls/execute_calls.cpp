#include "guest/syscalls/execute_calls.h"

#include <linux/limits.h>

#include "guest/hypercall.h"
#include "guest/memory/user_copy.h"
#include "guest/platform.h"
#include "guest/process/process.h"
#include "guest/syscalls/marshal_memory.h"
#include "guest/syscalls/proc_files.h"
#include "hypercall/linux_structures.h"

namespace dbos {
namespace {

// The strings and the two arrays of pointers, gathered in one contiguous piece of kernel memory.
// Linux takes up to a quarter of the stack limit (2 MiB of 8); so does the largest run of frames.
class Gathered {
 public:
  static constexpr u64 kSizeLeast = 64 * kKiB;
  static constexpr u64 kSizeMost = 2 * kMiB;

  Gathered() = default;
  ~Gathered() { clear(); }
  Gathered(const Gathered&) = delete;
  Gathered& operator=(const Gathered&) = delete;

  // Begins anew, with so much room.
  Result<void> allocate(u64 size) {
    clear();
    const PhysicalAddress run = DBOS_TRY(marshal_memory::allocate_contiguous(size));
    size_ = size;
    used_ = 0;
    base_ = static_cast<u8*>(platform::direct_map(run));
    return {};
  }

  // The guest-physical address of a copy of the program's string.
  Result<u64> add_string(VirtualAddress string, u64 longest, int too_long) {
    const u64 room = size_ - used_;
    if (room == 0) return Error(E2BIG);
    const u64 capacity = longest < room ? longest : room;
    const auto length =
        copy_string_from_program(reinterpret_cast<char*>(base_ + used_), string, capacity);
    if (length.is_error()) {
      return length.error() == Error(ENAMETOOLONG) ? Error(capacity == longest ? too_long : E2BIG)
                                                   : length.error();
    }
    const u64 address = host_pointer(base_ + used_);
    used_ += length.value() + 1;
    return address;
  }

  // The guest-physical address of a copy of an array of strings; 0 stands for an empty one.
  Result<u64> add_array(VirtualAddress array) {
    const u64 count = array.value() == 0 ? 0 : DBOS_TRY(count_of(array));
    used_ = align_up(used_, 8);
    if (size_ - used_ < (count + 1) * 8) return Error(E2BIG);
    auto* const copy = reinterpret_cast<u64*>(base_ + used_);
    used_ += (count + 1) * 8;
    for (u64 i = 0; i < count; ++i) {
      const u64 string = DBOS_TRY(read_program<u64>(array + i * 8));
      copy[i] = DBOS_TRY(add_string(VirtualAddress(string), kStringSizeMax, E2BIG));
    }
    copy[count] = 0;
    return host_pointer(copy);
  }

 private:
  void clear() {
    if (base_ != nullptr) marshal_memory::free_contiguous(platform::physical_of(base_), size_);
    base_ = nullptr;
  }

  Result<u64> count_of(VirtualAddress array) const {
    for (u64 count = 0; count < size_ / 8; ++count) {
      if (DBOS_TRY(read_program<u64>(array + count * 8)) == 0) return count;
    }
    return Error(E2BIG);
  }

  u8* base_ = nullptr;
  u64 size_ = 0;
  u64 used_ = 0;
};

Result<void> gather(Gathered& gathered, u64 size, VirtualAddress path, VirtualAddress arguments,
                    VirtualAddress environment, u64 (&pointers)[3]) {
  DBOS_RETURN_IF_ERROR(gathered.allocate(size));
  pointers[0] = DBOS_TRY(gathered.add_string(path, PATH_MAX, ENAMETOOLONG));
  pointers[1] = DBOS_TRY(gathered.add_array(arguments));
  pointers[2] = DBOS_TRY(gathered.add_array(environment));
  return {};
}

}  // namespace

i64 system_execveat(Thread& thread, i32 directory, VirtualAddress path, VirtualAddress arguments,
                    VirtualAddress environment, u64 flags) {
  Gathered gathered;
  u64 pointers[3];
  // In as little as will do, for memory may be short, or in small pieces.
  u64 size = Gathered::kSizeLeast;
  auto result = gather(gathered, size, path, arguments, environment, pointers);
  while (result.is_error() && result.error() == Error(E2BIG) && size < Gathered::kSizeMost) {
    size *= 2;
    result = gather(gathered, size, path, arguments, environment, pointers);
  }
  DBOS_TRY_CALL(result);
  const auto* const named =
      static_cast<const char*>(platform::direct_map(PhysicalAddress(pointers[0])));
  const char* const executable = executable_behind(thread, named);
  if (executable != nullptr) pointers[0] = host_pointer(executable);
  const Process& process = *thread.process;
  const u64 limits[kExecuteLimitCount] = {process.address_space_limit.soft, process.data_limit.soft,
                                          process.stack_limit.soft};
  return hypercall(Service::kExecute, static_cast<u64>(i64{directory}), pointers[0], pointers[1],
                   pointers[2], flags, host_pointer(limits));
}

}  // namespace dbos
