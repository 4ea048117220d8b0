"""Kernels in atoms: results, what the card itself counts, what is told of it, changed live, over a restart, and when things fail."""

import json
import pathlib
import signal
import sys
import time

from stack import SLACK, Failure, Stack, check, wait_for

SCALE = 2
# Where everything takes ten times as long all ways are tried once, and only one of them where the launches themselves are not what is looked at.
BRIEF = () if SLACK == 1 else ("--only", "attributes")
THREADS = ("--threads", "2")  # of a block: it is blocks that atoms are made of, and the card's threads are ours to execute


def exact(stack, name, *options, atom=None, env=None, timeout=120):
    arguments = ["run", "--quota", "40%", "--name", name] + (["--atom", atom] if atom else [])
    return stack.lithos(*arguments, "--", stack.sample("lithos-exact"), *THREADS, *options, timeout=timeout, env=env)


def client(stack, before):
    """The card's record of the one program that did most since `before`."""
    new = {pid: c for pid, c in stack.card_clients().items() if pid not in before}
    return max(new.values(), key=lambda c: c["launches"])


def classified(tenant):
    return tenant["atoms"]["cut"] + sum(tenant["atoms"]["whole"].values())


def forced(stack):
    """Every way to launch, in so many atoms: same results, same blocks, none twice."""
    whole = None
    for atom in ("off", "x2", "x7", "x16") if SLACK == 1 else ("x7",):
        before = set(stack.card_clients())
        done = stack.lithos("run", "--quota", "40%", "--name", f"exact-{atom}", "--atom", atom, "--", "sh", "-c",
                            f"'{stack.sample('lithos-exact')}' {' '.join(THREADS)} --json && '{stack.build / 'bin/lithos'}' status --json",
                            timeout=120)
        check(done.returncode == 0, f"{atom}: {done.stdout} {done.stderr} {stack.log('vgpud')}")
        figures, _, status = done.stdout.partition("\n")
        check(json.loads(figures)["checks"] >= 58, f"{atom}: {figures}")
        card = client(stack, before)
        whole = whole or card
        check(card["blocks"] == whole["blocks"], f"{atom}: {card['blocks']} blocks ran, {whole['blocks']} uncut")
        for bad in ("blocks_missed", "blocks_twice", "faults", "hangs"):
            check(card[bad] == 0, f"{atom}: {bad} is {card[bad]}: {stack.log('vgpud')}")
        check((card["atoms"] > 0) == (atom != "off"), f"{atom}: {card['atoms']} atoms at the card")
        in_graphs(atom, next(t for t in json.loads(status)["tenants"] if t["name"] == f"exact-{atom}"))
        print(f"{atom}: {card['launches']} launches, {card['atoms']} atoms, {card['exits']} exits", flush=True)


def in_graphs(atom, tenant):
    """Kernels of graphs were cut, and nothing kept a graph whole but what lithos-exact does to it."""
    g, counters = tenant["atoms"]["graphs"], tenant["counters"]
    whole = {k: v for k, v in g["whole"].items() if v}
    if atom == "off":
        check(g["cut"] == g["atoms"] == g["launches"] == 0 and not whole, g)
        return
    check(g["cut"] >= 20 and g["atoms"] == int(atom[1:]) * g["cut"] and 0 < g["launches"] < counters["graph_launches"], g)
    check(set(whole) == {"changed", "updated"}, f"{atom}: graphs left whole: {whole}")
    check(counters["escaped"] == 0, counters)


