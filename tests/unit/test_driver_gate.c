/* The last gate: whatever the quota, no mask leaves it that would hang a launch. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cards.h"
#include "driver/gate.h"

static struct lithos_tpcset set_of(const char *text)
{
    struct lithos_tpcset set;
    assert_int_equal(lithos_tpcset_parse(text, &set), 0);
    return set;
}

/* Measured on the H200 (docs/hardware.md): which masks a cluster survives. */
static void test_measured_cases(void **state)
{
    (void)state;
    static const struct {
        const char *set;
        unsigned blocks;
        bool runs;
    } cases[] = {
        {"0-1", 4, true},  {"0", 4, false},          {"0,9", 4, false},  {"75,78", 4, false},
        {"9-12", 8, true}, {"9-10,18-19", 8, false}, {"9-16", 16, true}, {"54-62", 16, true},
        {"75", 2, true},   {"4-8", 1, false},        {"17", 1, false},   {"100", 1, false},
    };
    struct lithos_topology card = card_h200();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (lithos_gate_safe_on(&card, set_of(cases[i].set), cases[i].blocks) != cases[i].runs)
            fail_msg("cluster of %u on %s", cases[i].blocks, cases[i].set);
}

static void test_rows(void **state)
{
    (void)state;
    struct lithos_topology card = card_h200();
    struct lithos_gate gate;
    assert_int_equal(lithos_gate_build(&card, set_of("0"), &gate), 0);
    assert_int_equal(gate.rows[0].state, LITHOS_GATE_OWN);
    assert_int_equal(gate.rows[1].state, LITHOS_GATE_OWN);
    assert_int_equal(gate.rows[3].state, LITHOS_GATE_BREACH);
    assert_int_equal(lithos_tpcset_count(&gate.rows[3].set), 2);
    assert_true(lithos_tpcset_has(&gate.rows[3].set, 0));
    assert_int_equal(gate.rows[15].state, LITHOS_GATE_BREACH);
    /* bits that name no TPC never come out */
    assert_int_equal(lithos_gate_build(&card, set_of("0,4-8,17,127"), &gate), 0);
    for (unsigned i = 0; i < LITHOS_CLUSTER_MAX; i++) {
        struct lithos_tpcset outside = lithos_tpcset_minus(gate.rows[i].set, card.valid);
        assert_true(lithos_tpcset_empty(&outside));
    }
}

static void test_refuses(void **state)
{
    (void)state;
    struct lithos_topology card = card_h200(), none = {.sms_per_tpc = 2};
    struct lithos_gate gate;
    struct lithos_tpcset empty = {{0, 0}};
    assert_int_equal(lithos_gate_build(&card, empty, &gate), -EINVAL);
    assert_int_equal(lithos_gate_build(&card, set_of("4-8"), &gate), -EINVAL);
    assert_int_equal(lithos_gate_build(&none, set_of("0"), &gate), -EINVAL);
}

static void test_no_card_hangs(void **state)
{
    (void)state;
    uint64_t random = 42;
    int breaches = 0, closed = 0;
    for (int n = 0; n < 5000; n++) {
        struct lithos_topology card = card_random(&random);
        struct lithos_tpcset own;
        own.w[0] = next_random(&random);
        own.w[0] &= next_random(&random); /* sparse, so that clusters often find no room */
        own.w[1] = next_random(&random);
        struct lithos_gate gate;
        if (lithos_gate_build(&card, own, &gate) < 0)
            continue;
        for (unsigned blocks = 1; blocks <= LITHOS_CLUSTER_MAX; blocks++) {
            const struct lithos_gate_row *row = &gate.rows[blocks - 1];
            breaches += row->state == LITHOS_GATE_BREACH;
            closed += row->state == LITHOS_GATE_CLOSED;
            if (row->state == LITHOS_GATE_CLOSED) {
                assert_false(lithos_topology_has_room(&card, card.valid, blocks));
                continue;
            }
            struct lithos_tpcset outside = lithos_tpcset_minus(row->set, card.valid);
            assert_true(lithos_tpcset_empty(&outside));
            assert_false(lithos_tpcset_empty(&row->set));
            assert_true(lithos_topology_has_room(&card, row->set, blocks));
        }
    }
    assert_true(breaches > 100 && closed > 100); /* both kinds were met */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measured_cases),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_no_card_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
