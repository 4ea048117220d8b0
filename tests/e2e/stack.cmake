# The whole stack on the virtual GPU.
lithos_e2e_test(tenancy tenancy.py TIMEOUT 240)
lithos_e2e_test(badinput badinput.py TIMEOUT 240)
# Without a sanitizer each release is held to its bound, so nothing may run beside it.
if(LITHOS_SANITIZE)
  lithos_e2e_test(chaos chaos.py --events 200 --seed 1 TIMEOUT 400)
else()
  lithos_e2e_test(chaos chaos.py --events 200 --seed 1 TIMEOUT 400 SERIAL)
endif()
# Every second tenant borrows.
lithos_e2e_test(chaos_lend chaos.py --events 40 --seed 2 --lend TIMEOUT 200)
lithos_e2e_test(atoms atoms.py TIMEOUT 400)
lithos_e2e_test(atom_length atom_length.py TIMEOUT 300 LABELS timing SERIAL)
# Random programs of a best-effort tenant, whose launches wait in queues.
add_executable(lithos-order e2e/order/order.c e2e/order/order_calls.c e2e/order/order_program.c)
target_link_libraries(lithos-order PRIVATE lithos_samples)
set_target_properties(lithos-order PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
lithos_e2e_test(order order.py TIMEOUT 300)
# What is lent, and taken back; kernels of its own length, so no sanitizers' time.
lithos_e2e_test(lend_borrow lend.py borrow TIMEOUT 120 LABELS nosan)
lithos_e2e_test(lend_atoms lend.py atoms TIMEOUT 120 LABELS nosan)
lithos_e2e_test(lend_zero lend.py zero TIMEOUT 120 LABELS nosan)
lithos_e2e_test(lend_death lend.py death TIMEOUT 120 LABELS nosan)
lithos_e2e_test(lend_policy lend.py policy TIMEOUT 120 LABELS nosan)
lithos_e2e_test(gather gather.py TIMEOUT 120 LABELS nosan)
# A sanitizer has an ioctl() of its own, which the virtual driver then calls.
lithos_e2e_test(preempt preempt.py TIMEOUT 120 LABELS nosan)
