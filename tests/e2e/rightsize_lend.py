"""What right-sizing saves is lent: a service that is never idle keeps off some of its TPCs, and a neighbour that owns nothing runs there,
until it has gone."""

import json
import sys
import time

from stack import SLACK, Stack, check, wait_for

SCALE = 10
BLOCKS = 12  # one an SM
SERVICE = ("--period-us", "1", "--kernels", "8", "--grid", str(BLOCKS), "--iters", "3000")
NEIGHBOUR = ("--grid", "400", "--iters", "3000")


def start(stack, name, quota, program, args, options):
    child = stack.run(quota, name, stack.sample(program), "--time-scale", str(SCALE), "--seconds", "0", "--warmup", "0.05", *args,
                      options=options)
    wait_for(f"{name} is admitted", lambda: name in stack.tenants(), 20)
    return child


def sized(stack):
    return stack.tenants()["service"]["rightsize"]


def rate(stack, seconds=0.5):
    """Requests of the service a second."""
    before, begin = sized(stack)["requests"], time.monotonic()
    time.sleep(seconds)
    return (sized(stack)["requests"] - before) / (time.monotonic() - begin)


def sm_ns(stack, pid):
    return sum(stack.card_clients().get(pid, {"sm_ns": {}})["sm_ns"].values())


def main():
    stack = Stack(sys.argv[1] if len(sys.argv) > 1 else None, scale=SCALE)
    try:
        stack.start_daemon("--rightsize=on")
        service = start(stack, "service", "100%", "lithos-serve", SERVICE, ("--slip", "1.3", "--class", "high"))
        wait_for("it serves", lambda: sized(stack).get("requests", 0) > 20, 20 * SLACK)
        alone = rate(stack)
        check(sized(stack)["strip"]["requests"] == 0, f"something is left for nobody: {json.dumps(sized(stack))}")
        neighbour = start(stack, "neighbour", "0", "lithos-burn", NEIGHBOUR, ("--class", "best-effort"))
        took = wait_for("TPCs are left, and used", lambda: (s := sized(stack)["strip"])["requests"] > s["unused"] + 20, 40 * SLACK, 0.05)[1]
        print(f"after {took:.1f} s: {json.dumps(sized(stack)['strip'])}", flush=True)
        wait_for("lithos says so", lambda: all("TPCs that its kernels leave" in stack.lithos(*of).stdout
                                               for of in (("explain", "service"), ("status",))), 40 * SLACK, 0.05)
        used = wait_for("how much of it is used", lambda: sized(stack)["strip"]["used_percent"] > 10, 40 * SLACK, 0.05)[1]
        print(f"after {used:.1f} s more: {json.dumps(sized(stack)['strip'])}", flush=True)
        before = sm_ns(stack, neighbour.pid)
        beside = rate(stack)
        worked = sm_ns(stack, neighbour.pid) - before
        print(f"{alone:.0f} requests a second, {beside:.0f} beside a neighbour whose blocks run for {worked / 1e6:.0f} ms", flush=True)
        check(worked > 0, "the neighbour has run nothing")
        check(beside * 1.5 * SLACK > alone, f"{beside} requests a second instead of {alone}")
        neighbour.terminate()
        neighbour.wait(20)
        wait_for("it has all of them again", lambda: sized(stack)["strip"]["tpcs"] == 0 and "neighbour" not in stack.tenants(), 20 * SLACK)
        left = sized(stack)["strip"]["requests"]
        time.sleep(0.2)
        check(sized(stack)["strip"]["requests"] <= left + 1, "something is left for nobody")
        counters = stack.tenants()["service"]["counters"]
        check(counters["unmasked"] == 0 and counters["breaches"] == 0, counters)
        service.terminate()
    finally:
        stack.close()


main()
