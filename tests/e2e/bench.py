#!/usr/bin/env python3
"""The benchmark harness on the virtual GPU: short, for the harness's sake, not the figures'. Usage: bench.py NAME"""
import contextlib
import json
import operator
import os
import pathlib
import subprocess
import sys
import tempfile

from probed import bench_environment

BUILD, SOURCE = os.environ["LITHOS_BUILD"], os.environ["LITHOS_SOURCE"]
SLACK = float(os.environ.get("LITHOS_TEST_SLACK", "1"))
OPS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}
KEYS = {"name": str, "card": str, "driver": str, "commit": str, "date": str, "command": str, "repetitions": int, "cases": list,
        "bars": list, "notes": str}
# What a short run makes of it: arguments, cases that must be there with figures, bars that must be there.
RUNS = {
    "isolation": (["--seconds", "0.2", "--warmup", "0.05", "--repetitions", "1", "--scale", "4", "--only", "3, short"],
                  {"hp alone": "p99_us", "be alone, short waves": "be_kernels_per_s", "lithos 33/33, short waves": "p99_us"},
                  ["HP p99 over alone, 33/33, short waves", "HP p99 over alone, 33/33, long blocks"]),
    "overhead": (["--turns", "2", "--launches", "128", "--starts", "2", "--repetitions", "1", "--scale", "1", "--model-seconds", "0.2"],
                 {"mps, bare": "async_p50_us", "mps, mask only": "sync_p99_us", "mps, everything on": "sync_p99_us",
                  "mps, mask only, added": "async_p50_added_us", "mps, everything on, added": "stamps", "mps, inline, added": "async_p99_added_us",
                  "no mps, start mask only, added": "start_added_ms", "end to end, toy inference": "added_percent",
                  "end to end, toy inference, inline": "added_percent"},
                 ["async added median us", "async added p99 us", "attach added ms", "everything on, added median us",
                  "everything on, added p99 us, no MPS", "everything on, inline, added p99 us", "everything on, launches without a record", "end to end %", "end to end, inline %"]),
    "stamps": (["--iterations", "6", "--repetitions", "1", "--scale", "20"],
               {"toy inference": "error_p50_percent", "all": "error_p95_percent"},
               ["duration error p50 %", "duration error p95 %"]),
    "predict": (["--seconds", "0.1", "--repetitions", "1", "--scale", "4", "--traces"],
                {"toy inference, eager, alone": "mispredicted_percent", "toy inference, eager, beside": "path_mispredicted_percent"},
                ["inference mispredicted %", "training mispredicted %"]),
    "nothing_lost": (["--launches", "80000" if SLACK == 1 else "8000", "--life", "300" if SLACK == 1 else "50",
                      "--stall-every", "0.3", "--repetitions", "1"],
                     {"t1": "stamped", "t8": "begun", "lithosd": "halted"},
                     ["launches not accounted for", "launches accounted for that were not made", "processes killed, all repetitions"]),
    "atoms": (["--repetitions", "1", "--scale", "4", "--learn-us", "1e9", "--only", "short"],
              {"fma, short blocks, whole": "us", "fma, short blocks, 250us chained": "slower_percent",
               "fma, short blocks, 60us plain": "slower_percent"},
              ["chained 250 us, % slower", "chained 60 us, % slower"]),
    "exact": (["--parts", "7", "--rounds", "1", "--scale", "2"], {"lithos-exact, x7": "same"},
              ["identical to uncut %", "launches classified %"]),
    "graphs": (["--repetitions", "2", "--scale", "2"],
               {"long kernels, bare": "us", "long kernels, 250us": "slower_percent", "long kernels, x7": "atoms"},
               ["graph replay, % slower", "graph results equal %"]),
    "graph_follow": (["--repetitions", "1", "--replays", "4", "--scale", "2"],
                     {"kernels, graph destroyed, shrunk": "sms_first", "kernels, graph kept, parameters changed": "us",
                      "kernels, graph kept, all": "followed"},
                     ["SMs more or fewer than the tenant's, all replays", "graphs that kept other TPCs", "launches without a mask"]),
    "graph_hold": (["--repetitions", "1", "--scale", "4", "--nodes", "64", "--every", "16", "--replays", "3", "--stops", "4", "--seconds", "0.05"],
                   {"bare, no gates": "replay_us", "bare, wait, every 16": "stop_p99_us", "mps, wait, every 16": "go_p99_us",
                    "mps, service beside a graph that is held": "p99_us", "mps, service beside a graph that is replayed": "requests"},
                   ["wait, every 16 kernels: replays that passed closed gates"]),
    "scaling": (["--iterations", "3", "--scale", "4", "--widths", "66,16,1"], {"toy inference": "r2_by_time"}, ["R^2 weighted by time"]),
    "power_advise": (["--seconds", "1.5", "--idle", "1", "--scale", "2"], {"sample": "tenant_joules"},
                     ["clocks set in advise mode", "energy of the tenant over that of the card"]),
    "energy": (["--repetitions", "1", "--scale", "2", "--models", "bert-inference", "--slips", "1.1", "--window", "0.05", "--settle", "30", "--only",
                "bert-inference, off;bert-inference, formula"],
               {"bert-inference, off": "joules_per_request", "bert-inference, formula, slip 1.1": "energy_saved_percent"},
               ["energy saved %, loop at slip 1.1", "p99 added %, loop at slip 1.1, the app's pauses"]),
    "hol": (["--repetitions", "1", "--seconds", "0.2", "--warmup", "0.3", "--scale", "2", "--only", "atoms of 250us, client"],
            {"hp alone": "p99_us", "be alone": "be_kernels_per_s", "mps": "p99_us", "mps, every 25 ms": "p99_us",
             "tenant, atoms of 250us, client priority": "be_kernels_per_s",
             "tenant, atoms of 250us, client priority, every 25 ms": "p99_us"},
            ["p99 reduction against MPS uncut", "p99 reduction against MPS uncut, every 25 ms", "BE kept %"]),
    "lending": (["--repetitions", "1", "--seconds", "0.1", "--warmup", "0.1", "--learn", "0.2", "--scale", "2", "--only",
                 "client priority, short waves, every 2 ms;lithos, short waves, every 2 ms"],
                {"hp alone, every 2 ms": "p99_us", "be alone, short waves": "be_kernels_per_s",
                 "client priority, short waves, every 2 ms": "be_kernels_per_s", "lithos, short waves, every 2 ms": "be_lent_tpc_s"},
                ["lithos, short waves, every 2 ms: HP p99 over alone", "lithos, short waves, every 2 ms: BE kept %"]),
    "runahead": (["--repetitions", "1", "--scale", "1", "--turns", "2", "--launches", "256", "--model-seconds", "0.2"],
                 {"launch, bare": "async_p50_us", "launch, high, inline": "sync_p50_us", "launch, best-effort": "async_p99_us",
                  "launch, best-effort, always queued": "queued", "toy inference": "speed_over_bare"},
                 ["speed over bare, the slowest"]),
    "reaction": (["--repetitions", "1", "--seconds", "0.5"], {"idle": "core_percent", "both": "reaction_p99_us"},
                 ["record read to rule written, p99 us", "lithosd idle, % of a core"]),
    "rightsize_live": (["--repetitions", "1", "--learn", "0.5", "--window", "0.15", "--turns", "2", "--close", "0.2", "--scale", "4"],
                       {"toy inference, whole": "tpc_ms_a_request", "toy inference, slip": "references", "toy inference, close": "whole_p99_us",
                        "toy inference, compared": "p99_added_percent", "burn, alone, at toy inference": "be_kernels_per_s",
                        "toy inference, beside burn, slip": "strip_requests"},
                       ["TPC time saved %", "p99 added %", "throughput lost %", "aggregate throughput gained %, beside"]),
    "rightsize_safety": (["--repetitions", "1", "--learn", "0.5", "--window", "0.2", "--scale", "4"],
                         {"batches of 8": "over_s", "of 1 to 16 at random": "whole_over_s", "another model": "tpc_time_saved_percent",
                          "the first again, of 4": "references"},
                         ["over slip x baseline at p99, longest, s", "TPC time saved %, median"]),
    "gather_model": (["--repetitions", "1", "--requests", "400"], {"pace drawn every 3 requests, 10 % late: as it is": "held_us"},
                     ["card held over its kernels, the longest", "p99 beyond the host's over that with those behind another as any, the longest"]),
    "hybrid": (["--repetitions", "1", "--seconds", "0.1", "--learn", "2", "--settle", "0.1", "--scale", "4", "--ways", "mps,lithos", "--awake", "--record", "--by-itself"],
               {"toy, alone": "hp_p99_us", "toy beside toy training: training alone": "be_iterations_per_s",
                "toy beside toy training, mps": "hp_slo_percent", "toy beside toy training, lithos": "be_iterations_per_s"},
               ["toy HP p99 over alone", "toy SLO %", "toy BE kept %", "toy baselines with a better HP p99"]),
    "hybrid_together": (["--repetitions", "1", "--seconds", "0.1", "--learn", "2", "--settle", "0.1", "--scale", "4", "--together", "--in-turn", "--pairs-only",
                         "--alone-every", "2", "--ways",
                         "time slicing,long turns,partition,lithos"],
                        {"toy, alone": "hp_p99_us", "toy beside toy training, time slicing": "be_iterations_per_s",
                         "toy beside toy training, long turns": "be_iterations_per_s", "toy beside toy training, partition": "hp_host_only_p99_us",
                         "toy beside toy training, lithos": "be_iterations_per_s"},
                        ["toy HP p99 over alone", "toy SLO %", "toy BE kept %", "toy baselines with a better HP p99"]),
    "stack3": (["--repetitions", "1", "--seconds", "0.1", "--learn", "2", "--settle", "0.1", "--scale", "4", "--ways", "partition,lithos"],
               {"a alone": "a_p99_us", "a alone on its quota": "a_p99_us", "b alone on its quota": "b_iterations_per_s",
                "partition": "b_iterations_per_s", "lithos": "c_iterations_per_s"},
               ["A p99 over alone", "A SLO %", "B over its quota's speed", "aggregate over partition", "A p99 over its quota alone"]),
}


