#!/usr/bin/env python3
"""What LithOS adds to a launch and to a program's start, beside a bare program in the same run.

Two lithos-launchcost processes, one bare and one under LithOS, measure in turns of a few thousand launches on the same CPU,
so that both see the same machine. Both are clients of the same MPS (only LithOS differs), and again with neither under MPS."""
import json
import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, servers  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

QUOTA = "100%"


def choose_cpu():
    """The last CPU we may use: interrupts favour the first."""
    return sorted(os.sched_getaffinity(0))[-1]


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.errors = scratch.path / "launchcost.err"
        self.cpu = choose_cpu()

    def launchcost(self, *args):
        return [self.place.program("lithos-launchcost"), *args]

    def turns(self, bare_env, d):
        """Figures of one repetition: {"bare": {...}, "lithos": {...}}."""
        args = ["--cpu", str(self.cpu)]
        with Child(self.launchcost(*args), bare_env, self.errors) as bare, \
                Child(d.run(QUOTA, "cost", self.launchcost(*args)), d.env, self.errors) as managed:
            both = [("bare", bare), ("lithos", managed)]
            for _, c in both:
                c.expect("ready", 120)
            self.one_turn(both, 500)
            for _, c in both:  # what was measured while warming up is not kept
                c.tell("report")
                c.line(60)
            for turn in range(self.o.turns):
                self.one_turn(both if turn % 2 == 0 else both[::-1], self.o.launches)
            out = {}
            for name, c in both:
                c.tell("report")
                out[name] = json.loads(c.line(60))
            escaped = tenant_counters(d.status())
            for _, c in both:
                c.popen.stdin.close()
                c.wait(20)
            return out, escaped

    def one_turn(self, both, launches):
        for what, n in (("async", launches), ("sync", max(1, launches // 4))):
            for _, c in both:
                c.tell(f"{what} {n}")
                c.expect("done", 120)

    def start_ms(self, argv, env):
        """Process start to the end of its first launch, as the one who started it sees it."""
        begin = time.monotonic()
        with Child(argv, env, self.errors) as c:
            figures = json.loads(c.line(120))
            took = (time.monotonic() - begin) * 1e3
            if c.wait(30) != 0:
                raise Failed(f"{argv[0]}: exit code {c.popen.returncode}. {c.why()}")
        return took, figures

    def attach(self, bare_env, d):
        """Median start of a bare program and of one under LithOS, in turns; the topology is cached by then."""
        times = {"bare": [], "lithos": []}
        commands = {"bare": (self.launchcost("--once"), bare_env),
                    "lithos": (d.run(QUOTA, "start", self.launchcost("--once")), d.env)}
        for turn in range(self.o.starts + 1):
            for name in ("bare", "lithos") if turn % 2 == 0 else ("lithos", "bare"):
                took, figures = self.start_ms(*commands[name])
                if turn:  # the first fills caches
                    times[name].append((took, figures["open_ms"], figures["first_launch_ms"]))
        return {name: {"start_ms": results.median([v[0] for v in t]), "open_ms": results.median([v[1] for v in t]),
                       "first_launch_ms": results.median([v[2] for v in t]), "start_ms_max": max(v[0] for v in t)}
                for name, t in times.items()}


def tenant_counters(status):
    tenants = status.get("tenants") or []
    return next((t.get("counters", t) for t in tenants if t.get("name") == "cost"), {})


def repetition(bench, result, rep, mode, bare_env, d):
    got, counters = bench.turns(bare_env, d)
    for name, figures in got.items():
        flat = {f"{what}_{k}": v for what, series in figures.items() for k, v in series.items()}
        result.case(f"{mode}, {name}", rep, **flat)
        log(f"[{rep}] {mode}, {name}:", ", ".join(f"{k} {v}" for k, v in flat.items()))
    added = {f"{what}_{q}_added_us": round(got["lithos"][what][f"{q}_us"] - got["bare"][what][f"{q}_us"], 4)
             for what in ("async", "sync") for q in ("p50", "p99")}
    result.case(f"{mode}, added", rep, **added, **{k: v for k, v in counters.items() if isinstance(v, int)})
    log(f"[{rep}] {mode}, added:", added)
    starts = bench.attach(bare_env, d)
    for name, figures in starts.items():
        result.case(f"{mode}, start {name}", rep, **{k: round(v, 3) for k, v in figures.items()})
    added_ms = starts["lithos"]["start_ms"] - starts["bare"]["start_ms"]
    result.case(f"{mode}, start added", rep, added_ms=round(added_ms, 3),
                open_added_ms=round(starts["lithos"]["open_ms"] - starts["bare"]["open_ms"], 3))
    log(f"[{rep}] {mode}, start: bare {starts['bare']['start_ms']:.1f} ms, added {added_ms:.1f} ms")


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=5)
    p.add_argument("--turns", type=int, default=40, help="turns of each process in a repetition")
    p.add_argument("--launches", type=int, default=2048, help="asynchronous launches a turn")
    p.add_argument("--starts", type=int, default=8, help="program starts a repetition")
    o, place = cli.start(p)
    begun, failures = time.monotonic(), 0
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("overhead", cli.command_line(), o.repetitions, place,
                                results.probe(place, servers.clean_env()))
        done = 0
        for rep in range(1, o.repetitions + 1):
            if o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                result.note(f"Only {done} repetitions: time ran out.")
                break
            try:
                with servers.Mps(scratch, "m") as mps, \
                        servers.Lithosd(place, scratch, "lm", env=mps.env) as d:
                    repetition(bench, result, rep, "mps", mps.env, d)
            except Failed as e:
                failures += 1
                result.case("mps", rep, error=str(e)[:1000])
                log(f"[{rep}] mps: FAILED: {e}")
            try:
                with servers.Lithosd(place, scratch, "ln", args=["--mps=off"]) as d:
                    repetition(bench, result, rep, "no mps", servers.clean_env(), d)
            except Failed as e:
                failures += 1
                result.case("no mps", rep, error=str(e)[:1000])
                log(f"[{rep}] no mps: FAILED: {e}")
            done = rep
        result.doc["repetitions"] = done
        if o.virtual:
            result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card: its driver costs what it costs here, not "
                        "what NVIDIA's does; only that the experiment works can be read off these figures.")
        for mode, suffix in (("mps", ""), ("no mps", ", no MPS")):
            result.bar(f"async added median us{suffix}", result.median(f"{mode}, added", "async_p50_added_us"), "<=", 0.2)
            result.bar(f"async added p99 us{suffix}", result.median(f"{mode}, added", "async_p99_added_us"), "<=", 1)
            result.bar(f"attach added ms{suffix}", result.median(f"{mode}, start added", "added_ms"), "<=", 100)
        result.note("Attach: from the start of the process (with LithOS: of `lithos run`, daemon running, topology cached) to "
                    "the end of its first launch, as seen by the one who started it.")
        missed = result.write(o.out)
    sys.exit(1 if failures or missed else 0)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
main()
