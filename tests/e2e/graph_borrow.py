#!/usr/bin/env python3
"""CUDA graphs that borrow (`lithos run --graphs borrow`): they compute the same, on all of the card; they wait at stops while an owner is at work, but not
for ever, and go on when it is idle; they leave with `lithos set`; and nobody holds them once lithosd is gone."""
import json
import pathlib
import signal
import statistics
import subprocess
import time

from graph_quota import Tenant
from stack import SLACK, Stack, bits, check, wait_for

SCALE = 5
NODES = 100


class Graph:
    """A graph of kernels in a line, without stops of its own."""

    def __init__(self, stack, name):
        self.stack, self.name = stack, name
        argv = [stack.sample("lithos-graphhold"), "--nodes", NODES, "--every", "0", "--blocks", "2", "--iters", "2", "--time-scale", SCALE]
        self.child = stack.run(0, name, *map(str, argv), options=["--class", "best-effort", "--graphs", "borrow"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
        check(self.line() == "ready", f"no graph: {stack.log(name)}")

    def line(self):
        return self.child.stdout.readline().decode().strip()

    def ask(self, line):
        self.child.stdin.write((line + "\n").encode())
        self.child.stdin.flush()

    def replay_us(self, times):
        self.ask(f"replay {times}")
        return statistics.median(json.loads(self.line())["us"])

    def hold(self):
        return self.stack.tenants()[self.name]["graphs"]["hold"]

    def end(self):
        self.child.stdin.close()
        check(self.child.wait(20) == 0, self.stack.log(self.name))


def owner(stack):
    """At work without a pause."""
    child = stack.run("100%", "owner", stack.sample("lithos-burn"), "--seconds", "0", "--warmup", "0", "--time-scale", str(SCALE), options=["--class", "high"])
    wait_for("the owner is at work", lambda: stack.tenants().get("owner", {"counters": {"launches": 0}})["counters"]["launches"] > 20, 20 * SLACK)
    return child


def end(child):
    child.send_signal(signal.SIGTERM)
    check(child.wait(20) == 0, "the owner did not end well")


def tpcs_of(stack, t, what):
    """TPCs that it used meanwhile."""
    def used():
        return {bit: ns for bit, ns in stack.card_clients()[t.child.pid]["sm_ns"].items() if ns}
    before = used()
    what()
    return {int(bit) for bit, ns in used().items() if ns > before.get(bit, 0)}


def computes_the_same(stack):
    """Two branches and a set, over several streams, on TPCs of an owner who is idle; then on none of them, by a graph that has stops for good."""
    idle = stack.run(40, "idle", "sleep", "1000", options=["--class", "high"])
    wait_for("the idle owner is there", lambda: "idle" in stack.tenants(), 10 * SLACK)
    t = Tenant(stack, "same", 0, options=["--class", "best-effort", "--graphs", "borrow"])
    wide = tpcs_of(stack, t, lambda: t.replay(6))
    t.replay(4, stream=1)
    t.count()
    c, owned = t.known()["counters"], bits(stack.tenants()["idle"]["gpus"][0]["bits"])
    check(c["graph_cut_launches"] == 10 and t.graphs()["hold"], f"{c} {t.graphs()}")
    check(len(owned) == 40 and wide & owned, f"on {sorted(wide)}, the idle owner has {sorted(owned)}")
    t.replay(16)
    t.do("update")  # its kernels are known by now, and long: a stop behind each, in both branches
    t.replay(3)
    t.count()
    check(t.known()["counters"]["graph_cut_launches"] == 29 and not t.known()["counters"]["graph_whole_updated"], f"{t.known()['counters']}")
    done = stack.lithos("set", "same", "--graphs", "own")
    check(done.returncode == 0, done.stderr)
    few = tpcs_of(stack, t, lambda: t.replay(3))
    t.count()
    check(few and not few & owned, f"after `--graphs own` on {sorted(few)}, the idle owner has {sorted(owned)}")
    t.say("end")
    check(t.child.wait(20) == 0, stack.log("same"))
    idle.terminate()
    idle.wait(20)


def undisturbed_us(g):
    """Of a replay, where other work on the machine does not slow down every one."""
    return min(g.replay_us(5) for _ in range(3))


def waits(stack):
    g = Graph(stack, "waits")
    alone = undisturbed_us(g)
    o = owner(stack)
    before = g.hold()
    beside = g.replay_us(1)
    hold = g.hold()
    print(f"  a replay takes {alone:.0f} us, beside an owner at work {beside:.0f} us: {hold}", flush=True)
    check(beside > 5 * alone, f"a replay beside an owner that is always at work takes {beside} us, alone {alone}")
    check(hold["times"] > before["times"] and hold["held_s"] > before["held_s"], f"{before} {hold}")
    told = stack.lithos("explain", "waits")
    check("its CUDA graphs" in told.stdout, told.stdout + told.stderr)
    end(o)
    after = undisturbed_us(g)
    check(after < 3 * alone, f"a replay takes {after} us when the owner has gone, {alone} before it came")
    g.end()


def outlives_lithosd(stack):
    g = Graph(stack, "outlives")
    g.replay_us(3)
    o = owner(stack)
    g.ask("replay 2")
    wait_for("it waits", lambda: g.hold()["held"], 20 * SLACK)
    stack.kill_daemon()
    begin = time.monotonic()
    check("us" in json.loads(g.line()), "no answer")
    took = time.monotonic() - begin
    print(f"  lithosd killed: the replays were over {took:.2f} s later", flush=True)
    check(took < 10 * SLACK, f"the replays were over {took} s after lithosd was killed")
    o.kill()
    o.wait(20)
    stack.start_daemon("--spin", "on")
    wait_for("it is attached again", lambda: any(p["attached"] for p in stack.tenants().get("outlives", {"pids": []})["pids"]), 20 * SLACK)
    check(g.replay_us(2) > 0, "no replay under the new daemon")  # what its stops go by nobody writes any more: without them
    c = stack.tenants()["outlives"]["counters"]
    check(c["graph_whole_driver"] == 1, f"{ {k: n for k, n in c.items() if n} }")
    g.end()


def refused(stack):
    done = stack.lithos("run", "--quota", "10", "--class", "high", "--graphs", "borrow", "--", "true")
    check(done.returncode != 0 and "best-effort" in done.stderr, done.stderr)
    done = stack.lithos("run", "--quota", "10", "--class", "best-effort", "--graphs", "lend", "--", "true")
    check(done.returncode != 0 and "own or borrow" in done.stderr, done.stderr)


def main():
    with Stack(scale=SCALE) as stack:
        stack.start_daemon("--spin", "on")
        for step in (refused, computes_the_same, waits, outlives_lithosd):
            print(f"{pathlib.Path(__file__).stem}: {step.__name__.replace('_', ' ')}", flush=True)
            step(stack)


if __name__ == "__main__":
    main()
