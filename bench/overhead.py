#!/usr/bin/env python3
"""What LithOS adds to a launch, to a program's start, and to whole iterations, beside bare programs in the same run.

lithos-launchcost processes, one bare, one under a lithosd that only masks (--observe=off), one under a lithosd as it comes
(records, stamps, prediction; launches are handed over to a thread of LithOS's where there are four CPUs), and one that is told to launch
inline besides (`lithos run --hand-over off`), measure in turns of a few thousand launches on the same CPU, so that all see the same machine.
All are clients of the same MPS (only LithOS differs), and again with none under MPS. Models run the same way, without the one that is only
masked: they take turns of some iterations (lib/turns.py)."""
import contextlib
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, turns  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

QUOTA = "100%"
BARE, MASK, ALL, INLINE = "bare", "mask only", "everything on", "inline"
PARTS = ("launch", "start", "models")
MODELS = ["resnet50 inference", "resnet50 training", "bert inference", "bert training"]


LAUNCHING = ((MASK, "lm", ["--observe=off"]), (ALL, "la", []), (INLINE, "li", []))
OPTIONS = {MASK: ["--hand-over", "off"], ALL: [], INLINE: ["--hand-over", "off"]}  # of `lithos run`
END_TO_END = ((ALL, "la", []), (INLINE, "li", []))  # a tenant of the whole card has its daemon to itself


class Contestants:
    """Who is compared: bare, and under two daemons that differ in what they observe, or in whose tenants. All under one MPS, or none."""

    def __init__(self, place, scratch, mode, under=LAUNCHING):
        self.place, self.scratch, self.mode, self.under = place, scratch, mode, under
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        with self.stack:
            if self.mode == "mps":
                env = self.stack.enter_context(servers.Mps(self.scratch, "m")).env
                args, daemon_env = [], env
            else:
                env, args, daemon_env = servers.clean_env(), ["--mps=off"], None
            self.bare_env = env
            self.daemons = {
                name: self.stack.enter_context(servers.Lithosd(self.place, self.scratch, folder, args + extra, daemon_env))
                for name, folder, extra in self.under}
            self.stack = self.stack.pop_all()  # all is up: it stays so until __exit__
        return self

    def __exit__(self, *_):
        self.stack.close()

    def command(self, who, tenant, argv):
        """(arguments, environment) of argv as this contestant."""
        if who == BARE:
            return argv, self.bare_env
        return self.daemons[who].run(QUOTA, tenant, argv, OPTIONS[who]), self.daemons[who].env


