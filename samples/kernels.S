/* The kernels' PTX text inside the programs, so that a sample tenant is one file. */
    .section .rodata
    .globl sample_kernels_ptx
    .hidden sample_kernels_ptx
    .type sample_kernels_ptx, @object
    .balign 16
sample_kernels_ptx:
    .incbin "kernels/samples.ptx"
    .byte 0
    .size sample_kernels_ptx, . - sample_kernels_ptx
    .section .note.GNU-stack,"",@progbits
