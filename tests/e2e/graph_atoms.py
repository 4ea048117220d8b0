#!/usr/bin/env python3
"""Kernels of CUDA graphs in atoms: a replay of a node is still one kernel to lithosd, also after the graph was changed; switched off and on
live; by length, by what is known of each; and behind launch queues."""
import sys

from graphs import Tenant
from stack import Stack, check, wait_for

SCALE = 5
TIMES = "1000"  # the kernels have 10000 to 12000 blocks: several waves of the whole card
NAMES = ("first", "second", "third")


def start(stack, name, *options):
    t = Tenant(stack, name, TIMES, options=options)
    t.kernels, t.names = 2, {"(driver)": 1, "fourth": 1}  # the prelude's own launch, and the tenant's before it captures
    return t


def graphs_of(t):
    return t.known()["atoms"]["graphs"]


def exact(stack, t):
    """The card's own count over the tenant's launches."""
    card = stack.card_clients()[t.child.pid]
    for bad in ("blocks_missed", "blocks_twice", "faults", "hangs"):
        check(card[bad] == 0, f"{bad} is {card[bad]}: {stack.log('vgpud')}")
    return card


def end(t):
    t.child.stdin.close()
    check(t.child.wait(20) == 0, t.stack.log(t.name))


def forced(stack):
    t = start(stack, "forced", "--atom", "x7")
    t.replay(3, *NAMES)
    t.holds("replays")
    g = graphs_of(t)
    check(g["cut"] == 3 and g["atoms"] == 21 and g["launches"] == 3 and not any(g["whole"].values()), g)
    check(exact(stack, t)["atoms"] == 3 * 21, "atoms at the card")
    t.do("set 1 second 7000")
    t.replay(2, *NAMES)
    t.do("switch 0 0")
    t.replay(2, *NAMES[1:])
    t.do("switch 0 1")
    t.replay(2, *NAMES)
    t.holds("a grid changed, a node off and on")
    check(graphs_of(t)["launches"] == 9 and exact(stack, t)["atoms"] == (3 * 9 - 2) * 7, f"{graphs_of(t)}")
    # Off live: the app's own exec is launched; on again: the one in atoms.
    for policy, atoms in (("off", 0), ("x7", 21)):
        check(stack.lithos("set", "forced", "--atom", policy).returncode == 0, policy)
        wait_for(policy, lambda: t.known()["atoms"]["policy"] == policy, 5)

        def took_effect():
            before = exact(stack, t)["atoms"]
            t.replay(1, *NAMES)
            return exact(stack, t)["atoms"] - before == atoms
        wait_for(f"{atoms} atoms a replay", took_effect, 10)
    t.holds("off and on live")
    t.do("update third first second")
    t.replay(2, "third", "first", "second")
    t.do("again")
    t.replay(2, *NAMES)
    t.holds("updated, and instantiated anew")
    exact(stack, t)
    end(t)


def by_length(stack):
    """What is new is cut with caution; the second kernel is known by the time the graph is made again, since it was launched by itself."""
    t = start(stack, "length", "--atom", f"{50 * SCALE}us")
    t.replay(1, *NAMES)
    first = graphs_of(t)
    for _ in range(6):
        t.do(f"plain second 6 {11 * int(TIMES)}", second=6)
        t.all_known("launches to learn from")
    known = wait_for("a plan", lambda: t.known()["atoms"]["operators"]["cut"], 5)
    t.do("again")
    t.replay(2, *NAMES)
    g = graphs_of(t)
    check(known and g["launches"] > first["launches"] and g["cut"] > first["cut"], f"{first}, then {g}")
    check(g["atoms"] - first["atoms"] > first["atoms"], f"what was learned changes nothing: {first}, then {g}")
    print(f"  before it was known: {first}, then {g}", flush=True)
    exact(stack, t)
    end(t)


def queued(stack):
    """The dispatcher launches what the app has called for."""
    t = start(stack, "queued", "--atom", "x7", "--class", "best-effort")
    t.do("pile 20")
    t.do("set 1 second 7000")
    t.do("pile 20")
    g = graphs_of(t)
    check(g["cut"] == 3 and g["launches"] == 40 and not any(g["whole"].values()), g)
    check(exact(stack, t)["atoms"] == 40 * 21, "atoms at the card")
    end(t)


def main():
    with Stack(scale=SCALE) as stack:
        stack.start_daemon()
        for step in (forced, by_length, queued):
            print(step.__name__, flush=True)
            step(stack)
    return 0


if __name__ == "__main__":
    sys.exit(main())
