lithos_e2e_test(cli cli.py TIMEOUT 200)
# The figures of a sanitizer build are not worth comparing: the demo's bars are for plain ones.
lithos_e2e_test(demo demo.py passes TIMEOUT 240 SERIAL LABELS nosan)
lithos_e2e_test(demo_stopped demo.py stopped TIMEOUT 120 LABELS nosan)
# Its tenants are Python, which has no sanitizer's runtime in it from the start.
lithos_e2e_test(sm_count sm_count.py TIMEOUT 120 LABELS nosan)