def exact_stamps(doc):
    """Every launch of the model was stamped and found by the other observer, and the two agree where neither guesses."""
    case = next(c for c in doc["cases"] if c["case"] == "toy inference")
    launches = 6 * 12  # iterations times the toy's layers
    if [case[k] for k in ("stamped", "stamped_under_profiler", "profiled", "matched")] != [launches] * 4:
        yield f"{launches} launches are not what was seen: {case}"
    if case["end_to_end_error_p50_percent"] > 2:
        yield f"ends of kernels that follow each other disagree: {case}"


def exact_prediction(doc):
    """The trace and lithosd's own counters say the same, and the only tenant that is alone is foretold well by its path. What was kept
    of the learning and the counting can be replayed, the neighbour with it."""
    for case in doc["cases"]:
        if case["launches"] != case["iterations"] * 12:
            yield f"{case['iterations']} iterations of 12 launches are not {case['launches']}"
        if abs(case["mispredicted_percent"] - case["daemon_mispredicted_percent"]) > 1e-3:
            yield f"the trace and lithosd differ about the predictions: {case}"
    launches = {c["case"]: c["launches"] for c in doc["cases"]}
    for case, tenants in (("alone", 1), ("beside", 2)):
        kept = [c for name, c in doc["replayed"].items() if name.startswith(f"toy-inference-eager-{case}: ")]
        if len(kept) != tenants or max(c["launches"] for c in kept) <= launches[f"toy inference, eager, {case}"]:
            yield f"the traces that were kept say something else: {doc['replayed']} {launches}"


