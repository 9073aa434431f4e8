#include "guest/arch/entry_constants.h"

#include "guest/arch/cpu.h"
#include "guest/arch/trap_frame.h"

namespace dbos::arch {

static_assert(DBOS_CODE_SELECTOR == kCodeSelector && DBOS_DATA_SELECTOR == kDataSelector);
static_assert(DBOS_SYSTEM_CALL_VECTOR == kSystemCallVector);
static_assert(DBOS_SOFTWARE_INTERRUPT == kSoftwareInterrupt);
static_assert(DBOS_FRAME_SIZE == sizeof(TrapFrame) && sizeof(TrapFrame) % 16 == 0);
static_assert(DBOS_FRAME_RCX == offsetof(TrapFrame, rcx));
static_assert(DBOS_FRAME_RIP == offsetof(TrapFrame, rip));
static_assert(DBOS_FRAME_RFLAGS == offsetof(TrapFrame, rflags));
static_assert(DBOS_FRAME_RSP == offsetof(TrapFrame, rsp));
static_assert(DBOS_FRAME_TAIL_RIP == offsetof(TrapFrame, rip) - offsetof(TrapFrame, vector));
static_assert(DBOS_FRAME_TAIL_RFLAGS == offsetof(TrapFrame, rflags) - offsetof(TrapFrame, vector));
static_assert(DBOS_KERNEL_IMAGE_BASE == kKernelImageBase);
static_assert(static_cast<u64>(DBOS_VCPU_STRIDE_MASK) == ~(kVcpuStride - 1));
static_assert(DBOS_PAGE_ATTENTION == kVcpuHypercallOffset + offsetof(HypercallPage, attention));
static_assert(DBOS_CPU_STACK_TOP == kVcpuDataOffset + offsetof(Cpu, kernel_stack_top));

}  // namespace dbos::arch
