/* lithos top: who runs what, live. */
#include "cli/top.h"

#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/util.h"
#include "cli/client.h"
#include "cli/commands.h"

#define REFRESH_MS 1000

static const char help[] = "usage: lithos top [--once] [--socket PATH]\n"
                           "Who holds which TPCs, what each tenant runs and how long it takes, each second "
                           "anew. q quits; left and right choose\n"
                           "what to sort by, up and down a tenant to say more of. --once, or without a "
                           "terminal: one frame as text.\n";

static int print_once(int sock)
{
    static struct lithos_top_frame frame;
    struct lithos_top_view view = {
        .rows = LITHOS_TOP_ROWS_MAX, .columns = 100, .sort = LITHOS_TOP_BY_TIME, .selected = -1};
    json_t *document;
    if (lithos_client_document(sock, &document) < 0)
        return LITHOS_EXIT_FAILED;
    lithos_top_frame(document, &view, &frame);
    lithos_top_print(&frame, stdout);
    json_decref(document);
    if (fflush(stdout) != 0) {
        lithos_error("top: cannot be printed: %s", strerror(errno));
        return LITHOS_EXIT_FAILED;
    }
    return LITHOS_EXIT_OK;
}

/* ---- the terminal ---- */

static void make_colours(void)
{
    static const short colours[LITHOS_TOP_OWNERS] = {COLOR_GREEN,   COLOR_YELLOW, COLOR_BLUE,
                                                     COLOR_MAGENTA, COLOR_CYAN,   COLOR_WHITE};
    if (!has_colors())
        return;
    start_color();
    use_default_colors();
    for (unsigned i = 0; i < LITHOS_TOP_OWNERS; i++)
        init_pair((short)(i + 1), COLOR_BLACK, colours[i]);
    init_pair(LITHOS_TOP_OWNERS + 1, COLOR_RED, -1);
}

static attr_t attribute(uint8_t style)
{
    switch (style) {
    case LITHOS_TOP_STRONG:
        return A_BOLD;
    case LITHOS_TOP_FAINT:
        return A_DIM;
    case LITHOS_TOP_SELECTED:
        return A_REVERSE;
    case LITHOS_TOP_WARNING:
        return has_colors() ? COLOR_PAIR(LITHOS_TOP_OWNERS + 1) | A_BOLD : A_BOLD;
    case LITHOS_TOP_PLAIN:
        return A_NORMAL;
    default:
        return has_colors() ? COLOR_PAIR(style - LITHOS_TOP_OWNER + 1) : A_REVERSE;
    }
}

static void draw(const struct lithos_top_frame *frame)
{
    erase();
    for (unsigned y = 0; y < frame->rows; y++)
        for (unsigned x = 0; frame->text[y][x]; x++)
            mvaddch((int)y, (int)x, (chtype)(unsigned char)frame->text[y][x] | attribute(frame->style[y][x]));
    refresh();
}

/* A daemon that goes may come back: asked again each second. */
static json_t *fetch(const char *path, int *sock)
{
    json_t *document;
    if (*sock < 0 && lithos_client_connect(path, true, sock) < 0) {
        *sock = -1;
        return NULL;
    }
    if (lithos_client_document(*sock, &document) == 0)
        return document;
    close(*sock);
    *sock = -1;
    return NULL;
}

static bool key(int c, struct lithos_top_view *view)
{
    switch (c) {
    case 'q':
    case 'Q':
    case 3: /* Ctrl-C where the terminal hands it over */
        return false;
    case KEY_LEFT:
        view->sort = (enum lithos_top_sort)((view->sort + LITHOS_TOP_SORT_MAX - 1) % LITHOS_TOP_SORT_MAX);
        break;
    case KEY_RIGHT:
        view->sort = (enum lithos_top_sort)((view->sort + 1) % LITHOS_TOP_SORT_MAX);
        break;
    case KEY_UP:
        view->selected = LITHOS_MAX(view->selected - 1, -1);
        break;
    case KEY_DOWN:
        view->selected++;
        break;
    default:
        break;
    }
    return true;
}

static void show(const char *path, int *sock)
{
    static struct lithos_top_frame frame;
    struct lithos_top_view view = {.sort = LITHOS_TOP_BY_TIME, .selected = -1, .keys = true};
    json_t *document = NULL;
    uint64_t due_ns = 0;
    for (bool on = true; on;) {
        uint64_t now_ns = lithos_now_ns();
        if (now_ns >= due_ns) {
            json_decref(document);
            document = fetch(path, sock);
            due_ns = now_ns + REFRESH_MS * LITHOS_NSEC_PER_MSEC;
        }
        view.rows = (unsigned)LITHOS_MAX(LINES, 0);
        view.columns = (unsigned)LITHOS_MAX(COLS, 0);
        if (document) {
            lithos_top_frame(document, &view, &frame);
            draw(&frame);
        } else {
            erase();
            mvaddnstr(0, 0, "lithosd does not answer; trying again. q quits.", COLS);
            refresh();
        }
        now_ns = lithos_now_ns();
        timeout(now_ns < due_ns ? (int)((due_ns - now_ns) / LITHOS_NSEC_PER_MSEC + 1) : 0);
        int c = getch(); /* a resized window is a key too */
        on = c == ERR || key(c, &view);
    }
    json_decref(document);
}

static int interactive(const char *path, int *sock)
{
    SCREEN *screen = newterm(NULL, stdout, stdin);
    if (!screen)
        return -1; /* no terminal that curses knows */
    int said = dup(STDERR_FILENO), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0)
        dup2(null, STDERR_FILENO); /* a message would be written across the picture */
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    make_colours();
    show(path, sock);
    endwin();
    delscreen(screen);
    if (said >= 0) {
        dup2(said, STDERR_FILENO);
        close(said);
    }
    if (null >= 0)
        close(null);
    return LITHOS_EXIT_OK;
}

int lithos_cmd_top(int argc, char **argv)
{
    char path[LITHOS_PATH_BYTES];
    bool once = false;
    int sock, code = lithos_client_options(argc, argv, help, "once", &once, path);
    if (code >= 0)
        return code;
    if (lithos_client_connect(path, false, &sock) < 0)
        return LITHOS_EXIT_FAILED;
    code = -1;
    if (!once && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
        code = interactive(path, &sock);
    if (code < 0)
        code = print_once(sock);
    if (sock >= 0)
        close(sock);
    return code;
}
