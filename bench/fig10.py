#!/usr/bin/env python3
"""Figure 10 of the paper: an owner of half the card whose requests take 900 us every 3 ms, and a best-effort tenant of the other half with
kernels of 3 ms. (a) blocked: each on its own TPCs. (b) idle TPCs are lent, kernels whole, and the owner said to bear anything. (c) lent within
what an owner with a slip of 1.2 bears, kernels in atoms of 250 us.

Writes OUT/fig10.json and, with tools/trace-picture beside this folder, OUT/fig10-a.svg and so on; the traces beside them. `lithos sim` draws
the same from its scenario fig10."""
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from lib import cli, results, servers  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

CASES = {  # name: (lithosd's options, the owner's, the other's)
    "a blocked": (["--policy", "partition"], [], []),
    "b stealing without atoms": ([], ["--slip", "100"], ["--atom", "off"]),
    "c with atoms": ([], ["--slip", "1.2"], ["--atom"]),
}
START_S = 60
PICTURE_MS = 14


class Bench:
    def __init__(self, o, place, scratch, out):
        self.o, self.place, self.scratch, self.out = o, place, scratch, out
        self.common = ["--json", "--gate", "--seconds", "0", "--warmup", f"{o.warmup:g}", "--time-scale", f"{o.scale:g}"]

    def child(self, d, name, argv, options):
        return Child(d.run("50%", name, [*argv, *self.common], options), d.env, self.scratch.path / f"{name}.err")

    def case(self, name):
        o, (daemon, owner_options, other_options) = self.o, CASES[name]
        other_options = ["--class", "best-effort", *other_options]
        if other_options[-1] == "--atom":
            other_options.append(f"{250 * o.scale:g}us")
        owner_argv = [self.place.program("lithos-serve"), "--period-us", "3000", "--kernels", "9"]
        other_argv = [self.place.program("lithos-burn"), "--kind", "short", "--iters", "2000"]
        path = self.out / f"fig10-{name[0]}.trace"
        with servers.Lithosd(self.place, self.scratch, args=daemon) as d, \
                self.child(d, "owner", owner_argv, owner_options) as owner, self.child(d, "best-effort", other_argv, other_options) as other:
            for child in (owner, other):
                child.expect("ready", START_S * max(1, o.scale / 4))
            for child in (owner, other):
                child.tell("")
            with d.record(path):
                time.sleep(o.seconds * o.scale)
                told = {child: d.explain(child) for child in ("owner", "best-effort")}
            figures = []
            for child in (owner, other):
                child.signal(signal.SIGTERM)
                figures.append(child.result(START_S))
        self.picture(name, path)
        served, burned = figures
        return {**{f"owner_{k}": served[k] for k in ("requests", "p50_us", "p99_us")}, "be_kernels_per_s": burned["kernels_per_s"],
                **{f"owner_{k}": v for k, v in servers.as_owner(told["owner"]).items()},
                **{f"be_{k}": v for k, v in servers.as_borrower(told["best-effort"]).items()}}

    def picture(self, name, path):
        tool = HERE.parent / "tools/trace-picture"
        if not tool.exists():
            return
        title = f"({name[0]}) {name[2:]}" + (f", {self.o.scale:g} times slower than a card" if self.o.scale != 1 else "")
        run = subprocess.run([sys.executable, tool, path, "-o", path.with_suffix(".svg"), "--for", str(PICTURE_MS * self.o.scale),
                              "--title", title, "--order", "owner,best-effort"], capture_output=True, text=True, timeout=60)
        if run.returncode:
            raise Failed(f"trace-picture: {run.stderr.strip()}")


def bars(result):
    def over_blocked(case, key):
        there, blocked = result.median(case, key), result.median("a blocked", key)
        return there / blocked if there and blocked else None

    result.bar("without atoms: BE over blocked", over_blocked("b stealing without atoms", "be_kernels_per_s"), ">=", 1.1)
    result.bar("without atoms: owner's p50 over blocked", over_blocked("b stealing without atoms", "owner_p50_us"), ">=", 1.3)
    result.bar("without atoms: owner's p99 over blocked", over_blocked("b stealing without atoms", "owner_p99_us"), ">=", 1.3)
    result.bar("with atoms: BE over blocked", over_blocked("c with atoms", "be_kernels_per_s"), ">=", 1.1)
    result.note("A kernel's atoms go to the card one by one, each with the TPCs of that moment. (b) is the figure's bad way: its kernels are as long as the "
                "owner's period, so that on a card one that begins beside a request is followed by dozens that do (docs/bench.md).")
    result.bar("with atoms: owner's p50 over blocked", over_blocked("c with atoms", "owner_p50_us"), "<=", 1.2)
    result.bar("with atoms: owner's p99 over blocked", over_blocked("c with atoms", "owner_p99_us"), "<=", 1.2)


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=1, help="measured seconds a case, in the card's time (default: %(default)s)")
    p.add_argument("--warmup", type=float, default=0.5, help="before that (default: %(default)s)")
    o, place = cli.start(p)
    failures = 0
    out = pathlib.Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    with servers.Scratch() as scratch:
        result = results.Result("fig10", cli.command_line(), o.repetitions, place, results.probe(place))
        bench = Bench(o, place, scratch, out)
        for rep in range(1, o.repetitions + 1):
            for case in CASES:
                log(f"{case}, {rep}")
                try:
                    result.case(case, rep, **bench.case(case))
                except Failed as e:
                    failures += 1
                    result.note(f"{case}, {rep}: {e}")
        bars(result)
        return result.end(o.out, failures)


if __name__ == "__main__":
    sys.exit(main())