def in_turn(items, turn):
    """Everybody is first as often as the others."""
    items = list(items)
    first = turn % len(items)
    return items[first:] + items[:first]


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.errors = scratch.path / "launchcost.err"

    def launchcost(self, *args):
        return [self.place.program("lithos-launchcost"), *args]

    def turns(self, c):
        """({who: figures} of one repetition, {who: counters})"""
        cpu = turns.quiet_cpus(1)[0]
        turns.keep_off([d.child.popen.pid for d in c.daemons.values()], [cpu])
        argv = self.launchcost("--cpu", str(cpu))
        with contextlib.ExitStack() as stack:
            children = [(who, stack.enter_context(Child(*c.command(who, "cost", argv), self.errors)))
                        for who in (BARE, MASK, ALL, INLINE)]
            for _, child in children:
                child.expect("ready", 120)
            self.one_turn(children, 500)
            for _, child in children:  # what was measured while warming up is not kept
                child.tell("report")
                child.line(60)
            for turn in range(self.o.turns):
                self.one_turn(in_turn(children, turn), self.o.launches)
            out = {}
            for who, child in children:
                child.tell("report")
                out[who] = json.loads(child.line(60))
            counters = {who: d.tenant("cost").get("counters", {}) for who, d in c.daemons.items()}
            for _, child in children:
                child.popen.stdin.close()
                child.wait(20)
            return out, counters

    def one_turn(self, children, launches):
        for what, n in (("async", launches), ("sync", max(1, launches // 4))):
            for _, child in children:
                child.tell(f"{what} {n}")
                child.expect("done", 120)

    def start_ms(self, argv, env):
        """Process start to the end of its first launch, as the one who started it sees it."""
        begin = time.monotonic()
        with Child(argv, env, self.errors) as c:
            figures = json.loads(c.line(120))
            took = (time.monotonic() - begin) * 1e3
            if c.wait(30) != 0:
                raise Failed(f"{argv[0]}: exit code {c.popen.returncode}. {c.why()}")
        return took, figures

    def starts(self, c):
        """Median start of each; the topology is cached by then."""
        times = {who: [] for who in (BARE, MASK, ALL)}
        for turn in range(self.o.starts + 1):
            for who in in_turn(times, turn):
                took, figures = self.start_ms(*c.command(who, "start", self.launchcost("--once")))
                if turn:  # the first fills caches
                    times[who].append((took, figures["open_ms"], figures["first_launch_ms"]))
        return {who: {"start_ms": results.median([v[0] for v in t]), "open_ms": results.median([v[1] for v in t]),
                      "first_launch_ms": results.median([v[2] for v in t]), "start_ms_max": max(v[0] for v in t)}
                for who, t in times.items()}


def launches(bench, result, rep, mode, c):
    got, counters = bench.turns(c)
    for who, figures in got.items():
        flat = {f"{what}_{k}": v for what, series in figures.items() for k, v in series.items()}
        result.case(f"{mode}, {who}", rep, **flat)
        log(f"[{rep}] {mode}, {who}:", ", ".join(f"{k} {v}" for k, v in flat.items()))
    for who in (MASK, ALL, INLINE):
        added = {f"{what}_{q}_added_us": round(got[who][what][f"{q}_us"] - got[BARE][what][f"{q}_us"], 4)
                 for what in ("async", "sync") for q in ("p50", "p99")}
        result.case(f"{mode}, {who}, added", rep, **added, **{k: v for k, v in counters[who].items() if isinstance(v, int)})
        log(f"[{rep}] {mode}, {who}, added:", added)


def starts(bench, result, rep, mode, c):
    got = bench.starts(c)
    for who, figures in got.items():
        result.case(f"{mode}, start {who}", rep, **{k: round(v, 3) for k, v in figures.items()})
    for who in (MASK, ALL):
        added = {f"{k}_added_ms": round(got[who][f"{k}_ms"] - got[BARE][f"{k}_ms"], 3) for k in ("start", "open", "first_launch")}
        result.case(f"{mode}, start {who}, added", rep, **added)
        log(f"[{rep}] {mode}, start {who}: bare {got[BARE]['start_ms']:.1f} ms, added {added}")


def end_to_end(bench, result, name, c):
    """A bare process, one under LithOS as it comes, and one that launches inline, take turns."""
    o, scratch = bench.o, bench.scratch
    with turns.together(lambda: models.bare(o, c.bare_env, "e2e-bare", name, scratch),
                        lambda: models.under_lithos(o, c.daemons[ALL], QUOTA, "e2e", name, scratch),
                        lambda: models.under_lithos(o, c.daemons[INLINE], QUOTA, "e2e-inline", name, scratch,
                                                    options=OPTIONS[INLINE])) as (bare, managed, inline):
        turns.prepare((bare, managed, inline), c.daemons.values())
        for rep in range(1, o.repetitions + 1):
            as_it_comes, without = turns.compare_all(bare, [managed, inline], o.model_seconds, o.scale)
            queue = c.daemons[ALL].tenant("e2e").get("queue", {})
            note_end_to_end(result, case_of(name, ALL), rep, as_it_comes, {k: queue[k] for k in ("queued", "unqueued", "failed") if k in queue})
            note_end_to_end(result, case_of(name, INLINE), rep, without, {})


def case_of(name, who):
    return f"end to end, {name}" + (f", {who}" if who == INLINE else "")


def note_end_to_end(result, case, rep, got, counters):
    figures = {"bare_us": got["bare_us"], "lithos_us": got["other_us"],
               "added_percent": 100 * (got["ratio"] - 1), "added_percent_low": 100 * (got["ratio_low"] - 1),
               "added_percent_high": 100 * (got["ratio_high"] - 1),
               "added_percent_quartile": 100 * (got["quartile_ratio"] - 1)}
    figures = {k: round(v, 3) for k, v in figures.items()}
    result.case(case, rep, iterations=got["iterations"], pairs=got["pairs"], **figures, **counters)
    log(f"[{rep}] {case}: {got['pairs']} pairs, {figures} {counters or ''}")


def between(result, name, who):
    """For the notes: the median over the repetitions, and the widest of their intervals."""
    case = case_of(name, who)
    value, low, high = (result.figures(case, k) for k in ("added_percent", "added_percent_low", "added_percent_high"))
    return f"{name} {results.median(value):.2f} % ({min(low):.2f} to {max(high):.2f})" if value else f"{name}: not measured"


def bars(result, parts, names):
    for mode, suffix in (("mps", ""), ("no mps", ", no MPS")):
        if "launch" in parts:
            for what, who, limits in (("async added", MASK, (0.2, 1)), ("everything on, added", ALL, (0.3, 1)),
                                      ("everything on, inline, added", INLINE, (0.3, 1))):
                for q, word, limit in zip(("p50", "p99"), ("median", "p99"), limits):
                    result.bar(f"{what} {word} us{suffix}", result.median(f"{mode}, {who}, added", f"async_{q}_added_us"),
                               "<=", limit)
            lost = result.figures(f"{mode}, {ALL}, added", "launches_dropped")
            result.bar(f"everything on, launches without a record{suffix}", max(lost) if lost else None, "<=", 0)
        if "start" in parts:
            result.bar(f"attach added ms{suffix}", result.median(f"{mode}, start {MASK}, added", "start_added_ms"), "<=", 100)
            result.note(f"Attach with everything on{suffix}: {result.median(f'{mode}, start {ALL}, added', 'start_added_ms')} ms.")
    if "models" in parts:
        for who, what in ((ALL, "end to end %"), (INLINE, "end to end, inline %")):
            values = [result.median(case_of(n, who), "added_percent") for n in names]
            result.bar(what, max(values) if values and None not in values else None, "<=", 1)
        result.note(f"End to end, the worst of: {', '.join(between(result, n, ALL) for n in names) or 'no model'}. Each is the median over pairs "
                    "of turns of one round, as is its interval of 95 %; a bar that lies within the interval is neither met nor missed for "
                    f"certain. As it comes, on this machine of {os.cpu_count()} CPUs; with launches inline, as on fewer than four: "
                    f"{', '.join(between(result, n, INLINE) for n in names) or 'no model'}. A thread of LithOS's calls the driver beside the "
                    "program's own, so that a program that its launches hold up may come out faster than bare.")
    result.note("\"async added\" and \"attach added\" are of masking alone (lithosd --observe=off), \"everything on\" is lithosd as "
                "it comes: records, stamps, prediction.")


def attempt(result, case, rep, function):
    """1 when it failed, and the result says so."""
    try:
        function()
        return 0
    except (Failed, ValueError, KeyError) as e:
        result.case(case, rep, error=str(e)[:1000])
        log(f"[{rep}] {case}: FAILED: {e}")
        return 1


def measure(bench, result, rep, mode, parts):
    with Contestants(bench.place, bench.scratch, mode) as c:
        if "launch" in parts:
            launches(bench, result, rep, mode, c)
        if "start" in parts:
            starts(bench, result, rep, mode, c)


def measure_model(bench, result, name):
    with Contestants(bench.place, bench.scratch, "mps", END_TO_END) as c:
        end_to_end(bench, result, name, c)


def main():
    p = cli.parser(__doc__.splitlines()[0])
    models.add_options(p, MODELS)
    p.add_argument("--turns", type=int, default=40, help="turns of each process in a repetition")
    p.add_argument("--launches", type=int, default=2048, help="asynchronous launches a turn")
    p.add_argument("--starts", type=int, default=5, help="program starts a repetition")
    p.add_argument("--model-seconds", type=float, default=6, help="of the card's time for each model in a repetition, all its processes together (default: %(default)s)")
    p.add_argument("--parts", default=",".join(PARTS), help="what to measure (default: %(default)s)")
    o, place = cli.start(p)
    parts = o.parts.split(",")
    if set(parts) - set(PARTS):
        p.error(f"--parts: {', '.join(PARTS)}")
    begun, failures = time.monotonic(), 0
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("overhead", cli.command_line(), o.repetitions, place,
                                results.probe(place, servers.clean_env()))
        names, done = models.choose(o, result) if "models" in parts else [], 0
        for rep in range(1, o.repetitions + 1) if parts != ["models"] else ():
            # models want their part of the time
            if done and o.keep_going_after and time.monotonic() - begun > o.keep_going_after * (0.5 if names else 1):
                result.note(f"Only {done} repetitions: time ran out.")
                break
            for mode in ("mps", "no mps"):
                failures += attempt(result, mode, rep, lambda mode=mode, rep=rep: measure(bench, result, rep, mode, parts))
            done = rep
        for name in names:
            failures += attempt(result, f"end to end, {name}", 1, lambda name=name: measure_model(bench, result, name))
        result.doc["repetitions"] = done or o.repetitions
        if o.virtual:
            result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card: its driver costs what it costs here, not "
                        "what NVIDIA's does; only that the experiment works can be read off these figures.")
        result.note("Attach: from the start of the process (with LithOS: of `lithos run`, daemon running, topology cached) to "
                    "the end of its first launch, as seen by the one who started it.")
        bars(result, parts, names)
        result.end(o.out, failures)


main()