def exact_accounts(doc):
    """What a kill, a halted lithosd or a full ring cost is known to the launch, short run or long."""
    for b in doc["bars"]:
        if not OPS[b["op"]](b["value"], b["limit"]):
            yield f"{b['what']}: {b['value']}, not {b['op']} {b['limit']}: {[c for c in doc['cases'] if 'begun' in c]}"


def all_cut(doc):
    """Kernels of five waves came in five atoms, in each way but one; in three or two, which are twice and four times as long, where a
    moment in which the machine was busy made the cut look too dear."""
    for case in doc["cases"]:
        whole = case["case"].endswith("whole")
        if case["cut"] != (0 if whole else case["launches"]) or case["atoms_each"] not in ((0,) if whole else (5, 3, 2)):
            yield f"not what was to be cut: {case}"
    if not any(case["atoms_each"] == 5 for case in doc["cases"]):
        yield f"no way came in five atoms: {doc['cases']}"


def exact_atoms(doc):
    """The bars are met on the virtual GPU too, and not for want of anything cut."""
    case = doc["cases"][0]
    if case["same"] != case["compared"] or case["compared"] < 34 or case["cut"] < 50 or case["unclassified"]:
        yield f"kernels in atoms are not what they are whole: {case}"


def graphs_cut(doc):
    """Results are the same, and that of graphs whose three long kernels were cut by length, and all six that can be into 7."""
    cases = {c["case"]: c for c in doc["cases"]}
    whole, cut, forced = (cases[f"long kernels, {way}"] for way in ("whole", "250us", "x7"))
    if any(c["same"] != c["compared"] or c["compared"] != 1 or c["escaped"] or c["graphs_whole"] for c in (whole, cut, forced)):
        yield f"graphs in atoms compute something else, or were left whole: {doc['cases']}"
    if whole["kernels_cut"] or not 3 <= cut["kernels_cut"] <= 6 or cut["cut_launches"] != cut["graph_launches"]:
        yield f"the three long kernels are not what was cut: {whole} {cut}"
    if forced["kernels_cut"] != 6 or forced["atoms"] != 42:
        yield f"six kernels are not in seven atoms each: {forced}"


