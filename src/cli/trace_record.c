/* lithos trace record: has lithosd write what runs to a file. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/trace.h"

static const char help[] =
    "usage: lithos trace record [-o FILE] [--seconds N] [--tenant NAME] [--socket PATH]\n"
    "Has lithosd write every kernel of all tenants, or of one, to FILE (default: lithos-DATE-TIME.trace) "
    "until N\n"
    "seconds are over or Ctrl-C. `lithos trace stat|export FILE' read it.\n";

struct record {
    const char *output, *tenant, *socket;
    double seconds; /* 0: until a signal */
    char made[64];
};

static int parse(int argc, char **argv, struct record *r)
{
    static const struct option options[] = {{"output", 1, 0, 'o'}, {"seconds", 1, 0, 's'},
                                            {"tenant", 1, 0, 't'}, {"socket", 1, 0, 'S'},
                                            {"help", 0, 0, 'h'},   {0}};
    char *end;
    int c;
    while ((c = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        switch (c) {
        case 'o':
            r->output = optarg;
            break;
        case 's':
            errno = 0;
            r->seconds = strtod(optarg, &end);
            if (errno || end == optarg || *end || !(r->seconds > 0 && r->seconds <= 1e7)) {
                lithos_error("trace record: --seconds %s: must be a number above 0", optarg);
                return lithos_usage("trace");
            }
            break;
        case 't':
            r->tenant = optarg;
            break;
        case 'S':
            r->socket = optarg;
            break;
        case 'h':
            return lithos_help(help);
        default:
            return lithos_usage("trace");
        }
    }
    if (optind < argc || (r->tenant && strlen(r->tenant) >= LITHOS_NAME_MAX)) {
        lithos_error("trace record: %s",
                     optind < argc ? "takes options only" : "no tenant has so long a name");
        return lithos_usage("trace");
    }
    if (!r->output) {
        time_t now = time(NULL);
        struct tm tm;
        localtime_r(&now, &tm);
        strftime(r->made, sizeof r->made, "lithos-%Y%m%d-%H%M%S.trace", &tm);
        r->output = r->made;
    }
    return -1;
}

static int ask(int sock, uint32_t action, const char *tenant, int fd, struct lithos_msg_traced *ret)
{
    static union lithos_message m;
    lithos_message_init(&m, LITHOS_MSG_TRACE);
    m.trace.action = action;
    snprintf(m.trace.tenant, sizeof m.trace.tenant, "%s", tenant ? tenant : "");
    int r = lithos_socket_send(sock, &m, fd, 5 * LITHOS_NSEC_PER_SEC);
    if (r == 0)
        r = lithos_socket_receive(sock, &m, NULL, 30 * LITHOS_NSEC_PER_SEC);
    if (r < 0) {
        lithos_error("trace record: lithosd is gone: %s; what it wrote can be read", strerror(-r));
        return r;
    }
    if (m.h.type == LITHOS_MSG_ERROR) {
        lithos_error("trace record: %s", m.error.text);
        return m.error.error;
    }
    if (m.h.type != LITHOS_MSG_TRACED)
        return -EPROTO;
    *ret = m.traced;
    return 0;
}

/* Until time is up or a signal comes; looks each second whether it still goes well. 0 or negative errno, said. */
static int wait_for_end(int sock, int signals, double seconds)
{
    uint64_t end_ns = seconds > 0 ? lithos_now_ns() + (uint64_t)(seconds * 1e9) : UINT64_MAX;
    for (;;) {
        uint64_t now_ns = lithos_now_ns();
        if (now_ns >= end_ns)
            return 0;
        int wait_ms = (int)LITHOS_MIN((end_ns - now_ns) / LITHOS_NSEC_PER_MSEC + 1, 1000ull);
        struct pollfd p = {.fd = signals, .events = POLLIN};
        struct lithos_msg_traced state;
        if (poll(&p, 1, wait_ms) > 0)
            return 0;
        int r = ask(sock, LITHOS_TRACE_STATE, NULL, -1, &state);
        if (r < 0)
            return r;
    }
}

static int record(int sock, const struct record *r, int fd)
{
    struct lithos_msg_traced t;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC);
    if (signals < 0)
        return -errno;
    int error = ask(sock, LITHOS_TRACE_START, r->tenant, fd, &t);
    if (error == 0) {
        fprintf(stderr, "recording into %s%s\n", r->output, r->seconds > 0 ? "" : ": Ctrl-C ends it");
        error = wait_for_end(sock, signals, r->seconds);
    }
    if (error == 0)
        error = ask(sock, LITHOS_TRACE_STOP, NULL, -1, &t);
    if (error == 0)
        printf("%s: %" PRIu64 " kernels, %" PRIu64 " launches without an end, %" PRIu64 " events, %" PRIu64
               " bytes\n",
               r->output, t.kernels, t.dropped, t.events, t.bytes);
    close(signals);
    return error;
}

int lithos_trace_cmd_record(int argc, char **argv)
{
    struct record r = {0};
    char path[LITHOS_PATH_BYTES];
    int sock, code = parse(argc, argv, &r);
    if (code >= 0)
        return code;
    if (lithos_client_path(r.socket, path) < 0 || lithos_client_connect(path, false, &sock) < 0)
        return LITHOS_EXIT_FAILED;
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): parse() has made a name where none was given */
    int fd = open(r.output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        lithos_error("trace record: %s cannot be written: %s", r.output, strerror(errno));
        close(sock);
        return LITHOS_EXIT_FAILED;
    }
    int error = record(sock, &r, fd);
    close(fd);
    close(sock);
    return error < 0 || fflush(stdout) != 0 ? LITHOS_EXIT_FAILED : LITHOS_EXIT_OK;
}
