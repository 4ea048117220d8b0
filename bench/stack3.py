#!/usr/bin/env python3
"""Three programs on one card: two of high priority with TPCs of their own, and one that lives on what they leave.

A: a ResNet-50 service (batches of 4, one CUDA graph, 250 requests a second, Poisson, SLO 15 ms) with 75 % of the TPCs. B: a Llama of 1.1
billion weights that decodes, one sequence after the other, with 25 %. C: BERT-large, batch after batch, with none. Ways as in hybrid.py;
under partition C has no TPCs and does not run. A quota costs A something whoever is beside it: what it is on its quota alone says what
is the quota's, and the rest is what sharing adds. `--quota-a 79` gives A so many percent and B what is left of them."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, colocate, results, servers  # noqa: E402
from lib.colocate import ALONE, LITHOS, WAYS, Job  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Failed  # noqa: E402

QUOTA_ALONE = "{} alone on its quota"


def jobs(quota_a):
    a, b = f"{quota_a}%", f"{100 - quota_a}%"
    if virtual():
        return (Job("a", "toy inference", a, extra=["--batch", "2"], rate=60, slo_ms=2),
                Job("b", "toy inference", b, extra=["--batch", "1"]),
                Job("c", "toy inference", "0", high=False, extra=["--batch", "8"]))
    return (Job("a", "resnet50 inference", a, extra=["--batch", "4", "--graph"], rate=250, slo_ms=15),
            Job("b", "llama decode", b), Job("c", "bert inference", "0", high=False))


def windows(result, stage, way, reps, slicing):
    failures = 0
    for rep in reps:
        if way == ALONE:
            for label in "abc":
                failures += colocate.measure(result, f"{label} {ALONE}", rep, lambda label=label: stage.window(label))
            if slicing:
                failures += colocate.measure(result, "time slicing", rep, lambda: stage.window("a", "b", "c"))
            continue
        if way == "partition":
            for label in "ab":
                failures += colocate.measure(result, QUOTA_ALONE.format(label), rep, lambda label=label: stage.window(label))
        failures += colocate.measure(result, way, rep, lambda: stage.window(*stage.jobs))
    return failures


def run(bench, result):
    failures = 0
    for way in bench.stages():
        a, b, c = jobs(bench.o.quota_a)
        try:
            with bench.stage(way, [a, b] if way == "partition" else [a, b, c]) as stage:
                failures += windows(result, stage, way, range(1, bench.o.repetitions + 1), "time slicing" in colocate.ways(bench.o))
        except Failed as e:
            failures += 1
            result.note(f"{way}: {e}")
    return failures


def ratio(result, case, alone, key):
    there, base = result.median(case, key), result.median(alone, key)
    return there / base if there is not None and base else None


def aggregate(result, way):
    """Sum of each one's speed over its speed alone; who does not run adds nothing."""
    parts = [ratio(result, way, f"{label} {ALONE}", f"{label}_iterations_per_s") for label in "abc"]
    return sum(p for p in parts if p) if parts[0] else None


def bars(result, quota_a):
    ours, partition = aggregate(result, LITHOS), aggregate(result, "partition")
    result.bar("A p99 over alone", ratio(result, LITHOS, f"a {ALONE}", "a_p99_us"), "<=", 1.15)
    result.bar("A SLO %", result.median(LITHOS, "a_slo_percent"), ">=", 100)
    result.bar("B over its quota's speed", ratio(result, LITHOS, QUOTA_ALONE.format("b"), "b_iterations_per_s"), ">=", 0.95)
    result.bar("aggregate over partition", ours / partition if ours and partition else None, ">=", 1.3)
    result.bar("A p99 over its quota alone", ratio(result, LITHOS, QUOTA_ALONE.format("a"), "a_p99_us"), "<=", 1.15)
    for way in WAYS:
        p99, total = ratio(result, way, f"a {ALONE}", "a_p99_us"), aggregate(result, way)
        if p99 and total:
            result.note(f"{way}: A p99 {p99:.2f} x alone, SLO {result.median(way, 'a_slo_percent'):.1f} %, "
                        f"B {ratio(result, way, QUOTA_ALONE.format('b'), 'b_iterations_per_s') or 0:.2f} of its quota's speed, aggregate {total:.2f}.")
    result.note("Under LithOS: " + "; ".join(job.advice() for job in jobs(quota_a)) + ".")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    colocate.add_options(p)
    p.add_argument("--quota-a", type=int, choices=range(1, 100), metavar="PERCENT", default=75, help="A's; B has the others (default: %(default)s)")
    o, place = cli.start(p)
    colocate.ways(o)
    with servers.Scratch() as scratch:
        name = "stack3" if o.quota_a == 75 else f"stack3_{o.quota_a}"
        result = results.Result(name, cli.command_line(), o.repetitions, place, results.probe(place))
        failures = 0
        with result.keeps_what_was_measured():
            failures = run(colocate.Bench(o, place, scratch), result)
        bars(result, o.quota_a)
        return result.end(o.out, failures)


if __name__ == "__main__":
    sys.exit(main())
