#!/usr/bin/env python3
"""The paper's hybrid: a service beside a training job on one card, by what keeps the two apart.

Services: ResNet-50 (batches of 4, one CUDA graph, 250 requests a second, Poisson, SLO 15 ms) and BERT-large (eager, 40 a second, SLO
60 ms), each beside the training of a Llama of 1.1 billion weights and of ResNet-50. Ways: alone; time slicing (no MPS); MPS; MPS
with the training at low client priority; partitions of fixed TPCs; turns, the training's of 1 us (`lithosd --share preempt`), and where --ways says
"gathered turns" with the service's launches gathered, "long turns" with turns of 20 ms for it (--turn), too; LithOS with the quotas and
options that the notes say and `lithosd --rightsize=on`, and with quotas that --also says. The programs of a way start once and stay for its windows
(lib/colocate.py); the service and the trainings alone are measured among the windows of time slicing. A baseline's p99 is compared with LithOS' in
the same turns, where ways take turns (--together)."""
import itertools
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, colocate, results, servers  # noqa: E402
from lib.colocate import ALONE, BASELINES, LITHOS, LONG_TURNS, MORE_WAYS, TURN_US, WAYS, Job  # noqa: E402
from lib.place import virtual  # noqa: E402


IDLE = "1"  # TPCs of a training that waits for its window
NOBODY = "nobody"  # the part of a turn in which nobody is beside the service


class Service:
    """hp: the job. lithos, partition: quotas of it and of the training beside it; also: (quotas, options or None) more, under LithOS."""

    def __init__(self, hp, lithos, partition=("78%", "20%")):
        self.hp, self.quotas, self.also = hp, {LITHOS: lithos, "partition": partition}, []


def services():
    """By the name that bars have."""
    if virtual():
        return {"toy": Service(Job("hp", "toy inference", "", extra=["--batch", "2"], rate=60, slo_ms=2), ("75%", "20%"), ("75%", "20%"))}
    return {"resnet": Service(Job("hp", "resnet50 inference", "", extra=["--batch", "4", "--graph"], rate=250, slo_ms=15,
                                  options=["--slip", "1.1"]), ("100%", "0")),
            "bert": Service(Job("hp", "bert inference", "", rate=40, slo_ms=60, options=["--gather", "40ms"],
                                turns=["--gather", "40ms"]), ("100%", "0"))}


def trainings(beside=None):
    """By the name that cases have; beside: those of these names, with commas between."""
    if virtual():
        out = {"toy": Job("be-toy", "toy inference", "", high=False, extra=["--batch", "24"])}
    else:
        out = {"llama": Job("be-llama", "llama training", "", high=False), "resnet": Job("be-resnet", "resnet50 training", "", high=False)}
    return {name: job for name, job in out.items() if not beside or name in beside.split(",")}


def chosen(o):
    """Services to measure, with the quotas that --quotas says."""
    if not trainings(o.beside):
        raise SystemExit(f"bench: --beside: there are {', '.join(trainings())}, not {o.beside}")
    out = {name: s for name, s in services().items() if not o.only or name in o.only.split(",")}
    for option, text in (("--quotas", o.quotas), ("--also", o.also)):
        for word in filter(None, (text or "").split(",")):
            name, _, both = word.partition("=")
            hp, slash, rest = both.partition("/")
            be, *options = rest.split("/", 1)
            if name not in services() or not slash or (options and option == "--quotas"):
                raise SystemExit(f"bench: {option}: SERVICE=QUOTA/QUOTA, not {word}")
            if name in out and option == "--quotas":
                out[name].quotas[LITHOS] = (hp, be)
            elif name in out:
                out[name].also.append(((hp, be), options[0] if options else None))
    return out


def by_itself(name, way):
    """A training's case, nobody beside."""
    return f"{name}: training, {way}, nobody beside"


def pair(service, training):
    return f"{service} beside {training} training"


def otherwise(quotas, options):
    """A way of --also, as cases name it."""
    return f"{LITHOS} {'/'.join(quotas)}" + ("" if options is None else f" {options}")


