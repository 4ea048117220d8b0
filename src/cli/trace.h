/* The subcommands of `lithos trace`: argv[0] is the subcommand's name; the result is the exit code. */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "trace/reader.h"

int lithos_trace_cmd_stat(int argc, char **argv);
int lithos_trace_cmd_export(int argc, char **argv);
int lithos_trace_cmd_validate(int argc, char **argv);
int lithos_trace_cmd_record(int argc, char **argv);

struct lithos_trace_stat;
struct lithos_trace_summary;

/* A trace being read by a subcommand, and how it went. */
struct lithos_trace_input {
    const char *path;
    int fd;
    struct lithos_trace_reader *reader;
};

/* Opens a trace ("-": standard input). 0, or negative errno after a message. */
int lithos_trace_input_open(struct lithos_trace_input *in, const char *path);
void lithos_trace_input_close(struct lithos_trace_input *in);
/* Hands each event to `each` until the end, what is damaged, or an error of `each`, which is returned and
 * the caller's to report. Damage and a
 * last block that is cut are said in a message: -EBADMSG (or what read gave) and 0. */
int lithos_trace_input_each(struct lithos_trace_input *in,
                            int (*each)(void *context, const struct lithos_trace_event *e), void *context);
/* The figures of `lithos trace stat` for people, at most `top` rows (0: all); 0, -ENOMEM or -EIO. */
int lithos_trace_stat_print(const struct lithos_trace_input *in, struct lithos_trace_stat *stat,
                            const struct lithos_trace_summary *sum, int by, size_t top, FILE *out);
/* The same as JSON; read_error as lithos_trace_input_each gave it. */
int lithos_trace_stat_print_json(const struct lithos_trace_input *in, struct lithos_trace_stat *stat,
                                 const struct lithos_trace_summary *sum, int by, size_t top, int read_error,
                                 FILE *out);
