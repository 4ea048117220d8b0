/* lithos explain: why a tenant has what it has, in words. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/tpcset.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/document.h"
#include "cli/status_table.h"

static const char help[] =
    "usage: lithos explain [--json] [--socket PATH] TENANT\n"
    "Says which TPCs a tenant has now, why not more, and what its launches waited for in the last second.\n"
    "Exit code 1 when there is no such tenant, or no daemon.\n";

struct words {
    const char *name, *words;
};

/* core/sched.h, enum lithos_sched_why */
static const struct words whys[] = {
    {"idle", "it asks for nothing"},
    {"all", "it has all that can be lent"},
    {"owner_busy", "the owners of the other TPCs use them"},
    {"owner_soon", "the owners of the other TPCs are expected back too soon"},
    {"owner_slack", "the owners of the other TPCs cannot bear to wait for its kernels"},
    {"share", "other tenants have their share"},
    {"room", "there is no place for its clusters"},
    {"squeezed", "an owner runs slower beside it, so that less is lent for now"},
    {"lease", "its launches are not seen, or it does not go by what is lent"},
    {"policy", "the policy lends nothing"},
};

/* hw/tpcgrant.h, enum lithos_tpcpick */
static const struct words picks[] = {
    {"run", "their turn, or for order"},
    {"held", "TPCs: it has none of its own, and nothing is lent"},
    {"paced", "their pace"},
    {"window", "what is on the card already"},
    {"no_tpcs", "TPCs: none of its own, and nothing is lent"},
    {"outlives", "TPCs for long enough: the next one takes longer than owners bear"},
    {"no_room", "room for clusters"},
    {"not_resident", "room for all blocks at once"},
    {"profile", "others of another kind"},
    {"wider", "more TPCs, on which it is over sooner"},
};

static const char *in_words(const struct words *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i].name, name))
            return list[i].words;
    return name;
}

static unsigned count_bits(const json_t *object, const char *key)
{
    struct lithos_tpcset set;
    return lithos_tpcset_parse(lithos_json_string(object, key), &set) < 0 ? 0 : lithos_tpcset_count(&set);
}

static void print_set(const json_t *gpu, const char *key, const char *what, FILE *out)
{
    unsigned n = count_bits(gpu, key);
    if (n)
        fprintf(out, "  %s %u TPCs: %s\n", what, n, lithos_json_string(gpu, key));
}

/* The parts of the last second that are worth a line: over a hundredth of it. */
static void print_parts(const json_t *parts, const struct words *list, size_t count, const char *title,
                        FILE *out)
{
    const char *name;
    json_t *seconds;
    bool first = true;

    json_object_foreach((json_t *)parts, name, seconds)
    {
        if (json_number_value(seconds) < 0.01)
            continue;
        if (first)
            fprintf(out, "  %s\n", title);
        first = false;
        fprintf(out, "    %3.0f %%  %s\n", 100 * json_number_value(seconds), in_words(list, count, name));
    }
}

static void print_rule(const json_t *rule, FILE *out)
{
    const json_t *longest = json_object_get(rule, "longest_us"), *until = json_object_get(rule, "until_us");

    if (!json_is_object(rule) || count_bits(rule, "lent") == 0)
        return;
    fputs("  on lent TPCs kernels may take ", out);
    if (json_is_number(longest))
        fprintf(out, "%.0f us", json_number_value(longest));
    else
        fputs("as long as they want", out);
    if (json_is_number(until) && json_number_value(until) > 0)
        fprintf(out, ", or be over within %.0f us from now", json_number_value(until));
    fputc('\n', out);
}

static void print_owner(const json_t *owner, FILE *out)
{
    const json_t *slower = json_object_get(owner, "slower");

    if (!json_is_object(owner))
        return;
    fprintf(out,
            "  as an owner, in the last second: came back %lld times to TPCs that were lent, %lld times to "
            "work in its "
            "way; waited %.0f us for it\n",
            (long long)lithos_json_integer(owner, "returns"), (long long)lithos_json_integer(owner, "hits"),
            lithos_json_number(owner, "wait_us"));
    fprintf(out,
            "  a return may lose %.0f us; 99 of 100 of its busy periods take no longer than %.0f us, slow "
            "requests "
            "in them about %.0f us\n",
            lithos_json_number(owner, "slack_us"), lithos_json_number(owner, "need_us"),
            lithos_json_number(owner, "request_us"));
    if (json_is_number(slower))
        fprintf(
            out,
            "  its kernels take %.2f times as long with others beside it; %.0f %% of what could be is lent "
            "meanwhile\n",
            json_number_value(slower), 100 * lithos_json_number(owner, "squeeze"));
}

/* Of CUDA graphs that borrow. */
static void print_hold(const json_t *gpu, FILE *out)
{
    const json_t *hold = json_object_get(gpu, "hold");
    if (!json_is_object(hold))
        return;
    print_set(gpu, "graphs", "lets its CUDA graphs run, while no owner there is at work, on", out);
    fprintf(out, "  its CUDA graphs %s; they have waited %lld times, %.1f s in all\n",
            lithos_json_true(hold, "held") ? "wait now" : "go on",
            (long long)lithos_json_integer(hold, "times"), lithos_json_number(hold, "held_s"));
}

