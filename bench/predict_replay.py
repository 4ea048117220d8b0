#!/usr/bin/env python3
"""Recorded tenants through the predictor again, and what there would be to gain: lithos-predictreplay over traces.

Two tenants side by side (bench/traces/stacked.trace), as they were and with all times stretched, which asks the same of
longer kernels: how many launches are mispredicted, how many by one who knows each kernel's usual duration, and how much
slower than usual the tenant's kernels run, at the submission, at the start, or in hindsight. And models recorded alone,
stretched, beside a neighbour that is made up. Needs no GPU. --traces replays others, those of bench/predict.py --traces."""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results  # noqa: E402
from lib.proc import log  # noqa: E402

TRACES = pathlib.Path(__file__).resolve().parent / "traces"
WARM = ["--from", "0.5"]
STACKED = [(f"{name}, times {n}", [*WARM, "--tenant", tenant, "--stretch", n, "stacked.trace"])
           for name, tenant in (("resnet50 beside llama training", "1"), ("llama training beside resnet50", "2")) for n in "1248"]
# As long as bench/predict.py's iterations with 24 TPCs and batches of 8.
PHASES = [(f"{name}, to {slower} slower, phases of {phases} ms",
           ["--from", "0.05", "--stretch", n, "--slower", slower, "--phases", phases, f"{name.replace(' ', '-')}.trace"])
          for name, n in (("bert inference", "30"), ("llama prefill", "20"))
          for slower in ("0", "0.15", "0.3") for phases in ("3,30", "30,300") if slower != "0" or phases == "3,30"]


def replay(place, args, folder):
    *options, name = args
    run = subprocess.run([place.program("lithos-predictreplay"), *options, str(folder / name)], capture_output=True, text=True,
                         timeout=300, check=True)
    return json.loads(run.stdout)


def best(known, when):
    """By the length of time that does best in this trace."""
    return min((k for k in known if k["when"] == when), key=lambda k: k["mispredicted_percent"])


def figures(got):
    known = got.pop("known", None)
    if known:
        got["usual_mispredicted_percent"] = best(known, "usual")["mispredicted_percent"]
        for when in ("submission", "start", "hindsight"):
            b = best(known, when)
            got.update({f"{when}_mispredicted_percent": b["mispredicted_percent"], f"{when}_r": b["r"],
                        f"{when}_within_ms": b["within_ms"]})
    got.update({f"oracle_{k}_mispredicted_percent": v for k, v in got.pop("oracles", {}).items()})
    return got


def tenants(place, path):
    """(name, id) of those that have kernels in a trace."""
    run = subprocess.run([place.program("lithos"), "trace", "stat", str(path), "--json", "--by", "tenant"], capture_output=True,
                         text=True, timeout=120, check=True)
    return [(row["name"], str(row["tenant"])) for row in json.loads(run.stdout)["rows"]]


def cases(o, place):
    if not o.traces:
        return STACKED + PHASES
    return [(f"{path.stem}: {name}", ["--from", str(o.begin), "--tenant", tenant, path.name])
            for path in sorted(pathlib.Path(o.traces).glob("*.trace")) for name, tenant in tenants(place, path)]


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=1)
    p.add_argument("--traces", help="a folder of other traces, each tenant of which is replayed as it was")
    p.add_argument("--from", dest="begin", type=float, default=0, help="with --traces: count from this second on (default: %(default)s)")
    o, place = cli.start(p)
    folder = pathlib.Path(o.traces) if o.traces else TRACES
    if not any(folder.glob("*.trace")):
        p.error(f"no traces are in {folder}: the recorded ones come with the sources, others are named with --traces")
    result = results.Result("predict-replay", cli.command_line(), 1, place,
                            {"gpus": [{"name": "none: traces of an H100, replayed"}], "driver": "none"})
    for case, args in cases(o, place):
        got = figures(replay(place, args, folder))
        result.case(case, 1, **got)
        log(f"{case}:", ", ".join(f"{k} {v}" for k, v in got.items()))
    off = [c["mispredicted_percent"] - c["recorded_mispredicted_percent"] for c in result.doc["cases"]
           if c["stretch"] == 1 and "recorded_mispredicted_percent" in c]
    if not o.traces:  # those begin with a predictor that knew something
        result.bar("mispredicted %, replayed less recorded, at most", max(off), "<=", 0.05)
    result.note("Kernels whose duration is an estimate are left out. usual, submission, start, hindsight: bounds, not predictors: "
                "they use durations that come later, and of all lengths of time the best for the trace.")
    sys.exit(1 if result.write(o.out) else 0)


main()
