"""Is a host of one speed? On some a processor is at times half as fast as at others (docs/hardware.md, Hosts), and the p99 of an eager service is that of
the slow times, whatever shares the card with it."""
import concurrent.futures
import multiprocessing
import time

from lib import results

PROCESSES = 4
LOOP = 20000  # some 1 ms
SLOW = 1.3  # times what the fast ones take


def run_loops(seconds):
    """How long each of a plain loop's runs took, one after the other, in ms."""
    out, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        x = 0
        for i in range(LOOP):
            x += i
        out.append((time.perf_counter() - begin) * 1e3)
    return out


def slow_part(loops_ms):
    """(what the fast ones take, the 10th percentile; which part of the runs took 1.3 times that or more)"""
    fast_ms = results.quantile(loops_ms, 0.1)
    return fast_ms, sum(ms >= SLOW * fast_ms for ms in loops_ms) / len(loops_ms)


def measure(seconds):
    """In some processes side by side: the same of all of their runs."""
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        return slow_part([ms for of_one in pool.map(run_loops, [seconds] * PROCESSES) for ms in of_one])
