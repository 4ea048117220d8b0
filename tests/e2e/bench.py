#!/usr/bin/env python3
"""The benchmark harness on the virtual GPU: short, for the harness's sake, not the figures'. Usage: bench.py isolation|overhead"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

BUILD, SOURCE = os.environ["LITHOS_BUILD"], os.environ["LITHOS_SOURCE"]
KEYS = {"name": str, "card": str, "driver": str, "commit": str, "date": str, "command": str, "repetitions": int, "cases": list,
        "bars": list, "notes": str}
# What a short run makes of it: arguments, cases that must be there with figures, bars that must be there.
RUNS = {
    "isolation": (["--seconds", "0.2", "--warmup", "0.05", "--repetitions", "1", "--scale", "20", "--only", "3, short"],
                  {"hp alone": "p99_us", "be alone, short waves": "be_kernels_per_s", "lithos 33/33, short waves": "p99_us"},
                  ["HP p99 over alone, 33/33, short waves", "HP p99 over alone, 33/33, long blocks"]),
    "overhead": (["--turns", "2", "--launches", "128", "--starts", "2", "--repetitions", "1", "--scale", "1"],
                 {"mps, bare": "async_p50_us", "mps, lithos": "sync_p99_us", "mps, added": "async_p50_added_us",
                  "no mps, start added": "added_ms"},
                 ["async added median us", "async added p99 us", "attach added ms"]),
}


def main(name):
    arguments, cases, bars = RUNS[name]
    failures = []
    with tempfile.TemporaryDirectory() as out:
        run = subprocess.run([sys.executable, f"{SOURCE}/bench/{name}.py", "--virtual", "--prefix", BUILD, "--out", out, *arguments],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        path = pathlib.Path(out, f"{name}.json")
        if not path.exists():
            sys.exit(f"no result, exit code {run.returncode}:\n{run.stdout}{run.stderr}")
        doc = json.loads(path.read_text())
    failures += [f"{k} is missing or no {t.__name__}" for k, t in KEYS.items() if not isinstance(doc.get(k), t)]
    failures += [f"case {c['case']}: {c['error']}" for c in doc["cases"] if "error" in c]
    for case, figure in cases.items():
        values = [c.get(figure) for c in doc["cases"] if c["case"] == case]
        if not values or not all(isinstance(v, (int, float)) for v in values):
            failures.append(f"case {case}: no {figure}: {values}")
    failures += [f"bar {b} is missing" for b in bars if b not in [x["what"] for x in doc["bars"]]]
    if "virtual" not in doc["card"].lower():
        failures.append(f"a virtual card is called {doc['card']!r}: its results could be taken for a card's")
    # a bar that was missed makes it 1; anything else is a fault of the harness
    if run.returncode not in (0, 1):
        failures.append(f"exit code {run.returncode}")
    if failures:
        sys.exit("\n".join(failures + [run.stdout, run.stderr]))
    print(f"ok: {name}: {len(doc['cases'])} cases")


main(sys.argv[1])
