#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "core/policy.h"
#include "daemon/lend.h"
#include "proto/arena.h"
#include "proto/socket.h"

#ifndef LITHOS_VERSION
#define LITHOS_VERSION "0.1.0"
#endif

static const char usage[] =
    "usage: lithosd [OPTION...]\n"
    "Admits CUDA programs to the GPUs of this machine and gives each the TPCs of its quota.\n"
    "\n"
    "  --socket PATH         where clients reach it (default: $LITHOS_SOCKET, else /run/lithos/lithosd.sock "
    "for root,\n"
    "                        else $XDG_RUNTIME_DIR/lithos/lithosd.sock)\n"
    "  --foreground          stay in the foreground (default)\n"
    "  --background          go into the background once clients can connect; messages go to --log\n"
    "  --mps=on|off          use, or start and mind, NVIDIA MPS, so that tenants share a GPU in space "
    "(default: on)\n"
    "  --share spatial|preempt\n"
    "                        spatial (the default): tenants run side by side, by TPCs; preempt: each alone "
    "on the GPU\n"
    "                        in turns, best-effort ones off it about 0.1 ms after another wakes, whatever "
    "they run;\n"
    "                        it is --policy preempt, without MPS\n"
    "  --turn US             with --share preempt: how long the turns of class high are (default: the "
    "driver's,\n"
    "                        2048 us): for services that have the GPU for longer than that at a time\n"
    "  --observe=on|off      know each kernel's time, for `lithos top` and traces (default: on)\n"
    "  --spin=auto|on|off    look without a pause while somebody borrows, which takes a processor\n"
    "                        (auto: where there are four, and not for virtual GPUs)\n"
    "  --policy NAME         who gets which TPCs when: lithos (the default), partition, mig, mps, priority,\n"
    "                        timeslice, preempt; `--policy help` says what they are\n"
    "  --rightsize=on|off    kernels of tenants that say a slip run on as few TPCs as that allows (default: "
    "off)\n"
    "  --power=off|advise|on know each tenant's energy and say at which clock the GPUs would save some; on: "
    "set "
    "it,\n"
    "                        which needs root and --these-gpus-are-ours-alone (default: off)\n"
    "  --power-law latency|formula\n"
    "                        what sets the clock: the tenants' measured requests (the default), or a "
    "forecast by the "
    "formula\n"
    "  --power-watch MS      between two changes of a clock, at least (default: 250)\n"
    "  --power-pause US      with nothing to do for so long a tenant has ended a request (default: 200)\n"
    "  --these-gpus-are-ours-alone\n"
    "                        nobody but LithOS' tenants uses the GPUs: a clock is the whole card's\n"
    "  --state-dir DIR       where the file lies that a restarted daemon reads (default: the socket's "
    "folder)\n"
    "  --allow-uid UID|all   let another user's programs in (repeatable); root and this user always may\n"
    "  --idle-exit SECONDS   end when there has been no tenant for so long\n"
    "  --probe PATH          the program that measures the GPUs (default: lithos-probe of this "
    "installation)\n"
    "  --log FILE            append messages to FILE (level: LITHOS_LOG=error|warning|info|debug)\n"
    "  --help, --version\n";

enum {
    SOCKET = 256,
    FOREGROUND,
    BACKGROUND,
    MPS,
    SHARE,
    TURN,
    OBSERVE,
    SPIN,
    POLICY,
    RIGHTSIZE,
    POWER,
    POWER_LAW,
    POWER_WATCH,
    POWER_PAUSE,
    OURS_ALONE,
    STATE_DIR,
    ALLOW_UID,
    IDLE_EXIT,
    PROBE,
    LOG,
    HELP,
    VERSION
};

