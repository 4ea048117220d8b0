/* lithos doctor: what works on this machine, what does not, and how to mend it. */
#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/log.h"
#include "base/util.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/doctor.h"

static const char help[] =
    "usage: lithos doctor [--json] [--socket PATH]\n"
    "Looks at all that LithOS needs: a line each, ok, warn or FAIL, and how to mend what is not "
    "well.\nExit code 0 when nothing failed, 1 otherwise.\n";

static const char *const level_names[LITHOS_FINDING_MAX] = {"ok", "warn", "FAIL"};

void lithos_doctor_report(struct lithos_doctor *d, enum lithos_finding level, const char *what,
                          const char *mend, const char *fmt, ...)
{
    char finding[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(finding, sizeof(finding), fmt, ap);
    va_end(ap);
    d->counts[level]++;
    /* Bytes that are no UTF-8 make json_pack fail: then the line is lost from the JSON, never the program. */
    json_array_append_new(d->findings, json_pack("{s:s, s:s, s:s, s:s*}", "level", level_names[level], "what",
                                                 what, "finding", finding, "mend", mend));
    if (!d->text)
        return;
    printf("%-4s  %s: %s\n", level_names[level], what, finding);
    if (mend)
        printf("      -> %s\n", mend);
    fflush(stdout);
}

const char *lithos_first_line(const char *text)
{
    static char line[512];
    size_t len = text ? strcspn(text, "\n") : 0;

    snprintf(line, sizeof(line), "%.*s", (int)LITHOS_MIN(len, sizeof(line) - 1), text ? text : "");
    return line;
}

/* For lithos_doctor_preload, which runs this program again to see what the loader gives it. */
static int print_maps(void)
{
    char *text;

    if (lithos_read_file("/proc/self/maps", 8u << 20, &text, NULL) < 0)
        return LITHOS_EXIT_FAILED;
    fputs(text, stdout);
    free(text);
    return LITHOS_EXIT_OK;
}

static int parse(int argc, char **argv, bool *ret_json, const char **ret_socket)
{
    enum { JSON = 256, SOCKET, MAPS };
    static const struct option options[] = {
        {"json", 0, 0, JSON}, {"socket", 1, 0, SOCKET}, {"print-maps", 0, 0, MAPS}, {"help", 0, 0, 'h'}, {0}};
    int c;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case JSON:
            *ret_json = true;
            break;
        case SOCKET:
            *ret_socket = optarg;
            break;
        case MAPS:
            return print_maps();
        case 'h':
            return lithos_help(help);
        default:
            return lithos_usage("doctor");
        }
    }
    if (optind < argc) {
        lithos_error("doctor: takes options only");
        return lithos_usage("doctor");
    }
    return -1;
}

static int finish(struct lithos_doctor *d)
{
    bool failed = d->counts[LITHOS_FINDING_FAIL] > 0;

    if (d->text) {
        printf("%u ok, %u to mind, %u failed\n", d->counts[LITHOS_FINDING_OK], d->counts[LITHOS_FINDING_WARN],
               d->counts[LITHOS_FINDING_FAIL]);
    } else {
        json_t *document = json_pack("{s:b, s:O}", "ok", !failed, "findings", d->findings);
        if (!document || json_dumpf(document, stdout, JSON_INDENT(2)) < 0)
            failed = true;
        putchar('\n');
        json_decref(document);
    }
    json_decref(d->findings);
    json_decref(d->probe);
    return failed ? LITHOS_EXIT_FAILED : LITHOS_EXIT_OK;
}

int lithos_cmd_doctor(int argc, char **argv)
{
    static void (*const checks[])(struct lithos_doctor *) = {
        lithos_doctor_installation, lithos_doctor_library,     lithos_doctor_preload,
        lithos_doctor_kernel,       lithos_doctor_driver,      lithos_doctor_device_nodes,
        lithos_doctor_gpus,         lithos_doctor_cache,       lithos_doctor_mps,
        lithos_doctor_daemon,       lithos_doctor_environment,
    };
    static struct lithos_doctor d;
    static char socket[LITHOS_PATH_BYTES], bin[3072];
    const char *socket_option = NULL;
    bool as_json = false;
    int code = parse(argc, argv, &as_json, &socket_option);

    if (code >= 0)
        return code;
    if (lithos_client_path(socket_option, socket) < 0)
        return LITHOS_EXIT_FAILED;
    int r = lithos_program_dir(bin, sizeof(bin));
    if (r < 0) {
        lithos_error("doctor: cannot tell where this program lies: %s", strerror(-r));
        return LITHOS_EXIT_FAILED;
    }
    snprintf(d.base, sizeof(d.base), "%s", dirname(bin));
    d.socket = socket;
    d.text = !as_json;
    d.findings = json_array();
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(checks); i++)
        checks[i](&d);
    return finish(&d);
}
