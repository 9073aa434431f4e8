// The ways into the guest kernel: boot, `syscall`, traps.
//
// The program runs in ring 0 too, so the CPU switches stacks only where an IST says so, and `syscall`
// never does. Rules:
//   - The program's stack is never written: it has a red zone.
//   - Every vector enters on an IST stack and moves at once: to the vCPU's kernel stack when the
//     program was interrupted, below the interrupted stack pointer when the kernel was (a fault on
//     program memory). So traps nest.
//   - There are no interrupts. What wants the kernel while the program runs comes as an exception
//     (kAttentionVector), raised in the program only.
//   - GS is the program's but for the window marked below.

#include "guest/arch/entry_constants.h"

    .text

// Boot and thread start. The VMM set: 64-bit mode, boot page tables, rsp = top of this vCPU's kernel
// stack, rdi = vCPU index, rsi = start argument.
    .globl kernel_entry
    .type kernel_entry, @function
kernel_entry:
    xor %ebp, %ebp
    cld
    sub $DBOS_FRAME_SIZE, %rsp  // the first frame of the program (arch::top_frame)
    call kernel_main
    ud2


    .macro SAVE_REGISTERS
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    .endm

    .macro RESTORE_REGISTERS
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    .endm

    .globl system_call_entry
    .type system_call_entry, @function
    .p2align 6
system_call_entry:
    swapgs                      // window: GS is the kernel's
    mov %rsp, %gs:0             // Cpu::entry_scratch
    mov %gs:8, %rsp             // Cpu::kernel_stack_top
    pushq $DBOS_DATA_SELECTOR
    pushq %gs:0
    swapgs                      // window ends
    push %r11                   // rflags
    pushq $DBOS_CODE_SELECTOR
    push %rcx                   // rip
    push %rax                   // error_code: the number, as Linux's orig_rax
    pushq $DBOS_SYSTEM_CALL_VECTOR
    SAVE_REGISTERS
    xor %ebp, %ebp
    mov %rsp, %rdi
    call handle_system_call     // al: may return the short way

// From here on to return_region_end: whoever wants attention, and finds the vCPU here, has it start again
// (kAttentionRegion). The frame of the program stays whole at the top of the kernel stack.
    .globl return_region_begin
return_region_begin:
    mov %rsp, %rcx
    and $DBOS_VCPU_STRIDE_MASK, %rcx
    cmpl $0, DBOS_PAGE_ATTENTION(%rcx)
    jne return_restart
    test %al, %al
    jz 3f
    RESTORE_REGISTERS
    mov DBOS_FRAME_TAIL_RIP(%rsp), %rcx
    lea DBOS_FRAME_TAIL_RFLAGS(%rsp), %rsp
    popfq                       // the program's flags
    mov (%rsp), %rsp            // the program's stack pointer
    jmp *%rcx
3:  RESTORE_REGISTERS
    add $16, %rsp               // vector, error code
    .globl return_instruction
return_instruction:
    iretq
    .globl return_region_end
return_region_end:

    .globl return_restart
return_restart:                 // rsp: anywhere on the kernel stack
    mov %rsp, %rax
    and $DBOS_VCPU_STRIDE_MASK, %rax
    mov DBOS_CPU_STACK_TOP(%rax), %rsp
    sub $DBOS_FRAME_SIZE, %rsp
    xor %ebp, %ebp
    mov %rsp, %rdi
    call return_to_program
    xor %eax, %eax
    jmp return_region_begin

// To below rdi, and there with rsp.
    .macro MOVE_FRAME
    sub $DBOS_FRAME_SIZE, %rdi
    mov %rsp, %rsi
    mov %rdi, %rsp
    mov $(DBOS_FRAME_SIZE / 8), %ecx
    rep movsq
    xor %ebp, %ebp
    mov %rsp, %rdi
    .endm

    .type trap_common, @function
trap_common:
    SAVE_REGISTERS
    cld
    mov DBOS_FRAME_RIP(%rsp), %rax
    mov $DBOS_KERNEL_IMAGE_BASE, %rcx
    cmp %rcx, %rax
    jb 20f
    cmp $kernel_text_end, %rax
    jb 1f
    // The program was interrupted, or has jumped to where it has no code: the frame goes to the top of
    // the kernel stack.
