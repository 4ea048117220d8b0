#!/usr/bin/env python3
"""Do CUDA graphs that are instantiated already follow `lithos set`? From the first replay after it on, by the SMs that kernels of the graph mark.

A graph of three kernels and a set by the driver's interface, with the program's graph destroyed and kept, its parameters changed and the exec
updated in between: every block must run once, on as many SMs as the tenant has. Then ResNet-50 by PyTorch: a replay must take as long as that of
a graph captured anew under the same quota, and compute the same. Each is the only tenant of a lithosd of its own, with MPS, where SMs are numbered
anew among those that a kernel may use: they say how many there are, not which."""
import contextlib
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

LOAD = pathlib.Path(__file__).resolve().parent / "graphload"
BEGINS_WITH = 24
# What was done to the graph before, and the TPCs from then on.
STEPS = (("at first", None, None), ("shrunk", None, 6), ("grown", None, 40), ("parameters changed", "elsewhere", 12), ("updated", "update", 9),
         ("few", None, 3))
RESNET = ("100%", "50%", "20%", "100%")


class Tenant:
    """A program of graphload that obeys, and what lithosd says of it."""

    def __init__(self, bench, stack, folder, quota, script, *arguments):
        self.timeout_s, self.name = bench.o.timeout, script
        self.lithosd = stack.enter_context(servers.Lithosd(bench.place, bench.scratch, folder))
        argv = self.lithosd.run(quota, "follows", [bench.o.python, str(LOAD / f"{script}.py"), *map(str, arguments)], ["--sm-count", "full"])
        env = models.environment(self.lithosd.env, bench.scratch, bench.o.python)
        self.child = stack.enter_context(Child(argv, env, bench.scratch.path / f"{folder}.err"))
        self.child.expect("ready", self.timeout_s)

    def ask(self, line):
        self.child.tell(line)
        return self.child.line(self.timeout_s)

    def do(self, line):
        self.child.tell(line)
        self.child.expect("done", self.timeout_s)

    def set(self, quota):
        if quota is not None:
            self.lithosd.set_quota("follows", quota)

    def known(self):
        return self.lithosd.tenant("follows")

    def replays(self, times):
        """Figures of the first replay and of so many after it."""
        self.ask("on_sms")  # what ran before says nothing of these
        first_us = json.loads(self.ask("time 1"))[0]
        first_sms = int(self.ask("on_sms"))
        us = json.loads(self.ask(f"time {times}"))
        return {"first_us": first_us, "sms_first": first_sms, "us": results.median(us), "sms": int(self.ask("on_sms")),
                "tpcs": self.known()["gpus"][0]["tpcs"]}

    def end(self):
        """What its graphs did, by lithosd; then it ends."""
        t = self.known()
        self.child.tell("end")
        if self.child.wait(60) != 0:
            raise Failed(f"{self.name}: exit code {self.child.popen.returncode} at its end. {self.child.why()}")
        return {"followed": t["graphs"]["followed"], "nodes": t["graphs"]["nodes"], "keep": {k: n for k, n in t["graphs"]["keep"].items() if n},
                "escaped": t["counters"]["escaped"], "unmasked": t["counters"]["unmasked"]}


