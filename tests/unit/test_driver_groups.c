/* Channel groups of a process, and the imports of its driver, against a kernel driver of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "cuda/rm_abi.h"
#include "driver/groups.h"
#include "driver/imports.h"

#define CLIENT 0xc1d00001u
#define DEVICE 0x5c000001u
#define LATER_NS (60 * LITHOS_NSEC_PER_SEC)

/* ---- the kernel driver ---- */

static struct {
    struct {
        uint32_t object;
        uint64_t us;
        unsigned sets;
    } groups[LITHOS_GROUPS_MAX + 8];
    unsigned count, calls;
    uint32_t answer; /* of LITHOS_RM_GROUP_SET_TIMESLICE */
    int error;
} rm;

static uint32_t control(struct lithos_rm_control *c)
{
    struct lithos_rm_timeslice *slice = (struct lithos_rm_timeslice *)(uintptr_t)c->params;
    for (unsigned i = 0; i < rm.count; i++) {
        if (rm.groups[i].object != c->object)
            continue;
        if (c->command == LITHOS_RM_GROUP_GET_TIMESLICE)
            slice->us = rm.groups[i].us;
        if (c->command != LITHOS_RM_GROUP_SET_TIMESLICE)
            return LITHOS_RM_OK;
        if (rm.answer)
            return rm.answer;
        rm.groups[i].us = slice->us;
        rm.groups[i].sets++;
        return LITHOS_RM_OK;
    }
    return LITHOS_RM_OBJECT_NOT_FOUND;
}

/* In the place of the C library's, for all that is loaded into this program. */
__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    (void)fd;
    rm.calls++;
    if (rm.error) {
        errno = rm.error;
        return -1;
    }
    if (request == LITHOS_RM_REQUEST(LITHOS_RM_CONTROL, struct lithos_rm_control))
        ((struct lithos_rm_control *)arg)->status = control(arg);
    return 0;
}

/* ---- the driver library ---- */

static int (*call)(int, unsigned long, void *), (*call_by_table)(int, unsigned long, void *);
static void *library;
static int file = -1;
static unsigned changes;

static void changed(void)
{
    changes++;
}

static void make_group(uint32_t object)
{
    struct lithos_rm_alloc a = {
        .client = CLIENT, .parent = DEVICE, .object = object, .class = LITHOS_RM_CLASS_CHANNEL_GROUP};
    rm.groups[rm.count].object = object;
    rm.groups[rm.count].sets = 0;
    rm.groups[rm.count++].us = 2048;
    assert_int_equal(call(file, LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc), &a), 0);
}

static void free_object(uint32_t object)
{
    struct lithos_rm_free f = {.client = CLIENT, .object = object};
    assert_int_equal(call(file, LITHOS_RM_REQUEST(LITHOS_RM_FREE, struct lithos_rm_free), &f), 0);
}

static struct lithos_groups_state state_now(void)
{
    struct lithos_groups_state s;
    lithos_groups_state(&s);
    return s;
}

/* As long after a change as it takes for all of its settings. */
static void settle(uint32_t us)
{
    for (unsigned i = 0; i < 16; i++)
        lithos_groups_apply(us, lithos_now_ns() + LATER_NS);
}

static int begin(void **state)
{
    (void)state;
    memset(&rm, 0, sizeof rm);
    free_object(CLIENT); /* all of them */
    settle(0);
    rm.calls = changes = 0;
    return 0;
}

/* ---- tests ---- */

static void test_set_and_given_back(void **state)
{
    (void)state;
    make_group(1);
    make_group(2);
    assert_int_equal(changes, 2);
    assert_int_equal(state_now().groups, 2);
    assert_int_equal(state_now().set, 0);
    settle(1);
    assert_int_equal(state_now().set, 2);
    assert_int_equal(rm.groups[0].us, 1);
    assert_int_equal(rm.groups[1].us, 1);
    assert_int_equal(changes, 2); /* its own calls are none of the driver's */
    make_group(3);                /* later */
    assert_int_equal(state_now().set, 2);
    settle(1);
    assert_int_equal(rm.groups[2].us, 1);
    settle(0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rm.groups[i].us, 2048);
    assert_int_equal(state_now().set, 0);
    assert_int_equal(state_now().groups, 3);
}

