#!/usr/bin/env python3
"""The most that a neighbour can have beside a service, whoever divides the card's TPCs: each of them alone on so many, and the sum.

The service (hybrid.py's and stack3.py's ResNet-50: batches of 4, one CUDA graph, 250 requests a second, Poisson) works alone on all TPCs (plain MPS) and on
--tpcs of them; its neighbours (the trainings of hybrid.py, and stack3.py's decoder) on all, and on what each of these leaves; fixed TPCs by
`lithosd --policy partition`. Suppose that a scheduler gave the service so many TPCs whenever it has a request, and that a neighbour had what is left then
and the whole card else, that neither slowed the other down and no change cost anything: what the neighbour has then is the bound, of the
splits that leave the service the p99 that its bar asks for, or what all TPCs have under MPS where that is more. What neither has are parts of a TPC."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, colocate, results, servers  # noqa: E402
from lib.colocate import ALONE, Job  # noqa: E402
from lib.place import virtual  # noqa: E402

SERVICE = "service"
LEAST = 6  # TPCs on which a neighbour is measured; fewer are taken for as many


class Neighbour:
    """over: TPCs on which its speed is what the bar is over, None: alone without MPS. p99, least: the bars, of the service's and of its own."""

    def __init__(self, job, over, p99, least):
        self.job, self.over, self.p99, self.least = job, over, p99, least


def job(label, model, quota, **more):
    """Who gets other TPCs than those it starts with is told of all SMs, as a best-effort tenant is."""
    return Job(label, model, quota, high=False, **more)


def programs():
    """(the service's job, its neighbours)"""
    if virtual():
        return (job(SERVICE, "toy inference", "40", extra=["--batch", "2"], rate=60, slo_ms=2),
                [Neighbour(job("toy", "toy inference", "1", extra=["--batch", "24"]), None, 1.2, 75)])
    return (job(SERVICE, "resnet50 inference", "40", extra=["--batch", "4", "--graph"], rate=250, slo_ms=15),
            [Neighbour(job("llama-training", "llama training", "1"), None, 1.2, 75),
             Neighbour(job("resnet50-training", "resnet50 training", "1"), None, 1.2, 75),
             Neighbour(job("llama-decode", "llama decode", "1", extra=["--graph"]), 16, 1.15, 95)])


def on(label, tpcs):
    return f"{label} on {tpcs} TPCs"


class Bound:
    def __init__(self, o, result, whole):
        self.o, self.result, self.whole = o, result, whole
        self.service, self.neighbours = programs()
        self.failures = 0

    def window(self, stage, case, rep, label):
        self.failures += colocate.measure(self.result, case, rep, lambda: stage.window(label), {label: "it"})

    def on_tpcs(self, stage, label, tpcs, rep):
        for other in stage.jobs:
            if other != label:
                stage.lithosd.set_quota(other, "1")
        stage.lithosd.set_quota(label, tpcs)
        self.window(stage, on(label, tpcs), rep, label)

    def splits(self):
        """(TPCs of the service, those that are left of the card)"""
        return [(tpcs, self.whole - tpcs) for tpcs in (self.whole, *self.o.tpcs)]

    def needs(self, n):
        """On how many TPCs a neighbour is measured."""
        return sorted({*(max(left, LEAST) for _, left in self.splits() if left), *([n.over] if n.over else [])})

    def run(self, bench):
        reps = range(1, self.o.repetitions + 1)
        jobs = [self.service, *(n.job for n in self.neighbours)]
        for way, name in ((ALONE, "{} " + ALONE), ("mps", "{} on " + f"{self.whole} TPCs")):
            with bench.stage(way, jobs) as stage:
                for rep in reps:
                    for label in stage.jobs:
                        self.window(stage, name.format(label), rep, label)
        with bench.stage("partition", jobs[:1]) as stage:
            for rep in reps:
                for tpcs in self.o.tpcs:
                    self.on_tpcs(stage, SERVICE, tpcs, rep)
        with bench.stage("partition", jobs[1:]) as stage:
            for rep in reps:
                for n in self.neighbours:
                    for tpcs in self.needs(n):
                        self.on_tpcs(stage, n.job.label, tpcs, rep)

    def speed(self, label, tpcs):
        return self.result.median(on(label, tpcs), "it_iterations_per_s")

    def kept(self, n, tpcs, left):
        """Percent of what its bar is over. On the whole card it is taken to be as fast as without MPS where that is what the bar is over."""
        alone = self.result.median(f"{n.job.label} {ALONE}", "it_iterations_per_s")
        whole, over = (self.speed(n.job.label, self.whole), self.speed(n.job.label, n.over)) if n.over else (alone, alone)
        takes_us = self.result.median(on(SERVICE, tpcs), "it_p10_us")
        beside = self.speed(n.job.label, max(left, LEAST)) if left else 0
        if None in (whole, over, takes_us, beside):
            return None
        busy = min(self.service.rate * takes_us / 1e6, 1)
        return results.percent((1 - busy) * whole + busy * beside, over)

    def p99_over_alone(self, tpcs):
        there, alone = self.result.median(on(SERVICE, tpcs), "it_p99_us"), self.result.median(f"{SERVICE} {ALONE}", "it_p99_us")
        return there / alone if there and alone else None

    def bars(self):
        for n in self.neighbours:
            best, limit = None, max(n.p99, self.p99_over_alone(self.whole) or 0)
            for tpcs, left in self.splits():
                p99, kept = self.p99_over_alone(tpcs), self.kept(n, tpcs, left)
                if p99 is None or kept is None:
                    continue
                self.result.note(f"Service on {tpcs} TPCs: p99 {p99:.2f} x alone; {n.job.label} could have {kept:.0f} %.")
                if p99 <= limit and (best is None or kept > best):
                    best = kept
            self.result.bar(f"{n.job.label} could have at a p99 of {n.p99} x, or MPS's, %", best, ">=", n.least)


def tpcs_of(text):
    return sorted({int(word) for word in text.split(",")}, reverse=True)


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--tpcs", type=tpcs_of, default="65,60,49,44", help="of the service, beside all of them (default: %(default)s)")
    colocate.add_options(p)
    o, place = cli.start(p)
    with servers.Scratch() as scratch:
        card = results.probe(place)
        result = results.Result("bound", cli.command_line(), o.repetitions, place, card)
        bound = Bound(o, result, card["gpus"][0]["sm_count"] // 2)
        with result.keeps_what_was_measured():
            bound.run(colocate.Bench(o, place, scratch))
        bound.bars()
        return result.end(o.out, bound.failures)


if __name__ == "__main__":
    sys.exit(main())
