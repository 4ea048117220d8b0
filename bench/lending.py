#!/usr/bin/env python3
"""What lending buys and costs an owner whose requests are short, by what its neighbour's blocks are and how its requests come.

An owner of half the card has requests of 98 us (on an H200), a kernel of one block on each SM of its half: every 2 ms, every 0.5 ms, or at
random, every 2 ms in the mean. Its neighbour launches kernels of 15 ms back to back: in blocks that live for 375 us (16 to an SM) or 94 us, in the
first with 8 to an SM, or in blocks of several ms. Ways: each alone; MPS; MPS with the neighbour at low client priority; partitions; LithOS as it
comes, which lends what is idle to atoms of 250 us; and with what an owner would be advised to say.

The lower the owner's p99 and the more the neighbour keeps the better: bench/show.py --draw OUT/lending.json draws one over the other."""
import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, servers  # noqa: E402
from lib.pairs import Pairs, Table, figures  # noqa: E402

# The neighbour's kernels: of so many blocks an SM; 5 ns a turn, times the blocks that live in an SM. An SM of Hopper holds 8 of so much memory.
KINDS = {
    "short waves": (640, "--kind", "short"),
    "94 us blocks": (2560, "--kind", "short", "--iters", "5000"),
    "8 to an SM": (640, "--kind", "short", "--shared", "27648"),
    "long blocks": (64, "--kind", "long"),
}
GAPS = {
    "every 2 ms": ("--period-us", "2000"),
    "every 0.5 ms": ("--period-us", "500"),
    "random": ("--period-us", "2000", "--poisson"),
}
MPS, PRIORITY, PARTITION, LITHOS, ADVISED, BOLD = "mps", "client priority", "partition", "lithos", "lithos, advised", "lithos, bold"
TENANTS = {  # way: options of the owner, length of the neighbour's atoms
    PARTITION: ([], "off"),
    LITHOS: ([], 250),
    ADVISED: (["--slip", "1.5"], 100),
    BOLD: (["--slip", "2"], 100),
}
EVEN, RANDOM, OFTEN, SHORT, QUICK = "every 2 ms", "random", "every 0.5 ms", "short waves", "94 us blocks"
# (servers, way, the neighbour's kernels, the owner's gaps) of a repetition
CASES = [
    ("mps", MPS, SHORT, EVEN),
    *(("mps", PRIORITY, kind, EVEN) for kind in KINDS),
    *(("mps", PRIORITY, kind, RANDOM) for kind in (SHORT, QUICK)),
    ("mps", PRIORITY, SHORT, OFTEN),
    ("partition", PARTITION, SHORT, EVEN),
    *(("lithos", LITHOS, kind, EVEN) for kind in KINDS),
    *(("lithos", ADVISED, kind, EVEN) for kind in (SHORT, QUICK, "long blocks")),
    *(("lithos", way, kind, RANDOM) for kind in (SHORT, QUICK) for way in (LITHOS, ADVISED)),
    ("lithos", BOLD, QUICK, RANDOM),
    ("lithos", LITHOS, SHORT, OFTEN),
]
HP, BE = "hp alone", "be alone"
BAR = 1.3, 75  # HP p99 over alone, BE kept %


