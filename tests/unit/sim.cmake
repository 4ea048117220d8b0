lithos_unit_test(test_sim LINK lithos_sim)
# Random scenarios with checkers, as many as CI has time for; tools/swarm.sh runs more.
add_test(NAME sim/swarm COMMAND lithos sim --swarm 10000 --jobs 2)
set_tests_properties(sim/swarm PROPERTIES LABELS sim TIMEOUT 300 PROCESSORS 2)
