/* lithos_message_validate: what it lets through has strings that end, counts in range and a grant that holds up. */
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "fuzz/fuzz.h"
#include "proto/message.h"

static void must(bool condition)
{
    if (!condition)
        abort();
}

static void check_accepted(const union lithos_message *m)
{
    switch ((enum lithos_msg_type)m->h.type) {
    case LITHOS_MSG_ADMIT:
        must(strnlen(m->admit.name, LITHOS_NAME_MAX) < LITHOS_NAME_MAX);
        must(strnlen(m->admit.command, LITHOS_NAME_MAX) < LITHOS_NAME_MAX);
        must(m->admit.gpu_count <= LITHOS_MAX_GPUS && m->admit.visible_count <= LITHOS_MAX_GPUS);
        must(m->admit.quota.value > 0 && m->admit.quota.unit < LITHOS_QUOTA_UNIT_MAX);
        break;
    case LITHOS_MSG_ADMITTED:
        must(strnlen(m->admitted.note, LITHOS_TEXT_MAX) < LITHOS_TEXT_MAX);
        must(strnlen(m->admitted.mps_pipe_dir, LITHOS_PATH_BYTES) < LITHOS_PATH_BYTES);
        must(lithos_grant_validate(&m->admitted.grant) == 0 && m->admitted.mode < LITHOS_MODE_MAX);
        break;
    case LITHOS_MSG_ATTACH:
        must(strnlen(m->attach.process, LITHOS_NAME_MAX) < LITHOS_NAME_MAX && m->attach.tenant);
        break;
    case LITHOS_MSG_SET:
        must(m->set.name[0] && strnlen(m->set.name, LITHOS_NAME_MAX) < LITHOS_NAME_MAX);
        break;
    case LITHOS_MSG_ERROR:
        must(m->error.error < 0 && strnlen(m->error.text, LITHOS_TEXT_MAX) < LITHOS_TEXT_MAX);
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    union lithos_message m;
    const char *why = NULL;
    memset(&m, 0xa5, sizeof m);
    memcpy(&m, data, LITHOS_MIN(size, sizeof m));
    if (lithos_message_validate(&m, size, &why) == 0) {
        must(size == lithos_message_size((enum lithos_msg_type)m.h.type));
        check_accepted(&m);
    } else {
        must(why && *why);
    }
    return 0;
}

size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size)
{
    union lithos_message m;
    if (n + 1 >= LITHOS_MSG_TYPE_MAX)
        return 0;
    lithos_message_init(&m, (enum lithos_msg_type)(n + 1));
    if (m.h.type == LITHOS_MSG_ADMIT)
        m.admit.quota = (struct lithos_quota){LITHOS_QUOTA_PERCENT, 4000};
    if (m.h.type == LITHOS_MSG_SET) {
        m.set.name[0] = 'a';
        m.set.what = LITHOS_SET_QUOTA;
        m.set.quota.value = 26;
    }
    if (m.h.type == LITHOS_MSG_ATTACH)
        m.attach.tenant = 1;
    if (m.h.type == LITHOS_MSG_ERROR)
        m.error.error = -1;
    if (m.h.type == LITHOS_MSG_ADMITTED) {
        m.admitted.tenant = 1;
        m.admitted.grant.gpu_count = 1;
        m.admitted.grant.gpus[0].topology = (struct lithos_topology){{{0xff, 0}}, 2, 9, 8, 0};
        m.admitted.grant.gpus[0].own = (struct lithos_tpcset){{3, 0}};
    }
    memcpy(buf, &m, LITHOS_MIN(size, m.h.size));
    return LITHOS_MIN(size, m.h.size);
}