class Way:
    """A way's jobs and what its windows are called. case: with --also other than the way's name. beside: trainings, as --beside says them. options:
    of the service, where not its own."""

    def __init__(self, name, way, case, quotas, beside, options=None):
        self.name, self.way, self.case = name, way, case
        self.hp, self.beside = services()[name].hp, trainings(beside)
        if options is not None:
            self.hp.options = options.split()
        self.hp.quota, self.be_quota = quotas
        for be in self.beside.values():
            be.quota = "0" if self.be_quota == "0" else IDLE

    def __str__(self):
        return f"{self.name}, {self.case}"

    def jobs(self):
        return [self.hp, *self.beside.values()]

    def parts(self):
        return [NOBODY, *self.beside]

    def windows(self, result, stage, rep, ways, part):
        """part: NOBODY, or a training."""
        if self.way == ALONE:
            return self.bare_windows(result, stage, rep, ways, part)
        if part != NOBODY:
            return self.beside_windows(result, stage, rep, part)
        # what the way costs by itself
        return 0 if stage.o.pairs_only else self.measure(result, f"{self.name}, {self.case}, nobody beside", rep, stage, hp=True)

    def bare_windows(self, result, stage, rep, ways, part):
        """Without MPS: each alone, in the repetitions that --alone-every says, and by turns."""
        alone_too = (rep - 1) % stage.o.alone_every == 0
        if part == NOBODY:
            return self.measure(result, f"{self.name}, {ALONE}", rep, stage, hp=True) if alone_too else 0
        be, failures = self.beside[part], 0
        if alone_too:
            failures += self.measure(result, f"{pair(self.name, part)}: training {ALONE}", rep, stage, be=be)
        if "time slicing" in ways:
            failures += self.measure(result, f"{pair(self.name, part)}, time slicing", rep, stage, hp=True, be=be)
        return failures

    def beside_windows(self, result, stage, rep, part):
        """The service beside a training, which has its quota where the way has quotas, and the training by itself where that is asked for."""
        be, failures = self.beside[part], 0
        if stage.lithosd and self.be_quota != "0":
            for other in self.beside.values():
                if other is not be:
                    stage.lithosd.set_quota(other.label, IDLE)
            stage.lithosd.set_quota(be.label, self.be_quota)
        if stage.o.by_itself:
            failures += self.measure(result, by_itself(pair(self.name, part), self.case), rep, stage, be=be)
        return failures + self.measure(result, f"{pair(self.name, part)}, {self.case}", rep, stage, hp=True, be=be)

    @staticmethod
    def measure(result, case, rep, stage, hp=False, be=None):
        """A window of the service, of a training, or of both."""
        names = {**({"hp": "hp"} if hp else {}), **({be.label: "be"} if be else {})}
        return colocate.measure(result, case, rep, lambda: stage.window(*names), names)


def run_service(bench, result, name, service):
    reps = range(1, bench.o.repetitions + 1)
    ways = (Way(name, way, way, service.quotas.get(way, ("", "")), bench.o.beside) for way in bench.stages())
    also = [Way(name, LITHOS, otherwise(quotas, options), quotas, bench.o.beside, options) for quotas, options in service.also]
    return colocate.measure_ways(bench, result, itertools.chain(ways, also), reps)


def over_alone(result, hp_name, case, key="hp_p99_us"):
    there, alone = result.median(case, key), result.median(f"{hp_name}, {ALONE}", key)
    return there / alone if there and alone else None


def kept(result, name, case):
    there = result.median(case, "be_iterations_per_s")
    alone = result.median(f"{name}: training {ALONE}", "be_iterations_per_s")
    return results.percent(there, alone) if there is not None and alone else None


def worst(values, pick):
    known = [v for v in values if v is not None]
    return pick(known) if known else None


def beyond_host_us(result, case):
    """By how much the service's p99 is more than it would be if the card took no time, in the same window: the median; None where that is not known."""
    both = list(zip(result.figures(case, "hp_p99_us"), result.figures(case, "hp_host_only_p99_us")))
    return results.median([p99_us - host_us for p99_us, host_us in both]) if both else None


def beside_lithos(result, name, way):
    """p99 of a way and of LithOS' windows in the same turns, where windows have turns: a host that is slow for some seconds is so for neighbours in time.
    The medians, and in words in how many of them LithOS' is the lower; None: one of the two was not measured."""
    theirs = f"{name}, {way}"
    turns = {c["turn"] for c in result.doc["cases"] if c["case"] == theirs and "turn" in c} or None
    both = [result.figures(case, "hp_p99_us", turns) for case in (theirs, f"{name}, {LITHOS}")]
    if not all(both):
        return None
    lower = f", lower in {sum(ours < other for other, ours in zip(*both))} of {len(turns)}" if turns and len(both[0]) == len(both[1]) else ""
    return [*(results.median(p99_us) for p99_us in both), lower]


def better_baselines(result, beside):
    """How many of those measured have a better p99 than LithOS; None: none was, or LithOS was not."""
    both = [beside_lithos(result, name, way) for name in beside for way in BASELINES]
    both = [medians for medians in both if medians]
    return sum(p99_us < our_p99_us for p99_us, our_p99_us, _ in both) if both else None


