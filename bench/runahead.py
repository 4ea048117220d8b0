#!/usr/bin/env python3
"""What launch queues cost a best-effort program that is alone: a launch's cost to its thread, and whole iterations, beside bare ones.

lithos-launchcost processes measure in turns on the same CPUs: bare, a tenant of class high (its launches go inline), and best-effort tenants
whose launches are queued always, when the window is full, and as it comes. Then models: a bare process and a best-effort one take turns of
some iterations, and for inference one of class high whose launches are handed over (`lithos run --hand-over on`). All are clients of one MPS.
Launch-bound loops (inference of small batches, decoding) show whether the hand-over to the dispatcher pays; training, whether order
and window cost anything."""
import contextlib
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, turns  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

QUOTA = "100%"
BARE, HIGH, AUTO, ROOM, ALWAYS = "bare", "high, inline", "best-effort", "best-effort, inline where there is room", "best-effort, always queued"
HANDED = "high, handed over"
# options, LITHOS_QUEUE
BEST_EFFORT = ["--class", "best-effort"]
WAYS = {HIGH: (["--hand-over", "off"], ""), HANDED: (["--hand-over", "on"], ""), AUTO: (BEST_EFFORT, ""), ROOM: (BEST_EFFORT, "room"), ALWAYS: (BEST_EFFORT, "always")}
MODELS = ["resnet50 inference", "bert inference", "llama decode", "resnet50 training", "bert training", "llama training"]
PARTS = ("launch", "models")
COUNTERS = ("queued", "unqueued", "full", "failed", "opened")


def in_turn(items, turn):
    items = list(items)
    first = turn % len(items)
    return items[first:] + items[:first]


