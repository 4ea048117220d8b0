#!/usr/bin/env python3
"""What CUDA graphs cost whose long kernels run as atoms, and whether they compute the same: whole, in atoms of 250 us, every kernel in 7.

lithos-graphreplay replays long kernels in two branches; a Llama of 1.1 billion weights makes a token a replay, after few tokens and
after many, and trains a step a replay. Each runs bare twice, which tells what of its results is the same from run to run, and as a tenant
of a lithosd of its own in each way. The Llamas are all on the card at once, clients of one MPS: they are captured one after the other
and then take turns, a round each."""
import concurrent.futures
import contextlib
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, workloads  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

LLAMA = pathlib.Path(__file__).resolve().parent / "graphload/llama.py"
OWN = "long kernels"
# name: arguments of llama.py
LLAMAS = {"llama decode": ["decode", "--batch", "8", "--steps", "128"],
          "llama training": ["training", "--batch", "2", "--steps", "6"],
          "llama decode, long context": ["decode", "--batch", "96", "--context", "2048", "--steps", "24"]}
BARE, AGAIN, WHOLE, CUT, FORCED = "bare", "bare again", "whole", "250us", "x7"
WAYS = {WHOLE: [], CUT: ["--atom", "250us"], FORCED: ["--atom", "x7"]}


class Bench(workloads.Runner):
    def script(self, name):
        if name != OWN:
            return [self.o.python, str(LLAMA), *LLAMAS[name]]
        small = ["--blocks", "80", "--replays", "2", "--learn", "24"] if virtual() else []
        return [self.place.program("lithos-graphreplay"), "--time-scale", f"{self.o.scale:g}", "--rounds", str(self.o.repetitions), *small]

    def lithosd(self, folder, env=None):
        return servers.Lithosd(self.place, self.scratch, folder, env=env)

    def command(self, d, way, name):
        extra = [w if w != CUT else f"{250 * self.o.scale:.0f}us" for w in WAYS[way]] + ["--sm-count", "full"]
        return d.run(self.o.quota, "graphs", self.script(name), extra)

    def samples(self, way):
        """lithos-graphreplay, from its begin to its end: its hashes, us a repetition, and what lithosd told. A lithosd to each, so that none
        knows what the one before has learned."""
        if way in (BARE, AGAIN):
            got = self.bare(OWN)
        else:
            with self.lithosd("lg") as d:
                got = self.run(OWN, self.command(d, way, OWN), d.env, lambda: {"told": told(d)})
        return {"hashes": got["hashes"], "us": got["values"]["us"], "told": got.get("told", {})}


class Llama:
    """A Llama of graphload, loaded, that does one thing at a time. What goes wrong is kept: the others go on."""

    def __init__(self, bench, stack, mps, name, way, number):
        self.bench, self.way, self.us, self.failure, self.d = bench, way, [], None, None
        try:
            argv, env = bench.script(name), mps.env
            if way in WAYS:
                self.d = stack.enter_context(bench.lithosd(f"l{number}", mps.env))
                argv, env = bench.command(self.d, way, name), self.d.env
            env = models.environment(env, bench.scratch, bench.o.python)
            self.child = stack.enter_context(Child(argv, env, bench.errors(f"{way}-{number}".replace(" ", "-"))))
        except Failed as e:
            self.failure = e

    def attempt(self, function):
        if not self.failure:
            try:
                function()
            except (Failed, ValueError, KeyError) as e:
                self.failure = e

    def ready(self):
        self.attempt(lambda: self.child.expect("READY", self.bench.o.timeout))

    def capture(self):
        def do():
            self.child.tell("capture")
            self.child.expect("CAPTURED", self.bench.o.timeout)
        self.attempt(do)

    def round(self):
        def do():
            self.child.tell("round")
            self.us.append(float(self.child.line(self.bench.o.timeout)))
        self.attempt(do)

    def end(self):
        """Its figures, as those of samples()."""
        out = {}

        def do():
            self.child.tell("result")
            text = self.child.line(self.bench.o.timeout)
            out.update(hashes=json.loads(text.removeprefix("RESULT "))["hashes"], us=self.us, told=told(self.d) if self.d else {})
            self.child.tell("")
            if self.child.wait(60) != 0:
                raise Failed(f"exit code {self.child.popen.returncode} at its end. {self.child.why()}")
        self.attempt(do)
        return self.failure or out


