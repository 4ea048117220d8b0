/* lithos run: get a tenant's rights from lithosd, then become the program. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/document.h"
#include "cli/environment.h"
#include "cli/gpus.h"
#include "cli/share_option.h"
#include "proto/grant_text.h"

static const char help[] =
    "usage: lithos run [options] [--] CMD [ARGS...]\n"
    "Runs an unchanged CUDA program on TPCs of its own. Starts lithosd when none runs.\n"
    "  --quota Q        TPCs on each GPU: 26, or a share of the GPU: 40%, 37.5%. Needed unless nobody else "
    "is on the\n"
    "                   GPU; then the whole of it is taken. 0, for --class best-effort: it lives on what is "
    "lent\n"
    "  --gpu G          number, UUID, list (0,1) or all; without it the visible GPU with most room\n"
    "  --name N         the tenant's name in `lithos status' and `lithos set' (default: the program's)\n"
    "  --coarse         do not use the queue descriptor hook (for programs that make green contexts): the "
    "quota is\n"
    "                   then held as a number of SMs by MPS\n"
    "  --class C        high (the default), or best-effort: launches wait in queues, and the card is given "
    "little of\n"
    "                   them at a time\n" LITHOS_SHARE_HELP
    "  --atom A         what long kernels are cut into, so that others need not wait for them: parts of "
    "about "
    "250us,\n"
    "                   off (the default), or x7 for 7 parts each (for tests)\n"
    "  --whole PATTERN  functions that are never cut, by name as the driver knows it (*softmax*); may be "
    "repeated\n"
    "  --sm-count S     of how many SMs the program is told: those of its quota, or full: the card's "
    "(default: quota\n"
    "                   for class high, full for best-effort)\n"
    "  --hand-over on|off  whether launches are made by a thread of LithOS's own, while "
    "the\n"
    "                   program goes on; of class high nothing is held back. Takes a CPU while launches come "
    "(default: on "
    "where the\n"
    "                   program may use 4 CPUs or more)\n"
    "  --gather T       class high: launches stay with LithOS until the program waits for them, for T (20ms) "
    "at "
    "most,\n"
    "                   and go to the card in one run; for eager programs with a service level to spare "
    "(default: 0,\n"
    "                   each goes at once)\n"
    "  --mps on|off     for a daemon that this starts\n"
    "  --socket PATH    the daemon's (default: $LITHOS_SOCKET, /run/lithos or the user's run-time folder)\n"
    "  --verbose        say what was granted, also when standard error is no terminal\n"
    "Exit code: the program's; 125 when it was not started, 126 and 127 when it cannot be run or found.\n";

#define WHOLE_BYTES 4000u

struct run {
    const char *quota, *gpu, *name, *socket, *mps, *atom, *class_name, *sm_count, *hand_over, *gather;
    uint64_t gather_ns;
    char whole[WHOLE_BYTES]; /* patterns, with commas between */
    bool coarse, verbose;
    char **command;
    char path[LITHOS_PATH_BYTES]; /* of the socket */
    char library[PATH_MAX];       /* liblithos.so */
    struct lithos_gpu_info gpus[LITHOS_MAX_GPUS];
    unsigned gpu_count;
    struct lithos_gpu_choice visible, choice; /* choice.count 0: the daemon's */
    struct lithos_atom_policy policy;
    uint32_t class; /* enum lithos_class */
    struct lithos_share share;
};

static int add_whole(struct run *run, const char *pattern)
{
    size_t used = strlen(run->whole);
    if (!*pattern || strchr(pattern, ',') || used + strlen(pattern) + 2 > sizeof run->whole) {
        lithos_error("run: --whole \"%s\": must be a pattern without commas, and all together be shorter "
                     "than %u bytes",
                     pattern, WHOLE_BYTES);
        return -EINVAL;
    }
    snprintf(run->whole + used, sizeof run->whole - used, "%s%s", used ? "," : "", pattern);
    return 0;
}