def all_followed(doc):
    """Each change of the quota was followed, by one exec, and by nothing that was not to be."""
    ends = [(c["case"], c["followed"]) for c in doc["cases"] if "followed" in c]
    if ends != [("kernels, graph destroyed, all", 4), ("kernels, graph kept, all", 5)]:
        yield f"not what was to be followed: {ends}"
    for bar in doc["bars"]:
        if bar["value"] != 0:
            yield f"{bar}: {[c for c in doc['cases'] if c.get('sms_off')]}"


def all_held(doc):
    """Each replay that was to stand stood at the gate that was closed; lithos-graphhold fails when one does not go on, or does by itself."""
    stops = [(c["case"], c["stopped"], c["passed"]) for c in doc["cases"] if "stopped" in c]
    if stops != [(f"{way}, wait, every 16", 4, 0) for way in ("bare", "mps")]:
        yield f"not what was to be held: {stops}"


def cut_beside(doc):
    case = next(c for c in doc["cases"] if c["case"] == "tenant, atoms of 250us, client priority")
    # 10 ms in parts of half a millisecond, or of one where the machine is so slow that shorter ones are seen to cost too much
    if case["cut"] < 10 or case["atoms"] < 10 * case["cut"]:
        yield f"the job was not cut: {case}"


def lent_and_cut(doc):
    """Nothing else ran than was asked for, and what it came to be lent it was lent in atoms."""
    case = doc["cases"][-1]
    if len(doc["cases"]) != 4 or case["case"] != "lithos, short waves, every 2 ms" or case["be_lent_tpc_s"] <= 0 or case["atoms"] < 20:
        yield f"not what was to be measured: {doc['cases']}"


def in_the_same_rounds(doc):
    """Where there are CPUs to spare the model's launches went through the queue, none of them failed, and each process had its turns."""
    cases = {c["case"]: c for c in doc["cases"]}
    plain, inline = cases["end to end, toy inference"], cases["end to end, toy inference, inline"]
    handed_over = plain.get("queued", 0) >= plain["iterations"] / 2
    if handed_over != (len(os.sched_getaffinity(0)) >= 4) or plain.get("failed") or inline["bare_us"] != plain["bare_us"] or inline["pairs"] < 4:
        yield f"not handed over, or not in the same rounds: {plain} {inline}"


