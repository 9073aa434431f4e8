// int64_t dbos_clone(flags, stack, parent word, child word, thread pointer): clone(2). The child pops
// its entry function and argument from the new stack.
    .text
    .globl dbos_clone
    .type dbos_clone, @function
dbos_clone:
    .cfi_startproc
    mov %rcx, %r10
    mov $56, %eax
    syscall
    test %rax, %rax
    jz 1f
    ret
1:  .cfi_undefined rip
    xor %ebp, %ebp
    pop %rax
    pop %rdi
    call *%rax
    ud2
    .cfi_endproc
    .size dbos_clone, . - dbos_clone
    .section .note.GNU-stack, "", @progbits
