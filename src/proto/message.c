#include "proto/message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DOCUMENT_BYTES_MAX (64ull << 20)

size_t lithos_message_size(enum lithos_msg_type type)
{
    switch (type) {
    case LITHOS_MSG_ADMIT:
        return sizeof(struct lithos_msg_admit);
    case LITHOS_MSG_ADMITTED:
        return sizeof(struct lithos_msg_admitted);
    case LITHOS_MSG_ATTACH:
        return sizeof(struct lithos_msg_attach);
    case LITHOS_MSG_ATTACHED:
        return sizeof(struct lithos_msg_attached);
    case LITHOS_MSG_DOCUMENT:
        return sizeof(struct lithos_msg_document);
    case LITHOS_MSG_SET:
        return sizeof(struct lithos_msg_set);
    case LITHOS_MSG_EXPLAIN:
        return sizeof(struct lithos_msg_explain);
    case LITHOS_MSG_ERROR:
        return sizeof(struct lithos_msg_error);
    case LITHOS_MSG_TRACE:
        return sizeof(struct lithos_msg_trace);
    case LITHOS_MSG_TRACED:
        return sizeof(struct lithos_msg_traced);
    case LITHOS_MSG_STATUS:
    case LITHOS_MSG_SHUTDOWN:
    case LITHOS_MSG_OK:
    case LITHOS_MSG_WAKE:
        return sizeof(struct lithos_msg_header);
    case LITHOS_MSG_TYPE_MAX:
        break;
    }
    return 0;
}

void lithos_message_init(union lithos_message *m, enum lithos_msg_type type)
{
    memset(m, 0, sizeof *m);
    m->h.magic = LITHOS_MSG_MAGIC;
    m->h.version = LITHOS_MSG_VERSION;
    m->h.type = (uint16_t)type;
    m->h.size = (uint32_t)lithos_message_size(type);
}

static int refuse(int error, const char *why, const char **ret_why)
{
    *ret_why = why;
    return error;
}

static bool text_ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

/* Tenant names go into tables, file names and command lines: visible ASCII only. */
static bool name_ok(const char name[LITHOS_NAME_MAX])
{
    if (!text_ends(name, LITHOS_NAME_MAX))
        return false;
    for (; *name; name++)
        if (*name <= ' ' || *name > '~' || *name == '"' || *name == '\'' || *name == '\\')
            return false;
    return true;
}

static bool quota_ok(const struct lithos_quota *q, bool may_be_none)
{
    if (q->unit == LITHOS_QUOTA_TPCS)
        return (q->value > 0 || may_be_none) && q->value <= LITHOS_TPC_BITS;
    return q->unit == LITHOS_QUOTA_PERCENT && q->value > 0 && q->value <= 10000;
}

static bool uuids_differ(const uint8_t uuids[LITHOS_MAX_GPUS][LITHOS_UUID_BYTES], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (!memcmp(uuids[i], uuids[j], LITHOS_UUID_BYTES))
                return false;
    return true;
}

static const char name_why[] =
    "a name must end within 63 characters and be visible ASCII without spaces, quotes or "
    "backslashes";
static const char quota_why[] =
    "a quota must be 1 to 128 TPCs, or more than 0 % and at most 100 %; 0 TPCs only for best-effort tenants";

static const char share_why[] = "the weight must be 0 to 1000, the floor at most 128 TPCs, the slip 1 to "
                                "100, the SLO at most an hour, graphs "
                                "own or borrow";
static const char class_why[] = "the class must be high or best-effort";
static const char atom_why[] = "what kernels are to be cut into must be off, or 2 to 4096 atoms";

static int validate_admit(const struct lithos_msg_admit *m, const char **ret_why)
{
    if (!name_ok(m->name))
        return refuse(-EINVAL, name_why, ret_why);
    if (!text_ends(m->command, sizeof m->command))
        return refuse(-EPROTO, "the command's name does not end", ret_why);
    if (!quota_ok(&m->quota, m->class == LITHOS_CLASS_BEST_EFFORT))
        return refuse(-EINVAL, quota_why, ret_why);
    if (m->want_coarse > 1)
        return refuse(-EPROTO, "a flag is neither 0 nor 1", ret_why);
    if (m->class >= LITHOS_CLASS_MAX)
        return refuse(-EINVAL, class_why, ret_why);
    if (m->gpu_count > LITHOS_MAX_GPUS || m->visible_count > LITHOS_MAX_GPUS)
        return refuse(-EINVAL, "more than 16 GPUs are named", ret_why);
    if (lithos_atom_policy_validate(&m->atom) < 0)
        return refuse(-EINVAL, atom_why, ret_why);
    if (lithos_share_validate(&m->share) < 0)
        return refuse(-EINVAL, share_why, ret_why);
    if (!uuids_differ(m->gpus, m->gpu_count) || !uuids_differ(m->visible, m->visible_count))
        return refuse(-EINVAL, "a GPU is named twice", ret_why);
    return 0;
}

static int validate_admitted(const struct lithos_msg_admitted *m, const char **ret_why)
{
    if (!m->tenant || m->mode >= LITHOS_MODE_MAX || m->mps > 1 || m->thread_percentage > 100 ||
        m->client_priority > 1)
        return refuse(-EPROTO, "a field of the admission is out of range", ret_why);
    if (!name_ok(m->name) || !text_ends(m->mps_pipe_dir, sizeof m->mps_pipe_dir) ||
        !text_ends(m->note, sizeof m->note))
        return refuse(-EPROTO, "a text of the admission does not end", ret_why);
    if (lithos_grant_validate(&m->grant) < 0)
        return refuse(-EPROTO, "the grant is not valid", ret_why);
    return 0;
}

