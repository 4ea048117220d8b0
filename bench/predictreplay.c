/* lithos-predictreplay: a recorded tenant's launches through the predictor again, each submission and each end when it was.
 *
 * A prediction is made from what had ended by then, however far the program ran ahead. Beside the misses it prints what
 * there is to gain at most: had it been known how much slower than usual the tenant's kernels ran (predictreplay_known.c).
 * --stretch makes all times longer and so asks the same of a program of longer kernels. --phases puts a made-up neighbour
 * beside a program that was recorded alone. One line of JSON. docs/prediction.md has the figures. */
#include "predictreplay.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "hw/sm.h"
#include "trace/reader.h"

/* When lithosd has read a stamp. */
#define SEEN_NS 20000.0
#define LAUNCHES_MAX (1u << 24)

struct options {
    const char *path;
    uint64_t tenant; /* 0: the first in the trace */
    double from_s;
    uint32_t window; /* 0: the default */
    struct phases phases;
};

static const char help[] =
    "usage: lithos-predictreplay [--tenant ID] [--from SECONDS] [--stretch N] [--window SAMPLES]\n"
    "                            [--phases MS,MS [--slower SHARE] [--seed N]] TRACE\n";

static void die(const char *what, const char *why)
{
    fprintf(stderr, "lithos-predictreplay: %s: %s\n", what, why);
    exit(1);
}

void count(const struct program *p, struct tally *tally, double answer_ns, double took_ns)
{
    const double error_ns = fabs(answer_ns - took_ns);
    tally->launches++;
    tally->off += error_ns > (double)p->miss_ns;
    tally->error_ns += error_ns;
    tally->took_ns += took_ns;
}

double percent_off(const struct tally *tally)
{
    return tally->launches ? 100.0 * (double)tally->off / (double)tally->launches : 0;
}

/* ---- reading ---- */

static uint64_t hash_name(const char *s)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3ull;
    return h;
}

static struct launch of_kernel(const struct lithos_trace_event *e)
{
    const struct lithos_trace_kernel *k = &e->kernel;
    struct launch l = {.shape = {.function = hash_name(k->function),
                                 .shared_bytes = k->shared_bytes,
                                 .registers = k->registers,
                                 .cluster = k->cluster_blocks},
                       .stream = k->stream ^ (uint64_t)k->pid << 48,
                       .sequence = k->sequence,
                       .submit_ns = (double)e->time_ns,
                       .start_ns = (double)k->start_ns,
                       .end_ns = (double)(k->start_ns + lithos_trace_duration_ns(k)),
                       .recorded_ns = (double)k->predicted_ns,
                       .tpcs = lithos_tpcset_count(&k->tpcs),
                       .estimate = k->flags & LITHOS_TRACE_ESTIMATE};
    memcpy(l.shape.grid, k->grid, sizeof l.shape.grid);
    memcpy(l.shape.block, k->block, sizeof l.shape.block);
    return l;
}

static struct launch of_sync(const struct lithos_trace_event *e)
{
    return (struct launch){.stream = e->sync.stream ^ (uint64_t)e->sync.pid << 48,
                           .sequence = e->sync.sequence,
                           .submit_ns = (double)e->time_ns,
                           .sync = true,
                           .all_streams = e->sync.stream == LITHOS_TRACE_ALL_STREAMS};
}

static void add(struct program *p, struct launch l)
{
    if ((p->count & (p->count - 1)) == 0) { /* full: a power of two */
        const size_t room = p->count ? 2 * p->count : 1;
        struct launch *more = room <= LAUNCHES_MAX ? realloc(p->launch, room * sizeof *more) : NULL;
        if (!more)
            die("the trace", "has too many launches");
        p->launch = more;
    }
    p->launch[p->count++] = l;
}

static int by_submission(const void *left, const void *right)
{
    const struct launch *a = left, *b = right;
    if (a->submit_ns != b->submit_ns)
        return a->submit_ns < b->submit_ns ? -1 : 1;
    if (a->sequence != b->sequence)
        return a->sequence < b->sequence ? -1 : 1;
    return a->sync - b->sync;
}

