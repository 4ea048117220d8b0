"""Right-sizing seen from the card: kernels of a tenant with a slip run on as few TPCs as they can use, take no longer, and run on all
of its TPCs again when the slip is switched off."""

import json
import subprocess
import sys
import time

from stack import SLACK, Failure, Stack, check, wait_for

SCALE = 10
LEASE_S = 1.0  # proto/arena.h, LITHOS_LEASE_NS
QUOTA = 26
BLOCKS = 12  # each needs an SM to itself: 6 TPCs are as good as 26, and 5 take twice as long
FEW = BLOCKS // 2
SHARED = 131072
SERVICE = ("--time-scale", str(SCALE), "--seconds", "0", "--warmup", "0.05", "--period-us", "300", "--kernels", "2",
           "--grid", str(BLOCKS), "--iters", "20000", "--shared", str(SHARED))

EAGER = ("--time-scale", str(SCALE), "--seconds", "0", "--warmup", "0.05", "--period-us", "400", "--kernels", "12", "--host-us", "200",
         "--grid", "104", "--iters", "600")


def sized(stack):
    return stack.tenants()["service"]["rightsize"]


def sm_ns(stack, pid):
    return {int(tpc): ns for tpc, ns in stack.card_clients().get(pid, {"sm_ns": {}})["sm_ns"].items()}


def on_busiest(stack, pid, seconds):
    """Which part of its blocks' time it spends on the FEW TPCs that have most of it."""
    before = sm_ns(stack, pid)
    time.sleep(seconds)
    spent = sorted((ns - before.get(tpc, 0) for tpc, ns in sm_ns(stack, pid).items()), reverse=True)
    check(sum(spent) > 0, "it ran nothing")
    return sum(spent[:FEW]) / sum(spent)


def is_known(stack):
    operators = sized(stack).get("operators", [])
    return operators and operators[0]["tpcs"] == FEW and operators[0]["why"] == "sized"


def until_known(stack):
    try:
        return wait_for("its kernel is known to need few TPCs", lambda: is_known(stack), 30 * SLACK, 0.05)[1]
    except Failure as failure:
        raise Failure(f"{failure}: {json.dumps(sized(stack))} {stack.log('service')}") from None


def until_spent(stack, pid, what, enough):
    """Window after window until the part spent on the busiest is enough; on a busy machine times are noisy, and right-sizing is
    undone for a while."""
    parts = []

    def passes():
        parts.append(on_busiest(stack, pid, 0.4))
        return enough(parts[-1])

    try:
        wait_for(what, passes, 40 * SLACK)
    except Failure as failure:
        raise Failure(f"{failure}: parts {parts}, {json.dumps(sized(stack))}") from None
    print(f"{what}: {100 * parts[-1]:.0f} % on {FEW} TPCs, window {len(parts)}", flush=True)


def refused(stack):
    for options in (("--observe=off",), ("--power=on", "--these-gpus-are-ours-alone")):
        done = subprocess.run([str(stack.build / "bin/lithosd"), "--rightsize=on", *options], env=stack.env, timeout=20 * SLACK,
                              capture_output=True, text=True)
        check(done.returncode != 0 and "--rightsize=on" in done.stderr, f"{options}: {done.returncode}, {done.stderr}")


def room(stack):
    """A service that launches more slowly than the card runs: its kernels may take longer than its slip. Most of its launches are made by another
    thread than its own, and are its requests' all the same."""
    child = stack.run(QUOTA, "eager", stack.sample("lithos-serve"), *EAGER, options=("--slip", "1.1", "--class", "high", "--hand-over", "on"))
    wait_for("the eager service is admitted", lambda: "eager" in stack.tenants(), 20)
    took = wait_for("the card's idle time is room for its kernels",
                    lambda: stack.tenants()["eager"]["rightsize"].get("kernel_slip", 0) >= 1.25, 60 * SLACK)[1]
    print(f"room after {took:.1f} s: {stack.tenants()['eager']['rightsize']['kernel_slip']:.2f}", flush=True)
    r = stack.tenants()["eager"]["rightsize"]
    check(r["reckoned"] > 4 * r["unreckoned"], r)
    wait_for("lithos explain says so", lambda: "waits for its launches" in stack.lithos("explain", "eager").stdout, 30 * SLACK)
    child.kill()


def main():
    stack = Stack(sys.argv[1] if len(sys.argv) > 1 else None, scale=SCALE)
    try:
        refused(stack)
        stack.start_daemon("--rightsize=on")
        child = stack.run(QUOTA, "service", stack.sample("lithos-serve"), *SERVICE, options=("--slip", "1.2", "--class", "high"))
        wait_for("the service is admitted", lambda: "service" in stack.tenants(), 20)
        took = until_known(stack)
        # on all 26 TPCs each block has one of its own
        until_spent(stack, child.pid, "kernels keep to few TPCs", lambda part: part > 0.7)
        r = sized(stack)
        print(f"known after {took:.1f} s, {json.dumps(r)}", flush=True)
        check(r["slower_percent"] < 20, r)
        check(r["tpc_time_saved_percent"] > 0, r)
        wait_for("lithos explain says so", lambda: f"{FEW} of {QUOTA} TPCs" in stack.lithos("explain", "service").stdout, 30 * SLACK)
        check("slip 1.2" in stack.lithos("status").stdout, "lithos status says nothing of the slip")
        # lithosd is gone: what it said is not gone by any more, and is found out anew
        stack.kill_daemon()
        time.sleep(LEASE_S + 0.2)
        part = on_busiest(stack, child.pid, 0.3)
        check(part < 0.6, f"{100 * part:.0f} % of the time is still spent on {FEW} TPCs, without lithosd")
        stack.start_daemon("--rightsize=on")
        until_known(stack)
        until_spent(stack, child.pid, "with a new lithosd", lambda part: part > 0.7)
        room(stack)
        check(stack.lithos("set", "service", "--slip", "off").returncode == 0, "it cannot be switched off")
        until_spent(stack, child.pid, "switched off", lambda part: part < 0.6)
        check(not sized(stack)["on"], sized(stack))
        counters = stack.tenants()["service"]["counters"]
        check(counters["unmasked"] == 0 and counters["breaches"] == 0, counters)
    finally:
        stack.close()


main()
