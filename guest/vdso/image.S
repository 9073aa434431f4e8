// The vDSO as data of the guest kernel. DBOS_VDSO_FILE is the linked image.
        .section .rodata
        .globl dbos_vdso_image, dbos_vdso_image_end
        .p2align 12
dbos_vdso_image:
        .incbin DBOS_VDSO_FILE
dbos_vdso_image_end:
        .p2align 12
        .section .note.GNU-stack, "", @progbits
