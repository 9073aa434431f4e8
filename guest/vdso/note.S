// What debuggers and libc look for in a vDSO: the Linux version that it speaks (6.1).
        .section .note.Linux, "a", @note
        .p2align 2
        .long 6                         // bytes of the name
        .long 4                         // bytes of the description
        .long 0                         // type: version
        .asciz "Linux"
        .p2align 2
        .long (6 << 16) | (1 << 8)
        .section .note.GNU-stack, "", @progbits
