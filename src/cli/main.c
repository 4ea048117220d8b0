/* lithos: programs stacked on one GPU, each held to its own TPCs. */
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "cli/commands.h"

static const char help[] =
    "usage: lithos COMMAND [options]\n"
    "  run [--quota 40%|26] [--gpu G] [--name N] -- CMD...   run a CUDA program on its own TPCs of a GPU\n"
    "  status [--json]                                       who holds what\n"
    "  set NAME QUOTA                                        change a tenant while it runs\n"
    "  explain TENANT [--json]                               why it has the TPCs it has\n"
    "  stop                                                  end the daemon; tenants keep what they hold\n"
    "  doctor [--json]                                       what works on this machine, what does not, how "
    "to mend it\n"
    "  top [--once]                                          who runs what, live\n"
    "  trace record|stat|export|validate                     traces of kernels: written, and read\n"
    "  sim [SCENARIO] [--policy P,...]                       the scheduler in virtual time, no GPU needed\n"
    "  demo [--json FILE]                                    two programs with and without LithOS, measured\n"
    "  version, help                                         these\n"
    "`lithos COMMAND --help' and the manual page lithos(1) say more.\n";

static int cmd_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return lithos_help(help);
}

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return lithos_help("lithos " LITHOS_RELEASE "\n");
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"run", lithos_cmd_run},       {"status", lithos_cmd_status},
    {"set", lithos_cmd_set},       {"stop", lithos_cmd_stop},
    {"doctor", lithos_cmd_doctor}, {"demo", lithos_cmd_demo},
    {"trace", lithos_cmd_trace},   {"top", lithos_cmd_top},
    {"sim", lithos_cmd_sim},       {"explain", lithos_cmd_explain},
    {"version", cmd_version},      {"--version", cmd_version},
    {"-V", cmd_version},           {"help", cmd_help},
    {"--help", cmd_help},          {"-h", cmd_help},
};

int main(int argc, char **argv)
{
    if (argc < 2) {
        fputs(help, stderr);
        return LITHOS_EXIT_USAGE;
    }
    for (size_t i = 0; i < LITHOS_ARRAY_SIZE(commands); i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "lithos: there is no command \"%s\"\n", argv[1]);
    return lithos_usage(NULL);
}