static void read_trace(struct options *o, struct program *p)
{
    struct lithos_trace_reader *reader;
    struct lithos_trace_event e;
    const char *why = "";
    const int fd = open(o->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(o->path, strerror(errno));
    int r = lithos_trace_reader_new_fd(fd, &reader, &why);
    if (r < 0)
        die(o->path, why && *why ? why : strerror(-r));
    while ((r = lithos_trace_reader_next(reader, &e)) == 1) {
        if (e.kind != LITHOS_TRACE_KERNEL && e.kind != LITHOS_TRACE_SYNC)
            continue;
        const uint64_t tenant = e.kind == LITHOS_TRACE_KERNEL ? e.kernel.tenant : e.sync.tenant;
        if (!o->tenant)
            o->tenant = tenant;
        if (tenant == o->tenant)
            add(p, e.kind == LITHOS_TRACE_KERNEL ? of_kernel(&e) : of_sync(&e));
    }
    if (r < 0)
        die(o->path, lithos_trace_reader_why(reader));
    lithos_trace_reader_free(reader);
    close(fd);
    if (!p->count)
        die(o->path, "no launch of that tenant is in it");
    qsort(p->launch, p->count, sizeof *p->launch, by_submission);
}

static void stretch(struct program *p, double from_s)
{
    const double begin_ns = p->launch[0].submit_ns;
    for (size_t i = 0; i < p->count; i++) {
        struct launch *l = &p->launch[i];
        l->counts = !l->sync && l->submit_ns - begin_ns >= from_s * LITHOS_NSEC_PER_SEC;
        l->submit_ns = (l->submit_ns - begin_ns) * p->stretch;
        l->start_ns = (l->start_ns - begin_ns) * p->stretch;
        l->end_ns = (l->end_ns - begin_ns) * p->stretch;
        l->recorded_ns *= p->stretch;
    }
}

/* ---- replaying ---- */

/* As lithosd makes one, of a Hopper card. */
static struct lithos_predictor *new_predictor(uint32_t window, uint64_t *ret_miss_ns)
{
    const struct lithos_sm *sm = lithos_sm(9, 0);
    struct lithos_predict_config c = {.tpcs = 66, .sms_per_tpc = 2};
    struct lithos_predictor *p = NULL;
    size_t bytes;
    if (!sm)
        die("compute capability 9.0", "is not known");
    c.sm_threads = sm->threads;
    c.sm_blocks = sm->blocks;
    c.sm_registers = sm->registers;
    c.sm_shared_bytes = sm->shared_bytes;
    c.block_shared_reserved_bytes = sm->block_shared_reserved_bytes;
    c.warp_register_unit = sm->warp_register_unit;
    lithos_predict_config_defaults(&c);
    if (window)
        c.window = window;
    if (lithos_predictor_size(&c, &bytes) < 0)
        die("--window", "is out of range");
    void *mem = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!mem || lithos_predictor_init(mem, bytes, &c, &p) < 0 || (void *)p != mem)
        die("the predictor", "could not be made");
    *ret_miss_ns = c.miss_ns;
    return p;
}

static int by_end(const void *left, const void *right, void *launches)
{
    const struct launch *l = launches, *a = &l[*(const uint32_t *)left], *b = &l[*(const uint32_t *)right];
    return a->end_ns < b->end_ns ? -1 : a->end_ns > b->end_ns;
}

static void submit(struct lithos_predictor *predictor, struct launch *l)
{
    struct lithos_prediction answer;
    if (l->sync) {
        if (l->all_streams)
            lithos_predictor_sync_all(predictor);
        else
            lithos_predictor_sync(predictor, l->stream);
        return;
    }
    lithos_predictor_submit(predictor, l->stream, &l->shape, l->tpcs, &answer, &l->ticket);
    l->answer_ns = (double)answer.duration_ns;
}

static void replay(struct program *p, struct lithos_predictor *predictor)
{
    uint32_t *ended = malloc(p->count * sizeof *ended);
    size_t next = 0;
    if (!ended)
        die("the trace", strerror(ENOMEM));
    for (size_t i = 0; i < p->count; i++)
        ended[i] = (uint32_t)i;
    qsort_r(ended, p->count, sizeof *ended, by_end, p->launch);
    for (size_t i = 0; i < p->count; i++) {
        for (; next < p->count && p->launch[ended[next]].end_ns + SEEN_NS <= p->launch[i].submit_ns; next++) {
            const struct launch *l = &p->launch[ended[next]];
            if (!l->sync)
                lithos_predictor_observe(predictor, &l->ticket, (uint64_t)duration_ns(l), l->tpcs);
        }
        submit(predictor, &p->launch[i]);
    }
    free(ended);
}

