#!/usr/bin/env python3
"""How true kernel times from completion stamps are: against what CUPTI says of the same kernels.

Each model runs alone as a tenant that is traced: some iterations as they are, then as many under PyTorch's profiler. Where both
see the profiled half, each kernel is compared with itself. Where the profiler keeps the stamps out, the two halves are compared,
kernel by kernel of an iteration, medians over the iterations. Where LithOS keeps the profiler out, the profiled half is a run of
the same program without LithOS. Bars are over kernels of 20 us and more."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, cupti, match, models, results, servers, trace  # noqa: E402
from lib.proc import Failed, log  # noqa: E402

LONG_NS = 20000
# Each end follows the one before it by less than this much idleness: the next kernel was waiting.
BACK_TO_BACK_NS = 5000
LAUNCH_BY_LAUNCH, TWO_HALVES, TWO_RUNS = "launch by launch", "two halves of one process", "two runs"
WAYS = (LAUNCH_BY_LAUNCH, TWO_HALVES, TWO_RUNS)
WORKS = 0.9  # of the kernels that there should be


def stamped(kernels, figures):
    """Launches of a trace that were submitted in the iterations that the model reported."""
    windows = models.windows(figures)
    out = []
    for k in kernels:
        if windows and windows[0][0] <= k["time"] < windows[-1][1] and not k["flags"] & trace.DRIVER:
            launch = match.Launch(k["function"], (k["gx"], k["gy"], k["gz"]), (k["bx"], k["by"], k["bz"]), k["stream"],
                                  k["start"], k["end"], k["flags"])
            out.append((k["time"], launch))
    submitted = {id(launch): t for t, launch in out}
    launches = [launch for _, launch in out]
    match.set_gaps(launches)
    match.set_iterations(launches, windows, lambda x: submitted[id(x)])
    return launches


def profiled(path, figures):
    """Launches that CUPTI saw in those iterations."""
    windows = models.windows(figures, figures["wall_minus_monotonic_ns"])
    launches = cupti.kernels(path)
    match.set_gaps(launches)
    match.set_iterations(launches, windows, lambda x: (x.start_ns + x.end_ns) // 2)
    return launches


class Bench:
    def __init__(self, o, place, scratch, result):
        self.o, self.place, self.scratch, self.result = o, place, scratch, result
        self.way = o.way
        self.runs = 0

    def traced(self, name):
        """One process under LithOS: (stamps of the plain half, stamps of the profiled half, CUPTI's, drops). Where the profiled
        half fails beside LithOS, that says what works: it is empty then."""
        o = self.o
        self.runs += 1
        path, seen = self.scratch.path / f"{self.runs}.trace", self.scratch.path / f"{self.runs}.json"
        plain, under, profiler = [], [], None
        with servers.Lithosd(self.place, self.scratch, f"ld{self.runs}") as d, \
                models.under_lithos(o, d, "100%", "model", name, self.scratch) as model:
            with d.record(path, "model"):
                plain = model.do(f"run {o.iterations}")
                try:
                    profiler = self.profile(model, seen) if self.way != TWO_RUNS else None
                    models.settle()
                except Failed as e:
                    if self.way:
                        raise
                    self.result.note(f"{name}: the profiler fails beside LithOS: {str(e)[:300]}")
        kernels, drops = trace.load(path)
        if profiler:
            under, profiler = stamped(kernels, profiler), profiled(seen, profiler)
        return stamped(kernels, plain), under, profiler or [], drops

    def profile(self, model, path):
        model.do(f"profile 2 {path}")  # what the first use of it costs is not measured
        return model.do(f"profile {self.o.iterations} {path}")

    def bare(self, name):
        seen = self.scratch.path / f"{self.runs}-bare.json"
        with models.bare(self.o, servers.clean_env(), f"bare{self.runs}", name, self.scratch) as model:
            model.do(f"run {self.o.iterations}")
            figures = self.profile(model, seen)
        return profiled(seen, figures)

    def run(self, name):
        plain, during, seen, drops = self.traced(name)
        if not plain:
            raise Failed(f"no kernel of the model is in the trace; missing: {drops}")
        if not self.way:
            # the plain half says how many kernels there are
            both = len(during) >= WORKS * len(plain)
            self.way = TWO_RUNS if len(seen) < WORKS * len(plain) else LAUNCH_BY_LAUNCH if both else TWO_HALVES
            log(f"{name}: {len(plain)} kernels stamped, under the profiler {len(during)} stamped and {len(seen)} seen by it: "
                f"{self.way}")
        if self.way == TWO_RUNS:
            seen = self.bare(name)
        figures = {"way": self.way, "stamped": len(plain), "stamped_under_profiler": len(during), "profiled": len(seen),
                   "estimate_percent": share(plain, trace.ESTIMATE), "clamped_percent": share(plain, trace.CLAMPED)}
        figures.update({f"dropped_{k}": n for k, n in drops.items()})
        figures.update(profiler_slows_p50_percent=slowed(plain, during))
        ours = during if self.way == LAUNCH_BY_LAUNCH else plain
        if self.way != LAUNCH_BY_LAUNCH:
            ours, same, of = match.typical(ours)
            figures.update(iterations_alike=same, iterations=of)
            seen, same, of = match.typical(seen)
            figures.update(profiled_iterations_alike=same, profiled_iterations=of)
        pairs = match.match(ours, seen)
        figures.update(compared=len(ours), matched=len(pairs), matched_percent=results.percent(len(pairs), len(ours)),
                       unmatched_stamps=len(ours) - len(pairs), unmatched_profiled=len(seen) - len(pairs))
        return figures, pairs


def share(launches, flag):
    return results.percent(sum(1 for x in launches if x.flags & flag), len(launches))


def slowed(plain, during):
    """By how much the profiler changes the stamped durations, median."""
    pairs = match.match(match.typical(plain)[0], match.typical(during)[0])
    more = [100 * (b.duration_ns / a.duration_ns - 1) for a, b in pairs if a.duration_ns >= LONG_NS]
    return results.quantile(more, 0.5)


def errors(pairs):
    """Figures of the durations of pairs (stamps, CUPTI) of 20 us and more."""
    long = [(a, b) for a, b in pairs if b.duration_ns >= LONG_NS]
    off = [100 * abs(a.duration_ns - b.duration_ns) / b.duration_ns for a, b in long]
    out = {"of_20_us": len(long), "error_p50_percent": results.quantile(off, 0.5),
           "error_p95_percent": results.quantile(off, 0.95), "error_max_percent": results.quantile(off, 1)}
    # Where the error comes from: a kernel that was waited for counts from the end before it, so the card's pause between two is
    # in it; one that found its stream idle counts from a guess.
    for word, some in (("back_to_back", [(a, b) for a, b in long if b.gap_ns is not None and b.gap_ns < BACK_TO_BACK_NS]),
                       ("after_idle", [(a, b) for a, b in long if b.gap_ns is None or b.gap_ns >= BACK_TO_BACK_NS])):
        signed = [(a.duration_ns - b.duration_ns) / 1e3 for a, b in some]
        out[f"{word}"] = len(some)
        if some:
            out[f"{word}_longer_p50_us"] = results.quantile(signed, 0.5)
            out[f"{word}_longer_p95_us"] = results.quantile(signed, 0.95)
    between = [100 * abs(a.duration_ns - (b.duration_ns + max(0, b.gap_ns))) / b.duration_ns for a, b in long
               if b.gap_ns is not None and b.gap_ns < BACK_TO_BACK_NS]
    if between:
        out.update(end_to_end_error_p50_percent=results.quantile(between, 0.5),
                   end_to_end_error_p95_percent=results.quantile(between, 0.95))
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items() if v is not None}


def repetition(bench, result, rep, names):
    """Runs each model once. Number of those that failed."""
    everything, failures = [], 0
    for name in names:
        try:
            figures, pairs = bench.run(name)
            everything += pairs
            got = {**figures, **errors(pairs)}
            result.case(name, rep, **got)
            log(f"[{rep}] {name}:", ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in got.items()))
        except (Failed, OSError, ValueError, KeyError) as e:
            failures += 1
            result.case(name, rep, error=str(e)[:1000])
            result.note(f"{name}: failed in repetition {rep}.")
            log(f"[{rep}] {name}: FAILED: {e!r}")
    if everything:
        result.case("all", rep, matched=len(everything), **errors(everything))
    return failures


def notes(result, o):
    ways = sorted({c["way"] for c in result.doc["cases"] if "way" in c})
    told = {LAUNCH_BY_LAUNCH: "the profiler and the stamps work in one process at a time, so each kernel was compared with itself",
            TWO_HALVES: "stamps are missing while the profiler is on, so medians of each kernel over the iterations without it "
                        "were compared with those over the iterations with it, in the same process",
            TWO_RUNS: "the profiler sees nothing beside LithOS, so medians of each kernel under LithOS were compared with those of "
                      "a run without LithOS under the profiler"}
    for way in ways:
        result.note(f"{way[0].upper()}{way[1:]}: {told[way]}.")
    if o.virtual:
        result.note(f"Virtual {o.card}: there is no CUPTI; events around each launch, which themselves take time, stand in for it.")
    result.note("\"back_to_back\": kernels that follow one on their stream within 5 us; their duration by stamps runs from the end "
                "before them, and \"end_to_end_error\" compares it with the same span of CUPTI's; \"longer\": stamps less CUPTI.")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    models.add_options(p)
    p.add_argument("--iterations", type=int, default=20, help="of each half (default: %(default)s)")
    p.add_argument("--way", choices=WAYS, help="how to compare (default: what works)")
    o, place = cli.start(p)
    begun, failures = time.monotonic(), 0
    with servers.Scratch() as scratch:
        result = results.Result("stamps", cli.command_line(), o.repetitions, place,
                                results.probe(place, servers.clean_env()))
        bench = Bench(o, place, scratch, result)
        names = models.choose(o, result)
        done = 0
        for rep in range(1, o.repetitions + 1):
            if done and o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                result.note(f"Only {done} repetitions: time ran out.")
                break
            failures += repetition(bench, result, rep, names)
            done = rep
        result.doc["repetitions"] = done
        notes(result, o)
        result.bar("duration error p50 %", result.median("all", "error_p50_percent"), "<=", 2)
        result.bar("duration error p95 %", result.median("all", "error_p95_percent"), "<=", 10)
        result.end(o.out, failures)


main()
