#!/usr/bin/env python3
"""Clocks and energy over the virtual NVML: what is refused, what advice costs nothing, that clocks are set where they may be, and
above all that they never outlive lithosd, however it is killed.

    power.py               all of it, with a few kills
    power.py kills N       N kills alone, one line each"""
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time

from stack import SLACK, Failure, Stack, check, wait_for

OURS = ("--power=on", "--these-gpus-are-ours-alone", "--power-watch", "20")
MAX_MHZ = 1980
# A process has a limited number of arenas that the GPU can stamp into, one a lithosd.
WORKER_LIVES = 25


class Nvml:
    """The card as anybody sees it."""

    def __init__(self, stack):
        os.environ["LITHOS_VGPU_SOCKET"] = stack.env["LITHOS_VGPU_SOCKET"]
        self.lib = ctypes.CDLL(str(stack.build / "lib/lithos/vgpu/libnvidia-ml.so.1"))
        self.device = ctypes.c_void_p()
        check(self.lib.nvmlInit_v2() == 0, "nvmlInit_v2")
        check(self.lib.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.device)) == 0, "a handle")

    def number(self, function, *arguments, type=ctypes.c_uint):
        value = type()
        check(getattr(self.lib, function)(self.device, *arguments, ctypes.byref(value)) == 0, function)
        return value.value

    def mhz(self):
        return self.number("nvmlDeviceGetClockInfo", 1)

    def locked(self):
        return self.number("nvmlDeviceGetCurrentClocksEventReasons", type=ctypes.c_ulonglong) & 2 != 0

    def joules(self):
        return self.number("nvmlDeviceGetTotalEnergyConsumption", type=ctypes.c_ulonglong) / 1e3

    def close(self):
        self.lib.nvmlShutdown()


def refused(stack):
    """A clock is the whole card's: without a word that it is ours it is not touched."""
    for options in (("--power=on",), ("--power=perhaps",), ("--power=advise", "--observe=off")):
        done = subprocess.run([str(stack.build / "bin/lithosd"), *options], env=stack.env, timeout=20, capture_output=True, text=True)
        check(done.returncode == 2, f"{options}: {done}")
    check("--these-gpus-are-ours-alone" in subprocess.run([str(stack.build / "bin/lithosd"), "--power=on"], env=stack.env, timeout=20,
                                                          capture_output=True, text=True).stderr, "it says what to do")


def gpu(stack):
    return stack.status()["power"]["gpus"][0]


def energy(stack, nvml):
    """What is told of a tenant's energy lies between nothing and all that the card has drawn."""
    before = nvml.joules()
    tenant = stack.run("50%", "worker", stack.sample("lithos-burn"), "--seconds", "60")
    told, _ = wait_for("energy of the tenant", lambda: (lambda t: t and t["energy"]["joules"] > 1 and t["energy"])(
        stack.tenants().get("worker")), 20 * SLACK, 0.1)
    drawn = nvml.joules() - before
    check(0 < told["joules"] <= drawn and told["joules_least"] <= told["joules"], f"{told}, {drawn} J drawn")
    text = stack.lithos("status").stdout
    check("J beyond what the GPU draws idle" in text and "power" in text, text)
    return tenant


def requests(stack):
    """Of a service without pauses each request is one."""
    serve = stack.run("50%", "service", stack.sample("lithos-serve"), "--period-us", "100", "--grid", "8", "--seconds", "0", "--warmup", "0", "--json",
                      stdout=subprocess.PIPE)
    wait_for("its requests are told", lambda: (stack.tenants().get("service") or {}).get("energy", {}).get("requests", 0) > 200, 20 * SLACK, 0.1)
    serve.send_signal(signal.SIGSTOP)
    told, _ = wait_for("it rests", lambda: still(lambda: stack.tenants()["service"]["energy"]["requests"]), 20 * SLACK, 0.1)
    serve.send_signal(signal.SIGCONT)
    serve.terminate()
    served = json.loads(serve.communicate(timeout=60 * SLACK)[0])["requests"]
    check(0.9 * told <= served <= told + 100 * SLACK, f"{served} requests served, {told} told of")


def still(read):
    """What it reads, once it is the same twice."""
    first = read()
    time.sleep(0.3)
    return first if read() == first else None