/* ---- telling ---- */

static void print(const struct program *p, const struct options *o, const struct neighbour *neighbour)
{
    struct tally here = {0}, recorded = {0};
    uint64_t longer = 0;
    for (size_t i = 0; i < p->count; i++) {
        const struct launch *l = &p->launch[i];
        if (!counted(l))
            continue;
        longer += duration_ns(l) > (double)p->miss_ns;
        count(p, &here, l->answer_ns, duration_ns(l));
        count(p, &recorded, l->recorded_ns, duration_ns(l));
    }
    printf("{\"tenant\": %lu, \"stretch\": %g, \"launches\": %lu, \"longer_than_miss\": %lu, "
           "\"mispredicted_percent\": %.3f, \"error_of_time_percent\": %.2f, ",
           (unsigned long)o->tenant, p->stretch, (unsigned long)here.launches, (unsigned long)longer,
           percent_off(&here), here.took_ns > 0 ? 100 * here.error_ns / here.took_ns : 0);
    if (neighbour) {
        print_oracles(p, &o->phases, neighbour);
    } else {
        printf("\"recorded_mispredicted_percent\": %.3f, \"known\": ", percent_off(&recorded));
        print_known(p);
    }
    printf("}\n");
}

static double number(const char *text, double least, double most)
{
    char *end;
    const double v = strtod(text, &end);
    if (end == text || *end || !(v >= least) || v > most) {
        fprintf(stderr, "lithos-predictreplay: %s is not a number from %g to %g\n", text, least, most);
        exit(2);
    }
    return v;
}

static void parse_phases(const char *text, struct phases *phases)
{
    char *end;
    const double shortest_ms = strtod(text, &end);
    if (*end != ',' || !(shortest_ms >= 0.1)) {
        fprintf(stderr, "lithos-predictreplay: %s is not two numbers of ms, as in 3,30\n", text);
        exit(2);
    }
    phases->shortest_ns = shortest_ms * LITHOS_NSEC_PER_MSEC;
    phases->longest_ns = number(end + 1, shortest_ms, 10000) * LITHOS_NSEC_PER_MSEC;
}

static void parse(int argc, char **argv, struct options *o, struct program *p)
{
    static const struct option options[] = {
        {"tenant", 1, 0, 't'}, {"from", 1, 0, 'f'},   {"stretch", 1, 0, 's'},
        {"window", 1, 0, 'w'}, {"phases", 1, 0, 'p'}, {"slower", 1, 0, 'l'},
        {"seed", 1, 0, 'r'},   {"help", 0, 0, 'h'},   {0}};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 't':
            o->tenant = (uint64_t)number(optarg, 1, 1e15);
            break;
        case 'f':
            o->from_s = number(optarg, 0, 1e6);
            break;
        case 's':
            p->stretch = number(optarg, 1, 100);
            break;
        case 'w':
            o->window = (uint32_t)number(optarg, 1, LITHOS_PREDICT_WINDOW_MAX);
            break;
        case 'p':
            parse_phases(optarg, &o->phases);
            break;
        case 'l':
            o->phases.slower = number(optarg, 0, 10);
            break;
        case 'r':
            o->phases.seed = (uint64_t)number(optarg, 1, 1e9);
            break;
        case 'h':
            fputs(help, stdout);
            exit(0);
        default:
            fputs(help, stderr);
            exit(2);
        }
    }
    if (optind + 1 != argc) {
        fputs(help, stderr);
        exit(2);
    }
    o->path = argv[optind];
}

int main(int argc, char **argv)
{
    struct options o = {.phases = {.slower = 0.3, .seed = 1}};
    struct program p = {.stretch = 1};
    struct neighbour neighbour = {0};

    parse(argc, argv, &o, &p);
    read_trace(&o, &p);
    stretch(&p, o.from_s);
    if (o.phases.longest_ns > 0 && !put_beside(&p, &o.phases, &neighbour))
        die("the neighbour", strerror(ENOMEM));
    struct lithos_predictor *predictor = new_predictor(o.window, &p.miss_ns);
    replay(&p, predictor);
    print(&p, &o, neighbour.level ? &neighbour : NULL);
    free(predictor);
    free(neighbour.level);
    free(neighbour.sum);
    free(p.launch);
    return 0;
}
