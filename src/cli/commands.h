/* The subcommands of `lithos`: argv[0] is the subcommand's name; the result is the exit code. */
#pragma once

/* Exit codes of our own; those of a command that `lithos run` starts are its own, with 126 and 127 as in a
 * shell. */
enum {
    LITHOS_EXIT_OK = 0,
    LITHOS_EXIT_FAILED = 1,
    LITHOS_EXIT_USAGE = 2,
    LITHOS_EXIT_NOT_STARTED = 125, /* `lithos run` refused, or no daemon to ask */
    LITHOS_EXIT_CANNOT_EXECUTE = 126,
    LITHOS_EXIT_NOT_FOUND = 127,
};

/* What is wrong with an --atom. */
#define LITHOS_ATOM_HELP                                                                            \
    "must be off, the length of an atom from 20us to 1000ms (250us, or with the shortest one that " \
    "may be: 250us,floor=100us), or x2 to x4096"

int lithos_cmd_run(int argc, char **argv);
int lithos_cmd_status(int argc, char **argv);
int lithos_cmd_set(int argc, char **argv);
int lithos_cmd_explain(int argc, char **argv);
int lithos_cmd_stop(int argc, char **argv);
int lithos_cmd_doctor(int argc, char **argv);
int lithos_cmd_demo(int argc, char **argv);
int lithos_cmd_trace(int argc, char **argv);
int lithos_cmd_top(int argc, char **argv);
int lithos_cmd_sim(int argc, char **argv);

/* --help: everything known of a subcommand on standard output. Returns LITHOS_EXIT_OK. */
int lithos_help(const char *text);
/* After a message about bad arguments: points to the help. Returns LITHOS_EXIT_USAGE. */
int lithos_usage(const char *command);
