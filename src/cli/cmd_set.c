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
#include "cli/share_option.h"

static const char set_help[] =
    "usage: lithos set [--socket PATH] NAME [QUOTA] [--class C] [--atom A]\n"
    "                  [--weight N] [--floor N] [--graphs W] [--slo DUR] [--slip X]\n"
    "Changes a running tenant; its next launches keep to it.\n"
    "  QUOTA     TPCs on each of its GPUs (26), or a share (40%). Refused when others hold what it would "
    "need\n"
    "  --class C high, or best-effort: launches wait in queues, and the card is given little at a "
    "time\n" LITHOS_SHARE_HELP
    "  --atom A  what its long kernels are cut into: parts of about 250us, off, or x7 for 7 parts each (for "
    "tests)\n";
static const char stop_help[] = "usage: lithos stop [--socket PATH]\n"
                                "Ends lithosd and the MPS it started. Tenants go on with what they hold.\n";

/* What is to be changed, as written; NULL where it stays. */
struct changes {
    const char *quota, *class, *atom;
    struct lithos_share share;
};

/* --socket, --help and, where changes are taken, those: returns the exit code to leave with, or -1 to go on at optind. */
static int parse(int argc, char **argv, const char *help, char path[LITHOS_PATH_BYTES],
                 struct changes *ret_changes)
{
    static const struct option options[] = {{"socket", 1, 0, 's'}, {"help", 0, 0, 'h'},  {"atom", 1, 0, 'a'},
                                            {"class", 1, 0, 'c'},  LITHOS_SHARE_OPTIONS, {0}};
    const char *socket = NULL;
    int c;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'h')
            return lithos_help(help);
        if (c == 'a' && ret_changes)
            ret_changes->atom = optarg;
        else if (c == 'c' && ret_changes)
            ret_changes->class = optarg;
        else if (c == 's')
            socket = optarg;
        else if (!ret_changes || lithos_share_option(argv[0], c, &ret_changes->share) <= 0)
            return lithos_usage(argv[0]);
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

/* Exit code or -1. */
static int fill_set(struct lithos_msg_set *m, const struct changes *to)
{
    int r = to->quota ? lithos_quota_parse(to->quota, &m->quota) : 0;
    if (r < 0) {
        lithos_error("set: quota \"%s\" %s: a number of TPCs from 0 to 128, or a share over 0%% to 100%%",
                     to->quota, r == -ERANGE ? "is out of range" : "is not understood");
        return LITHOS_EXIT_USAGE;
    }
    if (to->atom && lithos_atom_policy_parse(to->atom, &m->atom) < 0) {
        lithos_error("set: --atom %s: " LITHOS_ATOM_HELP, to->atom);
        return LITHOS_EXIT_USAGE;
    }
    if (to->class && lithos_class_parse(to->class, &m->class) < 0) {
        lithos_error("set: --class %s: must be high or best-effort", to->class);
        return LITHOS_EXIT_USAGE;
    }
    m->what = (to->quota ? LITHOS_SET_QUOTA : 0) | (to->atom ? LITHOS_SET_ATOM : 0) |
              (to->class ? LITHOS_SET_CLASS : 0) | (to->share.given ? LITHOS_SET_SHARE : 0);
    m->share = to->share;
    return -1;
}

int lithos_cmd_set(int argc, char **argv)
{
    static union lithos_message request;
    char path[LITHOS_PATH_BYTES];
    struct changes to = {0};
    int code = parse(argc, argv, set_help, path, &to);

    if (code >= 0)
        return code;
    if (argc - optind < 1 || argc - optind > 2 ||
        (argc - optind == 1 && !to.atom && !to.class && !to.share.given)) {
        lithos_error("set: needs a tenant's name and what to change: lithos set NAME 40%%");
        return lithos_usage("set");
    }
    const char *name = argv[optind];
    lithos_message_init(&request, LITHOS_MSG_SET);
    if (!*name || strlen(name) >= sizeof(request.set.name)) {
        lithos_error("set: \"%s\" cannot be a tenant's name: `lithos status' lists them", name);
        return LITHOS_EXIT_USAGE;
    }
    strcpy(request.set.name, name);
    if (argc - optind == 2)
        to.quota = argv[optind + 1];
    code = fill_set(&request.set, &to);
    return code >= 0 ? code : ask_for_ok(path, &request);
}

int lithos_cmd_stop(int argc, char **argv)
{
    static union lithos_message request;
    char path[LITHOS_PATH_BYTES];
    int code = parse(argc, argv, stop_help, path, NULL);

    if (code >= 0)
        return code;
    if (optind < argc) {
        lithos_error("stop: takes no arguments");
        return lithos_usage("stop");
    }
    lithos_message_init(&request, LITHOS_MSG_SHUTDOWN);
    return ask_for_ok(path, &request);
}
