// The guest kernel, built before and carried as data.
    .section .rodata
    .globl dbos_kernel_image_begin
    .globl dbos_kernel_image_end
    .p2align 12
dbos_kernel_image_begin:
    .incbin DBOS_KERNEL_FILE
dbos_kernel_image_end:
    .byte 0
    .section .note.GNU-stack, "", @progbits
