#!/usr/bin/env python3
"""How soon a best-effort burner is off the card when a service has a request, by what sends it away, whatever it runs.

The service answers a request of 98 us (on an H200) every 2 ms. The burner launches kernels back to back: of many short waves, of few
long blocks, of one wave of blocks of 2 ms, which nothing can cut; and, where PyTorch is, bf16 matrix products, which are such kernels.
Cases: each alone; time slicing (no MPS); MPS; `lithosd --share preempt`, where the burner is best-effort."""
import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers  # noqa: E402
from lib.pairs import Pairs, Table, figures  # noqa: E402

GEMM = pathlib.Path(__file__).resolve().parent / "kernels" / "gemm.py"
GEMMS = "matrix products"
WAYS = ("time slicing", "mps", "preempt")
ALONE = "hp alone"


class Bench(Pairs):
    def __init__(self, o, place, scratch, sms):
        super().__init__(o, place, scratch)
        # one block an SM, 5 ns a turn
        self.kinds = {"short waves": ("--kind", "short"), "long blocks": ("--kind", "long"),
                      "one wave": ("--kind", "long", "--grid", str(sms), "--iters", "400000")}

    def be(self, words):
        if words == GEMMS:
            return [self.o.python, str(GEMM), *self.common]
        return self.burner(*self.kinds[words])

    @contextlib.contextmanager
    def servers(self, way):
        """A function that runs the service beside a burner that way; what is needed for it lives as long as this."""
        if way == "time slicing":
            yield lambda words: figures(*self.pair(self.hp(), self.be(words)))
        elif way == "mps":
            with servers.Mps(self.scratch) as mps:
                yield lambda words: figures(*self.pair(self.hp(), self.be(words), mps.env, mps.env))
        else:
            with servers.Lithosd(self.place, self.scratch, args=["--share", "preempt"]) as d:
                def run(words):
                    told = {}

                    def wait():
                        s = d.wait_for_slices("be")
                        told.update(be_groups=s["groups"], be_groups_set=s["set"])

                    be = d.run("50%", "be", self.be(words), ["--class", "best-effort"])
                    got = figures(*self.pair(d.run("50%", "hp", self.hp()), be, d.env, d.env, before=wait))
                    return {**got, **told}
                yield run


def repetition(bench, table, kinds, rep):
    table.case(ALONE, rep, lambda: figures(*bench.pair(hp=bench.hp())))
    for words in kinds:
        table.case(f"be alone, {words}", rep, lambda: figures(*bench.pair(be=bench.be(words))))
    for way in WAYS:
        with bench.servers(way) as run:
            for words in kinds:
                table.case(f"{way}, {words}", rep, lambda: run(words))


def bars(result, kinds):
    def kept(way, words):
        beside, alone = result.median(f"{way}, {words}", "be_kernels_per_s"), result.median(f"be alone, {words}", "be_kernels_per_s")
        return results.percent(beside, alone) if beside is not None and alone else None

    p99 = {words: result.median(f"preempt, {words}", "p99_us") for words in kinds}
    be = {words: kept("preempt", words) for words in kinds}
    result.bar("preempt HP p99 us, worst", max(p99.values()) if None not in p99.values() else None, "<=", 500)
    result.bar("preempt BE kept %", min(be.values()) if None not in be.values() else None, ">=", 80)
    for words in kinds:
        for way in WAYS:
            p50, tail, part = (result.median(f"{way}, {words}", k) for k in ("p50_us", "p99_us", "be_kernels_per_s"))
            if None not in (p50, tail, part, kept(way, words)):
                result.note(f"{way}, {words}: HP p50 {p50:.0f} us, p99 {tail:.0f} us, BE kept {kept(way, words):.0f} %.")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=0.7, help="measured seconds a case, in the card's time")
    p.add_argument("--warmup", type=float, default=0.1)
    p.add_argument("--only", help="run only cases whose name has this in it, and the ones alone")
    p.add_argument("--python", default=sys.executable, help="the Python that has PyTorch")
    o, place = cli.start(p)
    begun = time.monotonic()
    with servers.Scratch() as scratch:
        gpus = results.probe(place, servers.clean_env())
        bench = Bench(o, place, scratch, gpus["gpus"][0]["sm_count"])
        result = results.Result("preempt", cli.command_line(), o.repetitions, place, gpus)
        table = Table(result, lambda name: not o.only or o.only in name or "alone" in name)
        kinds = list(bench.kinds)
        if not o.virtual and models.has_module(o.python, "torch"):
            kinds.append(GEMMS)
        else:
            result.note(f"{GEMMS}: not run, there is no PyTorch here.")
        for rep in result.repeat(o, begun):
            repetition(bench, table, kinds, rep)
        if o.virtual:
            result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card; times are given in the card's time.")
        bars(result, kinds)
        result.end(o.out, table.failures)


main()
