#!/usr/bin/env python3
"""The predictor on what was recorded on a card: it is as good there as lithosd was then, and the bounds beside it are bounds."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

BUILD, SOURCE = os.environ["LITHOS_BUILD"], os.environ["LITHOS_SOURCE"]
REPLAY = f"{BUILD}/libexec/lithos/lithos-predictreplay"
TRACES = f"{SOURCE}/bench/traces"


def run(*argv):
    return subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)


def check(condition, what):
    if not condition:
        sys.exit(what)


def replay(*argv):
    done = run(REPLAY, *argv)
    check(done.returncode == 0, f"{argv}: {done}")
    return json.loads(done.stdout)


def side_by_side():
    """What lithosd had said at each launch is in the trace."""
    for tenant, launches, worst in (("1", 51953, 0.15), ("2", 9030, 0.05)):
        got = replay("--from", "0.5", "--tenant", tenant, f"{TRACES}/stacked.trace")
        check(got["launches"] == launches, f"{launches} whole kernels in the trace: {got}")
        check(got["mispredicted_percent"] <= worst, f"more than {worst} % mispredicted: {got}")
        check(abs(got["mispredicted_percent"] - got["recorded_mispredicted_percent"]) <= 0.03, f"not as lithosd predicted: {got}")
    longer = replay("--from", "0.5", "--stretch", "4", f"{TRACES}/stacked.trace")
    check(5 < longer["mispredicted_percent"] < 9.5, f"kernels four times as long: {longer}")
    known = {(k["when"], k.get("within_ms")): k["mispredicted_percent"] for k in longer["known"]}
    check(known["hindsight", 1] < known["start", 1] < known["submission", 1] < known["usual", None], f"knowing more is no worse: {known}")


def alone():
    for model, worst in (("bert-inference", 0.01), ("llama-prefill", 0.02), ("resnet50-inference", 0.06)):
        got = replay("--from", "0.03", f"{TRACES}/{model}.trace")
        check(got["launches"] > 3000 and got["mispredicted_percent"] <= worst, f"{model}: {got}")


def made_up_neighbour():
    bert = ("--from", "0.05", "--stretch", "30", "--phases", "3,30", f"{TRACES}/bert-inference.trace")
    none, slower, again = replay("--slower", "0", *bert), replay("--slower", "0.15", *bert), replay("--slower", "0.15", *bert)
    check(none["mispredicted_percent"] == 0 and none["error_of_time_percent"] < 0.3, f"with a neighbour that is not felt: {none}")
    check(slower == again, f"not twice the same: {slower} {again}")
    check(replay("--slower", "0.15", "--seed", "2", *bert) != slower, "another seed is another neighbour")
    oracles = slower["oracles"]
    check(slower["lead_ms"] > 20 and oracles["start"] < 0.5 < 2 < oracles["submission"], f"what is known at the start is known too late: {slower}")
    check(oracles["submission"] < slower["mispredicted_percent"] < 5, f"the predictor beside a neighbour: {slower}")


def refusals(out):
    for argv in (["--stretch", "0", "x"], ["--phases", "3", "x"], ["--phases", "30,3", "x"], ["--window", "99", "x"], []):
        check(run(REPLAY, *argv).returncode == 2, f"{argv} is not refused")
    damaged = out / "damaged.trace"
    data = bytearray(pathlib.Path(TRACES, "bert-inference.trace").read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    for path, why in ((damaged, "CRC"), (out / "none", "No such file"), (pathlib.Path(SOURCE, "README.md"), "not a trace")):
        got = run(REPLAY, path)
        check(got.returncode == 1 and why in got.stderr, f"{path}: {got}")
    got = run(REPLAY, "--tenant", "77", f"{TRACES}/bert-inference.trace")
    check(got.returncode == 1 and "no launch" in got.stderr, f"a tenant that is not there: {got}")


def script(out):
    done = run(sys.executable, f"{SOURCE}/bench/predict_replay.py", "--prefix", BUILD, "--out", out)
    check(done.returncode == 0, f"bench/predict_replay.py: {done}")
    doc = json.loads((out / "predict-replay.json").read_text())
    check(len(doc["cases"]) == 18 and len(doc["bars"]) == 1, f"not all cases: {[c['case'] for c in doc['cases']]}")


    (out / "empty").mkdir()
    none = run(sys.executable, f"{SOURCE}/bench/predict_replay.py", "--prefix", BUILD, "--out", out, "--traces", out / "empty")
    check(none.returncode == 2 and "no traces" in none.stderr, f"a folder without traces: {none}")


def main():
    side_by_side()
    alone()
    made_up_neighbour()
    with tempfile.TemporaryDirectory() as out:
        refusals(pathlib.Path(out))
        script(pathlib.Path(out))


main()
