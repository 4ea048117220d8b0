"""An eager service whose launches are gathered: who lives on what it leaves has the card for longer, and the service is no slower for it."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

from stack import Failure, Stack, check, wait_for

SCALE = 20
# A request every 25 ms: 30 kernels of some 60 us, and 9 ms of its host's.
EAGER = ("--period-us", "25000", "--kernels", "30", "--iters", "60", "--host-us", "300")
# Kernels of a millisecond or so, longer than what lies between two of the service's.
LONG = ("--grid", "20000", "--iters", "3000")
SECONDS = 0.2


def sample(stack, name, *options):
    return [stack.sample(name), "--time-scale", str(SCALE), *options]


def queue_seconds(tenant):
    """What the thread that makes a tenant's launches has taken of a processor."""
    for task in pathlib.Path(f"/proc/{tenant['pids'][0]['pid']}/task").glob("*/stat"):
        name, _, rest = task.read_text(encoding="utf-8").partition("(")[2].rpartition(")")
        if name == "lithos-queue":
            return sum(int(ticks) for ticks in rest.split()[11:13]) / os.sysconf("SC_CLK_TCK")
    return 0


def beside(stack, *options):
    """A service at work: a best-effort neighbour's launches meanwhile, the service's p50 in us, and what became of what it gathered."""
    name = f"service{len(options)}"
    service = stack.run("100%", name, *sample(stack, "lithos-serve", "--json", "--seconds", str(SECONDS), "--warmup", "0.1", "--gate", *EAGER),
                        options=("--slip", "1.2", *options), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    check(service.stdout.readline().strip() == b"ready", f"{name}: {stack.log(name)}")
    gathered, launches, told, processor_s = {}, 0, False, 0
    before = stack.tenants()["neighbour"]["counters"]["launches"]
    service.stdin.write(b"\n")
    service.stdin.flush()
    while service.poll() is None:  # until it is gone, and with it what lithosd knew
        now = stack.tenants()
        gathered = now[name]["queue"]["gathered"] if name in now else gathered
        launches = now["neighbour"]["counters"]["launches"] - before
        with contextlib.suppress(KeyError, OSError):  # it may end
            processor_s = max(processor_s, queue_seconds(now[name]))
        told |= f"{name}: launches gathered, and made: " in stack.lithos("status").stdout
        time.sleep(0.1)
    figures = json.loads(service.stdout.readline())
    wait_for(f"the end of {name}", lambda: name not in stack.tenants(), 20)
    print(f"{name}: {launches} launches beside {figures['requests']} requests, p50 {figures['p50_us']:.0f} us, {gathered}, "
          f"{processor_s:.2f} s of a processor for its launches", flush=True)
    check(told == any(gathered.values()), f"lithos status {'says' if told else 'does not say'} that launches are gathered: {gathered}")
    return launches, figures["p50_us"], gathered, processor_s


def refused(stack):
    for options, word in ((("--gather", "soon"), "a time"), (("--gather", "2s"), "at most"), (("--gather", "5ms", "--hand-over", "off"), "handed over"),
                          (("--gather", "5ms", "--coarse"), "handed over"), (("--gather", "5ms", "--class", "best-effort"), "class high")):
        done = stack.lithos("run", "--quota", "50%", *options, "--", "/bin/true")
        check(done.returncode == 125 and word in done.stderr, f"{options}: {done.returncode} {done.stderr}")
    check(stack.lithos("run", "--quota", "50%", "--gather", "0", "--", "/bin/true").returncode == 0, "--gather 0")


def main():
    with Stack(scale=SCALE) as stack:
        stack.start_daemon()
        refused(stack)
        stack.run("0", "neighbour", *sample(stack, "lithos-burn", "--seconds", "0", *LONG), options=("--class", "best-effort"))
        wait_for("the neighbour works", lambda: stack.tenants().get("neighbour", {"counters": {"launches": 0}})["counters"]["launches"] > 20, 20)
        for _ in range(3):  # the service is late where its own host is busy with something else
            apart, apart_us, nothing, _ = beside(stack)
            check(not any(nothing.values()), nothing)
            together, together_us, gathered, processor_s = beside(stack, "--gather", "500ms")
            check(gathered["ahead"] > 3 and gathered["ahead"] > gathered["time"], gathered)
            # a third of the time it gathers, and does nothing
            check(0 < processor_s < 0.2 * SECONDS * SCALE, f"its thread took {processor_s} s of a processor")
            check(together > 1.5 * apart, f"the neighbour launched {apart} kernels beside it, {together} beside what was gathered")
            if together_us < 1.2 * apart_us:
                break
        check(together_us < 1.2 * apart_us, f"p50 of the service {apart_us} us, gathered {together_us}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        print(f"FAILED: {failure}", flush=True)
        sys.exit(1)
