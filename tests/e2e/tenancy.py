#!/usr/bin/env python3
"""Tenants on the virtual GPU, checked against what the card itself saw: confinement, process trees, live changes,
a dead daemon, several GPUs, the coarse way, no MPS."""

import os
import signal
import subprocess
import sys
import time

from stack import Stack, bits, check, wait_for

BURN = ("--seconds", "300", "--iters", "2000", "--grid", "16896")  # kernels of some milliseconds here


def launching(stack, name, more_than=0, timeout_s=20):
    """Wait until a tenant has counted more launches than that; its status."""
    wait_for(f"{name} launches", lambda: stack.tenants().get(name, {}).get("counters", {}).get("launches", 0) > more_than,
             timeout_s)
    return stack.tenants()[name]


def ran_on(stack, pids):
    out = set()
    for pid, seen in stack.card_clients().items():
        if pid in pids:
            check(seen["hangs"] == 0, f"process {pid}: {seen['hangs']} launches hung")
            check(seen["blocks_missed"] + seen["blocks_twice"] == 0, f"process {pid}: blocks missed or run twice")
            out |= bits(seen["tpcs"])
    return out


def confinement_and_trees(stack):
    """Two tenants, one of them a shell with two children: each on its own TPCs, children share the quota."""
    burn = stack.sample("lithos-burn")
    stack.run("50%", "one", burn, *BURN)
    stack.run(16, "tree", "sh", "-c", f"{burn} {' '.join(BURN)} & {burn} {' '.join(BURN)} & wait")
    one = launching(stack, "one")
    wait_for("both children of the tree are attached", lambda: len(stack.tenants()["tree"]["pids"]) >= 3, 20)
    tree = launching(stack, "tree", 50)
    a, b = bits(one["gpus"][0]["bits"]), bits(tree["gpus"][0]["bits"])
    check(len(a) == 33 and len(b) == 16 and not a & b, f"grants {sorted(a)} and {sorted(b)}")
    time.sleep(0.5)
    pids_one = {p["pid"] for p in one["pids"]}
    pids_tree = {p["pid"] for p in tree["pids"]}
    check(ran_on(stack, pids_one) == a, f"one ran on {sorted(ran_on(stack, pids_one))}, granted {sorted(a)}")
    check(ran_on(stack, pids_tree) == b, f"tree ran on {sorted(ran_on(stack, pids_tree))}, granted {sorted(b)}")
    for t in stack.tenants().values():
        check(t["counters"]["escaped"] == 0, f"{t['name']}: {t['counters']['escaped']} launches escaped")
        check(t["counters"]["breaches"] == 0, f"{t['name']}: {t['counters']['breaches']} breaches")
        check(t["mode"] == "mask", t["mode"])


def root_dies_children_stay(stack):
    """The tree's shell dies: its children still hold the quota; when they go, it is free."""
    tree = stack.tenants()["tree"]
    root = stack.children[-1]
    root.kill()
    root.wait()
    time.sleep(0.3)
    check("tree" in stack.tenants(), "the tenant was dropped though its children run")
    launching(stack, "tree", stack.tenants()["tree"]["counters"]["launches"])
    for p in tree["pids"]:
        if p["pid"] != root.pid:
            os.kill(p["pid"], signal.SIGKILL)
    _, took = wait_for("the tree's TPCs are free", lambda: "tree" not in stack.tenants(), 5, 0.002)
    print(f"  freed {took * 1e3:.0f} ms after the last process", flush=True)


def live_change(stack):
    """lithos set takes effect without a restart, on the card too."""
    before = launching(stack, "one")
    done = stack.lithos("set", "one", "10")
    check(done.returncode == 0, done.stderr)
    now = stack.tenants()["one"]
    after = bits(now["gpus"][0]["bits"])
    check(len(after) == 10 and after <= bits(before["gpus"][0]["bits"]), f"shrunk to {sorted(after)}")
    launching(stack, "one", now["counters"]["launches"] + 20)
    # what the freed TPCs are given to must be alone there
    stack.run(50, "heir", stack.sample("lithos-burn"), *BURN)
    heir = launching(stack, "heir", 20)
    check(not bits(heir["gpus"][0]["bits"]) & after, "the heir shares TPCs")
    check(ran_on(stack, {p["pid"] for p in heir["pids"]}) <= bits(heir["gpus"][0]["bits"]), "the heir strays")
    stack.children[-1].kill()
    stack.children[-1].wait()
    wait_for("heir gone", lambda: "heir" not in stack.tenants(), 5)


def dead_daemon(stack):
    """The daemon dies: tenants go on on their own TPCs, new children find the quota, all re-attach."""
    grant = bits(stack.tenants()["one"]["gpus"][0]["bits"])
    late = stack.run(8, "late", "sh", "-c",
                     f"sleep 1.5; exec {stack.sample('lithos-burn')} {' '.join(BURN)}")
    wait_for("late is admitted", lambda: "late" in stack.tenants(), 10)
    late_grant = bits(stack.tenants()["late"]["gpus"][0]["bits"])
    stack.kill_daemon()
    time.sleep(3)  # the late one starts its CUDA program while nobody is there
    wait_for("the orphan launches", lambda: stack.card_clients().get(late.pid, {}).get("blocks", 0) > 0, 10)
    check(ran_on(stack, {late.pid}) <= late_grant, f"without a daemon it ran on {sorted(ran_on(stack, {late.pid}))}")
    stack.start_daemon()
    wait_for("both re-attach", lambda: all(any(p["attached"] for p in t["pids"]) for t in stack.tenants().values())
             and set(stack.tenants()) == {"one", "late"}, 10)
    check(bits(stack.tenants()["one"]["gpus"][0]["bits"]) == grant, "one came back with other TPCs")
    check(bits(stack.tenants()["late"]["gpus"][0]["bits"]) == late_grant, "late came back with other TPCs")
    count = stack.tenants()["late"]["counters"]["launches"]
    launching(stack, "late", count)
    check(stack.lithos("set", "one", "20").returncode == 0, "set after the restart")
    launching(stack, "one", stack.tenants()["one"]["counters"]["launches"] + 5)