/* A slice that was set before the context stood has no effect: it is set again after a while, and not for ever. */
static void test_set_again(void **state)
{
    (void)state;
    make_group(1);
    const uint64_t at = lithos_now_ns();
    uint64_t next = lithos_groups_apply(1, at);
    assert_int_equal(rm.groups[0].sets, 0);
    assert_true(next > at && next <= at + LITHOS_NSEC_PER_SEC);
    for (unsigned times = 1; next != UINT64_MAX; times++) {
        next = lithos_groups_apply(1, next);
        assert_int_equal(rm.groups[0].sets, times);
        assert_true(times < 10);
    }
    assert_true(rm.groups[0].sets > 1);
    const unsigned sets = rm.groups[0].sets;
    lithos_groups_apply(1, at + LATER_NS);
    assert_int_equal(rm.groups[0].sets, sets);
    /* a channel comes into it: its context is not made yet */
    struct lithos_rm_alloc channel = {.client = CLIENT, .parent = 1, .object = 77, .class = 0xc86f};
    assert_int_equal(call(file, LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc), &channel), 0);
    assert_true(lithos_groups_apply(1, lithos_now_ns()) != UINT64_MAX);
    settle(1);
    assert_true(rm.groups[0].sets > sets);
}

/* What the driver itself sets is what the group is given back. */
static void test_drivers_own_slice(void **state)
{
    (void)state;
    struct lithos_rm_timeslice slice = {.us = 512};
    struct lithos_rm_control c = {.client = CLIENT,
                                  .object = 1,
                                  .command = LITHOS_RM_GROUP_SET_TIMESLICE,
                                  .params = (uintptr_t)&slice,
                                  .params_bytes = sizeof slice};
    make_group(1);
    settle(1);
    assert_int_equal(call_by_table(file, LITHOS_RM_REQUEST(LITHOS_RM_CONTROL, struct lithos_rm_control), &c),
                     0);
    assert_int_equal(rm.groups[0].us, 512);
    settle(1);
    assert_int_equal(rm.groups[0].us, 1);
    settle(0);
    assert_int_equal(rm.groups[0].us, 512);
}

static void test_refused(void **state)
{
    (void)state;
    make_group(1);
    rm.answer = LITHOS_RM_INSUFFICIENT_PERMISSIONS;
    settle(1);
    assert_int_equal(state_now().set, 0);
    assert_int_equal(state_now().refused, 1);
    assert_int_equal(state_now().status, LITHOS_RM_INSUFFICIENT_PERMISSIONS);
    assert_int_equal(rm.groups[0].us, 2048);
    rm.answer = 0;
    settle(0);
    settle(1); /* asked again when it is wanted anew */
    assert_int_equal(state_now().refused, 0);
    assert_int_equal(state_now().set, 1);
    make_group(2);
    rm.error = EPERM;
    settle(1);
    assert_int_equal(state_now().status, LITHOS_GROUPS_ERRNO | EPERM);
}

static void test_gone(void **state)
{
    (void)state;
    make_group(1);
    make_group(2);
    make_group(3);
    free_object(2);
    assert_int_equal(state_now().groups, 2);
    rm.groups[2].object = 99; /* 3 went with something that it belonged to */
    settle(1);
    assert_int_equal(state_now().groups, 1);
    assert_int_equal(rm.groups[0].us, 1);
    free_object(DEVICE);
    assert_int_equal(state_now().groups, 0);
    /* the same handle again is another group */
    memset(&rm, 0, sizeof rm);
    make_group(1);
    settle(1);
    assert_int_equal(rm.groups[0].us, 1);
    /* the driver's file is closed, and its number is another's */
    const unsigned calls = rm.calls;
    const int other = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const int saved = dup(file);
    assert_int_equal(dup2(other, file), file);
    settle(0);
    assert_int_equal(rm.calls, calls);
    assert_int_equal(state_now().groups, 0);
    assert_int_equal(dup2(saved, file), file);
    close(saved);
    close(other);
}

