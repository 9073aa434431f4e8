#include "guest/arch/cpu.h"

#include "guest/arch/trap.h"
#include "guest/lib/assert.h"
#include "guest/lib/cpuid.h"
#include "guest/platform.h"
#include "hypercall/abi.h"

extern "C" void system_call_entry();

namespace dbos::arch {
namespace {

constexpr u64 kSegmentCode = 0x00af9b000000ffff;  // 64-bit code, DPL 0, accessed
constexpr u64 kSegmentData = 0x00cf93000000ffff;  // data, DPL 0, accessed

struct [[gnu::packed]] DescriptorTable {
  u16 limit;
  u64 base;
};

void load_descriptor_tables(Cpu& cpu) {
  const u64 block = cpu_block(cpu.index);
  cpu.task_state = {};
  cpu.task_state.ist[kIstTrap - 1] = block + kVcpuIstStackTop;
  cpu.task_state.ist[kIstDoubleFault - 1] = block + kVcpuDoubleFaultStackTop;
  cpu.task_state.ist[kIstDebug - 1] = block + kVcpuDebugStackTop;
  cpu.task_state.io_map_base = sizeof(TaskState);

  const u64 base = reinterpret_cast<u64>(&cpu.task_state);
  cpu.gdt[0] = 0;
  cpu.gdt[1] = kSegmentCode;
  cpu.gdt[2] = kSegmentData;
  cpu.gdt[3] = (sizeof(TaskState) - 1) | ((base & 0xffffff) << 16) | (u64{0x89} << 40) |
               (((base >> 24) & 0xff) << 56);
  cpu.gdt[4] = base >> 32;
  const DescriptorTable gdt{sizeof cpu.gdt - 1, reinterpret_cast<u64>(cpu.gdt)};
  asm volatile("lgdt %0" : : "m"(gdt));
  asm volatile(
      "mov %0, %%ss; mov %1, %%ds; mov %1, %%es\n"
      "mov %1, %%fs; mov %1, %%gs; ltr %2"
      :
      : "r"(kDataSelector), "r"(u16{0}), "r"(kTaskSelector));
  const DescriptorTable idt{kIdtSize - 1, interrupt_table_address()};
  asm volatile("lidt %0" : : "m"(idt));
}

void set_control_registers(u64 extended_state_mask) {
  write_cr0((read_cr0() & ~(kCr0Emulate | kCr0TaskSwitched)) | kCr0Monitor | kCr0NumericError |
            kCr0WriteProtect);
  const CpuidResult leaf1 = cpuid(1);
  const CpuidResult leaf7 = cpuid(7);
  u64 cr4 = read_cr4() | kCr4GlobalPages | kCr4FxSave | kCr4SimdExceptions;
  if ((leaf7.ebx & (1u << 0)) != 0) cr4 |= kCr4FsGsBase;
  if ((leaf7.ebx & (1u << 7)) != 0) cr4 |= kCr4Smep;
  if ((leaf7.ebx & (1u << 20)) != 0) cr4 |= kCr4Smap;
  if ((leaf7.ecx & (1u << 2)) != 0) cr4 |= kCr4Umip;
  const bool has_xsave = (leaf1.ecx & (1u << 26)) != 0 && extended_state_mask != 0;
  if (has_xsave) cr4 |= kCr4XSave;
  write_cr4(cr4);
  asm volatile("fninit");
  const u32 default_mxcsr = 0x1f80;
  asm volatile("ldmxcsr %0" : : "m"(default_mxcsr));
}

void set_system_call_entry(Cpu& cpu) {
  write_msr(kMsrEfer, read_msr(kMsrEfer) | kEferSyscall | kEferNoExecute);
  write_msr(kMsrStar, u64{kCodeSelector} << 32);
  write_msr(kMsrLstar, reinterpret_cast<u64>(&system_call_entry));
  // Interrupts, direction, trap, alignment check, nested task.
  write_msr(kMsrSyscallMask, kFlagInterrupt | kFlagDirection | kFlagTrap | (1 << 18) | (1 << 14));
  write_msr(kMsrKernelGsBase, reinterpret_cast<u64>(&cpu));
  write_msr(kMsrGsBase, 0);
  write_msr(kMsrFsBase, 0);
}

}  // namespace

void initialize_cpu(u32 index, u64 extended_state_mask) {
  Cpu& cpu = cpu_at(index);
  cpu.index = index;
  cpu.kernel_stack_top = vcpu_stack_top(index);
  cpu.thread.vcpu = index;
  cpu.counters = static_cast<VcpuCounters*>(
      platform::direct_map(PhysicalAddress(vcpu_counters_address(index))));
  load_descriptor_tables(cpu);
  set_control_registers(extended_state_mask);
  set_system_call_entry(cpu);
  cpu.initialized = true;
}

}  // namespace dbos::arch
