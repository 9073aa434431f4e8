// Where vCPUs enter the guest kernel.
#include "guest/arch/cpu.h"
#include "guest/arch/debug.h"
#include "guest/arch/trap.h"
#include "guest/lib/assert.h"
#include "guest/memory/address_space.h"
#include "guest/memory/kernel_view.h"
#include "guest/platform.h"
#include "guest/process/clone.h"
#include "guest/process/helper.h"
#include "guest/process/process_table.h"
#include "guest/process/program_start.h"
#include "hypercall/abi.h"

// What the VMM reads of this image before it boots it.
DBOS_IMAGE_NOTE(DBOS_IMAGE_LOADS_PROGRAM, 0);

namespace dbos {
namespace {

const BootInformation& boot_information() {
  return *static_cast<const BootInformation*>(
      platform::direct_map(PhysicalAddress(kBootInformationAddress)));
}

[[noreturn]] void boot() {
  const BootInformation& boot = boot_information();
  DBOS_ASSERT(boot.abi_version == kAbiVersion);
  set_kernel_root(PhysicalAddress(boot.kernel_tables));
  const MemoryOptions options{(boot.flags & kBootNoLargePages) == 0, boot.mapping_count_max};
  if (memory_initialize(options).is_error()) DBOS_PANIC("no memory to start with");
  arch::prepare_waiting(boot.tsc_khz);
  arch::declare_return_region();
  publish_kernel_view();
  start_program(boot);
}

}  // namespace

extern "C" [[noreturn]] void kernel_main(u32 index, u64 start_argument) {
  arch::Cpu& cpu = arch::cpu_at(index);
  if (!cpu.initialized) {
    if (start_argument == 0 && !arch::is_debug_agent()) arch::initialize_interrupt_table();
    arch::initialize_cpu(index, boot_information().extended_state_mask);
  }
  arch::leave_host();
  if (arch::is_debug_agent()) arch::run_debug_agent();
  if (start_argument == 0) boot();
  if (start_argument == kHelperStart) run_helper();
  start_thread(start_argument);
}

}  // namespace dbos