def llamas(bench, name):
    """{way: figures, or what went wrong}. The first bare one is over before the others begin: that many have room."""
    reps = bench.o.repetitions
    with servers.Mps(bench.scratch, f"m{list(LLAMAS).index(name)}") as mps, contextlib.ExitStack() as stack:
        all_ways = [BARE, AGAIN, *WAYS]
        with concurrent.futures.ThreadPoolExecutor(len(all_ways)) as pool:
            here = [Llama(bench, stack, mps, name, way, i) for i, way in enumerate(all_ways)]
            list(pool.map(Llama.ready, here))
        first, others = here[0], here[1:]
        first.capture()
        for _ in range(reps):
            first.round()
        out = {BARE: first.end()}
        for one in others:
            one.capture()
        for rep in range(reps):
            turn = rep % len(others)
            for one in others[turn:] + others[:turn]:
                one.round()
        out.update({one.way: one.end() for one in others})
    return out


def told(d):
    t = d.tenant("graphs")
    g = t["atoms"]["graphs"]
    return {"graph_launches": t["counters"]["graph_launches"], "cut_launches": g["launches"], "kernels_cut": g["cut"], "atoms": g["atoms"],
            "graphs_whole": {k: v for k, v in g["whole"].items() if v}, "launches_cut": t["atoms"]["cut"],
            "left_whole": {k: v for k, v in t["atoms"]["whole"].items() if v}, "escaped": t["counters"]["escaped"]}


def choose(o, result):
    """What can be run here."""
    names = [n for n in [OWN, *LLAMAS] if not o.only or o.only in n]
    if virtual():
        return [n for n in names if n == OWN]
    if not models.has_module(o.python, "torch"):
        for name in [n for n in names if n != OWN]:
            result.note(f"{name}: not run, torch is not installed here.")
        names = [n for n in names if n == OWN]
    return names


def attempt(call, *arguments):
    try:
        return call(*arguments)
    except (Failed, ValueError, KeyError) as e:
        return e if isinstance(e, Failed) else Failed(repr(e))


def one(bench, result, name, sums):
    """One workload, all ways."""
    got = llamas(bench, name) if name != OWN else {way: attempt(bench.samples, way) for way in (BARE, AGAIN, *WAYS)}
    for way, figures in got.items():
        if isinstance(figures, Failed):
            result.case(f"{name}, {way}", 1, error=str(figures)[:1500])
            log(f"{name}, {way}: FAILED: {figures}")
            sums["failures"] += 1
            sums["compared"] += way in WAYS
    if isinstance(got[BARE], Failed) or isinstance(got[AGAIN], Failed):
        return
    hashes = got[BARE]["hashes"]
    stable = [k for k, v in hashes.items() if got[AGAIN]["hashes"].get(k) == v]
    whole = got[WHOLE]["us"] if isinstance(got[WHOLE], dict) else []
    for way, figures in got.items():
        if isinstance(figures, Failed):
            continue
        equal = {}
        if way in WAYS:
            same = sum(figures["hashes"].get(k) == hashes[k] for k in stable)
            equal = {"compared": len(stable), "same": same, **figures["told"]}
            sums["compared"] += len(stable)
            sums["same"] += same
        for rep, us in enumerate(figures["us"], 1):
            slower = {"slower_percent": round(100 * (us / whole[rep - 1] - 1), 3)} if way in (CUT, FORCED) and rep <= len(whole) else {}
            result.case(f"{name}, {way}", rep, us=round(us, 2), **equal, **slower)
        log(f"{name}, {way}: us {[round(us, 1) for us in figures['us']]}, {equal}")
    if len(stable) < len(hashes):
        result.note(f"{name}: two bare runs differ in {len(hashes) - len(stable)} of {len(hashes)} results, which are not compared.")


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=5)
    p.add_argument("--quota", default="100%", help="of each tenant (default: %(default)s)")
    p.add_argument("--timeout", type=float, default=240, help="seconds a run may take (default: %(default)s)")
    p.add_argument("--only", help="workloads whose name has this in it")
    p.add_argument("--python", default=sys.executable, help="the Python that has the frameworks")
    o, place = cli.start(p)
    sums = {"compared": 0, "same": 0, "failures": 0}
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("graphs", cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
        names, begun = choose(o, result), time.monotonic()
        with result.keeps_what_was_measured():
            for name in names:
                if o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                    result.note(f"{name}: not run, time ran out.")
                    continue
                one(bench, result, name, sums)
        slower = [m for m in (result.median(f"{name}, {CUT}", "slower_percent") for name in names) if m is not None]
        cut = {name: result.median(f"{name}, {CUT}", "kernels_cut") for name in names}
        result.note(f"Kernels of each graph that were cut for atoms of 250 us: {cut}. Into 7 each is cut that can be, however short: its cost says "
                    "what a node costs, and is no bar.")
        result.bar("graph replay, % slower", max(slower, default=None), "<=", 10)
        result.bar("graph results equal %", results.percent(sums["same"], sums["compared"]), "==", 100)
        result.end(o.out, sums["failures"])


main()
