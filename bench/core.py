#!/usr/bin/env python3
"""What the scheduler core takes for an event, grants included: lithos-corebench with few tenants and with as many as it takes.

Runs anywhere, needs no GPU. Beside other work on the machine the figures are too high: take the best of several."""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results  # noqa: E402
from lib.proc import log  # noqa: E402

CASES = [("64 tenants, 8 owners", ["--tenants", "64", "--owners", "8"]),
         ("16 tenants, 8 owners", ["--tenants", "16", "--owners", "8"]),
         ("3 tenants, 2 owners", ["--tenants", "3", "--owners", "2"]),
         ("64 tenants, mps", ["--tenants", "64", "--policy", "mps"])]


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=7)
    p.add_argument("--events", type=int, default=400000)
    o, place = cli.start(p)
    result = results.Result("core", cli.command_line(), o.repetitions, place,
                            {"gpus": [{"name": "none: the core alone"}], "driver": "none"})
    for rep in range(1, o.repetitions + 1):
        for case, args in CASES:
            run = subprocess.run([place.program("lithos-corebench"), "--events", str(o.events), *args],
                                 capture_output=True, text=True, timeout=120, check=True)
            figures = json.loads(run.stdout)
            result.case(case, rep, **figures)
            log(f"[{rep}] {case}: {figures['mean_ns']:.0f} ns an event, p99 {figures['p99_ns']:.0f}")
    result.bar("mean ns an event, 64 tenants", result.median("64 tenants, 8 owners", "mean_ns"), "<=", 1000)
    result.bar("mean ns an event, 3 tenants", result.median("3 tenants, 2 owners", "mean_ns"), "<=", 1000)
    result.note("An event: told, decided upon (lithos_sched_run), and its grants taken. Each is timed alone; what the clock takes is "
                "subtracted from the mean only. The p99 is a plan in which an owner comes or goes and TPCs are shared out anew.")
    sys.exit(1 if result.write(o.out) else 0)


main()
