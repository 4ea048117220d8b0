#!/usr/bin/env python3
"""Right-sizing where the traffic changes under it: batches from 1 to 16, another model in the same process. For how long are requests
slower than the slip allows?

A service with its slip meets each change unprepared. Its requests with it and without come by short turns, in an order drawn by lot: two of three
without, one what it is compared with, the other what that differs by itself, for hosts are slower in one second than in the next, and a
request of a single sample takes as long as its host takes to launch it. A model that has been loaded runs
each batch size twice before, without the slip, as services do before they serve: a framework's first time with a size takes tens of
milliseconds with LithOS or without, and would be counted in the turn that comes first alone. On a card, or with --virtual."""
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, sized  # noqa: E402
from lib.place import virtual  # noqa: E402
from lib.proc import Failed, log  # noqa: E402
from lib.typical import LEAST, Joined, Typical, over_for_s  # noqa: E402

BATCHES = "1-16"
# (traffic, whether of the second model, batches)
TRAFFIC = [("batches of 8", False, "8"), ("of 1", False, "1"), ("of 16", False, "16"), ("of 1 to 16 at random", False, BATCHES),
           ("another model", True, "2"), ("the first again, of 4", False, "4")]
WINDOW_S = 1.0
WARM = 2  # requests of each batch size
SIDES = SIZED, WHOLE, AGAIN = ("sized", "whole", "again")
ENOUGH = 2 * LEAST  # requests of a side, however long they take
WINDOWS_MOST = 8
COUNTED = ("references", "spoilt", "undone", "stopped")


def options():
    p = cli.parser(__doc__.split("\n\n", maxsplit=1)[0], repetitions=3)
    p.add_argument("--slip", type=float, default=1.1, help="of the service (default: %(default)s)")
    p.add_argument("--learn", type=float, default=5, help="seconds of the card's time before the first change (default: %(default)s)")
    p.add_argument("--window", type=float, default=4, help="seconds of the card's time of each kind of traffic with the slip, and twice as many without; longer where "
                   f"that is fewer than {ENOUGH} requests (default: %(default)s)")
    p.add_argument("--models", help="the first and the second, of those of bench/models (default: vgg19 inference, llama prefill; with "
                   "--virtual toy apart, toy small apart)")
    p.add_argument("--beside", metavar="MODEL", help="a best-effort neighbour, one of bench/models or burn (default: nobody)")
    p.add_argument("--python", default=sys.executable, help="the Python that has the frameworks")
    p.add_argument("--model-timeout", type=float, default=400, metavar="S", help="for a model to be loaded and warm (default: %(default)s)")
    p.set_defaults(batches=BATCHES, turns=4)
    return p


def default_pair():
    return ["toy apart", "toy small apart"] if virtual() else ["vgg19 inference", "llama prefill"]


def pair(o):
    """Names of the first and the second model."""
    names = o.models.split(",") if o.models else default_pair()
    if len(names) != 2 or not set(names) <= set(models.MODELS):
        raise SystemExit(f"bench: --models: two of {', '.join(models.MODELS)}")
    return names