static const struct option long_options[] = {
    {"socket", required_argument, NULL, SOCKET},
    {"foreground", no_argument, NULL, FOREGROUND},
    {"background", no_argument, NULL, BACKGROUND},
    {"mps", required_argument, NULL, MPS},
    {"share", required_argument, NULL, SHARE},
    {"turn", required_argument, NULL, TURN},
    {"observe", required_argument, NULL, OBSERVE},
    {"spin", required_argument, NULL, SPIN},
    {"policy", required_argument, NULL, POLICY},
    {"rightsize", required_argument, NULL, RIGHTSIZE},
    {"power", required_argument, NULL, POWER},
    {"power-law", required_argument, NULL, POWER_LAW},
    {"power-watch", required_argument, NULL, POWER_WATCH},
    {"power-pause", required_argument, NULL, POWER_PAUSE},
    {"these-gpus-are-ours-alone", no_argument, NULL, OURS_ALONE},
    {"state-dir", required_argument, NULL, STATE_DIR},
    {"allow-uid", required_argument, NULL, ALLOW_UID},
    {"idle-exit", required_argument, NULL, IDLE_EXIT},
    {"probe", required_argument, NULL, PROBE},
    {"log", required_argument, NULL, LOG},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},
    {0},
};

static int copy_path(char *to, size_t size, const char *option, const char *path)
{
    if (!*path || strlen(path) >= size) {
        lithos_error("--%s %s: %s", option, path, *path ? "the path is too long" : "the path is empty");
        return -EINVAL;
    }
    memcpy(to, path, strlen(path) + 1);
    return 0;
}

static int parse_number(const char *option, const char *text, unsigned long max, unsigned long *ret)
{
    char *end;
    errno = 0;
    unsigned long v = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || v > max) {
        lithos_error("--%s %s: must be a whole number from 0 to %lu", option, text, max);
        return -EINVAL;
    }
    *ret = v;
    return 0;
}

static int allow_uid(struct lithosd_options *o, const char *text)
{
    unsigned long uid;
    if (!strcmp(text, "all")) {
        o->allow_all = true;
        return 0;
    }
    if (o->uid_count == LITHOSD_UIDS_MAX) {
        lithos_error("--allow-uid: at most %u users; `--allow-uid all` lets everyone in", LITHOSD_UIDS_MAX);
        return -EINVAL;
    }
    int r = parse_number("allow-uid", text, UINT32_MAX - 1, &uid);
    if (r == 0)
        o->uids[o->uid_count++] = (uid_t)uid;
    return r;
}

static int parse_switch(const char *option, const char *text, bool *ret)
{
    if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0) {
        lithos_error("--%s=%s: must be on or off", option, text);
        return -EINVAL;
    }
    *ret = !strcmp(text, "on");
    return 0;
}

static const char *const domain_names[LITHOS_DOMAIN_MAX] = {"spatial", "preempt"};

static int parse_share(const char *text, struct lithosd_options *o)
{
    for (unsigned i = 0; i < LITHOS_DOMAIN_MAX; i++) {
        if (strcmp(text, domain_names[i]) != 0)
            continue;
        o->share = (enum lithos_domain)i;
        o->share_said = true;
        return 0;
    }
    lithos_error("--share=%s: must be spatial or preempt", text);
    return -EINVAL;
}

static int list_policies(const struct lithosd_options *o)
{
    const struct lithos_policy *p;
    for (size_t i = 0; (p = lithos_policy_at(i)); i++) {
        const char *why = lithosd_policy_why_not(p, o);
        printf("%-10s %s%s%s%s\n", p->name, p->what, why ? " (cannot be had: " : "", why ? why : "",
               why ? ")" : "");
    }
    return 1;
}

static int parse_policy(const char *text, struct lithosd_options *o)
{
    if (!strcmp(text, "help"))
        return list_policies(o);
    o->policy = lithos_policy_find(text);
    if (!o->policy)
        lithos_error("--policy %s: there is none of that name; `lithosd --policy help` lists them", text);
    return o->policy ? 0 : -EINVAL;
}