def each_its_way(doc):
    """Launches went the way that the case says, and none failed."""
    cases = {c["case"]: c for c in doc["cases"]}
    high, always, room = (cases[f"launch, {n}"] for n in ("high, inline", "best-effort, always queued",
                                                          "best-effort, inline where there is room"))
    if high["queued"] or high["unqueued"] or always["unqueued"] or always["queued"] < 500 or room["queued"] + room["unqueued"] < 500:
        yield f"launches went other ways than they should have: {high} {always} {room}"
    if any(c.get("failed") for c in doc["cases"]):
        yield f"queued calls failed: {doc['cases']}"


def by_the_middle(doc):
    """The rule as it is does what its parts are for: each that is otherwise has the card held for longer, or requests later."""
    cases = {name: c for c in doc["cases"] for name in [c["case"].partition("pace drawn every 3 requests, 10 % late: ")[2]] if name}
    held = {name: c["held_us"] for name, c in cases.items()}
    if not held["as it is"] < min(held["by the mean"], held["by the pace before"]) or \
            not cases["as it is"]["late_us"] < cases["done by a sixteenth"]["late_us"]:
        yield f"another rule is better: {doc['cases']}"
    beyond_us = {name: c["p99_us"] - c["host_only_p99_us"] for c in doc["cases"]
                 for name in [c["case"].partition("pace drawn every 40 requests, 0 % late: ")[2]] if name}
    if not 0 <= beyond_us["as it is"] < beyond_us["behind another as any"]:
        yield f"requests wait for each other for as long: {beyond_us}"
    late_us = {name: c["late_us"] for c in doc["cases"] for name in [c["case"].partition("without a pause, kernels predicted a third short: ")[2]] if name}
    if not late_us["as it is"] < late_us["behind another as any"]:
        yield f"what was wrong at first stays wrong where none comes after a pause: {late_us}"


def in_turn(doc):
    """Alone and LithOS are there beside each of the other two, which come one after the other."""
    windows = [(c["case"].rpartition(", ")[2], c["rep"]) for c in doc["cases"] if c["case"].startswith("toy beside") and "hp_p99_us" in c]
    if windows != [("time slicing", 1), ("lithos", 1), ("long turns", 1), ("lithos", 2), ("partition", 1)]:
        yield f"not by turns: {windows}"
    if [c["turn"] for c in doc["cases"] if c["case"].startswith("toy beside") and "hp_p99_us" in c] != [1, 1, 1, 2, 2]:
        yield f"not in these turns: {doc['cases']}"
    if [c["rep"] for c in doc["cases"] if c["case"] == "toy, alone"] != [1] or any("nobody beside" in c["case"] for c in doc["cases"]):
        yield f"alone is not in each second turn, or more than pairs: {doc['cases']}"
    p99_ms = {way: [c["hp_p99_us"] / 1e3 for c in doc["cases"] if c["case"] == f"toy beside toy training, {way}"] for way in ("partition", "lithos")}
    lower = int(p99_ms["lithos"][1] < p99_ms["partition"][0])
    if f"partition: HP p99 {p99_ms['partition'][0]:.1f} ms, LithOS' in the same turns {p99_ms['lithos'][1]:.1f}, lower in {lower} of 1." not in doc["notes"]:
        yield f"not compared in the same turns: {p99_ms} {doc['notes']}"


def scaled(doc):
    """Kernels of the toy at three widths: more blocks than one TPC holds take longer there."""
    for case in (c for c in doc["cases"] if "us" in c):
        if not (case["us"]["1"] > 1.5 * case["us"]["16"] and case["m_us_tpcs"] > 0):
            yield f"not as it scales on the virtual GPU: {case}"


