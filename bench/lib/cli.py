"""Options that every benchmark takes, and the way onto the virtual GPU."""
import argparse
import os
import pathlib
import shlex
import sys

from lib.place import Place, virtual


def parser(description, repetitions=3):
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--out", default="bench/results/out", help="folder of the result file (default: %(default)s)")
    p.add_argument("--prefix", help="where LithOS is installed (default: what this script came with, else build/dev)")
    p.add_argument("--repetitions", type=int, default=repetitions)
    p.add_argument("--virtual", action="store_true", help="run on the virtual GPU")
    p.add_argument("--card", default="h200", help="with --virtual: which card (default: %(default)s)")
    p.add_argument("--scale", type=float, default=10,
                   help="with --virtual: how much slower than the card (default: %(default)s)")
    p.add_argument("--keep-going-after", type=float, default=0, metavar="S",
                   help="start no further repetition once this many seconds have passed (0: no limit)")
    return p


def in_memory(text):
    """Path of a file without a name that has this text and lasts as long as this process, also once it runs another program."""
    fd = os.memfd_create("bench", 0)
    os.write(fd, text.encode())
    return f"/proc/self/fd/{fd}"


def start(p, vgpud=lambda o, place: ["--card", o.card]):
    """Parses; with --virtual runs this very script again behind lithos-vgpud, which gets what vgpud gives besides. Returns (options, place)."""
    o = p.parse_args()
    place = Place(o.prefix)
    place.out = o.out
    if o.virtual and not virtual():
        server = place.program("lithos-vgpud")
        os.execv(server, [server, *vgpud(o, place), "--scale", f"{o.scale:g}", "--", sys.executable, *sys.argv])
    if not o.virtual:
        o.scale = 1
    return o, place


FOLDERS = ("--prefix", "--out", "--python", "--traces", "--pairs")


def command_line():
    """The command as one would type it again: without the folders of this machine."""
    words, skip = ["bench/" + pathlib.Path(sys.argv[0]).name], False
    for word in sys.argv[1:]:
        name, equals, _ = word.partition("=")
        if skip or (name in FOLDERS and not equals):
            skip = not skip
        elif name not in FOLDERS:
            words.append(shlex.quote(word))
    return " ".join(words)
