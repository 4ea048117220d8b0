#!/usr/bin/env python3
"""Three programs on one card: two of high priority with TPCs of their own, and one that lives on what they leave.

A: a ResNet-50 service (batches of 4, one CUDA graph, 250 requests a second, Poisson, SLO 15 ms) with 75 % of the TPCs. B: a Llama of 1.1
billion weights that decodes, one sequence after the other, by CUDA graphs as servers do, with 25 %. C: BERT-large, batch after batch, with none.
Ways as in hybrid.py; under partition C has no TPCs and does not run. A quota costs A something whoever is beside it: what it is on its quota alone says what
is the quota's, and the rest is what sharing adds. `--quota-a 79` gives A so many percent and B what is left of them; `--slip-b 1.2`
says for B that it may lose a fifth (else, as any owner without a promise, a tenth). With `--borrow` LithOS is told something else than quotas: A owns
the card, B and C live on what it leaves, B's graphs too (`lithos run --graphs borrow`), and B's part of that is three times C's (--weight-b); what B and A have on their
quotas is measured under partition as before, and B also with nobody, with A and with C beside it: what its stops cost, what each of them takes."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, colocate, results, servers  # noqa: E402
from lib.colocate import ALONE, LITHOS, WAYS, Job  # noqa: E402
from lib.place import virtual  # noqa: E402

QUOTA_ALONE = "{} alone on its quota"


def jobs(o, way):
    a, b = f"{o.quota_a}%", f"{100 - o.quota_a}%"
    owner, said = True, ["--slip", f"{o.slip_b:g}"] if o.slip_b else []
    if o.borrow and way == LITHOS:
        a, b, owner, said = "100%", "0", False, ["--graphs", "borrow", "--weight", str(o.weight_b)]
    if virtual():
        return (Job("a", "toy inference", a, extra=["--batch", "2"], rate=60, slo_ms=2),
                Job("b", "toy inference", b, high=owner, extra=["--batch", "1"], options=said),
                Job("c", "toy inference", "0", high=False, extra=["--batch", "8"]))
    return (Job("a", "resnet50 inference", a, extra=["--batch", "4", "--graph"], rate=250, slo_ms=15),
            Job("b", "llama decode", b, high=owner, extra=["--graph"], options=said), Job("c", "bert inference", "0", high=False))


class Way:
    """A way's jobs, and its windows."""

    def __init__(self, way, o):
        self.way = way
        a, b, c = jobs(o, way)
        self.borrows = o.borrow and way == LITHOS
        self.of = [a, b] if way == "partition" else [a, b, c]

    def __str__(self):
        return self.way

    def jobs(self):
        return self.of

    def cases(self, ways):
        """(case, labels of those that work in it)"""
        if self.way == ALONE:
            return [(f"{label} {ALONE}", [label]) for label in "abc"] + ([("time slicing", list("abc"))] if "time slicing" in ways else [])
        fewer = [(f"{self.way}, {' and '.join(some)}", list(some)) for some in ("b", "ab", "bc")] if self.borrows else []
        on_quota = [(QUOTA_ALONE.format(label), [label]) for label in "ab"] if self.way == "partition" else []
        return on_quota + fewer + [(self.way, [job.label for job in self.of])]

    def parts(self):
        return ["all"]

    def windows(self, result, stage, rep, ways, _part):
        return sum(colocate.measure(result, case, rep, lambda labels=labels: stage.window(*labels)) for case, labels in self.cases(ways))


def run(bench, result):
    ways = (Way(way, bench.o) for way in bench.stages())
    return colocate.measure_ways(bench, result, ways, range(1, bench.o.repetitions + 1))


def ratio(result, case, alone, key):
    there, base = result.median(case, key), result.median(alone, key)
    return there / base if there is not None and base else None


def aggregate(result, way):
    """Sum of each one's speed over its speed alone; who does not run adds nothing."""
    parts = [ratio(result, way, f"{label} {ALONE}", f"{label}_iterations_per_s") for label in "abc"]
    return sum(p for p in parts if p) if parts[0] else None


def bars(result, o):
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
    result.note("Under LithOS: " + "; ".join(job.advice() for job in jobs(o, LITHOS)) + ".")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    colocate.add_options(p)
    p.add_argument("--quota-a", type=int, choices=range(1, 100), metavar="PERCENT", default=75, help="A's; B has the others (default: %(default)s)")
    p.add_argument("--slip-b", type=float, metavar="X", help="B may take X times as long (default: says nothing)")
    p.add_argument("--borrow", action="store_true", help="under LithOS A owns the card, and B and its graphs live on what A leaves, as C does")
    p.add_argument("--weight-b", type=int, default=3, metavar="N", help="with --borrow: B's part over C's (default: %(default)s)")
    o, place = cli.start(p)
    colocate.chosen_ways(o)
    with servers.Scratch() as scratch:
        name = "stack3" + ("-together" if o.together else "") + ("" if o.quota_a == 75 else f"_{o.quota_a}")
        name += f"-slip-{o.slip_b:g}" if o.slip_b else "-borrow" if o.borrow else ""
        name += f"-weight-{o.weight_b}" if o.borrow and o.weight_b != 3 else ""
        result = results.Result(name, cli.command_line(), o.repetitions, place, results.probe(place))
        failures = 0
        with result.keeps_what_was_measured():
            failures = run(colocate.Bench(o, place, scratch), result)
        bars(result, o)
        return result.end(o.out, failures)


if __name__ == "__main__":
    sys.exit(main())