/* Short turns are a policy and a way of sharing: one implies the other, and that there is no MPS. */
static int join_share(struct lithosd_options *o)
{
    const struct lithos_policy *preempt = lithos_policy_find("preempt");
    const bool asked = o->share == LITHOS_DOMAIN_PREEMPT;
    const char *against = NULL;
    if (asked && o->policy && o->policy != preempt)
        against = "--policy names another; leave it out";
    else if (o->policy == preempt && o->share_said && !asked)
        against = "--share=spatial says otherwise; leave it out";
    else if ((asked || o->policy == preempt) && o->mps_said && o->mps)
        against = "tenants take turns only without MPS; leave out --mps=on";
    if (against) {
        lithos_error("--%s preempt is --policy preempt with --mps=off: %s", asked ? "share" : "policy",
                     against);
        return -EINVAL;
    }
    if (asked || o->policy == preempt) {
        o->policy = preempt;
        o->share = LITHOS_DOMAIN_PREEMPT;
        o->mps = false;
    } else if (o->turn_us) {
        lithos_error("--turn %u: tenants take turns of a length with --share preempt only", o->turn_us);
        return -EINVAL;
    }
    return 0;
}

/* With all options known. */
static int check_policy(const struct lithosd_options *o)
{
    const char *why = o->policy ? lithosd_policy_why_not(o->policy, o) : NULL;
    if (why)
        lithos_error("--policy %s cannot be had: %s", o->policy->name, why);
    return why ? -EINVAL : 0;
}

static int parse_power(const char *text, enum lithosd_power_mode *ret)
{
    static const char *const names[LITHOSD_POWER_MODE_MAX] = {"off", "advise", "on"};

    for (unsigned i = 0; i < LITHOSD_POWER_MODE_MAX; i++) {
        if (!strcmp(text, names[i])) {
            *ret = (enum lithosd_power_mode)i;
            return 0;
        }
    }
    lithos_error("--power=%s: must be off, advise or on", text);
    return -EINVAL;
}

static int parse_law(const char *text, enum lithos_governor_mode *ret)
{
    static const char *const names[LITHOS_GOVERNOR_MODE_MAX] = {
        [LITHOS_GOVERNOR_FORMULA] = "formula", [LITHOS_GOVERNOR_SLO] = "latency"};

    for (unsigned i = 0; i < LITHOS_GOVERNOR_MODE_MAX; i++) {
        if (!strcmp(text, names[i])) {
            *ret = (enum lithos_governor_mode)i;
            return 0;
        }
    }
    lithos_error("--power-law=%s: must be latency or formula", text);
    return -EINVAL;
}

static int parse_spin(const char *text, enum lithosd_spin *ret)
{
    static const char *const names[LITHOSD_SPIN_MAX] = {
        [LITHOSD_SPIN_AUTO] = "auto", [LITHOSD_SPIN_ON] = "on", [LITHOSD_SPIN_OFF] = "off"};
    for (int i = 0; i < LITHOSD_SPIN_MAX; i++)
        if (!strcmp(text, names[i])) {
            *ret = (enum lithosd_spin)i;
            return 0;
        }
    lithos_error("--spin=%s: must be auto, on or off", text);
    return -EINVAL;
}

static int parse_one(int c, struct lithosd_options *o)
{
    unsigned long seconds;
    int r;
    switch (c) {
    case SOCKET:
        return copy_path(o->socket, sizeof o->socket, "socket", optarg);
    case FOREGROUND:
    case BACKGROUND:
        o->background = c == BACKGROUND;
        return 0;
    case MPS:
        o->mps_said = true;
        return parse_switch("mps", optarg, &o->mps);
    case SHARE:
        return parse_share(optarg, o);
    case TURN:
        r = parse_number("turn", optarg, LITHOS_SLICE_MAX_US, &seconds);
        if (r == 0)
            o->turn_us = (uint32_t)seconds;
        return r;
    case OBSERVE:
        return parse_switch("observe", optarg, &o->observe);
    case SPIN:
        return parse_spin(optarg, &o->spin);
    case POLICY:
        return parse_policy(optarg, o);
    case RIGHTSIZE:
        return parse_switch("rightsize", optarg, &o->rightsize);
    case POWER:
        return parse_power(optarg, &o->power);
    case POWER_LAW:
        return parse_law(optarg, &o->power_law);
    case POWER_WATCH:
        r = parse_number("power-watch", optarg, 60000, &seconds);
        if (r == 0)
            o->power_watch_ns = LITHOS_MAX(seconds, 1ul) * LITHOS_NSEC_PER_MSEC;
        return r;
    case POWER_PAUSE:
        r = parse_number("power-pause", optarg, 1000000, &seconds);
        if (r == 0)
            o->power_pause_ns = seconds * LITHOS_NSEC_PER_USEC;
        return r;
    case OURS_ALONE:
        o->cards_are_ours = true;
        return 0;
    case STATE_DIR:
        return copy_path(o->state_dir, sizeof o->state_dir, "state-dir", optarg);
    case ALLOW_UID:
        return allow_uid(o, optarg);
    case IDLE_EXIT:
        r = parse_number("idle-exit", optarg, 1000000, &seconds);
        if (r == 0)
            o->idle_exit_ns = LITHOS_MAX(seconds * LITHOS_NSEC_PER_SEC, 1ull);
        return r;
    case PROBE:
        return copy_path(o->probe, sizeof o->probe, "probe", optarg);
    case LOG:
        o->log = optarg;
        return 0;
    case HELP:
        fputs(usage, stdout);
        return 1;
    case VERSION:
        puts("lithosd " LITHOS_VERSION);
        return 1;
    default:
        lithos_error("see `lithosd --help`");
        return -EINVAL;
    }
}

