#!/usr/bin/env python3
"""CUDA graphs of a tenant: each replay of each node is a kernel with its name and its time, also after the graph was changed, and
stays within the quota that the tenant has by then."""
import pathlib
import subprocess
import sys
import time

from stack import SLACK, Stack, bits, check, wait_for

SCALE = 20
TENANT = str(pathlib.Path(__file__).with_name("graph_tenant.py"))


class Tenant:
    def __init__(self, stack, name, *arguments, options=()):
        self.stack, self.name = stack, name
        self.child = stack.run(16, name, sys.executable, TENANT, *arguments, options=options, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answer("ready")
        self.kernels, self.names = 0, {}

    def answer(self, word):
        line = self.child.stdout.readline().decode().strip()
        check(line == word, f"the tenant said {line!r}, not {word!r}: {self.stack.log(self.name)}")

    def do(self, line, **kernels):
        """Obeys; from it come so many kernels more of each name."""
        self.child.stdin.write((line + "\n").encode())
        self.child.stdin.flush()
        self.answer("done")
        for name, n in kernels.items():
            self.names[name] = self.names.get(name, 0) + n
        self.kernels += sum(kernels.values())

    def replay(self, times, *names):
        """One after the other, so slowly that lithosd sees each: what the next one overwrites is lost."""
        for _ in range(times):
            self.do("replay 1", **{name: 1 for name in names})
            self.all_known("a replay")

    def all_known(self, what):
        wait_for(f"{what}: {self.kernels} kernels are known", lambda: self.known()["observed"]["kernels"] >= self.kernels, 5 * SLACK)

    def known(self):
        return self.stack.tenants()[self.name]

    def holds(self, what):
        """lithosd knows all kernels so far, each by its name, and has lost none."""
        self.all_known(what)
        time.sleep(0.1)
        o = self.known()["observed"]
        names = {op["name"]: op["kernels"] for op in o["operators"]}
        lost = {why: n for why, n in o["lost"].items() if n}
        check(o["kernels"] == o["launches"] == self.kernels and not lost and o["queue"] == 0,
              f"{what}: {self.kernels} kernels ran, {o['kernels']} are known of {o['launches']} launched, lost {lost}")
        check(names == self.names, f"{what}: {names}, not {self.names}")
        return o


def replays(_, t):
    t.do("plain first 3", first=3)
    t.replay(20, "first", "second", "third")
    o = t.holds("replays")
    check(o["records"]["graph_node"] == 3 and o["records"]["graph_launch"] == 20 and o["records"]["launch"] == 3, f"records {o['records']}")
    check(o["records"]["name"] == 3 and o["stamps"], f"{o}")
    c = t.known()["counters"]
    # three launches were captured, three ran
    check(c["graph_launches"] == 20 and c["graph_qmds"] == 3 and c["launches"] == 6 and c["escaped"] == 0, f"counters {c}")


def changes(_, t):
    t.do("set 1 second 40")  # another grid
    t.replay(5, "first", "second", "third")
    t.holds("another grid")
    t.do("set 2 fourth 12")  # another function
    t.replay(5, "first", "second", "fourth")
    t.holds("another function")
    t.do("switch 0 0")
    t.replay(5, "second", "fourth")
    t.holds("a node switched off")
    t.do("switch 0 1")
    t.replay(5, "first", "second", "fourth")
    t.holds("and on again")
    t.do("update third first second")
    t.replay(5, "third", "first", "second")
    o = t.holds("updated by another graph")
    check(o["records"]["graph_node"] == 3 + 1 + 1 + 1 + 1 + 3, f"one record for each node and change: {o['records']}")
    t.do("again")
    t.replay(5, "first", "second", "third")
    t.holds("instantiated anew")


def times(o):
    """A replay's end is not taken for the next one's: a kernel takes what the card gives it, and the clock holds."""
    check(o["clock"]["jumps"] == 0, f"the card's clock seems to jump: {o['clock']}")
    for op in o["operators"]:
        if op["name"] in ("second", "third"):  # they begin when the one before them ends
            print(f"  {op['name']}: {op['p50_us']:.0f} us", flush=True)
            check(5 * SCALE <= op["p50_us"] <= 8 * SCALE, f"a kernel of 5 us takes {op['p50_us'] / SCALE} us of the card's time")


def quota(stack, t):
    """A smaller quota reaches a graph that is there already once its nodes are made anew."""
    client = next(pid for pid, c in stack.card_clients().items() if c["launches"] and pid == t.child.pid)
    before = bits(t.known()["gpus"][0]["bits"])
    done = stack.lithos("set", t.name, 2)
    check(done.returncode == 0, done.stderr)
    small = bits(t.known()["gpus"][0]["bits"])
    check(small < before and len(small) == 2, f"{small} of {before}")
    for node in range(3):
        t.do(f"switch {node} 0")
        t.do(f"switch {node} 1")
    t.replay(1, "first", "second", "third")
    had = stack.card_clients()[client]["sm_ns"]
    t.replay(5, "first", "second", "third")
    has = stack.card_clients()[client]["sm_ns"]
    used = {int(bit) for bit, ns in has.items() if ns > had.get(bit, 0)}
    check(used and used <= small, f"after the change the graph ran on {sorted(used)}, its tenant has {sorted(small)}")
    times(t.holds("another quota"))


def overrun(_, t):
    """Replays that follow each other faster than lithosd looks overwrite each other's stamps: lost with that reason, none without."""
    before = t.known()["observed"]["kernels"]
    t.do("pile 200")

    def settled():
        o = t.known()["observed"]
        return o if o["queue"] == 0 and o["records"]["graph_launch"] >= 200 else None
    o, _ = wait_for("the pile is accounted for", settled, 10 * SLACK)
    lost = {why: n for why, n in o["lost"].items() if n}
    check(set(lost) <= {"graph_replay"}, f"lost {lost}")
    check(o["kernels"] - before + lost.get("graph_replay", 0) == 600, f"{o['kernels'] - before} kernels of 600, lost {lost}")
    print(f"  of 600 kernels in replays without a wait {600 - lost.get('graph_replay', 0)} were seen to end", flush=True)


def main():
    with Stack(scale=SCALE) as stack:
        stack.start_daemon()
        t = Tenant(stack, "graphs")
        for step in (replays, changes, quota, overrun):
            print(step.__name__, flush=True)
            step(stack, t)
        t.child.stdin.close()
        check(t.child.wait(20) == 0, stack.log("graphs"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
