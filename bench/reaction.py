#!/usr/bin/env python3
"""How fast lithosd is, and what it costs: from a launch record being read to the rules that follow from it, and its share of a core.

An owner of half the card answers requests that come at random, a best-effort tenant of the other half borrows what is idle. Before, both
are attached and do nothing; then the owner alone; then both."""
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, servers  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

START_S = 60


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.common = ["--json", "--seconds", "0", "--warmup", "0.1", "--time-scale", f"{o.scale:g}"]

    def owner(self, d, period_us):
        argv = [self.place.program("lithos-serve"), "--period-us", str(period_us), "--poisson", *self.common]
        return Child(d.run("50%", "owner", argv, ["--slip", "2"]), d.env, self.scratch.path / "owner.err")

    def borrower(self, d):
        argv = [self.place.program("lithos-burn"), "--kind", "short", "--grid", "2000", "--iters", "2000", *self.common]
        return Child(d.run("50%", "be", argv, ["--class", "best-effort"]), d.env, self.scratch.path / "be.err")

    def measure(self, d, children):
        deadline = time.monotonic() + START_S
        while any(not t["counters"]["launches"] for t in d.status()["tenants"]) or len(d.status()["tenants"]) < len(children):
            if time.monotonic() > deadline:
                raise Failed("the tenants do not launch")
            time.sleep(0.1)
        time.sleep(1)
        begin = time.monotonic()
        used = d.cpu_s()
        time.sleep(self.o.seconds)
        used = d.cpu_s() - used
        took = time.monotonic() - begin
        reaction = d.status()["scheduler"]["reaction"]
        for child in children:
            child.signal(signal.SIGTERM)
            child.result(START_S)
        return {"core_percent": 100 * used / took, "reactions": reaction["count"], "reaction_p50_us": reaction["p50_us"],
                "reaction_p99_us": reaction["p99_us"], "spins": d.status()["scheduler"]["spins"]}

    def case(self, period_us, borrow):
        with servers.Lithosd(self.place, self.scratch, args=["--spin", self.o.spin]) as d:
            children = []
            try:
                children.append(self.owner(d, period_us))
                if borrow:
                    children.append(self.borrower(d))
                return self.measure(d, children)
            finally:
                for child in children:
                    child.kill()


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=5, help="measured seconds a case (default: %(default)s)")
    p.add_argument("--spin", choices=("auto", "on", "off"), default="auto", help="lithosd's --spin (default: %(default)s)")
    o, place = cli.start(p)
    failures = 0
    with servers.Scratch() as scratch:
        result = results.Result("reaction", cli.command_line(), o.repetitions, place, results.probe(place))
        bench = Bench(o, place, scratch)
        for rep in range(1, o.repetitions + 1):
            for case, period_us, borrow in (("idle", 1e9, False), ("owner alone", 2000, False), ("both", 2000, True)):
                log(f"{case}, {rep}")
                try:
                    result.case(case, rep, **bench.case(period_us, borrow))
                except Failed as e:
                    failures += 1
                    result.note(f"{case}, {rep}: {e}")
        result.bar("record read to rule written, p99 us", result.median("both", "reaction_p99_us"), "<=", 5)
        result.bar("lithosd idle, % of a core", result.median("idle", "core_percent"), "<", 1)
        if not all(c.get("spins", True) for c in result.doc["cases"]):
            result.note("lithosd looks every 200 us here and does not spin: fewer than four processors, or the virtual GPU.")
        return result.end(o.out, failures)


if __name__ == "__main__":
    sys.exit(main())
