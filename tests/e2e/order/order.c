/* lithos-order: random programs, each compared with what it must leave in memory. */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "order.h"

#define STUCK_S 60u

static const char help[] =
    "usage: lithos-order [--seed N] [--programs N] [--calls N] [--seconds S] [--fork] [--print]\n"
    "Runs random programs of stream-ordered calls and compares what they leave in memory. Exit code 0: all "
    "right.\n"
    "  --seed N      of the first program; the next has the next\n"
    "  --programs N  how many (default 100); 0: until SIGTERM\n"
    "  --calls N     about so many calls a program, beside those that order them (default 60)\n"
    "  --seconds S   not longer than that (default: as long as it takes)\n"
    "  --fork        programs fork now and then\n"
    "  --print       print the first program and end\n";

static struct {
    struct program program;
    atomic_bool done[OPS_MAX];
    pthread_barrier_t begin, end;
    atomic_bool last;
    volatile unsigned long long under_way;
} run;

/* The seed is what is needed to see it again. */
static void on_end(int sig)
{
    char text[128];
    int n = snprintf(text, sizeof text, "order: %s in program %llu\n",
                     sig == SIGALRM ? "stuck" : strsignal(sig), run.under_way);
    ssize_t written = write(STDERR_FILENO, text, (size_t)n);
    (void)written;
    _exit(3);
}

/* A call that failed has ended the process. */
static void at_exit(void)
{
    if (!atomic_load(&run.last))
        fprintf(stderr, "order: that was in program %llu\n", run.under_way);
}

static void run_calls(const struct program *p, unsigned thread)
{
    for (unsigned i = 0; i < p->n; i++) {
        const struct op *o = &p->ops[i];
        if (o->thread != thread)
            continue;
        for (unsigned d = 0; d < o->deps_n; d++)
            while (!atomic_load_explicit(&run.done[o->deps[d]], memory_order_acquire))
                sched_yield();
        order_call(o);
        atomic_store_explicit(&run.done[i], true, memory_order_release);
    }
}

static void *thread_main(void *number)
{
    for (;;) {
        pthread_barrier_wait(&run.begin);
        if (atomic_load(&run.last))
            return NULL;
        order_thread_begins(&run.program);
        run_calls(&run.program, (unsigned)(uintptr_t)number);
        pthread_barrier_wait(&run.end);
    }
}

static void print(const struct program *p)
{
    for (unsigned i = 0; i < p->n; i++) {
        const struct op *o = &p->ops[i];
        printf("%3u: thread %u, stream %2u: %s, cells %u %u, event %u, %u %u, how %u; after", i, o->thread,
               o->stream, order_op_name(o->kind), o->a, o->b, o->event, o->p, o->q, o->how);
        for (unsigned d = 0; d < o->deps_n; d++)
            printf(" %u", o->deps[d]);
        printf("\n");
    }
}

static bool run_program(void)
{
    memset((void *)run.done, 0, sizeof run.done);
    run.under_way = run.program.seed;
    alarm(STUCK_S);
    order_enter(&run.program);
    pthread_barrier_wait(&run.begin);
    pthread_barrier_wait(&run.end);
    return order_matches(&run.program);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"seed", 1, 0, 's'}, {"programs", 1, 0, 'p'}, {"calls", 1, 0, 'c'}, {"seconds", 1, 0, 't'},
        {"fork", 0, 0, 'f'}, {"print", 0, 0, 'P'},    {"help", 0, 0, 'h'},  {0}};
    uint64_t seed = 1, programs = 100, calls_made = 0, ran = 0, by_ns = UINT64_MAX;
    unsigned calls = 60;
    bool forks = false, only_print = false;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's')
            seed = (uint64_t)sample_number("seed", optarg, 0, 1e15);
        else if (c == 'p')
            programs = (uint64_t)sample_number("programs", optarg, 0, 1e9);
        else if (c == 'c')
            calls = (unsigned)sample_number("calls", optarg, 1, OPS_MAX);
        else if (c == 't')
            by_ns = lithos_now_ns() + (uint64_t)(sample_number("seconds", optarg, 0.1, 1e6) * 1e9);
        else if (c == 'f')
            forks = true;
        else if (c == 'P')
            only_print = true;
        else
            return fputs(help, c == 'h' ? stdout : stderr), c == 'h' ? 0 : 2;
    }
    sample_options_end(argc, argv);
    if (only_print) {
        order_make_program(seed, calls, forks, &run.program);
        print(&run.program);
        return 0;
    }
    signal(SIGALRM, on_end);
    signal(SIGSEGV, on_end);
    sample_catch_signals();
    order_open();
    atexit(at_exit);
    pthread_barrier_init(&run.begin, NULL, THREADS + 1);
    pthread_barrier_init(&run.end, NULL, THREADS + 1);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, thread_main, (void *)i))
            order_fail("no thread");
    for (; (programs == 0 || ran < programs) && lithos_now_ns() < by_ns && !sample_stop; ran++) {
        order_make_program(seed + ran, calls, forks, &run.program);
        if (!run_program())
            return 1;
        calls_made += run.program.n;
    }
    atomic_store(&run.last, true);
    pthread_barrier_wait(&run.begin);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("{\"programs\": %llu, \"calls\": %llu, \"first_seed\": %llu}\n", (unsigned long long)ran,
           (unsigned long long)calls_made, (unsigned long long)seed);
    return 0;
}