def bars(result, measured, beside_names):
    for hp_name, service in measured.items():
        beside = [pair(hp_name, training) for training in trainings(beside_names)]
        ours = [f"{name}, {LITHOS}" for name in beside]
        ways = (*WAYS, *MORE_WAYS, *(otherwise(*other) for other in service.also))
        result.bar(f"{hp_name} HP p99 over alone", worst([over_alone(result, hp_name, c) for c in ours], max), "<=", 1.2)
        result.bar(f"{hp_name} SLO %", worst([result.median(c, "hp_slo_percent") for c in ours], min), ">=", 100)
        result.bar(f"{hp_name} BE kept %", worst([kept(result, name, f"{name}, {LITHOS}") for name in beside], min), ">=", 75)
        result.bar(f"{hp_name} baselines with a better HP p99", better_baselines(result, beside), "<=", 0)
        for name in beside:
            for way in ways:
                r, k = over_alone(result, hp_name, f"{name}, {way}"), kept(result, name, f"{name}, {way}")
                if r and k is not None:
                    result.note(f"{name}, {way}: HP p99 {r:.2f} x alone, SLO {result.median(f'{name}, {way}', 'hp_slo_percent'):.1f} %, "
                                f"BE kept {k:.0f} %.")
                compared = way in BASELINES and beside_lithos(result, name, way)
                if compared:
                    result.note(f"{name}, {way}: HP p99 {compared[0] / 1e3:.1f} ms, LithOS' in the same turns {compared[1] / 1e3:.1f}{compared[2]}.")
                unloaded = kept(result, name, by_itself(name, way))
                if unloaded:
                    result.note(f"{by_itself(name, way)}: it keeps {unloaded:.1f} %.")
        for way in ways:
            floor = over_alone(result, hp_name, f"{hp_name}, {way}, nobody beside")
            if floor:
                result.note(f"{hp_name}, {way}, nobody beside: HP p99 {floor:.2f} x alone.")
        for case in (f"{hp_name}, {ALONE}", *(f"{name}, {way}" for way in ways for name in beside)):
            beyond_us = beyond_host_us(result, case)
            if beyond_us is not None:
                result.note(f"{case}: HP p99 is {beyond_us / 1e3:.2f} ms more than if the same requests were over when their thread is through "
                            "with their launches.")
        iteration = result.median(f"{hp_name}, {ALONE}", "hp_p50_us")
        if iteration and service.hp.rate:
            result.note(f"{hp_name}, {ALONE}: requests take {service.hp.rate * iteration / 1e4:.0f} % of the time (the median one's, by their "
                        "rate): a training keeps no more than the rest where they have the card to themselves.")
        for way in MORE_WAYS:
            if any(result.figures(f"{name}, {way}", "hp_p99_us") for name in beside):
                turn = f" --turn {TURN_US}" if way == LONG_TURNS else ""
                result.note(f"{hp_name}, {way}: lithosd --share preempt{turn}; service --quota 1 {' '.join(service.hp.turns)}; training --quota 1 "
                            "--class best-effort.")
        for case in (f"{hp_name}, {ALONE}", *ours):
            host, slo = result.median(case, "hp_host_p50_us"), result.median(case, "hp_host_slo_percent")
            if host is not None and slo is not None:
                result.note(f"{case}: the host takes {host / 1e3:.1f} ms until a request's launches are made; if the card took no time for them, "
                            f"{slo:.1f} % would meet the SLO.")
        for way, (hp_quota, be_quota) in service.quotas.items():
            options = [" ".join(job.lithos_options(1)) for job in (service.hp, *trainings(beside_names).values())] if way == LITHOS else ["", ""]
            result.note(f"{hp_name}, {way}: service --quota {hp_quota} {options[0]}; training --quota {be_quota} {options[1]}".rstrip() +
                        ("; lithosd --rightsize=on." if way == LITHOS else "."))
    result.note("Each bar is of the worst of the trainings, the median of the repetitions.")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    p.add_argument("--only", help="services, with commas between (default: all)")
    p.add_argument("--beside", help="trainings beside them, with commas between (default: all)")
    p.add_argument("--alone-every", type=int, default=1, metavar="N", help="those alone in each N-th turn (default: %(default)s)")
    p.add_argument("--pairs-only", action="store_true", help="no windows of the service with nobody beside it under a way: what that costs by itself")
    p.add_argument("--quiet-host", type=float, metavar="PART", help="begin only where a plain loop takes longer than usual in no more than this part "
                   "of its runs")
    p.add_argument("--by-itself", action="store_true", help="the trainings by themselves under each way, too")
    p.add_argument("--quotas", help="under LithOS, SERVICE=QUOTA/QUOTA of the service and of the training, with commas between")
    p.add_argument("--also", help="more quotas under LithOS, likewise: what a training would have if the service had fewer TPCs; or, as "
                   "SERVICE=QUOTA/QUOTA/OPTIONS, other options of `lithos run` for the service")
    colocate.add_options(p)
    o, place = cli.start(p)
    colocate.chosen_ways(o)
    measured = chosen(o)
    failures = 0
    with servers.Scratch() as scratch:
        name = "hybrid" + ("-together" if o.together else "") + "".join(f"-{only}" for only in measured if o.only) + \
            "".join(f"-beside-{training}" for training in trainings(o.beside) if o.beside)
        said_of_host = colocate.quiet_host(o, place)
        result = results.Result(name, cli.command_line(), o.repetitions, place, results.probe(place))
        bench = colocate.Bench(o, place, scratch)
        if said_of_host:
            result.note(said_of_host)
        with result.keeps_what_was_measured():
            for name, service in measured.items():
                failures += run_service(bench, result, name, service)
        bars(result, measured, o.beside)
        return result.end(o.out, failures)


if __name__ == "__main__":
    sys.exit(main())
