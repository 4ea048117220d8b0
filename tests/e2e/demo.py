#!/usr/bin/env python3
"""lithos demo on the virtual GPU: it passes, says so in JSON too, and leaves nothing behind, also when stopped.
Usage: demo.py passes|stopped; the first measures time."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from stack import bits, check, wait_for

SECONDS = "0.1"  # of the card's; half of what the demo takes by itself, which must stay under two minutes
LITHOS = pathlib.Path(os.environ["LITHOS_BUILD"]).resolve() / "bin/lithos"


def environment(folder):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LITHOS_", "CUDA_", "LD_"))}
    env.update(TMPDIR=folder, XDG_RUNTIME_DIR=folder, LITHOS_CACHE_DIR=folder + "/cache")
    return env


def left_behind(folder):
    """Processes whose environment names our folder, and what lies in it beside the cache."""
    out = [p.name for p in pathlib.Path(folder).iterdir() if p.name.startswith("lithos-demo")]
    for p in pathlib.Path("/proc").iterdir():
        try:
            if p.name.isdigit() and f"TMPDIR={folder}\0".encode() in (p / "environ").read_bytes():
                out.append((p / "cmdline").read_text())
        except OSError:
            pass
    return out


def passes(folder):
    result = folder + "/demo.json"
    for attempt in range(3):  # its bar is a p99 in real time: a machine that is busy for some seconds misses it
        begin = time.monotonic()
        done = subprocess.run([LITHOS, "demo", "--virtual", "--seconds", SECONDS, "--json", result], env=environment(folder),
                              timeout=200, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        took = time.monotonic() - begin
        print(done.stdout, done.stderr, f"{took:.0f} s", flush=True)
        if done.returncode != 1 or "this machine is busy" not in done.stdout:
            break
    check(done.returncode == 0, f"exit {done.returncode}")
    document = json.loads(pathlib.Path(result).read_text())
    again = len(document["hp_p99_over_alone_attempts"]) - 1  # on a busy machine two of the five are measured again
    check(took < 12 * (5 + 2 * again), f"took {took:.0f} s, measured again {again} times")
    cases = {c["case"]: c for c in document["cases"]}
    check(document["passed"] and document["virtual"] and len(cases) == 5, document)
    managed = cases["LithOS, half of the TPCs each"]
    check(managed["mode"] == "mask" and not bits(managed["hp_tpcs"]) & bits(managed["be_tpcs"]), managed)
    check(managed["hp_p99_over_alone"] <= 1.2 and managed["be_kept"] > 0.4, managed)
    plain = cases["unmanaged: plain MPS"]
    check(plain["hp_p99_over_alone"] > 5, f"there is nothing to manage: {plain}")
    check(not left_behind(folder), f"left behind: {left_behind(folder)}")


def stopped(folder):
    child = subprocess.Popen([LITHOS, "demo", "--virtual"], env=environment(folder), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for("its stage stands", lambda: list(pathlib.Path(folder).glob("lithos-demo-*/lithosd.sock")), 60)
    time.sleep(3)
    os.killpg(child.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    _, err = child.communicate(timeout=60)
    check(child.returncode not in (0, 1), f"exit {child.returncode}: {err}")
    wait_for("all of it is gone", lambda: not left_behind(folder), 20)


def main():
    with tempfile.TemporaryDirectory(prefix="lithos-e2e-", dir="/tmp") as folder:
        {"passes": passes, "stopped": stopped}[sys.argv[1]](folder)


if __name__ == "__main__":
    sys.exit(main())