static int parse(int argc, char **argv, struct run *run)
{
    enum {
        QUOTA = 256,
        GPU,
        NAME,
        COARSE,
        CLASS,
        ATOM,
        WHOLE,
        SM_COUNT,
        HAND_OVER,
        GATHER,
        MPS,
        SOCKET,
        VERBOSE,
        HELP
    };
    static const struct option options[] = {
        {"quota", 1, 0, QUOTA},
        {"gpu", 1, 0, GPU},
        {"name", 1, 0, NAME},
        {"coarse", 0, 0, COARSE},
        {"mps", 1, 0, MPS},
        {"socket", 1, 0, SOCKET},
        {"verbose", 0, 0, VERBOSE},
        {"help", 0, 0, HELP},
        {"atom", 1, 0, ATOM},
        {"class", 1, 0, CLASS},
        {"whole", 1, 0, WHOLE},
        {"sm-count", 1, 0, SM_COUNT},
        {"hand-over", 1, 0, HAND_OVER},
        {"gather", 1, 0, GATHER},
        LITHOS_SHARE_OPTIONS,
        {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "+q:g:n:vh", options, NULL)) != -1) {
        switch (c) {
        case 'q':
        case QUOTA:
            run->quota = optarg;
            break;
        case 'g':
        case GPU:
            run->gpu = optarg;
            break;
        case 'n':
        case NAME:
            run->name = optarg;
            break;
        case COARSE:
            run->coarse = true;
            break;
        case CLASS:
            run->class_name = optarg;
            break;
        case ATOM:
            run->atom = optarg;
            break;
        case WHOLE:
            if (add_whole(run, optarg) < 0)
                return -EINVAL;
            break;
        case SM_COUNT:
            run->sm_count = optarg;
            break;
        case HAND_OVER:
            run->hand_over = optarg;
            break;
        case GATHER:
            run->gather = optarg;
            break;
        case MPS:
            run->mps = optarg;
            break;
        case SOCKET:
            run->socket = optarg;
            break;
        case 'v':
        case VERBOSE:
            run->verbose = true;
            break;
        case 'h':
        case HELP:
            exit(lithos_help(help));
        default:
            if (lithos_share_option("run", c, &run->share) <= 0)
                return -EINVAL;
        }
    }
    run->command = argv + optind;
    if (optind == argc) {
        lithos_error("run: no program named: lithos run --quota 40%% -- CMD...");
        return -EINVAL;
    }
    return 0;
}

static int check_gather(struct run *run)
{
    if (strcmp(run->gather, "0") != 0 &&
        (lithos_duration_parse(run->gather, &run->gather_ns) < 0 || run->gather_ns > LITHOS_GATHER_MAX_NS)) {
        lithos_error("run: --gather %s: must be a time of at most 1s, as 20ms, or 0", run->gather);
        return -EINVAL;
    }
    if (run->gather_ns && run->class == LITHOS_CLASS_BEST_EFFORT) {
        lithos_error(
            "run: --gather is for class high: launches of a best-effort program wait for the scheduler");
        return -EINVAL;
    }
    if (run->gather_ns && (run->coarse || (run->hand_over && !strcmp(run->hand_over, "off")))) {
        lithos_error("run: --gather needs launches to be handed over: not with %s",
                     run->coarse ? "--coarse" : "--hand-over off");
        return -EINVAL;
    }
    return 0;
}

/* What can be refused before anybody is asked. */
static int check_arguments(struct run *run, struct lithos_quota *ret_quota,
                           struct lithos_atom_policy *ret_atom)
{
    int r = run->quota ? lithos_quota_parse(run->quota, ret_quota) : 0;

