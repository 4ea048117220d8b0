#!/usr/bin/env python3
"""A burst of launches after a second of idleness finds lithosd asleep, and loses no record all the same: 100000 launches by one
thread, as fast as the virtual GPU takes them, and at one a microsecond over the stub driver, which answers at once.

What is asked is whether lithosd is woken and reads as it can, not whether this machine lets it: with the right to, it runs before
whatever else runs here, else a single burst without loss will do. The very first burst has the daemon's own set-up in it. A machine on which it
takes longer than a microsecond to read a record loses some whoever wakes it: there one in several microseconds must do."""
import json
import subprocess
import sys

from stack import Stack, check, wait_for

LAUNCHES, BURSTS = 100000, 3
GAPS_NS = 1000, 2000, 3000  # each fills a ring of 4096 records within the 20 ms that a lithosd sleeps which is not woken
REAL_TIME = ["chrt", "-r", "1"]
KEEPER = 'while read -r words; do "$0" $words; done'


def may_run_first():
    try:
        return subprocess.run([*REAL_TIME, "true"], capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


def lost(t):
    """Launches without a record, however they came by it; the others are all accounted for."""
    c, o = t["counters"], t["observed"]
    check(c["launches"] == o["records"]["launch"] + c["launches_dropped"], f"{c} {o}")
    return c["launches_dropped"]


def bursts(stack, name, *arguments):
    """Launches lost in each."""
    child = stack.run("50%", name, "sh", "-c", KEEPER, stack.sample("lithos-flood"), stdin=subprocess.PIPE)
    out, before = [], 0
    for i in range(BURSTS):
        words = ["--streams", "1", "--launches", LAUNCHES, "--idle-ms", "1000", *arguments]
        child.stdin.write((" ".join(map(str, words)) + "\n").encode())
        child.stdin.flush()
        t, _ = wait_for("the burst ends", lambda: (lambda t: t if t and t["counters"]["launches"] == LAUNCHES * (i + 1) and
                                                   not any(p["attached"] for p in t["pids"]) else None)(stack.tenants().get(name)), 60, 0.05)
        out.append(lost(t) - before)
        before = lost(t)
    child.stdin.close()
    child.wait(20)
    print(f"  {name}: {LAUNCHES} launches after a second of idleness, records lost: {out}", flush=True)
    return out


def holds(losses, first):
    return losses.count(0) >= (BURSTS - 1 if first else 1)


def stub_probe(stack):
    """What lithos-probe says of the virtual card, as if it had said it of the stub driver's."""
    said = subprocess.run([stack.build / "libexec/lithos/lithos-probe", "--json"], env=stack.env, capture_output=True, timeout=60)
    document = json.loads(said.stdout)
    document["virtual"] = False  # times are the host's
    document["gpus"][0]["uuid"] = "GPU-" + "-".join("a0" * n for n in (4, 2, 2, 2, 6))
    script = stack.dir / "probe"
    script.write_text(f"#!/bin/sh\ncat << 'END'\n{json.dumps(document)}\nEND\n")
    script.chmod(0o755)
    return script


def main():
    first = may_run_first()
    with Stack(scale=1, mps="off") as stack:
        stack.start_daemon(prefix=REAL_TIME if first else ())
        losses = bursts(stack, "virtual")
        check(holds(losses, first), f"records lost in bursts: {losses}")
        probe = stub_probe(stack)
        stack.kill_daemon(15)
        stack.env["LITHOS_LIBCUDA"] = str(stack.build / "tests/stub/libcuda.so.580.0.1")
        stack.start_daemon("--probe", probe, prefix=REAL_TIME if first else ())
        check(any(holds(bursts(stack, f"stub-{gap_ns}", "--gap-ns", gap_ns, "--wait-every", "0"), first) for gap_ns in GAPS_NS),
              f"records are lost even at a launch in {GAPS_NS[-1]} ns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
