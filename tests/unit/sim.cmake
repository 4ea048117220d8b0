lithos_unit_test(test_sim LINK lithos_sim)
lithos_unit_test(test_sim_rightsize LINK lithos_sim)
lithos_unit_test(test_power LINK lithos_sim)
# Random scenarios with checkers, as many as CI has time for; tools/swarm.sh runs more.
add_test(NAME sim/swarm COMMAND lithos sim --swarm 7000 --jobs 2)
# Right-sized owners: never slower than their slip, with and without the other tenants.
add_test(NAME sim/swarm-rightsize COMMAND lithos sim --swarm 30 --jobs 2 --slip 1.1)
set_tests_properties(sim/swarm-rightsize PROPERTIES LABELS sim TIMEOUT 300 PROCESSORS 2)
set_tests_properties(sim/swarm PROPERTIES LABELS sim TIMEOUT 300 PROCESSORS 2)
