"""Atoms of a length: what kernels are cut into follows from how long they take, on the TPCs that they have; short ones stay whole.
Lengths are the host's: on this card everything takes SCALE times as long."""

import json
import sys
import time

from stack import SLACK, Failure, Stack, check, wait_for

SCALE = 10
WAVES_BLOCKS = 2112  # of lithos_fma on the whole card
FAST = ("--time-scale", str(SCALE), "--json")
ATOM = f"{250 * SCALE}us"


def burn(stack, name, *options, atom=None, quota="50%", more=()):
    """A checked run of lithos-burn to its end: (its figures, the tenant as it was told of just before)."""
    command = ["run", "--quota", quota, "--name", name, *(["--atom", atom] if atom else []), *more]
    done = stack.lithos(*command, "--", stack.sample("lithos-burn"), *FAST, "--check", *options, timeout=100)
    check(done.returncode == 0, f"{name}: {done.stdout} {done.stderr} {stack.log('vgpud')}")
    figures = json.loads(done.stdout)
    check(figures["check"], f"{name}: {figures}")
    return figures


def beside(stack, name, *options, atom, test, more=(), quota="50%"):
    """A tenant in the background until what is told of it passes the test: that."""
    stack.run(quota, name, stack.sample("lithos-burn"), "--time-scale", str(SCALE), "--seconds", "0", *options,
              options=("--atom", atom, *more))

    def passes():
        tenant = stack.tenants().get(name)
        return tenant if tenant and test(tenant) else None

    try:
        found, _ = wait_for(f"what is told of {name}", passes, 60 * max(1, SLACK / 2))
    except Failure as failure:
        raise Failure(f"{failure}: {stack.tenants().get(name, {}).get('atoms')}") from None
    child = stack.children[-1]
    child.terminate()
    child.wait(20)
    wait_for(f"the end of {name}", lambda: name not in stack.tenants(), 10)
    return found


def settled(tenant):
    return tenant["atoms"]["operators"]["trials"] >= 1


def short_waves(stack):
    """10 waves of 375 us on half of the card: one wave an atom, and hardly slower."""
    options = ("--grid", str(5 * WAVES_BLOCKS), "--seconds", "0.2", "--warmup", "0.2")
    whole = burn(stack, "whole", *options)
    cut = burn(stack, "cut", *options, atom=ATOM)
    ratio = cut["kernels_per_s"] / whole["kernels_per_s"]
    print(f"short waves: {ratio:.3f} of the kernels a second", flush=True)
    check(ratio > 0.9, f"cut {cut}, whole {whole}")
    t = beside(stack, "waves", "--grid", str(5 * WAVES_BLOCKS), atom=ATOM, test=settled)
    a = t["atoms"]
    check(a["operators"]["known"] == 1 and a["operators"]["cut"] == 1, a)
    check(a["operators"]["trials_slower"] == 0, a)
    check(a["atoms"] == 10 * a["cut"], a)
    check(a["whole"]["first"] >= 1, a)  # so few waves are not cut on suspicion
    check(0 < a["whole"]["trial"] <= 8 and a["whole"]["slower"] == 0, a)
    check(t["observed"]["lost"]["missing"] == 0, t["observed"])


def long_blocks(stack):
    """Four waves of blocks that live for milliseconds: below a wave an atom would cost, so four atoms."""
    t = beside(stack, "long", "--kind", "long", "--grid", str(2 * WAVES_BLOCKS), "--iters", "40000", atom=ATOM,
               test=lambda t: t["atoms"]["cut"] >= 6)
    a = t["atoms"]
    check(a["operators"]["cut"] == 1, a)
    check(a["atoms"] == 4 * a["cut"], a)
    check(a["whole"]["first"] >= 1, a)  # four waves are not cut on suspicion


def short_kernels(stack):
    """Kernels hardly longer than an atom stay whole, those of one wave too."""
    t = beside(stack, "short", "--grid", str(4 * WAVES_BLOCKS), "--iters", "500", atom=ATOM,
               test=lambda t: t["atoms"]["whole"]["short"] > 50)
    check(t["atoms"]["operators"]["short"] == 1 and t["atoms"]["cut"] <= 4, t["atoms"])
    t = beside(stack, "one", "--grid", str(WAVES_BLOCKS), atom=ATOM,
               test=lambda t: t["atoms"]["whole"]["one_wave"] > 5)
    check(t["atoms"]["cut"] == 0 and t["atoms"]["operators"]["one_wave"] == 1, t["atoms"])