static int validate_attach(const struct lithos_msg_attach *m, const char **ret_why)
{
    if (!m->tenant || m->hook_active > 1 || m->reserved)
        return refuse(-EPROTO, "a field of the attach request is out of range", ret_why);
    if (!text_ends(m->process, sizeof m->process))
        return refuse(-EPROTO, "the process's name does not end", ret_why);
    return 0;
}

static int validate_set(const struct lithos_msg_set *m, const char **ret_why)
{
    if (!name_ok(m->name) || !m->name[0])
        return refuse(-EINVAL, m->name[0] ? name_why : "the tenant's name is missing", ret_why);
    if (!m->what || m->what & ~(LITHOS_SET_QUOTA | LITHOS_SET_ATOM | LITHOS_SET_CLASS | LITHOS_SET_SHARE))
        return refuse(-EPROTO, "what is to be set is not known", ret_why);
    if (m->what & LITHOS_SET_QUOTA ? !quota_ok(&m->quota, true) : m->quota.unit || m->quota.value)
        return refuse(-EINVAL, quota_why, ret_why);
    if (lithos_atom_policy_validate(&m->atom) < 0 || (!(m->what & LITHOS_SET_ATOM) && m->atom.mode))
        return refuse(-EINVAL, atom_why, ret_why);
    if (m->class >= LITHOS_CLASS_MAX || (!(m->what & LITHOS_SET_CLASS) && m->class))
        return refuse(-EINVAL, class_why, ret_why);
    if (lithos_share_validate(&m->share) < 0 || !(m->what & LITHOS_SET_SHARE) != !m->share.given)
        return refuse(-EINVAL, share_why, ret_why);
    return 0;
}

static int validate_trace(const struct lithos_msg_trace *m, const char **ret_why)
{
    if (m->action >= LITHOS_TRACE_ACTION_MAX || m->reserved)
        return refuse(-EPROTO, "a field of the trace request is out of range", ret_why);
    if (!name_ok(m->tenant))
        return refuse(-EINVAL, name_why, ret_why);
    return 0;
}

static int validate_body(const union lithos_message *m, const char **ret_why)
{
    switch ((enum lithos_msg_type)m->h.type) {
    case LITHOS_MSG_ADMIT:
        return validate_admit(&m->admit, ret_why);
    case LITHOS_MSG_ADMITTED:
        return validate_admitted(&m->admitted, ret_why);
    case LITHOS_MSG_ATTACH:
        return validate_attach(&m->attach, ret_why);
    case LITHOS_MSG_ATTACHED:
        if (!m->attached.tenant || !m->attached.arena_bytes || m->attached.reserved)
            return refuse(-EPROTO, "a field of the attach answer is out of range", ret_why);
        return 0;
    case LITHOS_MSG_DOCUMENT:
        if (!m->document.bytes || m->document.bytes > DOCUMENT_BYTES_MAX)
            return refuse(-EPROTO, "the document is empty or over 64 MiB", ret_why);
        return 0;
    case LITHOS_MSG_SET:
        return validate_set(&m->set, ret_why);
    case LITHOS_MSG_ERROR:
        if (m->error.error >= 0 || m->error.error < -4095 || m->error.reserved ||
            !text_ends(m->error.text, sizeof m->error.text))
            return refuse(-EPROTO, "the error message is damaged", ret_why);
        return 0;
    case LITHOS_MSG_EXPLAIN:
        if (!name_ok(m->explain.name) || !m->explain.name[0])
            return refuse(-EINVAL, m->explain.name[0] ? name_why : "the tenant's name is missing", ret_why);
        return 0;
    case LITHOS_MSG_TRACE:
        return validate_trace(&m->trace, ret_why);
    case LITHOS_MSG_TRACED:
    case LITHOS_MSG_STATUS:
    case LITHOS_MSG_SHUTDOWN:
    case LITHOS_MSG_OK:
    case LITHOS_MSG_WAKE:
    case LITHOS_MSG_TYPE_MAX:
        break;
    }
    return 0;
}

int lithos_message_validate(const union lithos_message *m, size_t received_bytes, const char **ret_why)
{
    const char *why;
    if (!ret_why)
        ret_why = &why;
    if (received_bytes < sizeof m->h || m->h.magic != LITHOS_MSG_MAGIC)
        return refuse(-EPROTO, "not a message of LithOS", ret_why);
    if (m->h.version != LITHOS_MSG_VERSION)
        return refuse(
            -EPROTONOSUPPORT,
            "another protocol version: the daemon and the library are of different releases; restart lithosd",
            ret_why);
    size_t size = lithos_message_size((enum lithos_msg_type)m->h.type);
    if (!size)
        return refuse(-EPROTO, "a message type that does not exist", ret_why);
    if (m->h.size != size || received_bytes != size)
        return refuse(-EPROTO, "a message of the wrong size", ret_why);
    if (m->h.reserved)
        return refuse(-EPROTO, "a reserved field is set", ret_why);
    return validate_body(m, ret_why);
}