    if (r == -ERANGE) {
        lithos_error("run: quota %s is out of range: from 0 to 128 TPCs, or over 0%% to 100%%", run->quota);
        return r;
    }
    if (r < 0) {
        lithos_error(
            "run: quota \"%s\" is not understood: a number of TPCs (26) or a share of the GPU (40%%)",
            run->quota);
        return r;
    }
    if (run->atom && lithos_atom_policy_parse(run->atom, ret_atom) < 0) {
        lithos_error("run: --atom %s: " LITHOS_ATOM_HELP, run->atom);
        return -EINVAL;
    }
    if (run->class_name && lithos_class_parse(run->class_name, &run->class) < 0) {
        lithos_error("run: --class %s: must be high or best-effort", run->class_name);
        return -EINVAL;
    }
    if (run->quota && ret_quota->value == 0 && run->class != LITHOS_CLASS_BEST_EFFORT) {
        lithos_error("run: a quota of 0 is for --class best-effort: others need TPCs of their own");
        return -EINVAL;
    }
    if (run->mps && strcmp(run->mps, "on") && strcmp(run->mps, "off")) {
        lithos_error("run: --mps %s: must be on or off", run->mps);
        return -EINVAL;
    }
    if (run->sm_count && strcmp(run->sm_count, "quota") && strcmp(run->sm_count, "full")) {
        lithos_error("run: --sm-count %s: must be quota or full", run->sm_count);
        return -EINVAL;
    }
    if (run->hand_over && strcmp(run->hand_over, "on") && strcmp(run->hand_over, "off")) {
        lithos_error("run: --hand-over %s: must be on or off", run->hand_over);
        return -EINVAL;
    }
    if (run->gather && check_gather(run) < 0)
        return -EINVAL;
    if (run->name && (!*run->name || strlen(run->name) >= LITHOS_NAME_MAX)) {
        lithos_error("run: --name \"%s\": must have 1 to %u characters", run->name, LITHOS_NAME_MAX - 1);
        return -EINVAL;
    }
    const char *hook = getenv("LITHOS_HOOK");
    run->coarse = run->coarse || (hook && !strcmp(hook, "off"));
    return 0;
}

static int find_library(struct run *run)
{
    char path[PATH_MAX], bin[LITHOS_PATH_BYTES];
    int r = lithos_program_dir(bin, sizeof(bin));

    if (r == 0) {
        snprintf(path, sizeof(path), "%s/lib/lithos/liblithos.so", dirname(bin));
        if (!realpath(path, run->library))
            r = -errno;
    } else {
        snprintf(path, sizeof(path), "liblithos.so");
    }
    if (r < 0)
        lithos_error("run: %s: %s; is the installation whole?", path, strerror(-r));
    else if (strpbrk(run->library, ": \t\n")) {
        lithos_error(
            "run: %s: LD_PRELOAD cannot hold a path with a blank or colon in it: install LithOS elsewhere",
            run->library);
        r = -EINVAL;
    }
    return r;
}

/* Whole GPU when nobody is on it; else the user has to say how much. */
static int default_quota(const struct run *run, struct lithos_quota *ret_quota)
{
    const struct lithos_gpu_choice *c = run->choice.count ? &run->choice : &run->visible;
    bool all_free = true, one_free = false;
    unsigned best = c->gpus[0];

    for (unsigned i = 0; i < c->count; i++) {
        const struct lithos_gpu_info *g = &run->gpus[c->gpus[i]];
        bool free = g->free == g->tpcs && g->tpcs;
        all_free = all_free && free;
        one_free = one_free || free;
        if (g->free > run->gpus[best].free)
            best = c->gpus[i];
    }
    if (run->choice.count ? all_free : one_free) {
        *ret_quota = (struct lithos_quota){LITHOS_QUOTA_PERCENT, 10000};
        return 0;
    }
    const struct lithos_gpu_info *g = &run->gpus[best];
    lithos_error(
        "run: how much of the GPU? Others are on it (`lithos status'), %u of the %u TPCs of GPU %u (%s) are "
        "free: say --quota %u or less, or a share such as --quota 20%%",
        g->free, g->tpcs, g->index, g->name, LITHOS_MAX(g->free, 1u));
    return -EBUSY;
}

