#include "cli/commands.h"

#include <stdio.h>

int lithos_help(const char *text)
{
    fputs(text, stdout);
    return LITHOS_EXIT_OK;
}

int lithos_usage(const char *command)
{
    fprintf(stderr, "Try `lithos %s%s--help'.\n", command ? command : "", command ? " " : "");
    return LITHOS_EXIT_USAGE;
}
