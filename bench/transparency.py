#!/usr/bin/env python3
"""Whether programs notice LithOS: the same results with and without, no more SMs than their quota, no launch that escaped.

Each workload of bench/workloads runs bare twice (which tells whether its results are the same from run to run) and under
LithOS once a repetition, several tenants side by side on the same card. Where two bare runs agree bit for bit, the runs
under LithOS must agree with them; where they do not, a few numbers must be close, and the result says so."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results, servers, workloads  # noqa: E402
from lib.proc import Failed, log  # noqa: E402

CLOSE = 0.02  # relative, for results that vary from run to run
COUNTERS = ("launches", "qmds", "driver_qmds", "graph_qmds", "graph_launches", "escaped", "breaches", "unmasked", "masked")


class Bench(workloads.Runner):
    def managed(self, name, d, tenant):
        argv = d.run(self.o.quota, tenant, self.script(name), ["--sm-count", self.o.sm_count])
        return self.run(name, argv, d.env, lambda: self.look(d, tenant))

    def look(self, d, tenant):
        """The tenant's counters as `lithos status --json` has them."""
        for t in d.status().get("tenants", []):
            if t.get("name") == tenant:
                return {k: v for k, v in find_counters(t).items() if k in COUNTERS}
        raise Failed(f"lithos status does not know the tenant {tenant}")


def said(got):
    return f", {got['sms']} SMs" + (f", {got['launches']} launches, {got.get('escaped')} escaped" if "launches" in got else "")


def find_counters(tenant):
    """Counters of a tenant in the status document, by name, wherever in its object they stand."""
    if isinstance(tenant.get("counters"), dict):
        return tenant["counters"]
    return tenant


def compare(first, second, managed):
    """(deterministic, same, why) of a run under LithOS against two bare ones."""
    deterministic = first["hashes"] == second["hashes"]
    if deterministic:
        wrong = sorted(k for k in first["hashes"] if managed["hashes"].get(k) != first["hashes"][k])
        return True, not wrong, ", ".join(wrong)
    # what agrees between the bare runs must agree here, the rest must be close
    stable = [k for k, v in first["hashes"].items() if second["hashes"].get(k) == v]
    wrong = [k for k in stable if managed["hashes"].get(k) != first["hashes"][k]]
    for k, v in first["values"].items():
        if abs(managed["values"][k] - v) > CLOSE * max(abs(v), abs(second["values"][k]), 1e-6):
            wrong.append(f"{k}: {managed['values'][k]} for {v}")
    return False, not wrong, ", ".join(wrong)


def record(result, rep, name, first, second, managed, quota_sms):
    """One case; its figures of the three bars."""
    failed = next((f"{who}: {r}" for who, r in (("bare", first), ("bare again", second), ("lithos", managed))
                   if isinstance(r, Failed)), None)
    if failed:
        result.case(name, rep, error=failed[:1500])
        # a program that works bare and fails under LithOS differs; one that fails bare says nothing about LithOS
        broken_by_us = not isinstance(first, Failed) and not isinstance(second, Failed)
        if not broken_by_us:
            result.note(f"{name}: fails without LithOS as well, so it says nothing: {failed[:200]}")
        return {"differs": int(broken_by_us), "escaped": 0, "over": 0, "ran": False}
    deterministic, same, why = compare(first, second, managed)
    counters = {k: managed[k] for k in COUNTERS if k in managed}
    over = max(0, managed["sms"] - quota_sms)
    result.case(name, rep, deterministic=deterministic, same=same, differs_in=why, sms_bare=first["sms"], sms=managed["sms"],
                quota_sms=quota_sms, seconds_bare=first["seconds"], seconds=managed["seconds"], **counters)
    if not deterministic:
        result.note(f"{name}: two bare runs differ from each other; compared by what they agree in and by numbers.")
    if "escaped" not in counters:
        result.note(f"{name}: lithos status shows no count of escaped launches.")
    return {"differs": int(not same), "escaped": counters.get("escaped", 1), "over": over, "ran": True}


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=3)
    p.add_argument("--quota", type=int, default=16, help="TPCs of each tenant (default: %(default)s)")
    p.add_argument("--sm-count", choices=("full", "quota"), default="full",
                   help="of how many SMs they are told; by another number than bare ones, libraries choose other kernels (default: %(default)s)")
    p.add_argument("--parallel", type=int, default=4, help="workloads side by side (default: %(default)s)")
    p.add_argument("--timeout", type=float, default=240, help="seconds a workload may take (default: %(default)s)")
    p.add_argument("--only", help="workloads by name, with commas between")
    p.add_argument("--python", default=sys.executable, help="the Python that has the frameworks")
    o, place = cli.start(p)
    begun = time.monotonic()
    names = o.only.split(",") if o.only else workloads.names()
    totals = {"differs": 0, "escaped": 0, "over": 0}
    ran = 0
    with servers.Scratch() as scratch:
        bench = Bench(o, place, scratch)
        card = results.probe(place, servers.clean_env())
        topology = (card["gpus"] or [{}])[0].get("topology") or {}
        quota_sms = o.quota * topology.get("sms_per_tpc", 2)
        result = results.Result("transparency", cli.command_line(), o.repetitions, place, card)
        names = workloads.installed(o, result, names)
        first = bench.all("bare", names, bench.bare, said)
        second = bench.all("bare again", names, bench.bare, said)
        done = 0
        for rep in range(1, o.repetitions + 1):
            if done and o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                result.note(f"Only {done} repetitions: time ran out.")
                break
            try:
                with servers.Lithosd(place, scratch, f"ld{rep}") as d:
                    managed = bench.all(f"lithos {rep}", names, lambda n, d=d, rep=rep: bench.managed(n, d, f"{n}-{rep}"[:60]), said)
            except Failed as e:
                managed = {n: e for n in names}
                log(f"lithosd: FAILED: {e}")
            for n in names:
                got = record(result, rep, n, first[n], second[n], managed[n], quota_sms)
                ran += got["ran"]
                for k in totals:
                    totals[k] += got[k]
            done = rep
        result.doc["repetitions"] = done
        result.note(f"{o.parallel} tenants of {o.quota} TPCs side by side; SMs counted by a kernel launched in each workload's "
                    "process at its end.")
        result.bar("escaped launches", totals["escaped"] if ran else None, "==", 0)
        result.bar("results that differ", totals["differs"] if ran else None, "==", 0)
        result.bar("SMs over 2 x quota", totals["over"] if ran else None, "==", 0)
        result.end(o.out)


main()
