/* lithos-clocks: keeps what LithOS does to the clocks of cards from outliving it.
 *
 * It alone calls NVML: lithosd has no other way to a clock, so that it cannot leave one behind. When lithosd ends, however it
 * ends, this process reads the end of its standard input and gives all clocks back; when lithosd is not heard of for a while
 * it does so, too. It has a session of its own, minds no signal that a terminal or a service manager sends to a group, and
 * notes which cards it has locked in a file before it locks them, so that if both die at once the next one gives them back. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"
#include "clocks/wire.h"
#include "nvml/nvml.h"

/* lithosd asks several times a second. */
#define SILENCE_MS 2000
#define TRIES 50
#define TRY_US 20000

struct gpu {
    bool open;
    nvmlDevice_t device;
    uint8_t uuid[16];
    uint32_t max_mhz, min_mhz, steps, locked_mhz;
};

static struct {
    struct lithos_nvml nvml;
    bool may_lock;
    const char *marker; /* file of the cards that are locked */
    uint32_t restored;
    struct gpu gpus[LITHOS_CLOCKS_GPUS_MAX];
} state;

/* --- the marker: 16 bytes a card --- */

static int mark(void)
{
    uint8_t uuids[LITHOS_CLOCKS_GPUS_MAX * 16];
    size_t n = 0;

    for (unsigned i = 0; i < LITHOS_CLOCKS_GPUS_MAX; i++) {
        if (!state.gpus[i].locked_mhz)
            continue;
        memcpy(uuids + n, state.gpus[i].uuid, 16);
        n += 16;
    }
    if (n)
        return lithos_write_file_atomic(state.marker, uuids, n, 0600);
    return unlink(state.marker) < 0 && errno != ENOENT ? -errno : 0;
}

/* --- giving back --- */

static int reset(nvmlDevice_t device)
{
    int r = 0;

    for (unsigned i = 0; i < TRIES; i++) {
        r = lithos_nvml_errno(state.nvml.reset_clocks(device));
        if (r == 0 || r == -EACCES || r == -ENODEV || r == -EOPNOTSUPP)
            break;
        usleep(TRY_US);
    }
    if (r < 0)
        lithos_error("the clocks of a card cannot be given back: %s; `nvidia-smi -rgc' as root does it",
                     strerror(-r));
    return r;
}

static void restore(void)
{
    bool any = false;

    for (unsigned i = 0; i < LITHOS_CLOCKS_GPUS_MAX; i++) {
        struct gpu *g = &state.gpus[i];
        if (!g->locked_mhz)
            continue;
        any = true;
        if (reset(g->device) == 0)
            g->locked_mhz = 0;
    }
    if (any)
        (void)mark();
}

/* What one before has left. */
static void restore_marked(void)
{
    nvmlDevice_t device;
    char *text;
    size_t len;
    bool all = true;

    if (!state.marker || lithos_read_file(state.marker, LITHOS_CLOCKS_GPUS_MAX * 16, &text, &len) < 0)
        return;
    for (size_t at = 0; at + 16 <= len; at += 16)
        all &= lithos_nvml_by_uuid(&state.nvml, (const unsigned char *)text + at, &device) < 0 ||
               reset(device) == 0;
    free(text);
    if (all)
        unlink(state.marker);
}

/* --- questions --- */

static int open_gpu(struct gpu *g, const uint8_t uuid[16])
{
    unsigned int mhz[LITHOS_NVML_CLOCKS_MAX], count = 0;
    struct gpu n = {.open = true};

    int r = lithos_nvml_by_uuid(&state.nvml, uuid, &n.device);
    if (r == 0)
        r = lithos_nvml_clocks(&state.nvml, n.device, mhz, &count);
    if (r < 0 || !count)
        return r < 0 ? r : -EOPNOTSUPP;
    memcpy(n.uuid, uuid, 16);
    n.max_mhz = n.min_mhz = mhz[0];
    n.steps = count;
    for (unsigned int i = 1; i < count; i++) {
        n.max_mhz = LITHOS_MAX(n.max_mhz, mhz[i]);
        n.min_mhz = LITHOS_MIN(n.min_mhz, mhz[i]);
    }
    *g = n;
    return 0;
}

