# The first sectors of the disk that tools/vm/intel-check gives to Bochs: they load Linux and its
# initramfs, which follow on the disk, and enter the kernel as it is after unpacking itself, through its
# PVH entry. Unpacking would take the emulated processor longer than all the rest of the boot.
#
# Disk: this, 8 sectors; the kernel; the initramfs. All constants in capitals are intel-check's.
# PVH: Documentation/arch/x86/boot.rst and include/xen/interface/hvm/start_info.h in Linux.

.set SECTORS, 8                 # of this program
.set BUFFER_SEGMENT, 0x1000     # where the BIOS reads to
.set PIECE, 64                  # sectors: 32 KiB
.set STARTED, 0x600             # a word that the BIOS leaves alone
.set STARTED_MAGIC, 0x5056
.set POWER_PORT, 0xb004         # PIIX4's PM1a_CNT where Bochs's BIOS puts it
.set POWER_OFF, 0x2000          # SLP_EN, and Bochs's type for S5
.set CONSOLE_PORT, 0x3f8

        .code16
        .globl _start
_start: cli
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        ljmp $0, $1f
        # Here again: Linux panicked and made a reset. There is no use in a second time.
1:      cmpw $STARTED_MAGIC, STARTED
        je power_off
        movw $STARTED_MAGIC, STARTED
        inb $0x92, %al          # the A20 gate
        orb $2, %al
        outb %al, $0x92
        movw $rest_packet, %si
        call read_disk

next_piece:
        movl left, %ecx
        testl %ecx, %ecx
        jz next_file
        cmpl $PIECE, %ecx
        jbe 1f
        movl $PIECE, %ecx
1:      subl %ecx, left
        movw %cx, packet_sectors
        pushl %ecx
        movw $packet, %si
        call read_disk
        popl %ecx
        addl %ecx, packet_sector
        # "Unreal" mode: a limit of 4 GiB stays in es after protected mode.
        cli
        lgdtl gdt_pointer
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        jmp 2f
2:      movw $16, %bx
        movw %bx, %es
        andb $0xfe, %al
        movl %eax, %cr0
        jmp 3f
3:      xorw %ax, %ax
        movw %ax, %es
        movl target, %edi
        pushw $BUFFER_SEGMENT
        popw %ds
        shll $7, %ecx           # double words
        xorl %esi, %esi
        cld
        addr32 rep movsl %ds:(%esi), %es:(%edi)
        movw %ax, %ds
        movl %edi, target
        jmp next_piece

next_file:
        movl initramfs_sectors, %eax
        testl %eax, %eax
        jz enter_kernel
        movl %eax, left
        movl $0, initramfs_sectors
        movl $INITRAMFS, target
        jmp next_piece

enter_kernel:
        cli
        lgdtl gdt_pointer
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0
        ljmpl $8, $enter_kernel_32

read_disk: # the packet at si, from the first disk
        movb $0x42, %ah
        movb $0x80, %dl
        int $0x13
        jc failed
        ret
failed: movw $message, %si
1:      lodsb
        testb %al, %al
        jz power_off
        movw $CONSOLE_PORT, %dx
        outb %al, %dx
        jmp 1b
power_off:
        movw $POWER_PORT, %dx
        movw $POWER_OFF, %ax
        outw %ax, %dx
        hlt
        jmp power_off

        .code32
enter_kernel_32:
        movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl $start_info, %ebx
        movl $KERNEL_ENTRY, %eax
        jmp *%eax

        .balign 8
gdt:    .quad 0
        .quad 0x00cf9b000000ffff        # code, 4 GiB
        .quad 0x00cf93000000ffff        # data, 4 GiB
gdt_pointer:
        .word 23
        .long gdt
        .balign 4
left:   .long KERNEL_SECTORS
target: .long KERNEL
initramfs_sectors:
        .long INITRAMFS_SECTORS
# Disk address packets: size, sectors, buffer, first sector.
rest_packet:
        .word 16, SECTORS - 1, 0x7e00, 0
        .quad 1
packet: .word 16
packet_sectors:
        .word 0, 0, BUFFER_SEGMENT
packet_sector:
        .quad SECTORS
message:
        .asciz "The BIOS cannot read the disk.\n"
        .org 510
        .word 0xaa55

        .balign 8
start_info:
        .long 0x336ec578, 1, 0, 1       # magic, version, flags, modules
        .long modules, 0
        .long command_line, 0
        .long 0, 0                      # Linux looks for ACPI's tables itself
        .long memory_map, 0
        .long 4, 0                      # entries
modules:
        .long INITRAMFS, 0
        .long INITRAMFS_SECTORS * 512, 0
        .long 0, 0, 0, 0
memory_map: # address, size, type: 1 memory, 2 reserved, 3 ACPI
        .long 0, 0, 0x9f000, 0, 1, 0
        .long 0x9f000, 0, 0x61000, 0, 2, 0
        .long 0x100000, 0, MEMORY - 0x110000, 0, 1, 0
        .long MEMORY - 0x10000, 0, 0x10000, 0, 3, 0
command_line:
        .incbin "command-line"
        .byte 0
        .org SECTORS * 512
