#!/usr/bin/env python3
"""How long requests that are gathered hold the card, and how late they are, by the rule of when they are let go: a model (no GPU).

A service like BERT-large's: 300 kernels of 15.4 us with 1.5 us between them, which its host launches unevenly, layer by layer, in 7 ms or, by lot, in 13;
40 requests a second, which come at random and wait for each other. The rule is that of src/tenant/queue_gather.c, with the parts that are written there, as
it is and with one part otherwise. A share of the requests is late by 3 ms besides, for something that was in their way. held_us: from a request's first
kernel to the end of its last; gap_us: the card waits for launches, of that; late_us: how much later than its host it is done; p99_us: of a request with its
wait, host_only_p99_us: if the card took no time."""
import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, results  # noqa: E402

RULE = pathlib.Path(__file__).resolve().parent.parent / "src/tenant/queue_gather.c"
KERNELS, KERNEL_US, BETWEEN_US = 300, 15.4, 1.5
CARD_US = KERNELS * (KERNEL_US + BETWEEN_US)
LAYERS = 24
LAYER = [.6, .6, 1.5, .6, .5, .5, 1.6, 1.0, .7, .8, 1.7, .6]  # what its launches take of each other
LAST = [2.5, .8, 3, 1.4, 1.0]
PACES_US = (7000, 13000)
WAY_US, WAIT_US = 20, 30  # from a launch to its kernel; from the last launch to the wait
IN_THE_WAY_US = 3000
BETWEEN_REQUESTS_US = 25000  # in the mean
WARM = 200  # requests before


def part(name):
    """A constant of the rule's."""
    return int(re.search(rf"#define {name} \(?(\d+)", RULE.read_text(encoding="utf-8"))[1])


class Rule:
    """late: it is well to be done by this part of the host's time behind it; most: later than so many times that counts as that; pace: what was
    known of the host's pace counts like this part of the kernels, 0: nothing but that counts; behind: those behind another are apart; predicted: so much of
    what a request takes is known at first."""

    def __init__(self, late=None, most=None, pace=None, behind=True, predicted=1):
        self.late, self.most, self.pace = late or part("LATE_PART"), most or part("LATE_MOST"), part("PACE_PART") if pace is None else pace
        self.late_us, self.adjust, self.slower = part("LATE_NS"), part("ADJUST_PART"), part("SLOWER_PART")
        self.behind, self.cases, self.step, self.behind_most = (part(f"BEHIND_{name}") for name in ("PART", "CASES", "STEP_PART", "MOST_PART"))
        self.row, self.in_a_row, self.told_apart = part("BEHIND_ROW"), 0, behind
        self.aheads_us, self.is_behind = {}, False
        self.host_us, self.known_us = None, predicted * CARD_US

    def begins(self, pause_us):
        """So long after the one before was over."""
        self.is_behind = self.told_apart and self.host_us is not None and pause_us <= self.host_us / self.behind

    @property
    def ahead_us(self):
        return self.aheads_us[self.is_behind]

    def goes_at(self, launches, wait_us):
        """When all that has come goes: with a launch, or when it is waited for."""
        for come, us in enumerate(launches, 1):
            left = KERNELS - come
            past_us = min(us - launches[0], self.pace * (self.host_us or 0))
            if self.host_us and left * (self.pace * past_us + self.host_us) / (self.pace * (come - 1) + KERNELS) <= self.ahead_us:
                return us
        return wait_us

    def learn(self, host_us, late_us, is_ahead):
        if self.host_us is None:
            self.host_us, self.aheads_us = host_us, dict.fromkeys((False, True), self.known_us + part("AHEAD_NS"))
            return
        if is_ahead:
            self.aheads_us[self.is_behind] = self.adjusted_us(self.is_behind, late_us)
            self.in_a_row = self.in_a_row + 1 if self.is_behind else 0
            if self.in_a_row >= self.row and late_us > self.well_us():
                self.aheads_us[False] = self.adjusted_us(False, late_us)
        self.host_us = min(host_us, self.host_us + self.host_us / self.slower)

    def well_us(self):
        return max(self.late_us, self.host_us / self.late)

    def most_behind_us(self):
        return min(self.aheads_us[False] + self.host_us / self.behind_most, self.host_us)

    def adjusted_us(self, is_behind, late_us):
        if is_behind:
            more_us = self.host_us / self.step * ((late_us > self.late_us) - 1 / self.cases)
        else:
            more_us = (min(late_us, self.most * self.well_us()) - self.well_us()) / self.adjust
        return min(max(self.aheads_us[is_behind] + more_us, 0), self.most_behind_us() if is_behind else self.host_us)


