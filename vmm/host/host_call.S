// System calls on the program's behalf without a lost wake-up: vmm/host/host_call.h.
//
// Between the look at *pending and the `syscall` instruction a signal must not be overlooked: the
// call would sleep although the program's handler should run. The signal handler
// (vmm/process/signals.cpp) therefore moves a thread that it finds in
// [dbos_host_call_check, dbos_host_call_end) on to one of the two exits below. Linux itself puts the
// instruction pointer back onto `syscall` when it would restart the call, so that case falls into
// the same range; it is told apart by RCX, which `syscall` has set to dbos_host_call_end.
#include "vmm/host/host_call_results.h"

        .section .text, "ax", @progbits
        .globl  dbos_host_call, dbos_host_call_check, dbos_host_call_end
        .globl  dbos_host_call_not_started, dbos_host_call_interrupted, dbos_host_call_again
        .hidden dbos_host_call_check, dbos_host_call_end
        .hidden dbos_host_call_not_started, dbos_host_call_interrupted, dbos_host_call_again
        .type   dbos_host_call, @function
        .p2align 5

// int64_t dbos_host_call(const volatile uint32_t* pending, uint64_t number,
//                        const uint64_t arguments[6])
dbos_host_call:
        .cfi_startproc
        movq    %rsi, %rax
        movq    %rdi, %r11
        movq    %rdx, %rcx
        movq    0(%rcx), %rdi
        movq    8(%rcx), %rsi
        movq    16(%rcx), %rdx
        movq    24(%rcx), %r10
        movq    32(%rcx), %r8
        movq    40(%rcx), %r9
dbos_host_call_check:
        cmpl    $0, (%r11)
        jne     dbos_host_call_not_started
        syscall
dbos_host_call_end:
        ret
dbos_host_call_not_started:
        movq    $DBOS_HOST_CALL_NOT_STARTED, %rax
        ret
dbos_host_call_interrupted:
        movq    $DBOS_HOST_CALL_INTERRUPTED, %rax
        ret
dbos_host_call_again:
        movq    $DBOS_HOST_CALL_AGAIN, %rax
        ret
        .cfi_endproc
        .size   dbos_host_call, . - dbos_host_call

// The return from a handler that was installed without libc. Debuggers know these two instructions.
        .globl  dbos_signal_restorer
        .hidden dbos_signal_restorer
        .type   dbos_signal_restorer, @function
        .p2align 4
        nop                             // unwinders look up the address before the return address
dbos_signal_restorer:
        movq    $15, %rax               // rt_sigreturn
        syscall
        .size   dbos_signal_restorer, . - dbos_signal_restorer

        .section .note.GNU-stack, "", @progbits
