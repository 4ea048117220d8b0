/* lithos status: who holds what. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/tpcset.h"
#include "base/util.h"
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/document.h"
#include "cli/status_table.h"

static const char help[] =
    "usage: lithos status [--json] [--socket PATH]\n"
    "Lists the GPUs and the tenants on them. --json prints the daemon's whole document.\n"
    "Exit code 1 when no daemon runs.\n";

int lithos_cmd_status(int argc, char **argv)
{
    char path[LITHOS_PATH_BYTES];
    bool as_json = false;
    json_t *document;
    int sock, code = lithos_client_options(argc, argv, help, "json", &as_json, path);

    if (code >= 0)
        return code;
    if (lithos_client_connect(path, false, &sock) < 0)
        return LITHOS_EXIT_FAILED;
    int r = lithos_client_document(sock, &document);
    close(sock);
    if (r < 0)
        return LITHOS_EXIT_FAILED;
    if (as_json)
        r = json_dumpf(document, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF ? -EIO : 0;
    else
        r = lithos_status_print(document, stdout);
    json_decref(document);
    if (fflush(stdout) != 0 || r < 0) {
        lithos_error("status: cannot be printed: %s", r < 0 ? strerror(-r) : strerror(errno));
        return LITHOS_EXIT_FAILED;
    }
    return LITHOS_EXIT_OK;
}
