#include "guest/arch/cpu.h"
#include "guest/arch/trap.h"

extern "C" char trap_stubs[];

namespace dbos::arch {
namespace {

struct Gate {
  u16 offset_low;
  u16 selector;
  u8 ist;
  u8 type;
  u16 offset_middle;
  u32 offset_high;
  u32 reserved;
};
static_assert(sizeof(Gate) == 16);

constexpr u8 kInterruptGate = 0x8e;  // present, DPL 0: the program is in ring 0 as well
constexpr u64 kStubSize = 16;

alignas(kPageSize) Gate gates[256];

u8 stack_of(u32 vector) {
  if (vector == kDoubleFault) return kIstDoubleFault;
  if (vector == kDebug || vector == kNonMaskable || vector == kMachineCheck) return kIstDebug;
  return kIstTrap;
}

}  // namespace

void initialize_interrupt_table() {
  for (u32 vector = 0; vector < 256; ++vector) {
    const u64 stub = reinterpret_cast<u64>(trap_stubs) + vector * kStubSize;
    gates[vector] = Gate{static_cast<u16>(stub),
                         kCodeSelector,
                         stack_of(vector),
                         kInterruptGate,
                         static_cast<u16>(stub >> 16),
                         static_cast<u32>(stub >> 32),
                         0};
  }
}

u64 interrupt_table_address() {
  return reinterpret_cast<u64>(gates);
}

}  // namespace dbos::arch