def only_advised(doc):
    case = doc["cases"][0]
    if case["locks"] or not 0 < case["tenant_joules_least"] <= case["tenant_joules"]:
        yield f"more than advice, or energy out of nothing: {case}"


def clock_lowered(doc):
    """Nobody touched the clock but by the law that was asked for, and the counter went on."""
    off, formula = doc["cases"]
    if off["mhz_min"] < off["mhz_max"] or formula["mhz_min"] >= off["mhz_max"] or off["joules_per_request"] <= 0:
        yield f"the clock was not what it should have been: {off} {formula}"


CHECKS = {"stamps": exact_stamps, "predict": exact_prediction, "nothing_lost": exact_accounts, "atoms": all_cut, "exact": exact_atoms, "graphs": graphs_cut, "graph_follow": all_followed,
          "graph_hold": all_held, "hol": cut_beside, "lending": lent_and_cut, "overhead": in_the_same_rounds, "runahead": each_its_way,
          "gather_model": by_the_middle, "hybrid_together": in_turn, "scaling": scaled, "power_advise": only_advised, "energy": clock_lowered}


SCALE = 10  # of a benchmark that is not told one
PROBES_ITSELF = ("overhead",)  # measures how programs start: nothing of another run is given to it
OWN_CARD = ("energy",)  # virtual cards unlike the others'
SCRIPTS = {"hybrid_together": "hybrid", "rightsize_live": "rightsize", "rightsize_safety": "safety"}


def replayed(traces):
    """What bench/predict_replay.py makes of the traces in a folder: its cases by name."""
    subprocess.run([sys.executable, f"{SOURCE}/bench/predict_replay.py", "--prefix", BUILD, "--out", traces, "--traces", traces],
                   stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=True)
    return {c["case"]: c for c in json.loads((traces / "predict-replay.json").read_text())["cases"]}


def environment(name, arguments):
    """With what a probe of the card has found before in this build, unless it is to probe itself."""
    if name in PROBES_ITSELF:
        return contextlib.nullcontext(os.environ)
    scale = arguments[arguments.index("--scale") + 1] if "--scale" in arguments else SCALE
    return bench_environment(BUILD, scale, *([name] if name in OWN_CARD else []))


def main(name):
    arguments, cases, bars = RUNS[name]
    failures = []
    with tempfile.TemporaryDirectory() as out, environment(name, arguments) as env:
        run = subprocess.run([sys.executable, f"{SOURCE}/bench/{SCRIPTS.get(name, name)}.py", "--virtual", "--prefix", BUILD, "--out", out, *arguments],
                             env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        path = pathlib.Path(out, f"{name.replace('_', '-')}.json")
        if not path.exists():
            sys.exit(f"no result, exit code {run.returncode}:\n{run.stdout}{run.stderr}")
        doc = json.loads(path.read_text())
        if "--traces" in arguments:
            doc["replayed"] = replayed(pathlib.Path(out, "predict-traces"))
    failures += [f"{k} is missing or no {t.__name__}" for k, t in KEYS.items() if not isinstance(doc.get(k), t)]
    failures += [f"case {c['case']}: {c['error']}" for c in doc["cases"] if "error" in c]
    for case, figure in cases.items():
        values = [c.get(figure) for c in doc["cases"] if c["case"] == case]
        if not values or not all(isinstance(v, (int, float)) for v in values):
            failures.append(f"case {case}: no {figure}: {values}")
    failures += [f"bar {b} is missing" for b in bars if b not in [x["what"] for x in doc["bars"]]]
    if not failures:
        failures += CHECKS.get(name, lambda _: [])(doc)
    if "virtual" not in doc["card"].lower():
        failures.append(f"a virtual card is called {doc['card']!r}: its results could be taken for a card's")
    # a bar that was missed makes it 1; anything else is a fault of the harness
    if run.returncode not in (0, 1):
        failures.append(f"exit code {run.returncode}")
    if failures:
        sys.exit("\n".join(failures + [run.stdout, run.stderr]))
    print(f"ok: {name}: {len(doc['cases'])} cases")


main(sys.argv[1])
