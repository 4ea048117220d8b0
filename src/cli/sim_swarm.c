/* lithos sim --swarm: random scenarios, shared out to processes. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/commands.h"
#include "cli/sim.h"
#include "sim/swarm.h"

#define JOBS_MAX 256u

static void report(void *ctx, uint64_t seed, const struct lithos_policy *policy, const char *what)
{
    char line[512];

    (void)ctx;
    /* one write a line, so that lines of several processes do not mix */
    const int n = snprintf(line, sizeof line, "seed %" PRIu64 ", %s: %s\n", seed, policy->name, what);
    if (write(STDOUT_FILENO, line, (size_t)LITHOS_MIN(n, (int)sizeof line - 1)) < 0)
        _exit(LITHOS_EXIT_FAILED);
}

/* In a process of its own: every jobs-th seed. */
static void work(const struct lithos_sim_command *c, const struct lithos_card *card,
                 const struct lithos_policy *policy, unsigned job, int to)
{
    const struct lithos_sim_swarm swarm = {.card = card,
                                           .policy = policy,
                                           .first = c->seed + job,
                                           .count = (c->swarm + c->jobs - 1 - job) / c->jobs,
                                           .step = c->jobs,
                                           .slip_ppm = c->slip_ppm,
                                           .failed = report};
    struct lithos_sim_swarm_result r;

    if (lithos_sim_swarm_run(&swarm, &r) < 0 || write(to, &r, sizeof r) != sizeof r)
        _exit(LITHOS_EXIT_FAILED);
    _exit(LITHOS_EXIT_OK);
}

static int collect(int from, pid_t pid, struct lithos_sim_swarm_result *sum)
{
    struct lithos_sim_swarm_result r;
    int status = 0;
    const ssize_t got = read(from, &r, sizeof r);

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (got != sizeof r || !WIFEXITED(status) || WEXITSTATUS(status) != LITHOS_EXIT_OK) {
        lithos_error("sim: a process of the swarm ended before its work did");
        return -EIO;
    }
    sum->seeds += r.seeds;
    sum->failed += r.failed;
    sum->kernels += r.kernels;
    sum->events += r.events;
    sum->checks += r.checks;
    sum->sized += r.sized;
    sum->slower += r.slower;
    sum->tpc_ns += r.tpc_ns;
    sum->whole_tpc_ns += r.whole_tpc_ns;
    sum->hash += r.hash;
    for (unsigned i = 0; i < LITHOS_CHECK_RULE_MAX; i++)
        sum->fired[i] += r.fired[i];
    return 0;
}

static int share_out(const struct lithos_sim_command *c, const struct lithos_card *card,
                     const struct lithos_policy *policy, struct lithos_sim_swarm_result *sum)
{
    int from[JOBS_MAX], ends[2], e = 0;
    pid_t pids[JOBS_MAX];
    unsigned started = 0;

    for (; started < c->jobs && e == 0; started++) {
        if (pipe(ends) < 0) {
            e = -errno;
            break;
        }
        pids[started] = fork();
        if (pids[started] == 0) {
            close(ends[0]);
            work(c, card, policy, started, ends[1]);
        }
        close(ends[1]);
        from[started] = ends[0];
        if (pids[started] < 0) {
            e = -errno;
            close(ends[0]);
            break;
        }
    }
    for (unsigned i = 0; i < started; i++) {
        const int r = collect(from[i], pids[i], sum);
        close(from[i]);
        e = e ? e : r;
    }
    return e;
}

int lithos_sim_swarm(const struct lithos_sim_command *c)
{
    const struct lithos_policy *policy = c->policy ? lithos_policy_find(c->policy) : NULL;
    char path[LITHOS_SIM_PATH_BYTES], error[LITHOS_MODEL_ERROR_BYTES];
    struct lithos_sim_swarm_result sum = {0};
    struct lithos_card card;
    const uint64_t start_ns = lithos_now_ns();

    if (c->policy && !policy) {
        lithos_error("sim: there is no policy \"%s\"; `lithos sim --list' names them", c->policy);
        return LITHOS_EXIT_USAGE;
    }
    if (lithos_sim_share("cards", c->card, path) < 0 || lithos_card_load(path, &card, error) < 0) {
        lithos_error("sim: card %s: %s", c->card, error);
        return LITHOS_EXIT_USAGE;
    }
    fflush(stdout);
    const int e = share_out(c, &card, policy, &sum);
    if (e < 0) {
        lithos_error("sim: %s", strerror(-e));
        return LITHOS_EXIT_FAILED;
    }
    const double seconds = (double)(lithos_now_ns() - start_ns) / 1e9;
    printf("%" PRIu64 " seeds from %" PRIu64 ": %" PRIu64 " failed; %" PRIu64 " kernels, %" PRIu64
           " events, %" PRIu64 " checks in %.1f s; traces %016" PRIx64 "\n",
           sum.seeds, c->seed, sum.failed, sum.kernels, sum.events, sum.checks, seconds, sum.hash);
    if (c->slip_ppm)
        printf("  right-sized by %.2f: %" PRIu64 " tenants, %" PRIu64
               " with a p99 over slip, TPC time saved %.1f %%\n",
               c->slip_ppm / 1e6, sum.sized, sum.slower,
               sum.whole_tpc_ns > 0 ? 100 * (1 - sum.tpc_ns / sum.whole_tpc_ns) : 0);
    for (unsigned i = 0; i < LITHOS_CHECK_RULE_MAX; i++)
        if (sum.fired[i])
            printf("  %s: %" PRIu64 " seeds\n", lithos_check_rule_name(i), sum.fired[i]);
    return fflush(stdout) != 0 || sum.failed ? LITHOS_EXIT_FAILED : LITHOS_EXIT_OK;
}
