"""Processes that run the same model and are compared: short turns, next to each other in time, on the same quiet CPUs.

On a shared host an iteration that waits for its CPU takes a third more in one second than in the next, which is many times what is
looked for here. What one turn meets the next one mostly meets as well, so each turn is compared with its neighbour alone, and the
median is taken over many pairs; the interval says how well that is known."""
import concurrent.futures
import contextlib
import math
import os
import pathlib
import time

from lib import results
from lib.proc import log

CPUS = 3  # the thread that launches, the one that runs backward passes or gives out queued launches, and one to spare
TURN_S = 0.04  # of the card's time
PAIRS_MIN = 4
SPIN = 20000


def spin_s():
    begin = time.perf_counter()
    for _ in range(SPIN):
        pass
    return time.perf_counter() - begin


def core_of(cpu):
    """What other CPUs share its core with it, as the kernel tells."""
    path = pathlib.Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return path.read_text().strip() if path.exists() else str(cpu)


def quiet_cpus(n=CPUS):
    """Those of our CPUs on which a loop was fastest just now, one a core as far as there are; all when there are not more."""
    ours = os.sched_getaffinity(0)
    if len(ours) <= n:
        return sorted(ours)
    took = {}
    try:
        for cpu in ours:
            os.sched_setaffinity(0, {cpu})
            took[cpu] = results.median([spin_s() for _ in range(15)])
    finally:
        os.sched_setaffinity(0, ours)
    order, cores = sorted(ours, key=took.get), set()
    first = [cpu for cpu in order if core_of(cpu) not in cores and not cores.add(core_of(cpu))]
    return (first + [cpu for cpu in order if cpu not in first])[:n]


def pin(pid, cpus):
    """All threads that the process has, and so those that they start."""
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cpus)
        except ProcessLookupError:
            continue


def keep_off(pids, cpus):
    """These processes run elsewhere, if there is anywhere else."""
    others = os.sched_getaffinity(0) - set(cpus)
    for pid in pids if others else ():
        pin(pid, others)


@contextlib.contextmanager
def together(*starts):
    """What each function starts, all at the same time; killed at the end."""
    with concurrent.futures.ThreadPoolExecutor(len(starts)) as pool:
        futures = [pool.submit(start) for start in starts]
        concurrent.futures.wait(futures)
    children = [f.result() for f in futures if not f.exception()]
    try:
        for f in futures:
            f.result()  # raises what went wrong
        yield children
    finally:
        for child in children:
            child.kill()


def interval(values):
    """(low, high) between which the median lies with 95 %, whatever the distribution; all of the values when they are few."""
    ordered, n = sorted(values), len(values)
    below = max(0, math.floor((n - 1.96 * math.sqrt(n)) / 2))
    return ordered[below], ordered[n - 1 - below]


def turn(child, iterations):
    """Microseconds of each iteration. One goes before: after its wait a process finds its caches full of the other's."""
    return child.do(f"run {iterations + 1}")["us"][1:]


def order(bare, others, k):
    """Who comes after whom in the k-th round: bare first or last, and each of the others next to it as often as the rest."""
    shift = k // 2 % len(others)
    forward = [bare, *others[shift:], *others[:shift]]
    return forward if k % 2 == 0 else forward[::-1]


def compare_all(bare, others, seconds, scale=1):
    """How much longer an iteration of each of `others` takes, all in the same rounds, which take `seconds` in all: a list of {bare_us,
    other_us: medians; ratio: median over pairs, ratio_low, ratio_high: where it lies; quartile_ratio: of the lower quartiles of all
    iterations; pairs, iterations}."""
    slower = max(min(turn(child, 4)) for child in (bare, *others))
    n = max(2, min(200, round(TURN_S * scale * 1e6 / slower)))
    took, ratios = {child: [] for child in (bare, *others)}, {child: [] for child in others}
    rounds, end = 0, time.monotonic() + seconds * scale
    while rounds < PAIRS_MIN or time.monotonic() < end:
        now = {child: turn(child, n) for child in order(bare, others, rounds)}
        for child, us in now.items():
            took[child] += us
        for child in others:
            ratios[child].append(results.median(now[child]) / results.median(now[bare]))
        rounds += 1

    def figures(child):
        low, high = interval(ratios[child])
        return {"bare_us": results.median(took[bare]), "other_us": results.median(took[child]), "ratio": results.median(ratios[child]),
                "ratio_low": low, "ratio_high": high,
                "quartile_ratio": results.quantile(took[child], 0.25) / results.quantile(took[bare], 0.25),
                "pairs": rounds, "iterations": 2 * n * rounds}

    return [figures(child) for child in others]


def compare(bare, other, seconds, scale=1):
    """The same for one."""
    return compare_all(bare, [other], seconds, scale)[0]


def prepare(children, daemons):
    """Pins what takes turns, and lithosds elsewhere; says where."""
    cpus = quiet_cpus()
    for child in children:
        pin(child.popen.pid, cpus)
    keep_off([d.child.popen.pid for d in daemons], cpus)
    log(f"on CPUs {', '.join(map(str, cpus))}")
