#!/usr/bin/env python3
"""Can a CUDA graph be held half-way, what do the gates cost that this takes, and does who is beside it notice?

A graph of 1600 short kernels in a line with a gate before every 80, 40 or 20 of them (lithos-graphhold): a node that waits for a word in the host's
memory, or a kernel of one thread that looks at it. Without MPS and with; there a service of single kernels is beside it, while it does nothing, is held,
and is replayed. Nothing of LithOS runs: this is what the card and the driver can do."""
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, servers  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

EVERY = (80, 40, 20)
BESIDE = 40
TIMEOUT_S = 60


def gates(o):
    kinds = ("wait",) if virtual() else ("wait", "kernel")  # a virtual GPU's time stands while a kernel runs
    return [("none", 0)] + [(kind, every) for kind in kinds for every in o.every]


def name_of(way, gate, every):
    return f"{way}, {gate}, every {every}" if every else f"{way}, no gates"


def beside_every(o):
    """Kernels between the gates of the graph that the service is beside."""
    return BESIDE if BESIDE in o.every else o.every[0]


class Bench:
    def __init__(self, o, place, scratch, result):
        self.o, self.place, self.scratch, self.result = o, place, scratch, result

    def graph(self, env, gate, every):
        kind = ["--gate", gate] if every else []
        argv = [self.place.program("lithos-graphhold"), "--nodes", str(self.o.nodes), "--every", str(every), *kind, "--time-scale", f"{self.o.scale:g}"]
        if virtual():
            argv += ["--blocks", "2", "--iters", "2"]
        return Child(argv, env, self.scratch.path / "hold.err")

    @staticmethod
    def ask(child, line, timeout_s=TIMEOUT_S):
        child.tell(line)
        return json.loads(child.line(timeout_s))

    def service(self, env):
        """Single kernels, 5000 a second at even times: its figures."""
        argv = [self.place.program("lithos-serve"), "--period-us", "200", "--grid", "16", "--iters", "500", "--seconds", f"{self.o.seconds:g}",
                "--warmup", f"{self.o.seconds / 4:g}", "--time-scale", f"{self.o.scale:g}", "--json"]
        with Child(argv, env, self.scratch.path / "serve.err") as child:
            return child.result(TIMEOUT_S)

    def beside(self, way, env, rep, child):
        """The service, and what the graph does meanwhile."""
        def case(what):
            got = self.service(env)
            self.result.case(f"{way}, service beside a graph that {what}", rep, p50_us=got["p50_us"], p99_us=got["p99_us"], requests=got["requests"])
            log(f"[{rep}] {way}, beside a graph that {what}: {got['p50_us']} {got['p99_us']} us")
        case("does nothing")
        child.tell("hold")
        child.expect("done", TIMEOUT_S)
        case("is held")
        child.tell("go")
        child.expect("done", TIMEOUT_S)
        child.tell("run")
        case("is replayed")
        child.tell("replay 1")  # ends it
        child.expect("done", TIMEOUT_S)
        json.loads(child.line(TIMEOUT_S))

    def gated(self, child, every, replay_us):
        """How soon it stands and goes on, as a part of a case."""
        got = self.ask(child, f"stop {self.o.stops}")
        case = {"stopped": len(got["stop_us"]), "passed": got["passed"], "between_gates_us": round(replay_us * every / self.o.nodes, 2)}
        for key in ("stop_us", "go_us"):
            for name, q in (("p50", 0.5), ("p99", 0.99)) if got[key] else ():
                case[f"{key[:-3]}_{name}_us"] = round(results.quantile(got[key], q), 2)
        return case

    def graphs(self, way, env, gate, every, rep):
        with self.graph(env, gate, every) as child:
            child.expect("ready", TIMEOUT_S)
            replay_us = results.median(self.ask(child, f"replay {self.o.replays}")["us"])
            case = {"replay_us": round(replay_us, 2), **(self.gated(child, every, replay_us) if every else {})}
            self.result.case(name_of(way, gate, every), rep, **case)
            log(f"[{rep}] {name_of(way, gate, every)}: {case}")
            if (way, gate, every) == ("mps", "wait", beside_every(self.o)):
                self.beside(way, env, rep, child)
            child.popen.stdin.close()
            if child.wait(TIMEOUT_S) != 0:
                raise Failed(f"lithos-graphhold: exit code {child.popen.returncode}. {child.why()}")

    def way(self, way, env, rep):
        """How many of its graphs could not be measured: a driver may know one kind of gate and not the other."""
        failures = 0
        for gate, every in gates(self.o):
            try:
                self.graphs(way, env, gate, every, rep)
            except (Failed, ValueError, KeyError) as e:
                failures += 1
                self.result.case(name_of(way, gate, every), rep, error=str(e)[:1500])
                log(f"[{rep}] {name_of(way, gate, every)}: FAILED: {e}")
        return failures


def longer(result, way, gate, every):
    base, there = result.median(name_of(way, None, 0), "replay_us"), result.median(name_of(way, gate, every), "replay_us")
    return round(results.percent(there, base) - 100, 3) if base and there else None


def bars(result, o):
    every = beside_every(o)
    for gate in dict.fromkeys(kind for kind, e in gates(o) if e):
        case = name_of("mps", gate, every)
        if not virtual():
            result.bar(f"{gate}, every {every} kernels: replay, % longer", longer(result, "mps", gate, every), "<=", 5)
            p99, gap = result.median(case, "stop_p99_us"), result.median(case, "between_gates_us")
            result.bar(f"{gate}, every {every} kernels: stands after, p99 over the time between gates", p99 / gap if p99 and gap else None, "<=", 1.3)
        passed = result.figures(case, "passed")
        result.bar(f"{gate}, every {every} kernels: replays that passed closed gates", sum(passed) if passed else None, "==", 0)
    beside = {what: result.median(f"mps, service beside a graph that {what}", "p99_us") for what in ("does nothing", "is held")}
    if not virtual():
        result.bar("service's p99 beside a graph that is held, over beside one that does nothing",
                   beside["is held"] / beside["does nothing"] if all(beside.values()) else None, "<=", 1.2)
    for way in ("bare", "mps"):
        for gate, every in gates(o):
            more = longer(result, way, gate, every) if every else None
            if more is not None:
                case = name_of(way, gate, every)
                result.note(f"{case}: {more:.1f} % longer, stands after {result.median(case, 'stop_p50_us')} us (p99 {result.median(case, 'stop_p99_us')}), goes on after "
                            f"{result.median(case, 'go_p50_us')} us.")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--nodes", type=int, default=1600, help="kernels of the graph (default: %(default)s)")
    p.add_argument("--every", type=lambda s: tuple(map(int, s.split(","))), default=EVERY, help="kernels between gates, with commas between (default: 80,40,20)")
    p.add_argument("--replays", type=int, default=50, help="timed (default: %(default)s)")
    p.add_argument("--stops", type=int, default=150, help="of a replay (default: %(default)s)")
    p.add_argument("--seconds", type=float, default=0.5, help="of the service, in the card's time (default: %(default)s)")
    o, place = cli.start(p)
    failures = 0
    with servers.Scratch() as scratch:
        result = results.Result("graph-hold", cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
        bench = Bench(o, place, scratch, result)
        with result.keeps_what_was_measured(), servers.Mps(scratch) as mps:
            for rep in result.repeat(o, time.monotonic()):
                for way, env in (("bare", servers.clean_env()), ("mps", mps.env)):
                    failures += bench.way(way, env, rep)
        bars(result, o)
        result.end(o.out, failures)


main()
