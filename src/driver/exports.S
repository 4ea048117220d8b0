/* One jump for each name of cuda/exports.def, and the stubs behind them (exports.h).
 *
 * exports.def is read again and again, so that an index means the same name in each table and in C. */

/* 1. Which names are hooked. */
#define HOOK(name, base, since, per_thread, kind) .set .Lhooked_##name, 1;
#define MARK(name, base, since, per_thread, args, on) .set .Lhooked_##name, 1;
#define WAIT(name, base, since, per_thread, what) .set .Lhooked_##name, 1;
#include "driver/hooks.def"
#undef HOOK
#undef MARK
#undef WAIT
#define NOTHING(name, why)
#define QUEUE(name, per_thread, form, stream, arguments)
#define DRAIN(name, per_thread, scope, stream, reason)
#define DO(name, per_thread, act, stream)
#define ENTRY_QUEUE(name, base, since, per_thread, form, stream, arguments) .set .Lordered_##name, 1;
#define ENTRY_DRAIN(name, base, since, per_thread, scope, stream, reason) .set .Lordered_##name, 1;
#define ENTRY_DO(name, base, since, per_thread, act, stream) .set .Lordered_##name, 1;
#include "driver/order.def"
#undef NOTHING
#undef QUEUE
#undef DRAIN
#undef DO
#undef ENTRY_QUEUE
#undef ENTRY_DRAIN
#undef ENTRY_DO

/* Launches, whose C functions bear the names themselves (hooks.c): no jump, and no page of code, more than needed. */
.set .Ldirect_cuLaunchKernel, 1
.set .Ldirect_cuLaunchKernelEx, 1

/* 2. The exported entries: to the wrapper; to the driver unless there are queues; to the driver. */
	.hidden lithos_order_state
	.text
#define EXPORT(name)                                                                                         \
	.ifndef .Ldirect_##name; .globl name; .type name, @function; .p2align 3; name:; .Lentry_##name:;          \
	.ifdef .Lhooked_##name; jmp lithos_hook_##name; .hidden lithos_hook_##name;                               \
	.else; .ifdef .Lordered_##name; cmpl $0, lithos_order_state(%rip); jne .Lorder_##name; .endif;            \
	jmp *lithos_real_slots + 8 * .Lindex(%rip); .endif; .size name, . - name; .endif;                         \
	.set .Lindex, .Lindex + 1;
	.set .Lindex, 0
#include "cuda/exports.def"
#undef EXPORT

/* 3. The stubs: push the index, then resolve. */
	.p2align 4
#define EXPORT(name) .Lstub_##name: pushq $.Lindex; jmp .Lresolve; .set .Lindex, .Lindex + 1;
	.set .Lindex, 0
#include "cuda/exports.def"
#undef EXPORT

/* At entry: the index at (%rsp), the caller's return address above it, every argument register live. All of them are
 * kept (al counts the vector registers of variadic calls, r10 is the static chain), the stack is aligned for C, and
 * the call goes on as if the stub had never been. A jump, not a ret: shadow stacks see no odd return. */
	.p2align 4
	.type .Lresolve, @function
.Lresolve:
	.cfi_startproc
	.cfi_def_cfa_offset 16
	pushq %rax
	.cfi_adjust_cfa_offset 8
	pushq %rcx
	.cfi_adjust_cfa_offset 8
	pushq %rdx
	.cfi_adjust_cfa_offset 8
	pushq %rsi
	.cfi_adjust_cfa_offset 8
	pushq %rdi
	.cfi_adjust_cfa_offset 8
	pushq %r8
	.cfi_adjust_cfa_offset 8
	pushq %r9
	.cfi_adjust_cfa_offset 8
	pushq %r10
	.cfi_adjust_cfa_offset 8
	pushq %r11
	.cfi_adjust_cfa_offset 8
	subq $136, %rsp
	.cfi_adjust_cfa_offset 136
	movups %xmm0, 0(%rsp)
	movups %xmm1, 16(%rsp)
	movups %xmm2, 32(%rsp)
	movups %xmm3, 48(%rsp)
	movups %xmm4, 64(%rsp)
	movups %xmm5, 80(%rsp)
	movups %xmm6, 96(%rsp)
	movups %xmm7, 112(%rsp)
	movq 208(%rsp), %rdi
	call lithos_export_resolve
	movq %rax, 208(%rsp)
	movups 0(%rsp), %xmm0
	movups 16(%rsp), %xmm1
	movups 32(%rsp), %xmm2
	movups 48(%rsp), %xmm3
	movups 64(%rsp), %xmm4
	movups 80(%rsp), %xmm5
	movups 96(%rsp), %xmm6
	movups 112(%rsp), %xmm7
	addq $136, %rsp
	.cfi_adjust_cfa_offset -136
	popq %r11
	.cfi_adjust_cfa_offset -8
	popq %r10
	.cfi_adjust_cfa_offset -8
	popq %r9
	.cfi_adjust_cfa_offset -8
	popq %r8
	.cfi_adjust_cfa_offset -8
	popq %rdi
	.cfi_adjust_cfa_offset -8
	popq %rsi
	.cfi_adjust_cfa_offset -8
	popq %rdx
	.cfi_adjust_cfa_offset -8
	popq %rcx
	.cfi_adjust_cfa_offset -8
	popq %rax
	.cfi_adjust_cfa_offset -8
	leaq 8(%rsp), %rsp
	.cfi_adjust_cfa_offset -8
	jmp *-8(%rsp)
	.cfi_endproc
	.hidden lithos_export_resolve