class Bench:
    def __init__(self, o, place, scratch):
        self.o, self.place, self.scratch = o, place, scratch
        self.errors = scratch.path / "runahead.err"

    @contextlib.contextmanager
    def daemons(self, *ways):
        """({way: its lithosd}, environment of a bare program), all clients of one MPS."""
        with contextlib.ExitStack() as stack:
            mps = stack.enter_context(servers.Mps(self.scratch, "m"))
            yield {w: stack.enter_context(servers.Lithosd(self.place, self.scratch, f"l{i}", [], mps.env)) for i, w in enumerate(ways)}, mps.env

    def tenant(self, d, way, name, argv):
        """(argv, environment) of a program in one of the ways."""
        options, queue = WAYS[way]
        env = dict(d.env, LITHOS_QUEUE=queue) if queue else d.env
        return d.run(QUOTA, name, argv, options), env

    # ---- what a launch costs the launching thread

    def launches(self, result, rep):
        argv = [self.place.program("lithos-launchcost")]
        with self.daemons(*WAYS) as (daemons, bare_env), contextlib.ExitStack() as stack:
            children = {BARE: stack.enter_context(Child(argv, bare_env, self.errors))}
            for way, d in daemons.items():
                children[way] = stack.enter_context(Child(*self.tenant(d, way, "cost", argv), self.errors))
            for child in children.values():
                child.expect("ready", 120)
            turns.prepare(children.values(), daemons.values())
            self.turn(children.values(), 500)
            for child in children.values():
                child.tell("report")
                child.line(60)
            for turn in range(self.o.turns):
                self.turn(in_turn(children.values(), turn), self.o.launches)
            for way, child in children.items():
                child.tell("report")
                got = json.loads(child.line(60))
                flat = {f"{what}_{k}": v for what, series in got.items() for k, v in series.items()}
                if way in daemons:
                    queue = daemons[way].tenant("cost").get("queue", {})
                    flat.update({k: queue[k] for k in COUNTERS if k in queue})
                result.case(f"launch, {way}", rep, **flat)
                log(f"[{rep}] launch, {way}: {flat}")

    def turn(self, children, launches):
        for what, n in (("async", launches), ("sync", max(1, launches // 4))):
            for child in children:
                child.tell(f"{what} {n}")
                child.expect("done", 300)

    # ---- models

    def model(self, result, name):
        """Beside a bare one: best-effort, and inference also handed over. They are all there; two take turns."""
        o = self.o
        ways = [AUTO] + ([HANDED] if "training" not in name else [])
        with self.daemons(*ways) as (daemons, bare_env):
            def tenant(way, label):
                argv, env = self.tenant(daemons[way], way, label, models.command(o, name, "--obey"))
                return models.warm(models.Model(o, argv, models.environment(env, self.scratch, o.python), self.scratch.path / f"{label}.err", label))
            with turns.together(lambda: models.bare(o, bare_env, "bare", name, self.scratch),
                                *[lambda way=way, i=i: tenant(way, f"queued-{i}") for i, way in enumerate(ways)]) as (bare, *queued):
                turns.prepare((bare, *queued), daemons.values())
                for rep in range(1, o.repetitions + 1):
                    for i, way in enumerate(ways):
                        got = turns.compare(bare, queued[i], o.model_seconds, o.scale)
                        self.note_model(result, name if way == AUTO else f"{name}, {way}", rep, got, daemons[way].tenant(f"queued-{i}"))

    def note_model(self, result, case, rep, got, tenant):
        queue = tenant.get("queue", {})
        figures = {"bare_us": got["bare_us"], "queued_us": got["other_us"], "speed_over_bare": 1 / got["ratio"],
                   "speed_over_bare_low": 1 / got["ratio_high"], "speed_over_bare_high": 1 / got["ratio_low"],
                   "speed_over_bare_quartile": 1 / got["quartile_ratio"]}
        figures = {k: round(v, 4) for k, v in figures.items()}
        result.case(case, rep, iterations=got["iterations"], pairs=got["pairs"], **figures, **{k: queue[k] for k in COUNTERS if k in queue},
                    drained={k: v for k, v in queue.get("drained", {}).items() if v})
        log(f"[{rep}] {case}: {got['pairs']} pairs, {figures}")


def bars(result, names, parts):
    if "models" in parts:
        values = {n: result.median(n, "speed_over_bare") for n in names}
        measured = [v for v in values.values() if v is not None]
        result.bar("speed over bare, the slowest", min(measured) if measured and len(measured) == len(names) else None, ">=", 0.98)
        result.note("Speed over bare: " + (", ".join(f"{n} {v}" for n, v in values.items()) or "no model") +
                    "; each the median over pairs of turns next to each other.")
        handed = {n: v for n in names if (v := result.median(f"{n}, {HANDED}", "speed_over_bare")) is not None}
        if handed:
            result.note("Class high with --hand-over on: " + ", ".join(f"{n} {v}" for n, v in handed.items()) + ".")
    if "launch" in parts:
        bare = result.median(f"launch, {BARE}", "async_p50_us")
        for way in WAYS:
            p50, p99 = (result.median(f"launch, {way}", f"async_{q}_us") for q in ("p50", "p99"))
            if bare is not None and p50 is not None:
                result.note(f"A launch costs its thread {p50} us (p99 {p99}) {way}, {bare} bare.")


def attempt(result, case, function):
    """1 when it failed, and the result says so."""
    try:
        function()
        return 0
    except (Failed, ValueError, KeyError) as e:
        result.case(case, 1, error=str(e)[:1000])
        log(f"{case}: FAILED: {e}")
        return 1


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=3)
    models.add_options(p, MODELS)
    p.add_argument("--turns", type=int, default=20, help="turns of each process in a repetition")
    p.add_argument("--launches", type=int, default=2048, help="asynchronous launches a turn")
    p.add_argument("--model-seconds", type=float, default=6, help="of the card's time for each model in a repetition (default: %(default)s)")
    p.add_argument("--parts", default=",".join(PARTS), help="what to measure (default: %(default)s)")
    o, place = cli.start(p)
    parts = o.parts.split(",")
    if set(parts) - set(PARTS):
        p.error(f"--parts: {', '.join(PARTS)}")
    failures = 0
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("runahead", cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
        names = models.choose(o, result) if "models" in parts else []
        with result.keeps_what_was_measured():
            for rep in range(1, o.repetitions + 1) if "launch" in parts else ():
                failures += attempt(result, "launch", lambda rep=rep: bench.launches(result, rep))
            for name in names:
                failures += attempt(result, name, lambda name=name: bench.model(result, name))
        if o.virtual:
            result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card: what a launch costs inline is our driver's, not NVIDIA's; "
                        "what it costs to queue one is what it costs here. From a kernel's end to the next one's begin go messages between three "
                        "processes, some 200 us where a card takes 8: the window of 110 us does not hide that, so speeds are lower than on a card.")
        bars(result, names, parts)
        result.end(o.out, failures)


main()