20: mov %rsp, %rax
    and $DBOS_VCPU_STRIDE_MASK, %rax
    mov DBOS_CPU_STACK_TOP(%rax), %rdi
    MOVE_FRAME
    call handle_trap
    xor %eax, %eax
    jmp return_region_begin
1:  mov DBOS_FRAME_RSP(%rsp), %rdi
    test %rdi, %rdi
    js 21f
    // In the kernel, but on the program's stack: the last instruction of a system call's return. The
    // program has returned already, but for the jump.
    mov DBOS_FRAME_RCX(%rsp), %rax
    mov %rax, DBOS_FRAME_RIP(%rsp)
    jmp 20b
21: and $-16, %rdi
    MOVE_FRAME
    call handle_trap
    RESTORE_REGISTERS
    add $16, %rsp               // vector, error code
    iretq

// Of a vector with an error code. Whoever says `int n` pushes none: the stack, which began at a multiple
// of 16, has one word less.
    .type trap_with_error_code, @function
trap_with_error_code:
    test $8, %spl
    jnz trap_common
    pushq (%rsp)
    orq $DBOS_SOFTWARE_INTERRUPT, (%rsp)
    movq $0, 8(%rsp)            // the error code
    jmp trap_common

// One stub per vector; those without an error code push 0.
    .altmacro
    .macro TRAP_STUB vector
    .p2align 4
    .if \vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30
    pushq $\vector
    jmp trap_with_error_code
    .else
    pushq $0
    pushq $\vector
    jmp trap_common
    .endif
    .endm

    .globl trap_stubs
    .p2align 4
trap_stubs:
    .set vector_number, 0
    .rept 256
    TRAP_STUB %vector_number
    .set vector_number, vector_number + 1
    .endr

// Starts the program from the TrapFrame (rdi) at the top of the kernel stack: restores all registers.
    .globl resume_program
    .type resume_program, @function
resume_program:
    mov %rdi, %rsp
    xor %eax, %eax
    jmp return_region_begin

// Copies between kernel and program memory. rdi, rsi, rdx as memcpy; returns the bytes NOT copied.
    .globl copy_program_bytes
    .type copy_program_bytes, @function
copy_program_bytes:
    mov %rdx, %rcx
    and $7, %edx
    shr $3, %rcx
3:  rep movsq
    mov %edx, %ecx
4:  rep movsb
    xor %eax, %eax
    ret
5:  lea (%rdx,%rcx,8), %rcx     // a word faulted: words left, and the tail; finish byte by byte
6:  rep movsb
7:  mov %rcx, %rax
    ret
    .section .fixups, "a"
    .quad 3b, 5b
    .quad 4b, 7b
    .quad 6b, 7b
    .text

// Sets rsi bytes at rdi to zero; returns the bytes NOT cleared.
    .globl clear_program_bytes
    .type clear_program_bytes, @function
clear_program_bytes:
    mov %rsi, %rcx
    xor %eax, %eax
8:  rep stosb
9:  mov %rcx, %rax
    ret
    .section .fixups, "a"
    .quad 8b, 9b
    .text

// Copies a string of at most rdx bytes from rsi to rdi. Returns its length without the NUL, or -1 on a
// fault, or -2 where no NUL was found.
    .globl copy_program_string
    .type copy_program_string, @function
copy_program_string:
    xor %eax, %eax
10: cmp %rdx, %rax
    jae 12f
11: movb (%rsi,%rax), %cl
    movb %cl, (%rdi,%rax)
    test %cl, %cl
    jz 13f
    inc %rax
    jmp 10b
12: mov $-2, %rax
13: ret
14: mov $-1, %rax
    ret
    .section .fixups, "a"
    .quad 11b, 14b
    .text

// *rdi == esi ? edx : unchanged. Returns the old value, or -1 (64 bits) on a fault.
    .globl compare_exchange_program_word
    .type compare_exchange_program_word, @function
compare_exchange_program_word:
    mov %esi, %eax
15: lock cmpxchg %edx, (%rdi)
    mov %eax, %eax
    ret
16: mov $-1, %rax
    ret
    .section .fixups, "a"
    .quad 15b, 16b
    .text

// The 32-bit word at rdi, or -1 (64 bits) on a fault.
    .globl load_program_word
    .type load_program_word, @function
load_program_word:
17: mov (%rdi), %eax
    ret
18: mov $-1, %rax
    ret
    .section .fixups, "a"
    .quad 17b, 18b
    .text

    .section .note.GNU-stack, "", @progbits