def host(lot, pace_us):
    """When a request's launches are made, and when it is waited for."""
    weights = LAYER * LAYERS + [1] * (KERNELS - len(LAYER) * LAYERS - len(LAST)) + LAST
    us = pace_us * lot.lognormvariate(0, .04) / sum(weights)
    layers = [lot.lognormvariate(0, .06) for _ in range(LAYERS + 1)]
    at, launches = 0, []
    for i, weight in enumerate(weights):
        at += weight * us * layers[i // len(LAYER)] + (lot.expovariate(1 / 400) if lot.random() < .001 else 0)
        launches.append(at)
    return launches, at + WAIT_US


def requests(rule, stays, in_the_way, seed, count, between_us=BETWEEN_REQUESTS_US):
    """Of each: how long it holds the card, and waits for launches then, how late it is, how long it takes from when it came, and would if the card took no time.
    stays: requests until the host's pace is drawn anew, in the mean. in_the_way: which share is late for it. between_us: in the mean, 0: one comes when the one
    before it is over."""
    lot, arrivals = random.Random(seed), random.Random(f"arrivals {seed}")
    pace_us = PACES_US[0]
    came_us = over_us = host_over_us = 0
    for n in range(WARM + count):
        came_us = came_us + arrivals.expovariate(1 / between_us) if between_us else over_us
        if lot.random() < 1 / stays:
            pace_us = lot.choice(PACES_US)
        launches, wait_us = host(lot, pace_us)
        rule.begins(max(came_us - over_us, 0))
        begun_us = end_us = rule.goes_at(launches, wait_us)
        gap_us = 0
        for us in launches:
            start_us = max(end_us, us + WAY_US)
            gap_us += start_us - end_us
            end_us = start_us + KERNEL_US + BETWEEN_US
        late_us = max(end_us - wait_us, 0)
        in_way_us = IN_THE_WAY_US if lot.random() < in_the_way else 0
        rule.learn(wait_us - launches[0], late_us + in_way_us, begun_us < wait_us)
        over_us = max(came_us, over_us) + wait_us + late_us + in_way_us
        host_over_us = max(came_us, host_over_us) + wait_us
        if n >= WARM:
            yield end_us - begun_us, gap_us, late_us, over_us - came_us, host_over_us - came_us


def figures(of_requests):
    held_us, gap_us, late_us, took_us, host_us = zip(*of_requests)
    return {"held_us": sum(held_us) / len(held_us), "held_p50_us": results.quantile(held_us, 0.5), "held_p99_us": results.quantile(held_us, 0.99),
            "gap_us": sum(gap_us) / len(gap_us), "late_us": sum(late_us) / len(late_us), "late_p99_us": results.quantile(late_us, 0.99),
            "p99_us": results.quantile(took_us, 0.99), "host_only_p99_us": results.quantile(host_us, 0.99)}


def beyond_host_us(result, case):
    return results.median([p99_us - host_us for p99_us, host_us in zip(result.figures(case, "p99_us"), result.figures(case, "host_only_p99_us"))])


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=3)
    p.add_argument("--requests", type=int, default=4000, help="of each case (default: %(default)s)")
    o, place = cli.start(p)
    if not RULE.exists():
        raise SystemExit(f"bench: the rule is read from {RULE.name}, which is in the source tree alone")
    result = results.Result("gather-model", cli.command_line(), o.repetitions, place,
                            {"gpus": [{"name": "virtual: a model of a card and its host"}], "driver": "none"})
    rules = {"as it is": {}, "done by a sixteenth": {"late": 16}, "by the mean": {"most": 1 << 30},
             "by the mean, done by a sixteenth": {"most": 1 << 30, "late": 16}, "by the pace before": {"pace": 0},
             "behind another as any": {"behind": False}}
    held, beyond = [], []
    for stays in (3, 40):
        for in_the_way in (0, 0.1):
            of_these = f"pace drawn every {stays} requests, {in_the_way * 100:.0f} % late"
            for name, parts in rules.items():
                case = f"{of_these}: {name}"
                for rep in range(1, o.repetitions + 1):
                    result.case(case, rep, **figures(requests(Rule(**parts), stays, in_the_way, rep, o.requests)))
            held.append(result.median(f"{of_these}: as it is", "held_us") / CARD_US)
            beyond.append(beyond_host_us(result, f"{of_these}: as it is") / beyond_host_us(result, f"{of_these}: behind another as any"))
    for name, behind in (("as it is", True), ("behind another as any", False)):
        for rep in range(1, o.repetitions + 1):
            result.case(f"without a pause, kernels predicted a third short: {name}", rep,
                        **figures(requests(Rule(behind=behind, predicted=2 / 3), 40, 0, rep, o.requests, between_us=0)))
    result.bar("card held over its kernels, the longest", max(held), "<=", 1.05)
    result.bar("p99 beyond the host's over that with those behind another as any, the longest", max(beyond), "<=", 0.95)
    result.end(o.out)


if __name__ == "__main__":
    main()