class Bench:
    def __init__(self, o, place, scratch, result, card):
        self.o, self.place, self.scratch, self.result = o, place, scratch, result
        topology = (card["gpus"] or [{}])[0].get("topology") or {}
        self.sms_per_tpc = topology.get("sms_per_tpc", 2)
        self.lithosds = 0

    def tenant(self, stack, quota, script, *arguments):
        self.lithosds += 1
        return Tenant(self, stack, f"f{self.lithosds}", quota, script, *arguments)

    def case(self, name, rep, step, got, **more):
        expected = got["tpcs"] * self.sms_per_tpc
        off = abs(got["sms_first"] - expected) + abs(got["sms"] - expected)
        self.result.case(f"{name}, {step}", rep, **got, sms_expected=expected, sms_off=off, **more)
        log(f"[{rep}] {name}, {step}: {got['tpcs']} TPCs, {got['sms_first']} and {got['sms']} SMs, {got['first_us']} and {got['us']} us {more or ''}")

    def kernels(self, graph, rep):
        name, runs = f"kernels, graph {graph}", [0, 0, 0]
        elsewhere = False
        with contextlib.ExitStack() as stack:
            t = self.tenant(stack, BEGINS_WITH, "kernels", "destroy" if graph == "destroyed" else "keep", 1 if virtual() else 100)
            for step, before, tpcs in STEPS:
                if before == "elsewhere" and graph == "destroyed":
                    continue  # there is no handle of its nodes any more
                if before:
                    t.do(before)
                    elsewhere = before == "elsewhere"
                t.set(tpcs)
                self.case(name, rep, step, t.replays(self.o.replays))
                for which in (2 if elsewhere else 0, 1):
                    runs[which] += 1 + self.o.replays
            t.do(f"counts {runs[0]} {runs[1]} {runs[2]}")
            self.result.case(f"{name}, all", rep, replays=runs[1], **t.end())

    def resnet(self, rep):
        name = "resnet50"
        with contextlib.ExitStack() as stack:
            t = self.tenant(stack, RESNET[0], "resnet")
            first = t.ask("hash")
            for i, quota in enumerate(RESNET):
                t.set(quota if i else None)
                followed = t.replays(self.o.replays)
                same = t.ask("hash") == first
                t.do("capture")
                json.loads(t.ask("time 3"))
                anew = results.median(json.loads(t.ask(f"time {self.o.replays}")))
                same = same and t.ask("hash") == first
                self.case(name, rep, f"{quota}, {i}", followed, captured_anew_us=anew, over_captured_anew=round(followed["us"] / anew, 4), same=same)
            self.result.case(f"{name}, all", rep, **t.end())


def attempt(bench, name, rep, function, *arguments):
    try:
        function(*arguments, rep)
        return 0
    except (Failed, ValueError, KeyError) as e:
        bench.result.case(name, rep, error=str(e)[:1500])
        log(f"[{rep}] {name}: FAILED: {e}")
        return 1


def bars(result):
    def of(key, some=lambda c: True):
        return [c[key] for c in result.doc["cases"] if key in c and some(c)]
    result.bar("SMs more or fewer than the tenant's, all replays", sum(of("sms_off")) if of("sms_off") else None, "==", 0)
    result.bar("graphs that kept other TPCs", sum(sum(k.values()) for k in of("keep")) if of("keep") else None, "==", 0)
    result.bar("launches without a mask", sum(of("escaped")) + sum(of("unmasked")) if of("escaped") else None, "==", 0)
    if not virtual():
        ratios = of("over_captured_anew")
        result.bar("ResNet-50, a replay that followed over one captured anew, median", results.median(ratios) if ratios else None, "<=", 1.03)
        result.bar("ResNet-50, results that differ", of("same").count(False) if of("same") else None, "==", 0)


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--replays", type=int, default=40, help="after the first one, at each step (default: %(default)s)")
    p.add_argument("--timeout", type=float, default=120, help="seconds an answer may take (default: %(default)s)")
    p.add_argument("--only", choices=("kernels", "resnet"), help="one of the two parts")
    p.add_argument("--python", default=sys.executable, help="the Python that has the frameworks")
    o, place = cli.start(p)
    failures, begun = 0, time.monotonic()
    with servers.Scratch() as scratch:
        card = results.probe(place, servers.clean_env())
        result = results.Result("graph-follow", cli.command_line(), o.repetitions, place, card)
        bench = Bench(o, place, scratch, result, card)
        torch = not virtual() and models.has_module(o.python, "torchvision")
        if not torch and o.only != "kernels":
            result.note("resnet50: not run, torchvision is not there, or no card.")
        with result.keeps_what_was_measured():
            for rep in result.repeat(o, begun):
                for graph in ("destroyed", "kept") if o.only != "resnet" else ():
                    failures += attempt(bench, f"kernels, graph {graph}", rep, bench.kernels, graph)
                if torch and o.only != "kernels":
                    failures += attempt(bench, "resnet50", rep, bench.resnet)
        bars(result)
        result.end(o.out, failures)


main()