class Run:
    def __init__(self, o, service, result, rep):
        self.o, self.s, self.result, self.rep = o, service, result, rep
        self.first, self.second = pair(o)
        self.loaded = self.first
        self.counted = {}

    def warm(self):
        self.s.switch("off")
        self.s.child.do(f"each {WARM}", self.o.model_timeout)

    def change(self, second, batches):
        name = self.second if second else self.first
        if name != self.loaded:
            self.s.child.do(" ".join(["load", *models.words(self.o, name, "--batch", BATCHES, "--obey")]), self.o.model_timeout)
            self.loaded = name
            self.warm()
        self.s.child.do(f"batch {batches}")

    def sides(self):
        """{side: its figures}, by short turns. What has changed is met with the slip."""
        o, out, lot = self.o, {name: Joined() for name in SIDES}, random.Random(self.rep)
        order, most_ns = list(SIDES), 1e9 * WINDOWS_MOST * o.window * o.scale
        while out[SIZED].ns < 1e9 * o.window * o.scale or (len(out[SIZED].figures["us"]) < ENOUGH and out[SIZED].ns < most_ns):
            for name in order:
                self.s.switch(o.slip if name == SIZED else "off")
                out[name].add(self.s.run(sized.CLOSE_S))
            lot.shuffle(order)
        if min(len(side.figures["us"]) for side in out.values()) < LEAST:
            raise Failed(f"fewer than {LEAST} requests in {WINDOWS_MOST * o.window:g} s: they have no 99th percentile")
        return {name: side.figures for name, side in out.items()}

    def tpc_ms(self, on):
        """Of a request, by a longer turn."""
        return self.s.turn(on).figures()["tpc_ms_a_request"]

    def count(self):
        """What lithosd counted since the last time, and the slip in force; while the slip is on."""
        told = self.s.d.tenant("service")["rightsize"]
        before, self.counted = self.counted, {key: told[key] for key in COUNTED}
        return {key: n - before.get(key, 0) for key, n in self.counted.items()} | {key: told[key] for key in ("slip_in_force", "kernel_slip")}

    def one(self, traffic, second, batches):
        o = self.o
        self.change(second, batches)
        side = self.sides()
        sized_ms, counted, whole_ms = self.tpc_ms(True), self.count(), self.tpc_ms(False)
        typical = Typical(side[WHOLE])
        limit, window_s = o.slip * typical.p99, WINDOW_S * o.scale
        over = {key: over_for_s(typical.over(side[name]), limit, window_s, 0) / o.scale
                for key, name in (("over_s", SIZED), ("whole_over_s", AGAIN))}
        figures = over | {"limit_p99_over_typical": limit,
                          "p99_over_typical": results.quantile([x for _, x in typical.over(side[SIZED])], 0.99),
                          "p50_over_typical": results.median([x for _, x in typical.over(side[SIZED])]),
                          "whole_p99_over_typical": results.quantile([x for _, x in typical.over(side[AGAIN])], 0.99),
                          "tpc_time_saved_percent": 100 * (1 - sized_ms / whole_ms), "requests": len(side[SIZED]["us"])} | counted
        self.result.case(traffic, self.rep, **{k: round(v, 4) for k, v in figures.items()})
        log(f"[{self.rep}] {traffic}: over the slip for {figures['over_s']:.2f} s (without it {figures['whole_over_s']:.2f} s), "
            f"p50 {figures['p50_over_typical']:.3f}, p99 {figures['p99_over_typical']:.3f} (limit {limit:.3f}), TPC time saved "
            f"{figures['tpc_time_saved_percent']:.1f} %")

    def all(self):
        self.warm()
        self.change(False, TRAFFIC[0][2])
        self.s.switch(self.o.slip)
        self.s.run(self.o.learn)
        self.count()
        for traffic in TRAFFIC:
            self.one(*traffic)


def repetition(o, place, result, rep):
    """A program of its own: what one has learnt the next does not know."""
    with servers.Scratch() as scratch, servers.Lithosd(place, scratch, args=["--rightsize=on"]) as d:
        s = sized.Service(o, d, scratch, pair(o)[0], o.slip)
        neighbour = None
        try:
            if o.beside:
                neighbour = sized.Neighbour(o, d, scratch, o.beside)
            Run(o, s, result, rep).all()
            s.child.end()
        finally:
            s.child.kill()
            if neighbour:
                neighbour.end()


def main():
    o, place = cli.start(options())
    o.place = place
    names = pair(o)
    name = "rightsize-safety" + ("" if names == default_pair() else models.in_name(names))
    result = results.Result(name, cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
    failures, begun = 0, time.monotonic()
    with result.keeps_what_was_measured():
        for rep in result.repeat(o, begun):
            try:
                repetition(o, place, result, rep)
            except Failed as e:
                failures += 1
                result.note(f"Repetition {rep}: {e}")
                log(f"[{rep}] FAILED: {e}")

    def every(key):
        return [v for traffic, _, _ in TRAFFIC for v in result.figures(traffic, key)]
    result.bar("over slip x baseline at p99, longest, s", max(every("over_s"), default=None), "<=", 1)
    saved = every("tpc_time_saved_percent")
    result.bar("TPC time saved %, median", results.median(saved) if saved else None, ">", 0)
    result.note(f"Over: the 99th percentile of the requests that ended in the last second (of the last {LEAST} where those were fewer), each "
                "over what its batch size takes without the slip, is more than slip times that percentile without it. whole_over_s is the same "
                "of other requests without the slip: what the machine does by itself. Turns of a tenth of a second, in an order drawn by lot.")
    if virtual():
        result.note(f"Virtual {o.card}, {o.scale:g} times slower than the card.")
    result.end(o.out, failures)


main()
