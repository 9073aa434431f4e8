#include "guest/syscalls/thread_calls.h"

#include <asm/prctl.h>
#include <asm/unistd_64.h>
#include <linux/membarrier.h>

#include "guest/arch/cpu.h"
#include "guest/hypercall.h"
#include "guest/memory/address_space.h"
#include "guest/memory/user_copy.h"
#include "guest/platform.h"

namespace dbos {
namespace {

// Commands that a shootdown of everything fulfils: each vCPU of the program passes through a
// serializing instruction.
constexpr u64 kMembarrierCommands =
    MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED |
    MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED |
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE |
    MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
constexpr u64 kMembarrierRegistrations = MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED |
                                         MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED |
                                         MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;

i64 set_base(u32 msr, u64 address) {
  if (address >= kProgramEnd) return -EPERM;
  arch::write_msr(msr, address);
  return 0;
}

i64 get_base(u32 msr, VirtualAddress address) {
  return write_program(address, arch::read_msr(msr)).is_ok() ? 0 : -EFAULT;
}

}  // namespace

i64 system_arch_prctl(u64 code, u64 address) {
  switch (code) {
    case ARCH_SET_FS:
      return set_base(arch::kMsrFsBase, address);
    case ARCH_SET_GS:
      return set_base(arch::kMsrGsBase, address);
    case ARCH_GET_FS:
      return get_base(arch::kMsrFsBase, VirtualAddress(address));
    case ARCH_GET_GS:
      return get_base(arch::kMsrGsBase, VirtualAddress(address));
    case ARCH_GET_CPUID:
      return 1;  // CPUID does not fault
    case ARCH_SET_CPUID:
      return -ENODEV;
    default:
      return -EINVAL;
  }
}

// The vCPU is no processor of Linux's: the answer is where its host thread last entered the guest.
// Memory allocators ask often, and take it for a hint.
i64 system_getcpu(VirtualAddress cpu, VirtualAddress node) {
  const HypercallPage& page = current_hypercall_page();
  DBOS_TRY_CALL(write_if_given(cpu, page.processor));
  return result_of(write_if_given(node, page.node));
}

i64 system_membarrier(u64 command, u64 flags) {
  if (flags != 0) return -EINVAL;
  if (command == MEMBARRIER_CMD_QUERY) return static_cast<i64>(kMembarrierCommands);
  if ((command & kMembarrierCommands) != command || (command & (command - 1)) != 0) return -EINVAL;
  if ((command & kMembarrierRegistrations) != 0) return 0;
  platform::shootdown(*current_thread().space,
                      VirtualRange{VirtualAddress(0), VirtualAddress(kProgramEnd)});
  return 0;
}

}  // namespace dbos