class Bench(Pairs):
    def __init__(self, o, place, scratch, sms):
        super().__init__(o, place, scratch)
        self.sms = sms

    def owner(self, gaps, *options):
        return [self.place.program("lithos-serve"), *GAPS[gaps], "--grid", str(self.sms // 2), "--seconds", str(self.o.seconds),
                *self.common, *options]

    def neighbour(self, kind):
        blocks, *how = KINDS[kind]
        return self.burner("--grid", str(blocks * self.sms), *how)

    @contextlib.contextmanager
    def servers(self, name):
        """run(way, kind, gaps): figures; what is needed for it lives as long as this."""
        if name == "mps":
            with servers.Mps(self.scratch) as mps:
                yield lambda way, kind, gaps: figures(*self.pair(
                    self.owner(gaps), self.neighbour(kind), mps.env, dict(mps.env, **({"CUDA_MPS_CLIENT_PRIORITY": "1"} if way == PRIORITY else {}))))
        else:
            with servers.Lithosd(self.place, self.scratch, args=["--policy", "partition"] if name == "partition" else []) as d:
                yield lambda way, kind, gaps: self.tenants(d, way, kind, gaps)

    def tenants(self, d, way, kind, gaps):
        told, (options, atom) = {}, TENANTS[way]

        def before():
            owner = servers.as_owner(d.explain("hp"))
            told.update({f"owner_{k}": owner[k] for k in ("slack_us", "need_us", "even_us")})

        def after():
            told.update({f"be_{k}": v for k, v in servers.as_borrower(d.explain("be")).items()}, atoms=d.tenant("be")["atoms"]["atoms"])

        atom = atom if atom == "off" else f"{atom * self.o.scale:g}us"
        # the neighbour is up before the owner, and goes on while that warms up
        hp = d.run("50%", "hp", self.owner(gaps, "--warmup", str(self.o.learn)), options)
        be = d.run("50%", "be", self.neighbour(kind), ["--class", "best-effort", "--atom", atom])
        return {**figures(*self.pair(hp, be, d.env, d.env, before, after)), **told}


def wants(o, name):
    return not o.only or any(word in name for word in o.only.split(";"))


def repetition(bench, table, rep):
    wanted = [case for case in CASES if wants(bench.o, ", ".join(case[1:]))]
    for gaps in dict.fromkeys(case[3] for case in wanted):
        table.case(f"{HP}, {gaps}", rep, lambda: figures(*bench.pair(hp=bench.owner(gaps))))
    for kind in dict.fromkeys(case[2] for case in wanted):
        table.case(f"{BE}, {kind}", rep, lambda: figures(*bench.pair(be=bench.neighbour(kind))))
    for name in dict.fromkeys(case[0] for case in wanted):
        with bench.servers(name) as run:
            for _, way, kind, gaps in (case for case in wanted if case[0] == name):
                table.case(f"{way}, {kind}, {gaps}", rep, lambda: run(way, kind, gaps))


def over_alone(result, way, kind, gaps):
    beside, alone = result.median(f"{way}, {kind}, {gaps}", "p99_us"), result.median(f"{HP}, {gaps}", "p99_us")
    return beside / alone if beside and alone else None


def kept(result, way, kind, gaps):
    beside, alone = result.median(f"{way}, {kind}, {gaps}", "be_kernels_per_s"), result.median(f"{BE}, {kind}", "be_kernels_per_s")
    return results.percent(beside, alone) if beside is not None and alone else None


def bars(result, o):
    for way, kind, gaps in ((LITHOS, SHORT, EVEN), (ADVISED, SHORT, EVEN), (ADVISED, QUICK, RANDOM)):
        if wants(o, f"{way}, {kind}, {gaps}"):
            result.bar(f"{way}, {kind}, {gaps}: HP p99 over alone", over_alone(result, way, kind, gaps), "<=", BAR[0])
            result.bar(f"{way}, {kind}, {gaps}: BE kept %", kept(result, way, kind, gaps), ">=", BAR[1])
    for _, *case in CASES:
        p99, part = over_alone(result, *case), kept(result, *case)
        if p99 and part is not None:
            result.note(f"{', '.join(case)}: HP p99 {p99:.2f} x alone, BE kept {part:.0f} %.")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=0.4, help="measured seconds a case, in the card's time (default: %(default)s)")
    p.add_argument("--warmup", type=float, default=0.1, help="before that (default: %(default)s)")
    p.add_argument("--learn", type=float, default=0.6, help="before it under LithOS, side by side, as it knows neither of the two (default: %(default)s)")
    p.add_argument("--only", help="run only cases whose name has one of these in it (with ; between), and what they are compared with")
    p.set_defaults(keep_going_after=100)
    o, place = cli.start(p)
    begun = time.monotonic()
    with servers.Scratch() as scratch:
        gpus = results.probe(place, servers.clean_env())
        bench = Bench(o, place, scratch, gpus["gpus"][0]["sm_count"])
        result = results.Result("lending", cli.command_line(), o.repetitions, place, gpus)
        table = Table(result)
        for rep in result.repeat(o, begun):
            repetition(bench, table, rep)
        for way, (options, atom) in TENANTS.items():
            result.note(f"{way}: owner {' '.join(['--quota 50%', *options])}; neighbour --quota 50% --class best-effort --atom "
                        f"{atom if atom == 'off' else f'{atom}us'}.")
        result.note("Requests arrive open-loop: where a case serves them more slowly, p99 says how long the run was. \"owner_\": what lithosd knew of "
                    "the owner before the window.")
        if o.virtual:
            result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card; times are given in the card's time.")
        bars(result, o)
        result.end(o.out, table.failures)


if __name__ == "__main__":
    main()
