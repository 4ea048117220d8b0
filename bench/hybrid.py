#!/usr/bin/env python3
"""The paper's hybrid: a service beside a training job on one card, by what keeps the two apart.

Services: ResNet-50 (batches of 4, one CUDA graph, 250 requests a second, Poisson, SLO 15 ms) and BERT-large (eager, 40 a second, SLO
60 ms), each beside the training of a Llama of 1.1 billion weights and of ResNet-50. Ways: alone; time slicing (no MPS); MPS; MPS
with the training at low client priority; partitions of fixed TPCs; LithOS with the quotas and options that the notes say. The ways of a repetition
follow each other, with each program alone right before them."""
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, colocate, results, servers  # noqa: E402
from lib.colocate import ALONE, BASELINES, LITHOS, WAYS, Job  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Failed, log  # noqa: E402


def services():
    """By the name that bars have: (service, quota of the other under LithOS, its quota under partition)."""
    if virtual():
        return {"toy": (Job("hp", "toy inference", "75%", extra=["--batch", "2"], rate=60, slo_ms=2), "25%")}
    return {"resnet": (Job("hp", "resnet50 inference", "80%", extra=["--batch", "4", "--graph"], rate=250, slo_ms=15), "20%"),
            "bert": (Job("hp", "bert inference", "80%", rate=40, slo_ms=60), "20%")}


def trainings(quota):
    if virtual():
        return {"toy": Job("be", "toy inference", quota, high=False, extra=["--batch", "24"])}
    return {"llama": Job("be", "llama training", quota, high=False), "resnet": Job("be", "resnet50 training", quota, high=False)}


def pairs(only):
    for hp_name, (hp, quota) in services().items():
        for be_name, be in trainings(quota).items():
            name = f"{hp_name} beside {be_name} training"
            if not only or only in name:
                yield hp_name, name, hp, be


def cases(bench, hp_name, name, hp, be):
    yield f"{hp_name}, {ALONE}", lambda: {f"hp_{k}": v for k, v in bench.alone(hp).items()}
    yield f"{name}: training {ALONE}", lambda: {f"be_{k}": v for k, v in bench.alone(be).items()}
    for way in colocate.ways(bench.o):
        yield f"{name}, {way}", lambda way=way: colocate.flat(bench.run(way, [hp, be]))


def over_alone(result, hp_name, case, key="hp_p99_us"):
    there, alone = result.median(case, key), result.median(f"{hp_name}, {ALONE}", key)
    return there / alone if there and alone else None


def kept(result, name, way):
    there = result.median(f"{name}, {way}", "be_iterations_per_s")
    alone = result.median(f"{name}: training {ALONE}", "be_iterations_per_s")
    return results.percent(there, alone) if there is not None and alone else None


def worst(values, pick):
    known = [v for v in values if v is not None]
    return pick(known) if known else None


def bars(result, only):
    names = {}
    for hp_name, name, hp, be in pairs(only):
        names.setdefault(hp_name, []).append(name)
    for hp_name, beside in names.items():
        ours = [f"{name}, {LITHOS}" for name in beside]
        result.bar(f"{hp_name} HP p99 over alone", worst([over_alone(result, hp_name, c) for c in ours], max), "<=", 1.2)
        result.bar(f"{hp_name} SLO %", worst([result.median(c, "hp_slo_percent") for c in ours], min), ">=", 100)
        result.bar(f"{hp_name} BE kept %", worst([kept(result, name, LITHOS) for name in beside], min), ">=", 75)
        better = [way for name in beside for way in BASELINES
                  if (result.median(f"{name}, {way}", "hp_p99_us") or 1e18) < (result.median(f"{name}, {LITHOS}", "hp_p99_us") or 0)]
        result.bar(f"{hp_name} baselines with a better HP p99", len(better), "<=", 0)
        for name in beside:
            for way in WAYS:
                r, k = over_alone(result, hp_name, f"{name}, {way}"), kept(result, name, way)
                if r and k is not None:
                    result.note(f"{name}, {way}: HP p99 {r:.2f} x alone, SLO {result.median(f'{name}, {way}', 'hp_slo_percent'):.1f} %, "
                                f"BE kept {k:.0f} %.")
    for hp_name, name, hp, be in pairs(only):
        result.note(f"{name}, under LithOS: {hp.advice()}; {be.advice()}. Partition: the same quotas.")
    result.note("Each bar is of the worse of the two trainings.")
    result.note(colocate.NO_PREEMPT)


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--only", help="pairs whose name has this in it")
    colocate.add_options(p)
    o, place = cli.start(p)
    colocate.ways(o)
    begin, failures = time.monotonic(), 0
    with servers.Scratch() as scratch:
        result = results.Result("hybrid", cli.command_line(), o.repetitions, place, results.probe(place))
        bench = colocate.Bench(o, place, scratch)
        for rep in range(1, o.repetitions + 1):
            if rep > 1 and o.keep_going_after and time.monotonic() - begin > o.keep_going_after:
                result.note(f"Ended after {rep - 1} repetitions: --keep-going-after.")
                break
            for pair in pairs(o.only):
                for case, run in cases(bench, *pair):
                    log(f"{case}, {rep}")
                    try:
                        result.case(case, rep, **run())
                    except Failed as e:
                        failures += 1
                        result.note(f"{case}, {rep}: {e}")
        bars(result, o.only)
        return result.end(o.out, failures)


if __name__ == "__main__":
    sys.exit(main())
