# Launch records, stamps, accounts, traces, top: against what the card and the tenants themselves count.
lithos_e2e_test(observe observe.py TIMEOUT 240)
# Kills at random, and what the killed themselves counted. A process that cannot attach within its second, lithosd being halted, runs
# unseen: with much else at once, or ThreadSanitizer's slowness, that would be what is counted.
lithos_e2e_test(nothing_lost bench.py nothing_lost TIMEOUT 240 SERIAL LABELS notsan)
# lithosd is asleep when it begins. Times matter, so nothing runs beside it.
lithos_e2e_test(burst burst.py TIMEOUT 120 SERIAL LABELS timing)
# Replays of graphs, and changes to them. The tenant is Python, which has no sanitizer's runtime in it from the start.
lithos_e2e_test(graphs graphs.py TIMEOUT 120 LABELS nosan)
lithos_e2e_test(graph_atoms graph_atoms.py TIMEOUT 120 LABELS nosan)
# Graphs of tenants whose quota changes.
lithos_e2e_test(graph_quota graph_quota.py TIMEOUT 180 LABELS nosan)
lithos_e2e_test(graph_borrow graph_borrow.py TIMEOUT 120 LABELS nosan)
