#!/usr/bin/env python3
"""A quota that changes reaches CUDA graphs that are instantiated already: from the first replay on their kernels run on the TPCs that the tenant
has by then and on no others, by the card's own account; results stay right. With the program's graph destroyed and kept, with changes of the
exec between, over several streams, in atoms, behind launch queues, beside a tenant that was given what became free, over a lithosd that is
started again, and for tenants that own nothing."""
import json
import pathlib
import subprocess
import sys

from stack import SLACK, Stack, bits, check, wait_for

SCALE = 5
TENANT = str(pathlib.Path(__file__).resolve().parents[2] / "bench/graphload/kernels.py")


class Tenant:
    def __init__(self, stack, name, quota, graph="destroy", options=()):
        self.stack, self.name = stack, name
        self.child = stack.run(quota, name, sys.executable, TENANT, graph, options=options, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answer("ready")
        self.first = self.second = self.other = 0
        self.elsewhere = False

    def answer(self, word):
        line = self.child.stdout.readline().decode().strip()
        check(line == word, f"the tenant said {line!r}, not {word!r}: {self.stack.log(self.name)}")

    def say(self, line):
        self.child.stdin.write((line + "\n").encode())
        self.child.stdin.flush()

    def do(self, line):
        self.say(line)
        self.answer("done")

    def replay(self, times=1, stream=0, word="replay"):
        self.do(f"{word} {times} {stream}")
        self.first += 0 if self.elsewhere else times
        self.other += times if self.elsewhere else 0
        self.second += times

    def count(self):
        self.do(f"counts {self.first} {self.second} {self.other}")
        card = self.stack.card_clients()[self.child.pid]
        for bad in ("blocks_missed", "blocks_twice", "faults", "hangs"):
            check(card[bad] == 0, f"{bad} is {card[bad]}: {self.stack.log('vgpud')}")

    def has(self):
        return bits(self.known()["gpus"][0]["bits"])

    def known(self):
        return self.stack.tenants()[self.name]

    def graphs(self):
        return self.known()["graphs"]

    def set(self, quota):
        done = self.stack.lithos("set", self.name, quota)
        check(done.returncode == 0, done.stderr)
        return self.has()

    def time_on(self):
        return {int(bit): ns for bit, ns in self.stack.card_clients()[self.child.pid]["sm_ns"].items()}

    def used(self, what):
        """The TPCs that its kernels ran on meanwhile."""
        before = self.time_on()
        what()
        after = self.time_on()
        return {bit for bit, ns in after.items() if ns > before.get(bit, 0)}

    def keeps_to(self, tpcs, what="", times=1, stream=0):
        """One replay is enough. Of that many blocks each TPC has some."""
        used = self.used(lambda: self.replay(times, stream))
        check(used == tpcs, f"{self.name}, {what}: a replay ran on {sorted(used)}, the tenant has {sorted(tpcs)}")

    def end(self):
        self.count()
        check(not any(self.graphs()["keep"].values()), self.graphs())
        check(self.known()["counters"]["unmasked"] == 0 and self.known()["counters"]["escaped"] == 0, self.known()["counters"])
        self.say("end")
        check(self.child.wait(20) == 0, self.stack.log(self.name))


def shrinks_and_grows(stack, graph):
    t = Tenant(stack, f"graph-{graph}", 24, graph)
    before = t.has()
    t.keeps_to(before, "at first", times=2)
    small = t.set(6)
    check(small < before and len(small) == 6, f"{small} of {before}")
    t.keeps_to(small, "smaller")
    g = t.graphs()
    check(g["followed"] == 1 and g["nodes"] == 4, g)
    qmds = t.known()["counters"]["graph_qmds"]
    for stream in (1, 2, 0):
        t.keeps_to(small, f"on stream {stream}", stream=stream)
    check(t.known()["counters"]["graph_qmds"] == qmds and t.graphs() == g, "a replay of a graph that has followed showed its kernels again")
    large = t.set(40)
    check(large > small and len(large) == 40, f"{large} of {small}")
    t.keeps_to(large, "larger", stream=1)
    t.count()
    # what is not about TPCs shows nothing again
    qmds = t.known()["counters"]["graph_qmds"]
    check(stack.lithos("set", t.name, "--slo", "10ms").returncode == 0, "set --slo")
    t.replay(3)
    check(t.known()["counters"]["graph_qmds"] == qmds, "kernels were shown again for nothing")
    if graph == "keep":  # the handles of its nodes are the program's still
        t.do("elsewhere")
        t.elsewhere = True
        t.keeps_to(t.set(3), "parameters changed before")
        t.count()
    t.do("update")
    t.elsewhere = False
    t.keeps_to(t.set(9), "updated by another graph")
    # in flight as it changes: what was launched before may be where it was
    t.replay(50, word="pile")
    now = t.set(5)
    t.do("wait")
    t.keeps_to(now, "behind a pile")
    t.end()


def destroyed(stack):
    shrinks_and_grows(stack, "destroy")


def kept(stack):
    shrinks_and_grows(stack, "keep")


def in_atoms(stack):
    """The exec of atoms is launched in place of the program's: its nodes are made atoms again, on the new TPCs."""
    for atom in ("x7", f"{40 * SCALE}us"):
        t = Tenant(stack, f"atoms-{atom}", 24, "keep", options=("--atom", atom))
        t.keeps_to(t.has(), "at first")
        cut = t.known()["atoms"]["graphs"]
        check(cut["cut"] == 2 and cut["launches"] == 1 and not any(cut["whole"].values()), cut)
        for quota in (6, 40, 3):
            t.keeps_to(t.set(quota), f"in atoms, on {quota} TPCs")
            t.replay(2, 1)
            t.count()
        t.do("elsewhere")
        t.elsewhere = True
        t.keeps_to(t.set(12), "in atoms, parameters changed before")
        after = t.known()["atoms"]["graphs"]
        check(after["launches"] == 11 and after["atoms"] == cut["atoms"] and not any(after["whole"].values()), f"{cut}, then {after}")
        check(t.graphs()["followed"] == 4, t.graphs())
        # the program's own exec, which had been launched never, then before the last change
        for policy, quota in (("off", 12), (atom, 20), ("off", 7)):
            check(stack.lithos("set", t.name, "--atom", policy).returncode == 0, policy)
            t.keeps_to(t.set(quota), f"atoms {policy}")
        t.end()


def queued(stack):
    """Launches are given to the driver by the queue's thread, or by the program's where the graph is the program's still."""
    for graph in ("destroy", "keep"):
        for options in (("--class", "best-effort"), ("--hand-over", "on")):
            t = Tenant(stack, f"queued-{graph}-{options[1]}", 24, graph, options=options)
            t.replay(20, word="pile")
            t.do("wait")
            for quota in (6, 30, 2):
                now = t.set(quota)
                used = t.used(lambda: (t.replay(20, word="pile"), t.do("wait")))
                check(used == now, f"{t.name}: replays ran on {sorted(used)}, the tenant has {sorted(now)}")
                t.count()
            check(t.graphs()["followed"] == 3, t.graphs())
            t.end()


def beside(stack):
    """The promise: who comes has its TPCs for itself."""
    old = Tenant(stack, "old", 66)
    old.keeps_to(old.has(), "alone")
    check(stack.lithos("run", "--quota", 30, "--name", "early", "--", "true").returncode != 0, "there was no room")
    old.set(30)
    new = Tenant(stack, "new", 36)
    check(not old.has() & new.has(), f"{old.has()} and {new.has()}")
    for _ in range(3):
        old.keeps_to(old.has(), "beside another")
        new.keeps_to(new.has(), "beside another")
    new.end()
    wait_for("its TPCs are free", lambda: "new" not in stack.tenants(), 5 * SLACK)
    old.keeps_to(old.set(66), "alone again")
    old.end()


def restarted(stack):
    t = Tenant(stack, "restarted", 24)
    t.keeps_to(t.has(), "at first")
    before = t.has()
    stack.kill_daemon()
    t.keeps_to(before, "without lithosd")
    stack.start_daemon()
    wait_for("it is attached again", lambda: t.name in stack.tenants() and any(p["attached"] for p in t.known()["pids"]), 10 * SLACK)
    check(t.has() == before, f"{t.has()}, not {before}")
    t.keeps_to(before, "with another lithosd")
    check(t.graphs()["followed"] == 0, f"the same TPCs: nothing was to be followed, {t.graphs()}")
    t.keeps_to(t.set(5), "set by another lithosd")
    t.end()


def refuge(stack):
    """A tenant without TPCs of its own: its graphs run on what nobody owns, shared with others like it, and on one TPC where there is nothing."""
    t = Tenant(stack, "zero", 0, options=("--class", "best-effort"))
    card = stack.status()["gpus"][0]["tpcs"]
    everything = t.used(lambda: t.replay(1))
    check(len(everything) == card, f"with nobody else on {sorted(everything)}")
    t.keeps_to(t.set(4), "with a quota")
    t.set(0)
    t.keeps_to(everything, "without one again")
    owner = Tenant(stack, "owner", 48)
    owner.keeps_to(owner.has(), "an owner that came")
    t.keeps_to(everything - owner.has(), "beside an owner")
    told = json.loads(stack.lithos("explain", "--json", "zero").stdout)["gpus"][0]
    check(bits(told["refuge"]) == everything - owner.has() and not bits(told["own"]), told)
    check("has for CUDA graphs, and for what is not in its queues, 18 TPCs" in stack.lithos("explain", "zero").stdout, "explain")
    told = json.loads(stack.lithos("explain", "--json", "owner").stdout)["gpus"][0]
    check(told["refuge"] is None, told)
    other = Tenant(stack, "zero-too", 0, options=("--class", "best-effort", "--weight", "2"))
    of_t, of_other = (x.used(lambda x=x: x.replay(1)) for x in (t, other))
    check(not of_t & of_other and of_t | of_other == everything - owner.has() and abs(len(of_other) - 2 * len(of_t)) <= 2,
          f"two without a quota, one of twice the weight: on {sorted(of_t)} and {sorted(of_other)}")
    other.end()
    wait_for("it has ended", lambda: "zero-too" not in stack.tenants(), 10 * SLACK)
    owner.set(card)
    check(len(t.used(lambda: t.replay(1))) == 1, "nothing is nobody's")
    owner.end()
    wait_for("it has ended", lambda: "owner" not in stack.tenants(), 10 * SLACK)
    t.keeps_to(everything, "after the owner")
    t.end()


def main():
    with Stack(scale=SCALE) as stack:
        stack.start_daemon()
        for step in (destroyed, kept, in_atoms, queued, beside, restarted, refuge):
            print(step.__name__, flush=True)
            step(stack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
