#!/usr/bin/env python3
"""A benchmark that is ended in the middle: what it has measured is there and says that it is not all, and nothing of it goes on."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from probed import bench_environment

BUILD, SOURCE = os.environ["LITHOS_BUILD"], os.environ["LITHOS_SOURCE"]
SCALE = "10"
SLACK = float(os.environ.get("LITHOS_TEST_SLACK", "1"))


def descendants(mark):
    """Processes with the mark in their environment: all that came of the benchmark."""
    out = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes():
                out.append((int(entry.name), (entry / "comm").read_text().strip()))
        except OSError:
            continue
    return out


def main():
    with tempfile.TemporaryDirectory() as out, bench_environment(BUILD, SCALE) as env:
        part, whole = pathlib.Path(out, "reaction.part"), pathlib.Path(out, "reaction.json")
        mark = f"LITHOS_TEST_MARK={out}"
        argv = [sys.executable, f"{SOURCE}/bench/reaction.py", "--virtual", "--prefix", BUILD, "--scale", SCALE, "--out", out, "--seconds", "0.3",
                "--repetitions", "1000"]
        bench = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 env=dict(env, LITHOS_TEST_MARK=out))
        try:
            deadline = time.monotonic() + 60 * SLACK
            while not part.exists() and bench.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if not part.exists():
                sys.exit(f"no case within {60 * SLACK} s, exit code {bench.poll()}")
            begin = time.monotonic()
            bench.send_signal(signal.SIGTERM)
            said = bench.communicate(timeout=60 * SLACK)[0].decode()
            took = time.monotonic() - begin
        finally:
            bench.kill()
        doc = json.loads(part.read_text())
        failures = []
        if not doc["cases"] or doc["bars"] or "incomplete" not in doc or doc["name"] != "reaction":
            failures.append(f"not what an unfinished result should be: {doc}")
        if whole.exists():
            failures.append("it passes for a whole result")
        if bench.returncode != 143:
            failures.append(f"exit code {bench.returncode} instead of 143")
        if took > 20 * SLACK:
            failures.append(f"it took {took:.1f} s to end")
        # what was killed may take a moment to be gone
        deadline = time.monotonic() + 2 * SLACK
        while (left := descendants(mark.encode())) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            failures.append(f"still there: {left}")
        if failures:
            sys.exit("\n".join([*failures, said]))
    print(f"ok: {len(doc['cases'])} cases kept, ended in {took:.1f} s")


main()