def advise(stack, nvml):
    stack.start_daemon("--power=advise", "--power-watch", "20")
    wait_for("the card is known", lambda: gpu(stack)["known"] and gpu(stack)["watts"] > 50, 10 * SLACK)
    tenant = energy(stack, nvml)
    wait_for("advice", lambda: gpu(stack)["advice"]["mhz"] < MAX_MHZ, 20 * SLACK, 0.1)
    check(not nvml.locked() and nvml.mhz() == MAX_MHZ, "advice sets nothing")
    check(stack.status()["power"]["mode"] == "advise", "mode")
    tenant.kill()
    tenant.wait()
    requests(stack)
    stack.kill_daemon(signal.SIGTERM)


def lower(stack, nvml):
    """lithosd has set a clock, and the card follows."""
    try:
        wait_for("a lower clock", lambda: nvml.locked() and nvml.mhz() < MAX_MHZ, 30 * SLACK, 0.01)
    except Failure:
        print(stack.lithos("status", "--json").stdout, flush=True)
        raise


def restored(nvml, what):
    _, took = wait_for(f"the clock is given back after {what}", lambda: not nvml.locked() and nvml.mhz() == MAX_MHZ, 5 * SLACK, 0.005)
    return took


def worker(stack):
    """A tenant that works on, whatever becomes of lithosd."""
    stack.start_daemon()
    wait_for("the one before it is forgotten", lambda: not stack.tenants(), 20 * SLACK)
    child = stack.run("50%", "worker", stack.sample("lithos-burn"), "--seconds", "100000")
    wait_for("the tenant runs", lambda: "worker" in stack.tenants() and stack.tenants()["worker"]["counters"]["launches"], 20 * SLACK)
    stack.kill_daemon(signal.SIGKILL)
    return child


def ended(child):
    child.kill()
    child.wait()


def kills(stack, nvml, count, verbose=False):
    worst, child = 0, None
    for n in range(count):
        if n % WORKER_LIVES == 0:
            if child:
                ended(child)
            child = worker(stack)
        stack.start_daemon(*OURS)
        lower(stack, nvml)
        time.sleep(random.uniform(0, 0.3))
        stack.kill_daemon(signal.SIGKILL)
        worst = max(worst, restored(nvml, "kill -9"))
        if verbose:
            print(f"{n + 1}: restored, {worst:.3f} s at worst", flush=True)
    ended(child)
    check(worst < (1 if verbose else 3) * SLACK, f"{worst} s")
    return worst


def clocks_process(stack):
    return stack.status()["power"]["clocks_pid"]


def others_die(stack, nvml):
    """The one that holds the clocks, and both of them at once; and lithosd stops answering without dying."""
    child = worker(stack)
    stack.start_daemon(*OURS)
    lower(stack, nvml)
    os.kill(clocks_process(stack), signal.SIGKILL)
    wait_for("another one", lambda: clocks_process(stack) and stack.status()["power"]["clocks_starts"] == 2, 10 * SLACK, 0.05)
    lower(stack, nvml)
    stack.daemon.send_signal(signal.SIGSTOP)
    restored(nvml, "silence")
    stack.daemon.send_signal(signal.SIGCONT)
    lower(stack, nvml)
    os.kill(clocks_process(stack), signal.SIGTERM)  # of no effect
    both = clocks_process(stack), stack.daemon.pid
    stack.daemon.send_signal(signal.SIGSTOP)  # it must not start another in between
    os.kill(both[0], signal.SIGKILL)
    stack.kill_daemon(signal.SIGKILL)
    check(nvml.locked(), "nobody was left to give it back")
    stack.start_daemon()
    restored(nvml, "both died and a lithosd without --power came")
    stack.kill_daemon(signal.SIGTERM)
    ended(child)


def no_rights(build):
    with Stack(build, scale=1, mps="off", vgpud=("--clock-rights=nobody",)) as stack:
        stack.start_daemon(*OURS)
        tenant = stack.run("50%", "worker", stack.sample("lithos-burn"), "--seconds", "60")
        wait_for("it only advises", lambda: stack.status()["power"]["mode"] == "advise", 30 * SLACK, 0.1)
        check("root" in stack.status()["power"]["why"], stack.status()["power"])
        tenant.kill()
        tenant.wait()


def main():
    only_kills = len(sys.argv) > 2 and sys.argv[1] == "kills"
    with Stack(scale=1, mps="off", vgpud=("--clock-rights=anybody",)) as stack:
        nvml = Nvml(stack)
        if not only_kills:
            refused(stack)
            advise(stack, nvml)
        worst = kills(stack, nvml, int(sys.argv[2]) if only_kills else 3, only_kills)
        print(f"  clocks were back {worst * 1000:.0f} ms after lithosd was killed, at worst", flush=True)
        if not only_kills:
            others_die(stack, nvml)
        nvml.close()
    if not only_kills:
        no_rights(None)


main()