/* --gpu and CUDA_VISIBLE_DEVICES against the daemon's list, and the quota where none was given. */
static int choose(struct run *run, int sock, struct lithos_quota *quota)
{
    const char *cvd = getenv("CUDA_VISIBLE_DEVICES");
    json_t *document;
    char why[512];

    if (!cvd && !run->gpu && run->quota)
        return 0;
    int r = lithos_client_document(sock, &document);
    if (r < 0)
        return r;
    run->gpu_count = lithos_document_gpus(document, run->gpus);
    json_decref(document);
    if (run->gpu_count == 0) {
        lithos_error("run: lithosd sees no GPU: `lithos doctor' says why");
        return -ENODEV;
    }
    if (cvd) {
        r = lithos_gpus_visible(cvd, run->gpus, run->gpu_count, &run->visible, why, sizeof(why));
    } else {
        run->visible.count = run->gpu_count;
        for (unsigned i = 0; i < run->gpu_count; i++)
            run->visible.gpus[i] = i;
    }
    if (r == 0 && run->gpu)
        r = lithos_gpus_choose(run->gpu, run->gpus, run->gpu_count, &run->visible, &run->choice, why,
                               sizeof(why));
    if (r < 0) {
        lithos_error("run: %s", why);
        return r;
    }
    if (!run->quota)
        r = default_quota(run, quota);
    if (!cvd)
        run->visible.count = 0; /* all: nothing to tell the daemon */
    return r;
}

static void fill_admit(const struct run *run, const struct lithos_quota *quota, union lithos_message *m)
{
    char command[PATH_MAX];

    lithos_message_init(m, LITHOS_MSG_ADMIT);
    snprintf(m->admit.name, sizeof(m->admit.name), "%s", run->name ? run->name : "");
    snprintf(command, sizeof(command), "%s", run->command[0]);
    snprintf(m->admit.command, sizeof(m->admit.command), "%.*s", (int)sizeof(m->admit.command) - 1,
             basename(command));
    m->admit.quota = *quota;
    m->admit.want_coarse = run->coarse;
    m->admit.atom = run->policy;
    m->admit.class = run->class;
    m->admit.share = run->share;
    m->admit.gpu_count = run->choice.count;
    for (unsigned i = 0; i < run->choice.count; i++)
        memcpy(m->admit.gpus[i], run->gpus[run->choice.gpus[i]].uuid, LITHOS_UUID_BYTES);
    m->admit.visible_count = run->visible.count;
    for (unsigned i = 0; i < run->visible.count; i++)
        memcpy(m->admit.visible[i], run->gpus[run->visible.gpus[i]].uuid, LITHOS_UUID_BYTES);
}

static const char *mode_text(uint32_t mode)
{
    switch (mode) {
    case LITHOS_MODE_MASK:
        return "held by TPC masks (mask)";
    case LITHOS_MODE_COARSE:
        return "held as a number of SMs by MPS (coarse)";
    default:
        return "not held (none)";
    }
}

static void say_granted(const struct run *run, const struct lithos_msg_admitted *a)
{
    char bits[LITHOS_TPCSET_TEXT_MAX], uuid[LITHOS_UUID_TEXT_MAX];
    char line[4096];
    size_t n = 0;

    if (!run->verbose && !isatty(STDERR_FILENO))
        return;
    for (uint32_t i = 0; i < a->grant.gpu_count && i < LITHOS_MAX_GPUS && n < sizeof(line); i++) {
        const struct lithos_grant_gpu *g = &a->grant.gpus[i];
        n += (size_t)snprintf(line + n, sizeof(line) - n, "%s%u of %u TPCs of %.12s: %s", i ? "; " : "",
                              lithos_tpcset_count(&g->own), lithos_tpcset_count(&g->topology.valid),
                              lithos_uuid_format(g->uuid, uuid), lithos_tpcset_format(&g->own, bits));
    }
    fprintf(stderr, "lithos: tenant %s: %s, %s%s%s\n", a->name, n ? line : "no GPU", mode_text(a->mode),
            *a->note ? "; " : "", a->note);
}

/* Tools that do not say themselves what is to be done about them under LithOS, and how they get on with it (docs/hardware.md,
 * "Profilers"). NULL: well enough, or the library says it. */