def oversubscription(stack):
    done = stack.lithos("run", "--quota", "60", "--name", "greedy", "--", "/bin/true")
    check(done.returncode != 0, "60 TPCs were admitted beside others")
    for word in ("one", "late", "60"):
        check(word in done.stderr, f"the refusal does not name {word}: {done.stderr}")


def several_gpus():
    with Stack(scale=20, cards=("h200", "h100")) as stack:
        stack.start_daemon()
        gpus = stack.status()["gpus"]
        check(len(gpus) == 2, f"{len(gpus)} GPUs")
        stack.run("50%", "first", stack.sample("lithos-burn"), *BURN, options=("--gpu", "1"))
        first = launching(stack, "first")
        check(first["gpus"][0]["index"] == 1, f"asked for GPU 1, got {first['gpus']}")
        stack.run("60%", "picked", stack.sample("lithos-burn"), *BURN)
        picked = launching(stack, "picked")
        check(picked["gpus"][0]["index"] == 0, f"the emptier GPU is 0: {picked['gpus']}")
        env = dict(stack.env, CUDA_VISIBLE_DEVICES=gpus[1]["uuid"])
        stack.run("40%", "visible", stack.sample("lithos-burn"), *BURN, env=env)
        visible = launching(stack, "visible")
        check(visible["gpus"][0]["index"] == 1, f"CUDA_VISIBLE_DEVICES names GPU 1: {visible['gpus']}")
        check(not bits(visible["gpus"][0]["bits"]) & bits(first["gpus"][0]["bits"]), "two tenants share TPCs of GPU 1")
        stack.run("10%", "both", stack.sample("lithos-burn"), *BURN, options=("--gpu", "all"))
        both = launching(stack, "both")
        check([g["index"] for g in both["gpus"]] == [0, 1], f"--gpu all: {both['gpus']}")


def without_mps():
    with Stack(scale=20, mps="off") as stack:
        stack.start_daemon()
        stack.run("50%", "turns", stack.sample("lithos-burn"), *BURN, options=("--verbose",))
        turns = launching(stack, "turns")
        check("take turns instead of running side by side" in stack.log("turns"),
              f"not told that tenants take turns: {stack.log('turns')}")
        check(ran_on(stack, {p["pid"] for p in turns["pids"]}) <= bits(turns["gpus"][0]["bits"]), "strays without MPS")


def coarse():
    """An app that cannot run with the hook: the card holds it to a number of SMs."""
    with Stack(scale=20) as stack:
        stack.start_daemon()
        stack.run("50%", "coarse", stack.sample("lithos-burn"), *BURN, options=("--coarse", "--verbose"))
        wait_for("admitted", lambda: "coarse" in stack.tenants(), 20)
        check(stack.tenants()["coarse"]["mode"] == "coarse", stack.tenants()["coarse"]["mode"])
        pid = stack.children[-1].pid
        wait_for("it runs", lambda: stack.card_clients().get(pid, {}).get("blocks", 0) > 0, 20)
        check(len(ran_on(stack, {pid})) <= 34, f"coarse at 50 % ran on {len(ran_on(stack, {pid}))} TPCs")


def exit_codes_and_signals(stack):
    for code in (0, 1, 42):
        done = stack.lithos("run", "--quota", "2", "--name", f"exit{code}", "--", "sh", "-c", f"exit {code}")
        check(done.returncode == code, f"exit {code} came back as {done.returncode}")
    child = stack.run(2, "signalled", "sleep", "100")
    wait_for("it is admitted", lambda: "signalled" in stack.tenants(), 10)
    child.send_signal(signal.SIGTERM)
    check(child.wait(10) == -signal.SIGTERM, f"SIGTERM came back as {child.returncode}")


def clean_stop(stack):
    """SIGTERM ends the daemon and the MPS it started; tenants live on."""
    pipe = stack.status()["mps"]["pipe_dir"]
    stack.kill_daemon(signal.SIGTERM)
    check(stack.daemon.returncode == 0, f"lithosd ended with {stack.daemon.returncode}")
    check(not os.path.exists(stack.env["LITHOS_SOCKET"]), "the socket was left")
    left = subprocess.run(["pgrep", "-f", f"mps.*{pipe}"], capture_output=True, text=True).stdout
    check(not left, f"MPS processes were left: {left}")


def main():
    with Stack(scale=20) as stack:
        stack.start_daemon()
        for part in (confinement_and_trees, root_dies_children_stay, live_change, dead_daemon, oversubscription,
                     exit_codes_and_signals, clean_stop):
            print(part.__name__, flush=True)
            part(stack)
    for part in (several_gpus, without_mps, coarse):
        print(part.__name__, flush=True)
        part()


if __name__ == "__main__":
    sys.exit(main())
