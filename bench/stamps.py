#!/usr/bin/env python3
"""How true kernel times from completion stamps are: against what CUPTI says of the same kernels.

Each model runs alone as a tenant that is traced: some iterations as they are, then as many under PyTorch's profiler. Where both
see the profiled half, each kernel is compared with itself. Where the profiler keeps the stamps out, the two halves are compared,
kernel by kernel of an iteration, medians over the iterations. Where LithOS keeps the profiler out, the profiled half is a run of
the same program without LithOS. Bars are over kernels of 20 us and more."""
import concurrent.futures
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, cupti, match, models, results, servers, trace  # noqa: E402
from lib.proc import Failed, log  # noqa: E402

LONG_NS = 20000
TRACE_BYTES = 1500000
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
        self.index = result.index()
        if o.traces:
            pathlib.Path(o.traces).mkdir(parents=True, exist_ok=True)
        self.runs = 0

    def traced(self, name, times=1, wait=None):
        """One process under LithOS, which waits for wait() when it is ready: (stamps of the plain runs, a list each, stamps of the profiled one, CUPTI's, drops). Where the
        profiled run fails beside LithOS, that says what works: it is empty then."""
        o = self.o
        self.runs += 1
        path, seen = self.scratch.path / f"{self.runs}.trace", self.scratch.path / f"{self.runs}.json"
        plain, under, profiler = [], [], None
        with servers.Lithosd(self.place, self.scratch, f"ld{self.runs}") as d, \
                models.under_lithos(o, d, "100%", "model", name, self.scratch) as model:
            if wait:
                wait()
            with d.record(path, "model"):
                plain = [model.do(f"run {o.iterations}") for _ in range(times)]
                try:
                    profiler = self.profile(model, seen) if self.way != TWO_RUNS else None
                    models.settle()
                except Failed as e:
                    if self.way:
                        raise
                    self.result.note(f"{name}: the profiler fails beside LithOS: {str(e)[:300]}")
        kernels, drops = trace.load(path)
        if o.traces:
            kept = pathlib.Path(o.traces) / f"{name.replace(' ', '-')}.trace"
            self.index["traces"].append({"model": name, "arguments": " ".join(models.MODELS[name]),
                                         "iteration_p50_us": plain[0].get("p50_us"), **trace.keep(path, kept, TRACE_BYTES)})
            (kept.parent / "index.json").write_text(json.dumps(self.index, indent=1) + "\n")
        path.unlink(missing_ok=True)
        if profiler:
            under, profiler = stamped(kernels, profiler), profiled(seen, profiler)
        return [stamped(kernels, p) for p in plain], under, profiler or [], drops

    def profile(self, model, path):
        model.do(f"profile 2 {path}")  # what the first use of it costs is not measured
        return model.do(f"profile {self.o.iterations} {path}")

    def two_runs(self, name, times):
        """(stamps of so many runs under LithOS, CUPTI's launches of as many without it, a list each, drops). Both processes are loaded at the
        same time; the bare one is idle while the other runs."""
        seen, out = self.scratch.path / f"{self.runs}-bare.json", []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            loading = pool.submit(models.bare, self.o, servers.clean_env(), f"bare{self.runs}", name, self.scratch)
            try:
                plain, _, _, drops = self.traced(name, times, loading.result)
            except BaseException:
                if not loading.exception():
                    loading.result().kill()
                raise
        with loading.result() as model:
            for _ in range(times):
                model.do(f"run {self.o.iterations}")
                out.append(profiled(seen, self.profile(model, seen)))
        return plain, out, drops

    def run(self, name, times):
        """(figures, pairs) of each of so many repetitions. Where two runs are compared, a model is loaded once for all of them."""
        if self.way != TWO_RUNS:
            plain, during, seen, drops = self.traced(name)
            self.check(name, plain[0], drops)
            # the plain run says how many kernels there are
            both = len(during) >= WORKS * len(plain[0])
            works = TWO_RUNS if len(seen) < WORKS * len(plain[0]) else LAUNCH_BY_LAUNCH if both else TWO_HALVES
            if not self.way:
                log(f"{name}: {len(plain[0])} kernels stamped, under the profiler {len(during)} stamped and {len(seen)} seen by "
                    f"it: {works}")
            self.way = self.way or works
        if self.way == TWO_RUNS:
            plain, bare, drops = self.two_runs(name, times)
            for ours, seen in zip(plain, bare):
                self.check(name, ours, drops)
                yield self.compare(ours, [], seen, drops)
            return
        yield self.compare(plain[0], during, seen, drops)
        for _ in range(1, times):
            plain, during, seen, drops = self.traced(name)
            self.check(name, plain[0], drops)
            yield self.compare(plain[0], during, seen, drops)

    @staticmethod
    def check(name, plain, drops):
        if not plain:
            raise Failed(f"{name}: no kernel of the model is in the trace; missing: {drops}")

    def compare(self, plain, during, seen, drops):
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


def write_pairs(folder, name, pairs):
    """One line a kernel: what was compared, for whoever wants to know where the error comes from."""
    path = pathlib.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with open(path / f"{name.replace(' ', '-')}.jsonl", "w") as f:
        for a, b in pairs:
            print(json.dumps({"stamps_ns": a.duration_ns, "cupti_ns": b.duration_ns, "stamps_gap_ns": a.gap_ns,
                              "cupti_gap_ns": b.gap_ns, "flags": a.flags, "grid": a.grid, "name": b.name[:60]}), file=f)


def model(bench, result, name, everything):
    """Runs a model as often as there are repetitions; its pairs go to everything[rep]. Whether it failed."""
    rep = 0
    try:
        for rep, (figures, pairs) in enumerate(bench.run(name, bench.o.repetitions), 1):
            everything[rep] += pairs
            if bench.o.pairs:
                write_pairs(bench.o.pairs, f"{rep}-{name}", pairs)
            got = {**figures, **errors(pairs)}
            result.case(name, rep, **got)
            log(f"[{rep}] {name}:", ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in got.items()))
    except (Failed, OSError, ValueError, KeyError) as e:
        result.case(name, rep + 1, error=str(e)[:1000])
        result.note(f"{name}: failed in repetition {rep + 1}.")
        log(f"[{rep + 1}] {name}: FAILED: {e!r}")
        return True
    return False


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
    p.add_argument("--pairs", metavar="DIR", help="write what was compared, a line a kernel, to files there")
    p.add_argument("--traces", metavar="DIR", help="keep the traces there, packed as bench/traces.py does")
    p.add_argument("--way", choices=WAYS, help="how to compare (default: what works)")
    o, place = cli.start(p)
    begun, failures = time.monotonic(), 0
    with servers.Scratch() as scratch:
        result = results.Result("stamps", cli.command_line(), o.repetitions, place,
                                results.probe(place, servers.clean_env()))
        bench = Bench(o, place, scratch, result)
        everything = {rep: [] for rep in range(1, o.repetitions + 1)}
        try:
            for name in models.choose(o, result):
                if o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                    result.note(f"{name}: not run, time ran out.")
                    continue
                failures += model(bench, result, name, everything)
        except SystemExit:  # a signal: what was measured is kept
            failures += 1
            result.note("Ended before its end, by a signal.")
        for rep, pairs in everything.items():
            if pairs:
                result.case("all", rep, matched=len(pairs), **errors(pairs))
        notes(result, o)
        result.bar("duration error p50 %", result.median("all", "error_p50_percent"), "<=", 2)
        result.bar("duration error p95 %", result.median("all", "error_p95_percent"), "<=", 10)
        result.end(o.out, failures)


main()