static const struct tool {
    const char *name, *masked, *mps;
} tools[] = {
    {"ncu", "starts no program whose launches LithOS masks: use --coarse, under a lithosd with --mps=off",
     "profiles no program that MPS serves: use a lithosd with --mps=off"},
    {"cuda-gdb", "keeps its program out of MPS: the quota is not held, with --coarse neither",
     "keeps its program out of MPS: the quota is not held"},
};

static void warn_of_tools(const struct run *run, const struct lithos_msg_admitted *a)
{
    for (char **word = run->command; *word; word++) {
        const char *slash = strrchr(*word, '/'), *name = slash ? slash + 1 : *word;
        for (size_t i = 0; i < LITHOS_ARRAY_SIZE(tools); i++) {
            if (strcmp(name, tools[i].name) != 0 || (!slash && word != run->command))
                continue;
            const char *what = a->mode == LITHOS_MODE_MASK ? tools[i].masked : a->mps ? tools[i].mps : NULL;
            if (what)
                lithos_warning("run: %s %s", name, what);
        }
    }
}

static int connect_or_start(const struct run *run, int *ret_sock)
{
    int r = lithos_client_connect(run->path, true, ret_sock);

    if (r == -ENOENT || r == -ECONNREFUSED)
        r = lithos_client_start_daemon(run->path, run->mps, ret_sock);
    return r;
}

/* Connected, admitted, environment set. The connection closes at exec; the daemon minds this process by its
 * pid. */
static int become_tenant(struct run *run, struct lithos_quota *quota)
{
    static union lithos_message request, answer;
    static char grant[LITHOS_GRANT_TEXT_MAX];
    int sock, r = connect_or_start(run, &sock);

    if (r < 0)
        return r;
    r = choose(run, sock, quota);
    if (r < 0)
        return r;
    fill_admit(run, quota, &request);
    r = lithos_client_ask(sock, &request, LITHOS_MSG_ADMITTED, &answer, NULL);
    if (r < 0)
        return r;
    say_granted(run, &answer.admitted);
    const char *text = NULL;
    warn_of_tools(run, &answer.admitted);
    if (answer.admitted.mode == LITHOS_MODE_MASK)
        text = lithos_grant_format(&answer.admitted.grant, grant, sizeof(grant)) == 0 ? grant : NULL;
    r = lithos_environment_apply(&answer.admitted, run->library, run->path, text);
    if (r == 0 && *run->whole && setenv("LITHOS_WHOLE", run->whole, 1) < 0)
        r = -ENOMEM;
    if (r == 0 && run->sm_count && setenv("LITHOS_SM_COUNT", run->sm_count, 1) < 0)
        r = -ENOMEM;
    if (r == 0 && run->hand_over && setenv("LITHOS_HAND_OVER", run->hand_over, 1) < 0)
        r = -ENOMEM;
    if (r == 0 && run->gather) {
        char us[24];
        snprintf(us, sizeof us, "%" PRIu64, (uint64_t)(run->gather_ns / LITHOS_NSEC_PER_USEC));
        if (setenv("LITHOS_GATHER_US", us, 1) < 0 ||
            (run->gather_ns && setenv("LITHOS_HAND_OVER", "on", 1) < 0))
            r = -ENOMEM;
    }
    if (r < 0)
        lithos_error("run: cannot set up the environment: %s", strerror(-r));
    return r;
}

int lithos_cmd_run(int argc, char **argv)
{
    static struct run run;
    struct lithos_quota quota = {0};

    if (parse(argc, argv, &run) < 0)
        return lithos_usage("run"), LITHOS_EXIT_NOT_STARTED;
    if (check_arguments(&run, &quota, &run.policy) < 0 || lithos_client_path(run.socket, run.path) < 0 ||
        find_library(&run) < 0 || become_tenant(&run, &quota) < 0)
        return LITHOS_EXIT_NOT_STARTED;
    execvp(run.command[0], run.command);
    int error = errno;
    lithos_error("run: %s: %s", run.command[0],
                 error == ENOENT ? "not found (or the interpreter its first line names)" : strerror(error));
    return error == ENOENT ? LITHOS_EXIT_NOT_FOUND : LITHOS_EXIT_CANNOT_EXECUTE;
}
