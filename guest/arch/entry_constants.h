// The numbers that entry.S shares with C++; entry_constants.cpp asserts each against the structure
// that it comes from.
#pragma once

#define DBOS_CODE_SELECTOR 0x08
#define DBOS_DATA_SELECTOR 0x10
#define DBOS_SYSTEM_CALL_VECTOR 0x100
#define DBOS_SOFTWARE_INTERRUPT 0x200
#define DBOS_FRAME_SIZE 176
#define DBOS_FRAME_RCX 88
#define DBOS_FRAME_RIP 136
#define DBOS_FRAME_RFLAGS 152
#define DBOS_FRAME_RSP 160
// From TrapFrame::vector, where the stack pointer is after RESTORE_REGISTERS.
#define DBOS_FRAME_TAIL_RIP 16
#define DBOS_FRAME_TAIL_RFLAGS 32
#define DBOS_KERNEL_IMAGE_BASE 0xffffffff80000000
#define DBOS_VCPU_STRIDE_MASK (-0x40000)
#define DBOS_CPU_STACK_TOP 0x10008
#define DBOS_PAGE_ATTENTION 0x14028
