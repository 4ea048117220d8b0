#!/usr/bin/env python3
"""Right-sizing (paper 5.5): TPC time saved at slip 1.1, and what it costs; in the simulator, over models recorded on a card, or with
--live on a card.

The simulator needs no GPU: what is right-sized are the recorded kernels, and how they scale with TPCs is the model's
(docs/rightsizing.md); bench/scaling.py measures that on a card. With --live, or --virtual, lithosd right-sizes a service that runs."""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, scenarios, servers, sized  # noqa: E402
from lib.proc import log  # noqa: E402

SLIP = 1.1


def run(place, path, *args):
    done = subprocess.run([place.program("lithos"), "sim", path, "--slip", str(SLIP), "--json", "--no-alone", *args],
                          capture_output=True, text=True, timeout=600)
    if done.returncode not in (0, 1):
        raise SystemExit(f"bench: lithos sim: exit code {done.returncode}: {done.stderr.strip()}")
    doc = json.loads(done.stdout)[0]
    doc["failed"] = doc["checks"]["failed"]
    return doc


def one(place, scratch, result, o, model, gaps, beside, seed):
    doc = scenarios.service(model, o.seconds, gaps, beside=beside)
    got = run(place, scenarios.write(doc, scratch.path), "--seed", str(seed))
    sized = {t["name"]: t for t in got["rightsized"]}
    service = sized["service"]
    case = model + (", the app's pauses" if gaps else "") + (f", beside {beside}" if beside else "")
    figures = {k: round(service[k], 3) for k in ("tpc_time_saved_percent", "tpc_time_saved_estimated_percent", "p99_added_percent",
                                                 "throughput_lost_percent", "whole_p99_us", "whole_per_s")}
    figures |= {"undone": service["undone"], "tries": service["launches"]["probe"], "sized": service["launches"]["sized"]}
    if beside:
        figures["neighbour_gained_percent"] = round(-sized["training"]["throughput_lost_percent"], 3)
    if got["failed"]:
        figures["error"] = f"a checker fired: {got['checks']}"
    result.case(case, seed, **figures)
    log(f"[{seed}] {case}: TPC time saved {figures['tpc_time_saved_percent']} %, p99 {figures['p99_added_percent']:+} %, "
        f"throughput lost {figures['throughput_lost_percent']} %")
    return case, bool(got["failed"])


def mean(result, cases, key):
    values = [result.median(c, key) for c in cases]
    return sum(values) / len(values)


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=2)
    p.add_argument("--seconds", type=float, default=8, help="of a scenario's time (default: %(default)s)")
    p.add_argument("--models", help="with commas between (default: " + ",".join(scenarios.INFERENCE) + "; with --live " +
                   ", ".join(sized.SERVICES) + ", of those of bench/models; with --virtual toy inference)")
    p.add_argument("--live", action="store_true", help="on a card; implied by --virtual")
    sized.add_options(p)
    o, place = cli.start(p)
    if o.live or o.virtual:
        live(o, place)
    else:
        simulated(o, place)


def live(o, place):
    o.models_default, o.python = sized.SERVICES, o.python or sys.executable
    result = results.Result("rightsize-live", cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
    failures = sized.measure(o, place, result, SLIP)
    result.end(o.out, failures)


def simulated(o, place):
    failures = 0
    result = results.Result("rightsize", cli.command_line(), o.repetitions, place,
                            {"gpus": [{"name": "simulated NVIDIA H100, virtual"}], "driver": "none"})
    busy, paused, stacked = [], [], []
    with servers.Scratch() as scratch:
        for seed in range(1, o.repetitions + 1):
            for model in (o.models.split(",") if o.models else scenarios.INFERENCE):
                for cases, gaps, beside in ((busy, False, None), (paused, True, None), (stacked, False, "bert-training")):
                    case, failed = one(place, scratch, result, o, model, gaps, beside, seed)
                    failures += failed
                    if case not in cases:
                        cases.append(case)
    result.bar("TPC time saved %", mean(result, busy, "tpc_time_saved_percent"), ">=", 26)
    result.bar("p99 added %", max(result.median(c, "p99_added_percent") for c in busy), "<=", 4)
    result.bar("throughput lost %", max(result.median(c, "throughput_lost_percent") for c in busy), "<=", 4)
    result.bar("TPC time saved %, the app's pauses", mean(result, paused, "tpc_time_saved_percent"), ">=", 26)
    result.bar("p99 added %, the app's pauses", max(result.median(c, "p99_added_percent") for c in paused), "<=", 4)
    result.bar("p99 added %, slip", max(result.median(c, "p99_added_percent") for c in busy), "<=", 100 * (SLIP - 1))
    result.bar("neighbour's gain %", mean(result, stacked, "neighbour_gained_percent"), ">", 0)
    result.note("Repetitions are seeds. Kernels are recorded on an H100; how they scale with TPCs is modelled: by waves, and by the "
                "memory bandwidth that is assumed for them by name (bench/lib/scenarios.py). Without the app's pauses a service is bound "
                "by the card alone, the hardest case; as recorded, PyTorch launches more slowly than these kernels run.")
    result.end(o.out, failures)


main()
