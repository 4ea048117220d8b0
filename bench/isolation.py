#!/usr/bin/env python3
"""How long a high-priority service's requests take next to a best-effort burner, by what keeps the two apart.

The service answers a request of 98 us (on an H200) every 2 ms; the burner launches 15 ms kernels back to back, either of
many short waves or of few long blocks. Cases: each alone; time slicing (no MPS); MPS; MPS with the burner at low client
priority; LithOS with 33 and 33 TPCs, and with 50 and 16. The cases of a repetition follow each other, so that a drift of
the card meets all of them."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, servers  # noqa: E402
from lib.pairs import Pairs, Table, figures  # noqa: E402

KINDS = (("short", "short waves"), ("long", "long blocks"))
LIMITS = {"short": 1.15, "long": 1.25}
SPLITS = ((33, 33), (50, 16))


class Bench(Pairs):
    def be(self, kind):
        return self.burner("--kind", kind)

    def time_slicing(self, kind):
        return self.pair(self.hp(), self.be(kind))

    def mps(self, kind, priority=False):
        with servers.Mps(self.scratch) as mps:
            be_env = dict(mps.env, CUDA_MPS_CLIENT_PRIORITY="1") if priority else mps.env
            return self.pair(self.hp(), self.be(kind), mps.env, be_env)

    def lithos(self, kind, hp_tpcs, be_tpcs):
        with servers.Lithosd(self.place, self.scratch) as d:
            served, burned = self.pair(d.run(hp_tpcs, "hp", self.hp()), d.run(be_tpcs, "be", self.be(kind)), d.env, d.env)
            return served, burned


ALONE = "hp alone"


def cases(bench):
    """(name, function) of one repetition, in order. What the bars are about has the service alone right before and after it: the
    machine's own noise comes and goes within a minute."""
    alone = (ALONE, lambda: bench.pair(hp=bench.hp()))
    yield alone
    for hp, be in SPLITS:
        for kind, words in KINDS:
            yield f"lithos {hp}/{be}, {words}", lambda kind=kind, hp=hp, be=be: bench.lithos(kind, hp, be)
            yield alone
    for kind, words in KINDS:
        yield f"be alone, {words}", lambda kind=kind: bench.pair(be=bench.be(kind))
        yield f"time slicing, {words}", lambda kind=kind: bench.time_slicing(kind)
        yield f"mps, {words}", lambda kind=kind: bench.mps(kind)
        yield f"mps client priority, {words}", lambda kind=kind: bench.mps(kind, priority=True)


def alone_p99(cases, at):
    """p99 alone for the case at a place in the list: the mean of those right before and behind it, else the median of its
    repetition's."""
    def alone(some):
        return [c["p99_us"] for c in some if c["case"] == ALONE and c["rep"] == cases[at]["rep"] and c.get("p99_us")]
    near, all_of_them = alone(cases[max(0, at - 1):at + 2]), alone(cases)
    return sum(near) / len(near) if near else results.median(all_of_them) if all_of_them else None


def bars(result):
    def ratio(case):
        """Median over the repetitions of p99 over the p99 alone."""
        done = result.doc["cases"]
        values = [c["p99_us"] / alone_p99(done, i) for i, c in enumerate(done)
                  if c["case"] == case and c.get("p99_us") and alone_p99(done, i)]
        return results.median(values) if values else None

    for kind, words in KINDS:
        result.bar(f"HP p99 over alone, 33/33, {words}", ratio(f"lithos 33/33, {words}"), "<=", LIMITS[kind])
    for kind, words in KINDS:
        for case in ("time slicing", "mps", "mps client priority", "lithos 33/33", "lithos 50/16"):
            r, kept = ratio(f"{case}, {words}"), result.median(f"{case}, {words}", "be_kernels_per_s")
            whole = result.median(f"be alone, {words}", "be_kernels_per_s")
            if r and kept is not None and whole:
                result.note(f"{case}, {words}: HP p99 {r:.2f} x alone, BE kept {100 * kept / whole:.0f} %.")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=4, help="measured seconds a case, in the card's time")
    p.add_argument("--warmup", type=float, default=0.5)
    p.add_argument("--only", help="run only cases whose name has this in it, and the ones alone")
    o, place = cli.start(p)
    begun = time.monotonic()
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("isolation", cli.command_line(), o.repetitions, place,
                                results.probe(place, servers.clean_env()))
        table = Table(result, lambda name: not o.only or o.only in name or "alone" in name)
        for rep in result.repeat(o, begun):
            for name, run in cases(bench):
                table.case(name, rep, lambda run=run: figures(*run()))
        result.note("Requests arrive open-loop, every 2 ms: where a case serves them more slowly, waiting adds up over the "
                    "run, and p99 says how long the run was rather than how long one request is held up.")
        if o.virtual:
            result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card; times are given in the card's time.")
        bars(result)
        result.end(o.out, table.failures)


main()
