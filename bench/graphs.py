#!/usr/bin/env python3
"""What CUDA graphs cost whose long kernels run as atoms, and whether they compute the same: whole, in atoms of 250 us, every kernel in 7.

lithos-graphreplay replays long kernels in two branches; a Llama of 1.1 billion weights makes a token a replay, and trains a step a replay. Each
runs bare twice, which tells what of its results is the same from run to run, and as a tenant of a lithosd of its own in each way."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, workloads  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Failed, log  # noqa: E402

LLAMA = pathlib.Path(__file__).resolve().parent / "graphload/llama.py"
OWN = "long kernels"
# name: arguments of llama.py
LLAMAS = {"llama decode": ["decode", "--batch", "8", "--steps", "128"],
          "llama training": ["training", "--batch", "4", "--steps", "6"]}
WHOLE, CUT, FORCED = "whole", "250us", "x7"
WAYS = {WHOLE: [], CUT: ["--atom", "250us"], FORCED: ["--atom", "x7"]}


class Bench(workloads.Runner):
    def script(self, name):
        if name == OWN:
            small = ["--blocks", "80", "--replays", "2", "--rounds", "2", "--learn", "24"] if virtual() else []
            return [self.place.program("lithos-graphreplay"), "--time-scale", f"{self.o.scale:g}", *small]
        return [self.o.python, str(LLAMA), *LLAMAS[name], "--rounds", str(self.o.rounds)]

    def tenant(self, way, name):
        """A lithosd to each, so that none knows what the one before has learned."""
        extra = [w if w != CUT else f"{250 * self.o.scale:.0f}us" for w in WAYS[way]] + ["--sm-count", "full"]
        with servers.Lithosd(self.place, self.scratch, "lg") as d:
            return self.run(name, d.run(self.o.quota, "graphs", self.script(name), extra), d.env, lambda: {"told": told(d)})


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


def one(bench, result, name, rep, sums):
    """One workload, all ways; the slowdown of atoms of 250 us in percent, or None."""
    bare = [attempt(bench.bare, name) for _ in range(2)]
    failed = next((b for b in bare if isinstance(b, Failed)), None)
    if failed:
        result.case(f"{name}, bare", rep, error=str(failed)[:1500])
        sums["failures"] += 1
        return
    stable = [k for k, v in bare[0]["hashes"].items() if bare[1]["hashes"].get(k) == v]
    result.case(f"{name}, bare", rep, us=results.median(bare[1]["values"]["us"]), stable=len(stable), results=len(bare[0]["hashes"]))
    whole_us = None
    for way in WAYS:
        got = attempt(bench.tenant, way, name)
        if isinstance(got, Failed):
            result.case(f"{name}, {way}", rep, error=str(got)[:1500])
            log(f"[{rep}] {name}, {way}: FAILED: {got}")
            sums["failures"] += 1
            sums["compared"] += 1
            continue
        us = results.median(got["values"]["us"])
        whole_us = us if way == WHOLE else whole_us
        same = sum(got["hashes"].get(k) == bare[0]["hashes"][k] for k in stable)
        sums["compared"] += len(stable)
        sums["same"] += same
        figures = {"us": round(us, 2), "compared": len(stable), "same": same, **got["told"]}
        if way != WHOLE and whole_us:
            figures["slower_percent"] = round(100 * (us / whole_us - 1), 3)
        result.case(f"{name}, {way}", rep, **figures)
        log(f"[{rep}] {name}, {way}: {figures}")


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=2)
    p.add_argument("--quota", default="100%", help="of each tenant (default: %(default)s)")
    p.add_argument("--timeout", type=float, default=240, help="seconds a run may take (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=5, help="of a Llama's steps, timed (default: %(default)s)")
    p.add_argument("--only", help="workloads whose name has this in it")
    p.add_argument("--python", default=sys.executable, help="the Python that has the frameworks")
    o, place = cli.start(p)
    sums = {"compared": 0, "same": 0, "failures": 0}
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        result = results.Result("graphs", cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
        names, begun = choose(o, result), time.monotonic()
        for rep in range(1, o.repetitions + 1):
            if rep > 1 and o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                result.note(f"{rep - 1} repetitions: time ran out.")
                break
            for name in names:
                one(bench, result, name, rep, sums)
        slower = [m for m in (result.median(f"{name}, {CUT}", "slower_percent") for name in names) if m is not None]
        cut = {name: result.median(f"{name}, {CUT}", "kernels_cut") for name in names}
        result.note(f"Kernels of each graph that were cut for atoms of 250 us: {cut}. Into 7 each is cut that can be, however short: its cost says "
                    "what a node costs, and is no bar.")
        result.bar("graph replay, % slower", max(slower, default=None), "<=", 10)
        result.bar("graph results equal %", results.percent(sums["same"], sums["compared"]), "==", 100)
        result.end(o.out, sums["failures"])


main()
