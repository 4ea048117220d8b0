#!/usr/bin/env python3
"""Of how many SMs a program is told, of the 132 that there are: by its class and quota, or as asked for."""

import sys

from stack import Stack, check

ASK = """
import ctypes
cuda, sms = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
print(cuda.cuInit(0), cuda.cuDeviceGetAttribute(ctypes.byref(sms), 16, 0), sms.value)
"""
CASES = (
    (32, "--quota", "16", "--class", "high"),
    (132, "--quota", "16", "--class", "high", "--sm-count", "full"),
    (132, "--quota", "16", "--class", "best-effort"),
    (32, "--quota", "16", "--class", "best-effort", "--sm-count", "quota"),
    (132, "--quota", "100%", "--class", "high"),
)


def coarse(stack):
    """MPS tells fewer by itself; nothing is taken off twice."""
    told = set()
    for options in ((), ("--sm-count", "full"), ("--sm-count", "quota")):
        done = stack.lithos("run", "--quota", "50%", "--coarse", "--class", "high", *options, "--", sys.executable, "-c", ASK)
        check(done.returncode == 0 and done.stdout.startswith("0 0 "), f"{options}: {done}")
        told.add(int(done.stdout.split()[2]))
    check(len(told) == 1 and 60 <= told.pop() <= 68, f"under MPS: {told}")


def main():
    with Stack() as stack:
        stack.start_daemon()
        for sms, *options in CASES:
            done = stack.lithos("run", *options, "--", sys.executable, "-c", ASK)
            check(done.returncode == 0 and done.stdout == f"0 0 {sms}\n", f"{options}: {done}")
        bad = stack.lithos("run", "--quota", "16", "--sm-count", "half", "--", "/bin/true")
        check(bad.returncode == 125 and "quota or full" in bad.stderr, bad)
        coarse(stack)


if __name__ == "__main__":
    sys.exit(main())
