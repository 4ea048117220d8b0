lithos_e2e_test(sim sim.py TIMEOUT 200 LABELS notsan)