static void print_gpu(const json_t *gpu, bool high, FILE *out)
{
    fprintf(out, "GPU %lld\n", (long long)lithos_json_integer(gpu, "index"));
    if (json_is_null(json_object_get(gpu, "why"))) {
        fputs("  nothing is lent there\n", out);
        return;
    }
    print_set(gpu, "own", "owns", out);
    print_set(gpu, "lent", "is lent", out);
    print_set(gpu, "lent_away", "of its own, others may use", out);
    if (count_bits(gpu, "own") + count_bits(gpu, "lent") == 0)
        fputs("  has no TPCs now\n", out);
    print_set(gpu, "refuge",
              json_is_null(json_object_get(gpu, "graphs"))
                  ? "has for CUDA graphs, and for what is not in its queues,"
                  : "has for what is not in its queues",
              out);
    print_hold(gpu, out);
    if (lithos_json_true(gpu, "unseen"))
        fputs("  its launches are not all seen, so it is taken for busy: nothing of it is lent\n", out);
    fprintf(out, "  %lld launches on the card, %lld calls in its queues\n",
            (long long)lithos_json_integer(gpu, "outstanding"),
            (long long)lithos_json_integer(gpu, "queued"));
    if (high) {
        fputs("  high priority: launches at once, on its own TPCs\n", out);
    } else {
        fprintf(out, "  no more, for %s\n",
                in_words(whys, LITHOS_ARRAY_SIZE(whys), lithos_json_string(gpu, "why")));
        print_parts(json_object_get(gpu, "why_s"), whys, LITHOS_ARRAY_SIZE(whys), "in the last second:", out);
        print_parts(json_object_get(gpu, "waited_s"), picks, LITHOS_ARRAY_SIZE(picks),
                    "meanwhile its queue waited for:", out);
    }
    print_rule(json_object_get(gpu, "rule"), out);
    print_owner(json_object_get(gpu, "owner"), out);
    fprintf(out, "  multiprocessors to size persistent kernels by: %lld\n",
            (long long)lithos_json_integer(gpu, "advised_sms"));
}

static void print(const json_t *document, FILE *out)
{
    const char *class = lithos_json_string(document, "class"), *off = lithos_json_string(document, "off");
    const json_t *gpu, *slice = json_object_get(document, "slice");
    size_t i;

    fprintf(out, "%s: %s, quota %s, policy %s\n", lithos_json_string(document, "tenant"), class,
            lithos_json_string(document, "quota"), lithos_json_string(document, "policy"));
    if (*off)
        fprintf(out, "nothing is lent: %s\n", off);
    if (json_is_object(slice))
        lithos_slice_print(slice, out);
    lithos_rightsize_explain(json_object_get(document, "rightsize"), out);
    json_array_foreach(json_object_get(document, "gpus"), i, gpu) print_gpu(gpu, !strcmp(class, "high"), out);
}

/* Exit code, or -1 to go on with the tenant's name at optind. */
static int parse(int argc, char **argv, bool *ret_json, char path[LITHOS_PATH_BYTES])
{
    static const struct option options[] = {
        {"json", 0, 0, 'j'}, {"socket", 1, 0, 's'}, {"help", 0, 0, 'h'}, {0}};
    const char *socket = NULL;
    int c;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (c == 'h')
            return lithos_help(help);
        if (c == 'j')
            *ret_json = true;
        else if (c == 's')
            socket = optarg;
        else
            return lithos_usage("explain");
    }
    if (argc - optind != 1 || !*argv[optind] || strlen(argv[optind]) >= LITHOS_NAME_MAX) {
        lithos_error("explain: needs a tenant's name: `lithos status' lists them");
        return lithos_usage("explain");
    }
    return lithos_client_path(socket, path) < 0 ? LITHOS_EXIT_FAILED : -1;
}

int lithos_cmd_explain(int argc, char **argv)
{
    static union lithos_message request;
    char path[LITHOS_PATH_BYTES];
    bool as_json = false;
    json_t *document;
    int sock, code = parse(argc, argv, &as_json, path);

    if (code >= 0)
        return code;
    if (lithos_client_connect(path, false, &sock) < 0)
        return LITHOS_EXIT_FAILED;
    lithos_message_init(&request, LITHOS_MSG_EXPLAIN);
    strcpy(request.explain.name, argv[optind]);
    int r = lithos_client_ask_document(sock, &request, &document);
    close(sock);
    if (r < 0)
        return LITHOS_EXIT_FAILED;
    if (as_json)
        r = json_dumpf(document, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF ? -EIO : 0;
    else
        print(document, stdout);
    json_decref(document);
    if (fflush(stdout) != 0 || r < 0) {
        lithos_error("explain: cannot be printed: %s", strerror(r < 0 ? -r : errno));
        return LITHOS_EXIT_FAILED;
    }
    return LITHOS_EXIT_OK;
}