def told(stack):
    """Status and records agree with each other; each launch is cut or has a reason; live changes."""
    stack.run("30%", "told", stack.sample("lithos-exact"), *THREADS, "--rounds", "100000", options=("--atom", "x7"))

    def tenant(test):
        return wait_for("the tenant's launches", lambda: test(stack.tenants().get("told")) and stack.tenants()["told"],
                        60 * max(1, SLACK / 2))[0]

    t = tenant(lambda t: t and t["atoms"]["cut"] > 100)
    a = t["atoms"]
    check(a["policy"] == "x7" and a["available"] and a["why"] == "", a)
    check(2 * a["cut"] <= a["atoms"] <= 7 * a["cut"] + 7, a)
    for reason in ("cooperative", "one_wave", "pdl", "capture"):
        check(a["whole"][reason] > 0, f"none left whole for being {reason}: {a}")
    for reason in ("slot", "pool", "unknown"):
        check(a["whole"][reason] == 0, f"left whole for {reason}: {a}")
    counters = t["counters"]
    check(abs(classified(t) - counters["launches"]) <= 8, f"{classified(t)} classified, {counters}")
    check(counters["escaped"] == 0, counters)
    o = t["observed"]
    check(o["cut"] > 50 and o["atoms"] > 2 * o["cut"], o)
    check(o["lost"]["missing"] == 0 and o["lost"]["damaged"] == 0, o["lost"])
    table = stack.lithos("status").stdout
    check("told: atoms x7; " in table and "launches cut into" in table and "one_wave" in table, table)
    # Off, on with another number, and a quota with it.
    check(stack.lithos("set", "told", "--atom", "off").returncode == 0, "set off")
    time.sleep(0.3)
    before = stack.tenants()["told"]
    later = tenant(lambda t: t and t["counters"]["launches"] > before["counters"]["launches"] + 20)
    check(later["atoms"]["policy"] == "off" and later["atoms"]["cut"] <= before["atoms"]["cut"] + 1, later["atoms"])
    check(stack.lithos("set", "told", "20%", "--atom", "x3").returncode == 0, "set x3")
    t = tenant(lambda t: t and t["atoms"]["cut"] > later["atoms"]["cut"] + 20)
    check(t["quota"] == "20%" and t["atoms"]["policy"] == "x3", t["atoms"])
    for wrong in ("x1", "x9999", "7", "250", "10us", "250us,floor=1ms", ""):
        done = stack.lithos("set", "told", "--atom", wrong)
        check(done.returncode == 2 and "--atom" in done.stderr, f"set --atom {wrong!r}: {done}")
    check(stack.lithos("set", "told").returncode == 2, "set with nothing to set")
    # The daemon's successor knows.
    stack.kill_daemon()
    stack.start_daemon()
    t = tenant(lambda t: t and t["atoms"]["cut"] > 30)
    check(t["atoms"]["policy"] == "x3", t["atoms"])
    stack.children[-1].send_signal(signal.SIGKILL)  # in the middle of a kernel
    stack.children[-1].wait(20)
    wait_for("its end", lambda: "told" not in stack.tenants(), 10)
    done = exact(stack, "after", *BRIEF, atom="x7")
    check(done.returncode == 0, f"after a tenant was killed: {done.stdout} {done.stderr}")


def faults(stack):
    """A fault in a late atom is the kernel's; nothing else of the machine notices."""
    for atom in ("off", "x7"):
        done = exact(stack, "fault", "--fault", atom=atom)
        check(done.returncode == 0 and "error 700" in done.stdout, f"{atom}: {done.stdout} {done.stderr}")


def debugged(stack):
    """Where the driver calls somebody else back, kernels run whole: the prelude without its callback would fault."""
    script = pathlib.Path(__file__).resolve().parent / "debugged_tenant.py"
    before = set(stack.card_clients())
    done = stack.lithos("run", "--quota", "40%", "--name", "debugged", "--atom", "x2", "--", sys.executable, script, timeout=60)
    check(done.returncode == 0 and done.stdout.strip() == "ok", f"{done.stdout} {done.stderr}")
    card = client(stack, before)
    check(card["launches"] >= 36 and card["atoms"] == 0 and card["faults"] == 0, card)


def switched_off(stack):
    env = dict(stack.env, LITHOS_ATOMS="off")
    before = set(stack.card_clients())
    done = exact(stack, "no-atoms", *BRIEF, atom="x7", env=env)
    check(done.returncode == 0, done.stderr)
    check(client(stack, before)["atoms"] == 0, "LITHOS_ATOMS=off in the tenant: atoms all the same")


def daemon_says_no(stack):
    stack.kill_daemon(signal.SIGTERM)
    stack.env["LITHOS_ATOMS"] = "off"
    stack.start_daemon()
    del stack.env["LITHOS_ATOMS"]
    stack.run("30%", "denied", stack.sample("lithos-burn"), "--seconds", "0", options=("--atom", "x7", "--verbose"))
    wait_for("the tenant", lambda: stack.tenants().get("denied"), 20)
    a = stack.tenants()["denied"]["atoms"]
    check(not a["available"] and "LITHOS_ATOMS=off" in a["why"] and a["cut"] == 0, a)
    # said by the tenant once the daemon has admitted it, which is when it shows in the daemon's status
    wait_for("the tenant's word", lambda: "cannot be cut into atoms" in stack.log("denied"), 20)
    done = stack.lithos("set", "denied", "--atom", "x2")
    check(done.returncode == 1 and "LITHOS_ATOMS=off" in done.stderr, done)


def main():
    with Stack(scale=SCALE) as stack:
        stack.start_daemon()
        gpu = stack.status()["gpus"][0]
        check(gpu["atoms"] and gpu["atoms_why"] == "", gpu)
        doctor = stack.lithos("doctor", timeout=60)
        check("each block ran once in the self-test" in doctor.stdout, doctor.stdout)
        forced(stack)
        told(stack)
        faults(stack)
        if SLACK == 1:  # a sanitizer does not come into a Python that runs already
            debugged(stack)
        switched_off(stack)
        daemon_says_no(stack)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}", flush=True)
        sys.exit(1)
