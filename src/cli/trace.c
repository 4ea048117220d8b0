/* lithos trace: what is in a file of traces. */
#include "cli/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/commands.h"
#include "trace/export.h"

static const char help[] =
    "usage: lithos trace stat FILE [--by kernel|tenant|stream] [--top N] [--json]   kernels by time, what is "
    "missing\n"
    "       lithos trace export FILE [-o OUT.json]    for ui.perfetto.dev and chrome://tracing\n"
    "       lithos trace validate FILE                is it whole and undamaged\n"
    "       lithos trace record [-o FILE] [--seconds N] [--tenant NAME]    have lithosd write one\n"
    "FILE may be - for standard input. A last block that was not written to its end is reported and left "
    "out.\n";

int lithos_trace_input_open(struct lithos_trace_input *in, const char *path)
{
    const char *why = NULL;
    int fd = !strcmp(path, "-") ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        int error = -errno;
        lithos_error("trace: %s: %s", path, strerror(-error));
        return error;
    }
    *in = (struct lithos_trace_input){.path = path, .fd = fd};
    int r = lithos_trace_reader_new_fd(fd, &in->reader, &why);
    if (r < 0) {
        lithos_error("trace: %s cannot be read: %s%s%s", path, why, r == -EBADMSG ? "" : ": ",
                     r == -EBADMSG ? "" : strerror(-r));
        lithos_trace_input_close(in);
    }
    return r;
}

void lithos_trace_input_close(struct lithos_trace_input *in)
{
    lithos_trace_reader_free(in->reader);
    if (in->fd != STDIN_FILENO)
        close(in->fd);
}

int lithos_trace_input_each(struct lithos_trace_input *in,
                            int (*each)(void *context, const struct lithos_trace_event *e), void *context)
{
    struct lithos_trace_event e;
    int got;

    while ((got = lithos_trace_reader_next(in->reader, &e)) == 1) {
        int r = each(context, &e);
        if (r < 0)
            return r;
    }
    if (got < 0)
        lithos_error("trace: %s is damaged, what follows is lost: %s", in->path,
                     lithos_trace_reader_why(in->reader));
    else if (lithos_trace_reader_truncated(in->reader))
        lithos_warning("trace: %s ends within a block: its last %" PRIu64 " bytes are left out", in->path,
                       lithos_trace_reader_truncated(in->reader));
    return got;
}

/* The only argument of a command without options but --help and, where it is wanted, -o. */
static int parse(int argc, char **argv, const char **ret_file, const char **ret_out)
{
    static const struct option options[] = {{"output", 1, 0, 'o'}, {"help", 0, 0, 'h'}, {0}};
    int c;

    while ((c = getopt_long(argc, argv, ret_out ? "ho:" : "h", options, NULL)) != -1) {
        if (c == 'h')
            return lithos_help(help);
        if (c != 'o' || !ret_out)
            return lithos_usage("trace");
        *ret_out = optarg;
    }
    if (optind + 1 != argc) {
        lithos_error("trace %s: takes one file", argv[0]);
        return lithos_usage("trace");
    }
    *ret_file = argv[optind];
    return -1;
}

struct exporting {
    struct lithos_trace_export *export;
    int error;
};

static int export_event(void *context, const struct lithos_trace_event *e)
{
    struct exporting *x = context;

    x->error = lithos_trace_export_add(x->export, e);
    return x->error;
}

/* Two results: of reading, which was reported, and of writing. */
static int export_to(struct lithos_trace_input *in, FILE *out, int *ret_write)
{
    struct exporting x = {NULL, 0};
    int r = 0;

    *ret_write = lithos_trace_export_new(out, lithos_trace_reader_header(in->reader).start_ns, &x.export);
    if (*ret_write < 0)
        return 0;
    r = lithos_trace_input_each(in, export_event, &x);
    if (x.error == 0) /* what comes before any damage can be looked at */
        x.error = lithos_trace_export_end(x.export);
    lithos_trace_export_free(x.export);
    *ret_write = x.error;
    return r;
}

int lithos_trace_cmd_export(int argc, char **argv)
{
    struct lithos_trace_input in;
    const char *file, *path = "-";
    int code = parse(argc, argv, &file, &path), r = 0, w;

    if (code >= 0)
        return code;
    if (lithos_trace_input_open(&in, file) < 0)
        return LITHOS_EXIT_FAILED;
    bool to_stdout = !strcmp(path, "-");
    FILE *out = to_stdout ? stdout : fopen(path, "we");
    if (out)
        r = export_to(&in, out, &w);
    else
        w = -errno;
    if (out && !to_stdout && fclose(out) != 0 && w == 0)
        w = -errno;
    if (w < 0)
        lithos_error("trace: %s cannot be written: %s", to_stdout ? "standard output" : path, strerror(-w));
    lithos_trace_input_close(&in);
    return r < 0 || w < 0 ? LITHOS_EXIT_FAILED : LITHOS_EXIT_OK;
}

static int nothing(void *context, const struct lithos_trace_event *e)
{
    uint64_t *backwards = context;

    *backwards += e->kind == LITHOS_TRACE_KERNEL &&
                  (e->kernel.start_ns < e->time_ns || e->kernel.end_ns < e->kernel.start_ns);
    return 0;
}

int lithos_trace_cmd_validate(int argc, char **argv)
{
    struct lithos_trace_input in;
    const char *file;
    uint64_t events = 0, backwards = 0;
    int code = parse(argc, argv, &file, NULL);

    if (code >= 0)
        return code;
    if (lithos_trace_input_open(&in, file) < 0)
        return LITHOS_EXIT_FAILED;
    int r = lithos_trace_input_each(&in, nothing, &backwards);
    const struct lithos_trace_reader_stats s = lithos_trace_reader_stats(in.reader);
    bool cut = lithos_trace_reader_truncated(in.reader) > 0;
    for (unsigned k = 0; k < LITHOS_TRACE_KIND_MAX; k++)
        events += s.events[k];
    printf("%s: %s: %" PRIu64 " events in %" PRIu64 " blocks, %" PRIu64 " bytes", file,
           r < 0 ? "damaged"
           : cut ? "cut"
                 : "whole",
           events, s.blocks, s.bytes);
    if (s.events[LITHOS_TRACE_KERNEL])
        printf(" (%.1f a kernel)", (double)s.bytes / (double)s.events[LITHOS_TRACE_KERNEL]);
    putchar('\n');
    for (unsigned k = 0; k < LITHOS_TRACE_KIND_MAX; k++)
        if (s.events[k])
            printf("  %-10s %" PRIu64 "\n", lithos_trace_kind_name(k), s.events[k]);
    if (s.unknown)
        printf("  %" PRIu64 " records of kinds that this release does not know\n", s.unknown);
    if (backwards)
        printf("  %" PRIu64 " kernels that do not keep submit <= start <= end\n", backwards);
    lithos_trace_input_close(&in);
    return fflush(stdout) != 0 || r < 0 || cut || backwards ? LITHOS_EXIT_FAILED : LITHOS_EXIT_OK;
}

int lithos_cmd_trace(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } commands[] = {
        {"stat", lithos_trace_cmd_stat},
        {"export", lithos_trace_cmd_export},
        {"validate", lithos_trace_cmd_validate},
        {"record", lithos_trace_cmd_record},
    };

    if (argc < 2) {
        fputs(help, stderr);
        return LITHOS_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
        return lithos_help(help);
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(commands); i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    lithos_error("trace: there is no command \"%s\"", argv[1]);
    return lithos_usage("trace");
}