/* 4. Calls that may have to wait for what is queued: push the index, then ask. */
	.p2align 4
#define EXPORT(name) .ifdef .Lordered_##name; .Lorder_##name: pushq $.Lindex; jmp .Lorder; .endif; .set .Lindex, .Lindex + 1;
	.set .Lindex, 0
#include "cuda/exports.def"
#undef EXPORT

/* At entry as .Lresolve: the index at (%rsp), the return address above it, arguments of any kind in registers and on the stack. The C
 * side is shown the six integer ones, side by side, and those on the stack. It says go on (negative): the call goes to the driver as
 * if this had never been; or it gives the result. */
	.p2align 4
	.type .Lorder, @function
.Lorder:
	.cfi_startproc
	.cfi_def_cfa_offset 16
	pushq %rax
	.cfi_adjust_cfa_offset 8
	pushq %r10
	.cfi_adjust_cfa_offset 8
	pushq %r11
	.cfi_adjust_cfa_offset 8
	pushq %r9
	.cfi_adjust_cfa_offset 8
	pushq %r8
	.cfi_adjust_cfa_offset 8
	pushq %rcx
	.cfi_adjust_cfa_offset 8
	pushq %rdx
	.cfi_adjust_cfa_offset 8
	pushq %rsi
	.cfi_adjust_cfa_offset 8
	pushq %rdi
	.cfi_adjust_cfa_offset 8
	subq $136, %rsp
	.cfi_adjust_cfa_offset 136
	movups %xmm0, 0(%rsp)
	movups %xmm1, 16(%rsp)
	movups %xmm2, 32(%rsp)
	movups %xmm3, 48(%rsp)
	movups %xmm4, 64(%rsp)
	movups %xmm5, 80(%rsp)
	movups %xmm6, 96(%rsp)
	movups %xmm7, 112(%rsp)
	movq 208(%rsp), %rdi
	leaq 136(%rsp), %rsi
	leaq 224(%rsp), %rdx
	call lithos_order_entry
	testq %rax, %rax
	jns .Lanswered
	movq 208(%rsp), %rax
	leaq lithos_real_slots(%rip), %rcx
	movq (%rcx, %rax, 8), %rax
	movq %rax, 208(%rsp)
	movups 0(%rsp), %xmm0
	movups 16(%rsp), %xmm1
	movups 32(%rsp), %xmm2
	movups 48(%rsp), %xmm3
	movups 64(%rsp), %xmm4
	movups 80(%rsp), %xmm5
	movups 96(%rsp), %xmm6
	movups 112(%rsp), %xmm7
	addq $136, %rsp
	.cfi_adjust_cfa_offset -136
	popq %rdi
	.cfi_adjust_cfa_offset -8
	popq %rsi
	.cfi_adjust_cfa_offset -8
	popq %rdx
	.cfi_adjust_cfa_offset -8
	popq %rcx
	.cfi_adjust_cfa_offset -8
	popq %r8
	.cfi_adjust_cfa_offset -8
	popq %r9
	.cfi_adjust_cfa_offset -8
	popq %r11
	.cfi_adjust_cfa_offset -8
	popq %r10
	.cfi_adjust_cfa_offset -8
	popq %rax
	.cfi_adjust_cfa_offset -8
	leaq 8(%rsp), %rsp
	.cfi_adjust_cfa_offset -8
	jmp *-8(%rsp)
	.cfi_adjust_cfa_offset 216
.Lanswered:
	addq $216, %rsp
	.cfi_adjust_cfa_offset -216
	ret
	.cfi_endproc
	.hidden lithos_order_entry

/* 5. The slots, each holding its stub. */
	.data
	.p2align 3
	.globl lithos_real_slots
	.hidden lithos_real_slots
	.type lithos_real_slots, @object
lithos_real_slots:
#define EXPORT(name) .quad .Lstub_##name;
#include "cuda/exports.def"
#undef EXPORT
	.size lithos_real_slots, . - lithos_real_slots

/* What a launch looks at (LITHOS_LAUNCH_DATA) begins a page. */
	.section lithos_launch_data, "aw", @progbits
	.p2align 12

/* Addresses of the entries, relative to the table, so that loading relocates nothing for them. */
	.section .rodata
	.p2align 2
	.globl lithos_export_offsets
	.hidden lithos_export_offsets
	.type lithos_export_offsets, @object
lithos_export_offsets:
#define EXPORT(name)                                                                                         \
	.ifdef .Ldirect_##name; .long lithos_hook_##name - lithos_export_offsets; .hidden lithos_hook_##name;     \
	.else; .long .Lentry_##name - lithos_export_offsets; .endif;
#include "cuda/exports.def"
#undef EXPORT
	.size lithos_export_offsets, . - lithos_export_offsets

	.section .note.GNU-stack, "", @progbits
