/* core/energy: worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/energy.h"

#define S LITHOS_NSEC_PER_SEC

static void shares_by_tpc_time(void **unused)
{
    struct lithos_energy e;

    (void)unused;
    lithos_energy_init(&e);
    lithos_energy_look(&e, 10 * S, 5000);
    lithos_energy_look(&e, 11 * S, 5100); /* 100 W, nobody */
    assert_true(e.nobody_mj == 100 && e.idle_mw == 100);
    /* 1 s: 300 mJ; tenant 1 on 10 TPCs for 0.3 s, tenant 2 on 20 for 0.3 s */
    lithos_energy_kernel(&e, 1, 3 * S / 10, 10);
    lithos_energy_kernel(&e, 2, 3 * S / 10, 20);
    lithos_energy_kernel(&e, LITHOS_ENERGY_TENANTS_MAX, S, 66);
    lithos_energy_look(&e, 12 * S, 5400);
    assert_true(fabs(e.tenant[1].whole_mj - 100) < 1e-6 && fabs(e.tenant[2].whole_mj - 200) < 1e-6);
    assert_true(fabs(e.tenant[1].least_mj - 200.0 / 3) < 1e-6 &&
                fabs(e.tenant[2].least_mj - 400.0 / 3) < 1e-6);
    assert_true(e.all_mj == 400);
    /* all of it is somebody's or nobody's */
    assert_true(fabs(e.tenant[1].whole_mj + e.tenant[2].whole_mj + e.nobody_mj - e.all_mj) < 1e-6);
}

static void looks_that_say_nothing(void **unused)
{
    struct lithos_energy e;

    (void)unused;
    lithos_energy_init(&e);
    lithos_energy_look(&e, 1 * S, 1000);
    lithos_energy_kernel(&e, 0, S / 1000, 66);
    lithos_energy_look(&e, 1 * S + S / 1000, 1001); /* too soon */
    assert_true(e.all_mj == 0 && e.tenant[0].tpc_ns > 0);
    lithos_energy_look(&e, 2 * S, 10); /* the counter began anew: nothing is known */
    assert_true(e.all_mj == 0 && e.tenant[0].whole_mj == 0);
    lithos_energy_kernel(&e, 0, S / 1000, 66);
    lithos_energy_look(&e, 3 * S, 210);
    assert_true(e.tenant[0].whole_mj == 200);
    assert_true(e.tenant[0].least_mj == 0); /* what it draws idle has not been seen */
    lithos_energy_forget(&e, 0);
    assert_true(e.tenant[0].whole_mj == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares_by_tpc_time),
                                       cmocka_unit_test(looks_that_say_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