def told(stack):
    t = beside(stack, "told", "--grid", str(5 * WAVES_BLOCKS), atom=ATOM, more=("--whole", "*_fma", "--whole", "x"),
               test=lambda t: t["atoms"]["whole"]["told"] > 3)
    check(t["atoms"]["cut"] == 0, t["atoms"])
    t = beside(stack, "other", "--grid", str(5 * WAVES_BLOCKS), atom=ATOM, more=("--whole", "*softmax*"),
               test=lambda t: t["atoms"]["cut"] > 3)
    check(t["atoms"]["whole"]["told"] == 0, t["atoms"])
    done = stack.lithos("run", "--quota", "10%", "--whole", "a,b", "--", "true")
    check(done.returncode == 125 and "--whole" in done.stderr, done)


def live(stack):
    """Another length, with what is known already; then none."""
    stack.run("50%", "live", stack.sample("lithos-burn"), "--time-scale", str(SCALE), "--seconds", "0", "--grid",
              str(5 * WAVES_BLOCKS), options=("--atom", ATOM))

    def when(test):
        return wait_for("the tenant", lambda: test(stack.tenants().get("live")) and stack.tenants()["live"],
                        60 * max(1, SLACK / 2))[0]["atoms"]

    before = when(lambda t: t and settled(t))
    check(before["atoms"] == 10 * before["cut"], before)
    longer = f"{1000 * SCALE}us,floor={500 * SCALE}us"
    check(stack.lithos("set", "live", "--atom", longer).returncode == 0, "set")
    time.sleep(1)
    middle = when(lambda t: t["atoms"]["policy"] == longer)
    after = when(lambda t: t["atoms"]["cut"] >= middle["cut"] + 8)
    each = (after["atoms"] - middle["atoms"]) / (after["cut"] - middle["cut"])
    check(each == 4, f"{each} atoms a kernel: {before} {middle} {after}")  # of 3 waves and what is left
    # A neighbour's requests may lose a tenth of their time to one atom, and the floor holds: atoms of two waves while it is there.
    stack.run("25%", "served", "sleep", "100", options=("--slo", f"{5 * SCALE}ms"))
    check(when(lambda t: t["atoms"]["ceiling_us"] == 500 * SCALE), "ceiling")
    time.sleep(1)
    middle = when(lambda t: t)
    after = when(lambda t: t["atoms"]["cut"] >= middle["cut"] + 8)
    each = (after["atoms"] - middle["atoms"]) / (after["cut"] - middle["cut"])
    check(each == 5, f"{each} atoms a kernel beside an SLO: {middle} {after}")
    served = stack.children.pop()
    served.terminate()
    served.wait(20)
    when(lambda t: t["atoms"]["ceiling_us"] is None)
    stack.kill_daemon()
    stack.start_daemon()  # the successor knows the policy, and learns again
    again = when(lambda t: t and t["atoms"]["operators"]["cut"] == 1)
    check(again["policy"] == longer, again)
    check(stack.lithos("set", "live", "--atom", "off").returncode == 0, "set off")


def not_observed(stack):
    stack.kill_daemon()
    stack.env["LITHOS_STAMPS"] = "off"
    stack.start_daemon()
    del stack.env["LITHOS_STAMPS"]
    done = stack.lithos("run", "--quota", "20%", "--name", "blind", "--atom", "250us", "--verbose", "--", "true")
    check(done.returncode == 0 and "LITHOS_STAMPS=off" in done.stderr, done)


def main():
    with Stack(scale=SCALE) as stack:
        stack.start_daemon()
        short_waves(stack)
        long_blocks(stack)
        short_kernels(stack)
        told(stack)
        live(stack)
        for child in stack.children:
            if child.poll() is None:
                child.terminate()
                child.wait(20)
        not_observed(stack)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}", flush=True)
        sys.exit(1)
