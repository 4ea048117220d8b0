#!/usr/bin/env python3
"""Right-sizing (paper 5.5): TPC time saved at slip 1.1, and what it costs; in the simulator, over models recorded on a card, or with
--live on a card.

The simulator needs no GPU: what is right-sized are the recorded kernels, and how they scale with TPCs is the model's
(docs/rightsizing.md); bench/scaling.py measures that on a card. With --live, or --virtual, lithosd right-sizes a service that runs. What
that leaves is lent to a best-effort neighbour: its gain is told as well."""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, scenarios, servers, sized  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import log  # noqa: E402

SLIP = 1.1
NEIGHBOUR = "bert-training"


def run(place, path, slip, *args):
    done = subprocess.run([place.program("lithos"), "sim", path, "--slip", str(slip), "--json", *args],
                          capture_output=True, text=True, timeout=600)
    if done.returncode not in (0, 1):
        raise SystemExit(f"bench: lithos sim: exit code {done.returncode}: {done.stderr.strip()}")
    doc = json.loads(done.stdout)[0]
    doc["failed"] = doc["checks"]["failed"]
    return doc


def beside_figures(got, sized):
    """What both make of the card, each over what it does alone; with right-sizing and without."""
    alone = {t["name"]: t["alone"]["per_s"] for t in got["tenants"]}
    with_ = {t["name"]: t["per_s"] / alone[t["name"]] for t in got["tenants"]}
    without = {n: sized[n]["whole_per_s"] / alone[n] for n in with_}
    return {"neighbour_kept_percent": round(100 * with_["training"], 3),
            "whole_neighbour_kept_percent": round(100 * without["training"], 3),
            "together": round(sum(with_.values()), 4), "whole_together": round(sum(without.values()), 4),
            "together_gained_percent": round(100 * (sum(with_.values()) / sum(without.values()) - 1), 3)}


def one(place, scratch, result, o, model, gaps, beside, seed, slip=SLIP, pace=None):
    # requests with the app's pauses are a tenth as many
    doc = scenarios.service(model, o.seconds * (2 if gaps else 1), gaps, beside=beside, **({"pace": pace} if pace else {}))
    got = run(place, scenarios.write(doc, scratch.path), slip, "--seed", str(seed), *([] if beside else ["--no-alone"]))
    sized = {t["name"]: t for t in got["rightsized"]}
    service = sized["service"]
    case = (model + (", the app's pauses" if gaps else "") + (", a changing pace" if pace else "") + (f", beside {beside}" if beside else "") +
            (f", slip {slip:g}" if slip != SLIP else ""))
    figures = {k: round(service[k], 3) for k in ("tpc_time_saved_percent", "tpc_time_saved_estimated_percent", "p99_added_percent",
                                                 "throughput_lost_percent", "whole_p99_us", "whole_per_s")}
    figures |= {"undone": service["undone"], "tries": service["launches"]["probe"], "sized": service["launches"]["sized"]}
    told = ""
    if beside:
        figures |= beside_figures(got, sized) | {"beside_strip": service["launches"]["lent"]}
        told = f", neighbour {figures['whole_neighbour_kept_percent']} -> {figures['neighbour_kept_percent']} % of alone"
    if got["failed"]:
        figures["error"] = f"a checker fired: {got['checks']}"
    result.case(case, seed, **figures)
    log(f"[{seed}] {case}: TPC time saved {figures['tpc_time_saved_percent']} %, p99 {figures['p99_added_percent']:+} %, "
        f"throughput lost {figures['throughput_lost_percent']} %{told}")
    return case, bool(got["failed"])


def mean(result, cases, key):
    values = [result.median(c, key) for c in cases]
    return sum(values) / len(values)


def most(result, cases, key):
    return max(result.median(c, key) for c in cases)


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=2)
    p.add_argument("--seconds", type=float, default=8, help="of a scenario's time; twice that with the app's pauses (default: %(default)s)")
    p.add_argument("--models", help="with commas between (default: " + ",".join(scenarios.INFERENCE) + "; with --live " +
                   ", ".join(sized.SERVICES) + ", of those of bench/models; with --virtual toy inference; toy small has kernels to cut)")
    p.add_argument("--slips", default="1.2,1.3,1.5", help="with commas between: more slips for services without pauses beside a neighbour "
                   "(default: %(default)s)")
    p.add_argument("--live", action="store_true", help="on a card; implied by --virtual")
    sized.add_options(p)
    o, place = cli.start(p)
    if o.live or o.virtual:
        live(o, place)
    else:
        simulated(o, place)


def live(o, place):
    o.models_default, o.python = sized.SERVICES, o.python or sys.executable
    only = models.in_name(o.models.split(",")) if o.models and not virtual() else ""
    result = results.Result("rightsize-live" + only, cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
    failures = sized.measure(o, place, result, SLIP)
    result.end(o.out, failures)


def simulated(o, place):
    failures = 0
    result = results.Result("rightsize", cli.command_line(), o.repetitions, place,
                            {"gpus": [{"name": "simulated NVIDIA H100, virtual"}], "driver": "none"})
    busy, paused, paced, stacked, filled, frontier = [], [], [], [], [], []
    with servers.Scratch() as scratch:
        for seed in range(1, o.repetitions + 1):
            for model in (o.models.split(",") if o.models else scenarios.INFERENCE):
                for cases, gaps, pace, beside, slips in ((busy, False, None, None, [SLIP]), (paused, True, None, None, [SLIP]),
                                                         (paced, True, scenarios.PACE, None, [SLIP]),
                                                         (stacked, True, None, NEIGHBOUR, [SLIP]), (filled, False, None, NEIGHBOUR, [SLIP]),
                                                         (frontier, False, None, NEIGHBOUR, [float(x) for x in o.slips.split(",") if x])):
                    for slip in slips:
                        case, failed = one(place, scratch, result, o, model, gaps, beside, seed, slip, pace)
                        failures += failed
                        if case not in cases:
                            cases.append(case)
    for cases, what in ((busy, ""), (paused, ", the app's pauses"), (paced, ", a changing pace")):
        result.bar("TPC time saved %" + what, mean(result, cases, "tpc_time_saved_percent"), ">=", 26)
        result.bar("p99 added %" + what, most(result, cases, "p99_added_percent"), "<=", 4)
        result.bar("throughput lost %" + what, most(result, cases, "throughput_lost_percent"), "<=", 4)
    for cases, what in ((stacked, ", beside, the app's pauses"), (filled, ", beside")):
        result.bar("p99 added %" + what, most(result, cases, "p99_added_percent"), "<=", 4)
        result.bar("throughput lost %" + what, most(result, cases, "throughput_lost_percent"), "<=", 4)
        result.bar("aggregate throughput gained %" + what, mean(result, cases, "together_gained_percent"), ">", 0)
    result.note("Repetitions are seeds. Kernels are recorded on an H100; how they scale with TPCs is modelled: by waves, and by the "
                "memory bandwidth that is assumed for them by name (bench/lib/scenarios.py). Without the app's pauses a service is bound "
                "by the card alone, the hardest case; as recorded, PyTorch launches more slowly than these kernels run. "
                f"A changing pace: these pauses take {scenarios.PACE['from']} to {scenarios.PACE['to']} times as long, another part each "
                f"{scenarios.PACE['every_ms']} ms.")
    result.note("Beside: the neighbour is best-effort, owns nothing and lives on what is lent; together is the sum of both, each over what "
                "it does alone. Added and lost are against the same run without right-sizing, where it is lent what is idle.")
    result.end(o.out, failures)


main()