static int lock_clocks(struct gpu *g, uint32_t mhz)
{
    const uint32_t before_mhz = g->locked_mhz;

    if (!state.may_lock)
        return -EACCES;
    if (mhz < g->min_mhz || mhz > g->max_mhz)
        return -EINVAL;
    g->locked_mhz = mhz;
    int r = before_mhz ? 0 : mark(); /* first said, then done */
    if (r == 0)
        r = lithos_nvml_errno(state.nvml.lock_clocks(g->device, g->min_mhz, mhz));
    if (r < 0) {
        g->locked_mhz = before_mhz;
        (void)mark();
    }
    return r;
}

static int carry_out(const struct lithos_clocks_ask *ask, struct gpu *g)
{
    int r;

    if (ask->what == LITHOS_CLOCKS_OPEN)
        return g->open ? -EEXIST : open_gpu(g, ask->uuid);
    if (!g->open)
        return -ENODEV;
    switch (ask->what) {
    case LITHOS_CLOCKS_LOCK:
        return lock_clocks(g, ask->mhz);
    case LITHOS_CLOCKS_RESET:
        r = g->locked_mhz ? reset(g->device) : 0;
        if (r == 0) {
            g->locked_mhz = 0;
            r = mark();
        }
        return r;
    default:
        return 0;
    }
}

static void answer(const struct lithos_clocks_ask *ask)
{
    struct lithos_clocks_tell tell = {.magic = LITHOS_CLOCKS_MAGIC,
                                      .version = LITHOS_CLOCKS_VERSION,
                                      .what = ask->what,
                                      .gpu = ask->gpu,
                                      .restored = state.restored};
    struct gpu *g = &state.gpus[ask->gpu];
    unsigned long long mj = 0;
    unsigned int mhz = 0, mw = 0;

    tell.result = carry_out(ask, g);
    if (g->open) {
        /* one that the card does not tell is 0 */
        (void)state.nvml.clock(g->device, NVML_CLOCK_SM, &mhz);
        (void)state.nvml.power(g->device, &mw);
        (void)state.nvml.energy(g->device, &mj);
    }
    tell.locked_mhz = g->locked_mhz;
    tell.mhz = mhz;
    tell.power_mw = mw;
    tell.energy_mj = mj;
    tell.max_mhz = g->max_mhz;
    tell.min_mhz = g->min_mhz;
    tell.steps = g->steps;
    (void)send(STDIN_FILENO, &tell, sizeof tell,
               MSG_NOSIGNAL); /* when lithosd is gone, the next read says so */
}

static bool valid(const struct lithos_clocks_ask *ask, ssize_t n)
{
    return n == (ssize_t)sizeof *ask && ask->magic == LITHOS_CLOCKS_MAGIC &&
           ask->version == LITHOS_CLOCKS_VERSION && ask->what < LITHOS_CLOCKS_WHAT_MAX &&
           ask->gpu < LITHOS_CLOCKS_GPUS_MAX;
}

static void serve(void)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    struct lithos_clocks_ask ask;

    for (;;) {
        const int ready = poll(&in, 1, SILENCE_MS);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0) {
            for (unsigned i = 0; i < LITHOS_CLOCKS_GPUS_MAX; i++)
                state.restored += state.gpus[i].locked_mhz != 0;
            restore();
            continue;
        }
        const ssize_t n = recv(STDIN_FILENO, &ask, sizeof ask, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || !valid(&ask, n))
            break;
        answer(&ask);
    }
    restore();
}

int main(int argc, char **argv)
{
    char error[LITHOS_NVML_ERROR_BYTES];
    const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2, SIGTSTP, SIGALRM};
    bool serves = true;

    lithos_log_set_name("lithos-clocks");
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--lock"))
            state.may_lock = true;
        else if (!strcmp(argv[i], "--restore"))
            serves = false;
        else if (!strcmp(argv[i], "--marker") && i + 1 < argc)
            state.marker = argv[++i];
        else
            argc = 0;
    }
    if (argc < 2 || !state.marker) {
        lithos_error("is run by lithosd: lithos-clocks --marker FILE [--lock | --restore]");
        return 2;
    }
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(ignored); i++)
        signal(ignored[i], SIG_IGN);
    setsid();
    (void)setpriority(PRIO_PROCESS, 0,
                      -15); /* where it may: on a busy machine, too, clocks are to be back at once */
    if (chdir("/") < 0 || lithos_nvml_open(&state.nvml, error) < 0) {
        lithos_error("NVML cannot be used: %s", error);
        return 3;
    }
    if (state.may_lock || !serves)
        restore_marked();
    if (serves)
        serve();
    return 0;
}
