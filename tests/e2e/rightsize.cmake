lithos_e2e_test(rightsize rightsize.py TIMEOUT 120)
