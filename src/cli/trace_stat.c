/* lithos trace stat: where the GPU's time went. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/commands.h"
#include "cli/trace.h"
#include "trace/stat.h"

static const char help[] =
    "usage: lithos trace stat FILE [--by kernel|tenant|stream] [--top N] [--json]\n"
    "Kernels by total time, a row a tenant and function (or a tenant, or a stream), with exact percentiles; "
    "how well\n"
    "the clocks of GPU and host are mapped; what was dropped and why. --top N: the first N rows.\n";

static const char *const by_names[] = {
    [LITHOS_TRACE_BY_KERNEL] = "kernel",
    [LITHOS_TRACE_BY_TENANT] = "tenant",
    [LITHOS_TRACE_BY_STREAM] = "stream",
};

struct options {
    int by;
    size_t top;
    bool json;
    const char *file;
};

static int parse_by(const char *text)
{
    for (int i = 0; i < LITHOS_TRACE_BY_MAX; i++)
        if (!strcmp(text, by_names[i]))
            return i;
    lithos_error("trace stat: --by takes kernel, tenant or stream, not \"%s\"", text);
    return -EINVAL;
}

static int parse_top(const char *text, size_t *ret_top)
{
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);

    if (errno || *end || n < 1 || text[0] < '0' || text[0] > '9') {
        lithos_error("trace stat: --top takes a number from 1 up, not \"%s\"", text);
        return -EINVAL;
    }
    *ret_top = n;
    return 0;
}

/* An exit code, or -1 to go on. */
static int parse(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {
        {"by", 1, 0, 'b'}, {"top", 1, 0, 't'}, {"json", 0, 0, 'j'}, {"help", 0, 0, 'h'}, {0}};
    int c, r = 0;

    while (r >= 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 'b':
            r = o->by = parse_by(optarg);
            break;
        case 't':
            r = parse_top(optarg, &o->top);
            break;
        case 'j':
            o->json = true;
            break;
        case 'h':
            return lithos_help(help);
        default:
            r = -EINVAL;
        }
    }
    if (r >= 0 && optind + 1 != argc) {
        lithos_error("trace stat: takes one file");
        r = -EINVAL;
    }
    if (r < 0)
        return lithos_usage("trace");
    o->file = argv[optind];
    return -1;
}

static int add(void *context, const struct lithos_trace_event *e)
{
    return lithos_trace_stat_add(context, e);
}

int lithos_trace_cmd_stat(int argc, char **argv)
{
    struct options o = {.by = LITHOS_TRACE_BY_KERNEL};
    struct lithos_trace_input in;
    int code = parse(argc, argv, &o);

    if (code >= 0)
        return code;
    if (lithos_trace_input_open(&in, o.file) < 0)
        return LITHOS_EXIT_FAILED;
    struct lithos_trace_stat *stat = lithos_trace_stat_new(o.by);
    int read_error = stat ? lithos_trace_input_each(&in, add, stat) : -ENOMEM, r = -ENOMEM;
    if (read_error < 0 && !*lithos_trace_reader_why(in.reader))
        lithos_error("trace stat: stopped: %s", strerror(-read_error));
    if (stat) {
        const struct lithos_trace_summary sum = lithos_trace_stat_summary(stat);
        r = o.json ? lithos_trace_stat_print_json(&in, stat, &sum, o.by, o.top, read_error, stdout)
                   : lithos_trace_stat_print(&in, stat, &sum, o.by, o.top, stdout);
    }
    if (fflush(stdout) != 0 && r == 0)
        r = -errno;
    if (r < 0)
        lithos_error("trace stat: cannot be printed: %s", strerror(-r));
    lithos_trace_stat_free(stat);
    lithos_trace_input_close(&in);
    return r < 0 || read_error < 0 ? LITHOS_EXIT_FAILED : LITHOS_EXIT_OK;
}