static int fill_defaults(struct lithosd_options *o)
{
    char folder[PATH_MAX];
    int r = 0;
    if (!o->socket[0]) {
        r = lithos_socket_path(o->socket, sizeof o->socket);
        if (r < 0)
            lithos_error(
                "the socket's path is too long: LITHOS_SOCKET or --socket must have at most 107 characters");
    }
    if (r == 0 && !o->state_dir[0]) {
        snprintf(folder, sizeof folder, "%s", o->socket);
        snprintf(o->state_dir, sizeof o->state_dir, "%s", dirname(folder));
    }
    if (r == 0 && !o->probe[0]) {
        r = lithos_program_dir(folder, sizeof folder);
        if (r == 0 && strlen(folder) + 40 < sizeof o->probe)
            snprintf(o->probe, sizeof o->probe, "%.4000s/../libexec/lithos/lithos-probe", folder);
        else
            lithos_error("cannot tell where this program lies: use --probe");
    }
    return r;
}

int lithosd_options_parse(int argc, char **argv, struct lithosd_options *ret_options)
{
    struct lithosd_options o = {.mps = true,
                                .observe = true,
                                .power_law = LITHOS_GOVERNOR_SLO,
                                .power_pause_ns = 200 * LITHOS_NSEC_PER_USEC};
    int c, r = 0;
    optind = 1;
    while (r == 0 && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        r = parse_one(c, &o);
    if (r == 0 && optind < argc) {
        lithos_error("%s: lithosd takes no arguments; see `lithosd --help`", argv[optind]);
        r = -EINVAL;
    }
    if (r == 0 && o.power == LITHOSD_POWER_ON && !o.cards_are_ours) {
        lithos_error("--power=on slows down whatever runs on the GPUs, also what is not LithOS': if nothing "
                     "else does, say "
                     "--these-gpus-are-ours-alone; --power=advise only tells");
        r = -EINVAL;
    }
    if (r == 0 && o.power != LITHOSD_POWER_OFF && !o.observe) {
        lithos_error("--power=%s needs --observe=on: it goes by what kernels take",
                     o.power == LITHOSD_POWER_ON ? "on" : "advise");
        r = -EINVAL;
    }
    if (r == 0 && o.rightsize && !o.observe) {
        lithos_error("--rightsize=on needs --observe=on: it goes by what kernels take");
        r = -EINVAL;
    }
    if (r == 0 && o.rightsize && o.power == LITHOSD_POWER_ON) {
        lithos_error(
            "--rightsize=on and --power=on would both spend what tenants may be slower by: leave out one");
        r = -EINVAL;
    }
    if (r == 0)
        r = join_share(&o);
    if (r == 0)
        r = check_policy(&o);
    if (r == 0)
        r = fill_defaults(&o);
    if (r == 0)
        *ret_options = o;
    return r;
}
