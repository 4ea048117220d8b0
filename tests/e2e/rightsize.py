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
BLOCKS = 12  # one an SM: 6 TPCs are as good as 26
FEW = BLOCKS // 2
SERVICE = ("--time-scale", str(SCALE), "--seconds", "0", "--warmup", "0.05", "--period-us", "300", "--kernels", "2",
           "--grid", str(BLOCKS), "--iters", "20000")


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


def refused(stack):
    for options in (("--observe=off",), ("--power=on", "--these-gpus-are-ours-alone")):
        done = subprocess.run([str(stack.build / "bin/lithosd"), "--rightsize=on", *options], env=stack.env, timeout=20 * SLACK,
                              capture_output=True, text=True)
        check(done.returncode != 0 and "--rightsize=on" in done.stderr, f"{options}: {done.returncode}, {done.stderr}")


def main():
    stack = Stack(sys.argv[1] if len(sys.argv) > 1 else None, scale=SCALE)
    try:
        refused(stack)
        stack.start_daemon("--rightsize=on")
        child = stack.run(QUOTA, "service", stack.sample("lithos-serve"), *SERVICE, options=("--slip", "1.2", "--class", "high"))
        wait_for("the service is admitted", lambda: "service" in stack.tenants(), 20)
        took = until_known(stack)
        # on all 26 TPCs each block has one of its own
        part = on_busiest(stack, child.pid, 0.5)
        r = sized(stack)
        print(f"after {took:.1f} s: {100 * part:.0f} % on {FEW} TPCs, {json.dumps(r)}", flush=True)
        check(part > 0.7, f"{100 * part:.0f} % of the time is spent on {FEW} TPCs: {r}")
        check(r["slower_percent"] < 20, r)
        check(r["tpc_time_saved_percent"] > 0, r)
        check(r["stopped"] == 0, r)
        done = stack.lithos("explain", "service")
        check(done.returncode == 0 and f"{FEW} of {QUOTA} TPCs" in done.stdout, done.stdout)
        check("slip 1.2" in stack.lithos("status").stdout, "lithos status says nothing of the slip")
        # lithosd is gone: what it said is not gone by any more, and is found out anew
        stack.kill_daemon()
        time.sleep(LEASE_S + 0.2)
        part = on_busiest(stack, child.pid, 0.3)
        print(f"without lithosd: {100 * part:.0f} % on {FEW} TPCs", flush=True)
        check(part < 0.6, f"{100 * part:.0f} % of the time is still spent on {FEW} TPCs, without lithosd")
        stack.start_daemon("--rightsize=on")
        until_known(stack)
        part = on_busiest(stack, child.pid, 0.5)
        check(part > 0.7, f"{100 * part:.0f} % of the time is spent on {FEW} TPCs, with a new lithosd")
        check(stack.lithos("set", "service", "--slip", "off").returncode == 0, "it cannot be switched off")
        part = on_busiest(stack, child.pid, 0.5)
        print(f"off: {100 * part:.0f} % on {FEW} TPCs", flush=True)
        check(part < 0.6, f"{100 * part:.0f} % of the time is still spent on {FEW} TPCs")
        check(not sized(stack)["on"], sized(stack))
        counters = stack.tenants()["service"]["counters"]
        check(counters["unmasked"] == 0 and counters["breaches"] == 0, counters)
    finally:
        stack.close()


main()
