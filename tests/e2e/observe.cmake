# Launch records, stamps, accounts, traces, top: against what the card and the tenants themselves count.
lithos_e2e_test(observe observe.py TIMEOUT 240 LABELS nosan)
