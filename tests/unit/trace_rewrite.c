/* trace_rewrite LEVEL TRACE COPY: reads a trace and writes what it read. For tests of recorded ones, whose copy must be the same. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "unit/trace_events.h"

int main(int argc, char **argv)
{
    struct lithos_trace_reader *r;
    const char *why = "";

    if (argc != 4)
        return 2;
    int from = open(argv[2], O_RDONLY | O_CLOEXEC);
    int to = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (from < 0 || to < 0) {
        perror(from < 0 ? argv[2] : argv[3]);
        return 1;
    }
    int error = lithos_trace_reader_new_fd(from, &r, &why);
    if (error < 0) {
        fprintf(stderr, "%s: %s\n", argv[2], why);
        return 1;
    }
    error = trace_rewrite(r, to, atoi(argv[1])); /* NOLINT(cert-err34-c): a test's own word */
    if (error < 0)
        fprintf(stderr, "%s: %s %s\n", argv[2], strerror(-error), lithos_trace_reader_why(r));
    lithos_trace_reader_free(r);
    close(from);
    close(to);
    return error < 0;
}
