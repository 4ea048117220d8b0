"""What a terminal program shows: run in a pseudo-terminal, its output drawn on a screen of characters."""
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

SEQUENCE = re.compile(r"\x1b(?:\[([?>]?[0-9;]*)([A-Za-z@`])|[()*+][0-9A-Za-z]|\][^\x07]*\x07|[78=>cDEHM])")


class Screen:
    """As much of a VT100 as curses asks of one (TERM=vt100). Attributes are dropped, line-drawing letters kept as letters."""

    def __init__(self, rows, columns):
        self.rows, self.columns = rows, columns
        self.lines = [[" "] * columns for _ in range(rows)]
        self.y = self.x = 0
        self.saved, self.rest = (0, 0), ""

    def feed(self, text):
        text, at = self.rest + text, 0
        self.rest = ""
        while at < len(text):
            if text[at] != "\x1b":
                self.put(text[at])
                at += 1
                continue
            match = SEQUENCE.match(text, at)
            if not match:
                if len(text) - at < 32:  # its end is still to come
                    self.rest = text[at:]
                    return
                at += 1
                continue
            at = match.end()
            if match.group(2):
                self.control(match.group(1), match.group(2))
            elif match.group(0) == "\x1b7":
                self.saved = (self.y, self.x)
            elif match.group(0) == "\x1b8":
                self.y, self.x = self.saved

    def put(self, c):
        if c == "\r":
            self.x = 0
        elif c == "\n":
            self.y += 1
            if self.y >= self.rows:
                self.lines = self.lines[1:] + [[" "] * self.columns]
                self.y = self.rows - 1
        elif c == "\b":
            self.x = max(0, self.x - 1)
        elif c == "\t":
            self.x = min(self.columns - 1, (self.x // 8 + 1) * 8)
        elif c >= " ":
            if self.x >= self.columns:
                self.x = 0
                self.put("\n")
            self.lines[self.y][self.x] = c
            self.x += 1

    def control(self, parameters, final):
        if parameters[:1] in ("?", ">"):
            return
        n = [int(p) if p else 0 for p in parameters.split(";")]
        one = max(1, n[0])
        if final in "Hf":
            self.y, self.x = max(1, n[0]) - 1, (max(1, n[1]) if len(n) > 1 else 1) - 1
        elif final in "ABCD":
            self.y += {"A": -one, "B": one}.get(final, 0)
            self.x += {"C": one, "D": -one}.get(final, 0)
        elif final == "J":
            self.clear_line(n[0])
            for y in range(self.y + 1, self.rows) if n[0] == 0 else range(self.y) if n[0] == 1 else range(self.rows):
                self.lines[y] = [" "] * self.columns
        elif final == "K":
            self.clear_line(n[0])
        self.y = min(max(self.y, 0), self.rows - 1)
        self.x = min(max(self.x, 0), self.columns - 1)

    def clear_line(self, how):
        begin, end = (self.x, self.columns) if how == 0 else (0, self.x + 1) if how == 1 else (0, self.columns)
        self.lines[self.y][begin:end] = [" "] * (min(end, self.columns) - begin)

    def text(self):
        lines = ["".join(line).rstrip() for line in self.lines]
        while lines and not lines[-1]:
            lines.pop()
        return "\n".join(lines) + "\n"


def capture(argv, env, steps, rows=24, columns=110):
    """Runs argv in a terminal. steps: [(seconds to wait, keys to type then)], the last of which end the program. What the screen
    showed before the last keys."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    program = subprocess.Popen(argv, env=dict(env, TERM="vt100", LINES=str(rows), COLUMNS=str(columns)), stdin=theirs, stdout=theirs,
                               stderr=theirs, start_new_session=True)
    os.close(theirs)
    screen, shown = Screen(rows, columns), ""
    try:
        for seconds, keys in steps:
            read_for(ours, seconds, screen)
            shown = screen.text()
            os.write(ours, keys)
        read_for(ours, 5, screen)
        program.wait(5)
        return shown
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def read_for(fd, seconds, screen):
    """Draws what comes, until time is over or the program has closed its terminal."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([fd], [], [], left)[0]:
            continue
        try:
            data = os.read(fd, 65536)
        except OSError:  # Linux says so with EIO
            return
        if not data:
            return
        screen.feed(data.decode("utf-8", errors="replace"))