/* What is not known is passed on, and nothing is made of it. */
static void test_left_alone(void **state)
{
    (void)state;
    struct lithos_rm_alloc a = {.client = CLIENT, .parent = DEVICE, .object = 1, .class = 0xc86f};
    unsigned char large[256] = {0};
    memcpy(large, &a, sizeof a);
    ((struct lithos_rm_alloc *)large)->class = LITHOS_RM_CLASS_CHANNEL_GROUP;
    assert_int_equal(call(file, LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc), &a), 0);
    assert_int_equal(call(file, _IOC(_IOC_READ | _IOC_WRITE, 'F', LITHOS_RM_ALLOC, sizeof large), large), 0);
    assert_int_equal(call(file, _IOC(_IOC_READ | _IOC_WRITE, 'G', LITHOS_RM_ALLOC, sizeof a), large), 0);
    a.class = LITHOS_RM_CLASS_CHANNEL_GROUP;
    a.status = LITHOS_RM_NOT_SUPPORTED; /* it failed */
    assert_int_equal(call(file, LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc), &a), 0);
    rm.error = ENOTTY;
    a.status = 0;
    assert_int_equal(call(file, LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc), &a), -1);
    assert_int_equal(errno, ENOTTY);
    assert_int_equal(call(file, LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc), NULL), -1);
    assert_int_equal(state_now().groups, 0);
    assert_int_equal(changes, 0);
    assert_int_equal(rm.calls, 6);
}

static void test_too_many(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < LITHOS_GROUPS_MAX + 2; i++)
        make_group(1 + i);
    settle(1);
    assert_int_equal(state_now().set, LITHOS_GROUPS_MAX);
    assert_int_equal(state_now().refused, 2);
    assert_int_equal(state_now().status, LITHOS_GROUPS_FULL);
    assert_int_equal(rm.groups[LITHOS_GROUPS_MAX].us, 2048);
    lithos_groups_forget();
}

static void test_imports(void **state)
{
    (void)state;
    void *before = NULL;
    assert_int_equal(lithos_import_replace(library, "no_such_function", (void *)changed, &before), -ENOENT);
    assert_null(before);
    assert_int_equal(lithos_groups_watch(library, changed), 0); /* again: nothing */
    make_group(1);
    assert_int_equal(changes, 1);
    /* the program's own calls are not its library's */
    struct lithos_rm_alloc a = {
        .client = CLIENT, .parent = DEVICE, .object = 2, .class = LITHOS_RM_CLASS_CHANNEL_GROUP};
    assert_int_equal(ioctl(file, LITHOS_RM_REQUEST(LITHOS_RM_ALLOC, struct lithos_rm_alloc), &a), 0);
    assert_int_equal(changes, 1);
}

static int load(void **state)
{
    (void)state;
    library = dlopen(LITHOS_BINARY_DIR "/tests/stub/stub_ioctl.so", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return -1;
    *(void **)&call = dlsym(library, "stub_call");
    *(void **)&call_by_table = dlsym(library, "stub_call_by_table");
    file = open("/dev/null", O_RDWR | O_CLOEXEC);
    return call && call_by_table && file >= 0 && lithos_groups_watch(library, changed) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_set_and_given_back, begin),
        cmocka_unit_test_setup(test_set_again, begin),
        cmocka_unit_test_setup(test_drivers_own_slice, begin),
        cmocka_unit_test_setup(test_refused, begin),
        cmocka_unit_test_setup(test_gone, begin),
        cmocka_unit_test_setup(test_left_alone, begin),
        cmocka_unit_test_setup(test_too_many, begin),
        cmocka_unit_test_setup(test_imports, begin),
    };
    return cmocka_run_group_tests(tests, load, NULL);
}
