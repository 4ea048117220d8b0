/* lithos set and lithos stop: one request each to a running daemon. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/client.h"
#include "cli/commands.h"

static const char set_help[] = "usage: lithos set [--socket PATH] NAME QUOTA\n"
                               "Changes a running tenant's quota on each of its GPUs: a number of TPCs (26) "
                               "or a share (40%). The next launches\n"
                               "keep to it. Refused when others hold what it would need.\n";
static const char stop_help[] = "usage: lithos stop [--socket PATH]\n"
                                "Ends lithosd and the MPS it started. Tenants go on with what they hold.\n";

/* Only --socket and --help: returns the exit code to leave with, or -1 to go on at optind. */
static int parse(int argc, char **argv, const char *help, char path[LITHOS_PATH_BYTES])
{
    static const struct option options[] = {{"socket", 1, 0, 's'}, {"help", 0, 0, 'h'}, {0}};
    const char *socket = NULL;
    int c;

    while ((c = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        if (c == 'h')
            return lithos_help(help);
        if (c != 's')
            return lithos_usage(argv[0]);
        socket = optarg;
    }
    return lithos_client_path(socket, path) < 0 ? LITHOS_EXIT_FAILED : -1;
}

static int ask_for_ok(const char *path, const union lithos_message *request)
{
    int sock, r = lithos_client_connect(path, false, &sock);

    if (r == 0) {
        r = lithos_client_ask(sock, request, LITHOS_MSG_OK, NULL, NULL);
        close(sock);
    }
    return r < 0 ? LITHOS_EXIT_FAILED : LITHOS_EXIT_OK;
}

int lithos_cmd_set(int argc, char **argv)
{
    static union lithos_message request;
    char path[LITHOS_PATH_BYTES];
    int code = parse(argc, argv, set_help, path);

    if (code >= 0)
        return code;
    if (argc - optind != 2) {
        lithos_error("set: needs a tenant's name and its new quota: lithos set NAME 40%%");
        return lithos_usage("set");
    }
    const char *name = argv[optind], *quota = argv[optind + 1];
    lithos_message_init(&request, LITHOS_MSG_SET);
    if (!*name || strlen(name) >= sizeof(request.set.name)) {
        lithos_error("set: \"%s\" cannot be a tenant's name: `lithos status' lists them", name);
        return LITHOS_EXIT_USAGE;
    }
    strcpy(request.set.name, name);
    int r = lithos_quota_parse(quota, &request.set.quota);
    if (r < 0) {
        lithos_error("set: quota \"%s\" %s: a number of TPCs from 1 to 128, or a share over 0%% to 100%%",
                     quota, r == -ERANGE ? "is out of range" : "is not understood");
        return LITHOS_EXIT_USAGE;
    }
    return ask_for_ok(path, &request);
}

int lithos_cmd_stop(int argc, char **argv)
{
    static union lithos_message request;
    char path[LITHOS_PATH_BYTES];
    int code = parse(argc, argv, stop_help, path);

    if (code >= 0)
        return code;
    if (optind < argc) {
        lithos_error("stop: takes no arguments");
        return lithos_usage("stop");
    }
    lithos_message_init(&request, LITHOS_MSG_SHUTDOWN);
    return ask_for_ok(path, &request);
}
