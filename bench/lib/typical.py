"""Requests over what their like takes, and for how long they take too long."""
import bisect

from lib import results

# Of fewer requests the 99th percentile is the slowest.
LEAST = 100


class Typical:
    """What a request of each batch size took in a run (run.py's figures), and the 99th percentile of its requests over that."""

    def __init__(self, figures):
        took = {}
        for us, batch in zip(figures["us"], figures["batch"]):
            took.setdefault(batch, []).append(us)
        self.us = {batch: results.median(v) for batch, v in took.items()}
        self.p99 = results.quantile([x for _, x in self.over(figures)], 0.99)

    def over(self, figures):
        """(when it ended, what it took over the typical) of each request of some run; of a batch size that is not known: none."""
        return [(start / 1e9 + us / 1e6, us / self.us[batch]) for start, us, batch in
                zip(figures["start_ns"], figures["us"], figures["batch"]) if batch in self.us]


class Joined:
    """Requests of short turns one behind the other, as if nothing had been in between: run.py's figures."""

    def __init__(self):
        self.figures = {"us": [], "batch": [], "start_ns": []}
        self.ns = 0

    def add(self, turn):
        """All but its first request, which may have begun otherwise."""
        begun_ns = turn["start_ns"][0]
        for key in ("us", "batch"):
            self.figures[key] += turn[key][1:]
        self.figures["start_ns"] += [self.ns + start_ns - begun_ns for start_ns in turn["start_ns"][1:]]
        self.ns += round(1e9 * turn["seconds"])


def over_for_s(requests, limit, window_s, begin_s):
    """The longest time on end for which the 99th percentile of the last window_s (of the last LEAST requests, where those took longer) was over
    the limit: from when such a window ended first to when one began last, for as long as slow requests came. requests: (end in s, value), by
    their ends; begin_s: when the first began."""
    ordered, first, since, longest = [], 0, None, 0.0
    for i, (end, value) in enumerate(requests):
        bisect.insort(ordered, value)
        while first + LEAST <= i and requests[first][0] < end - window_s:
            del ordered[bisect.bisect_left(ordered, requests[first][1])]
            first += 1
        if len(ordered) < LEAST:
            continue
        if results.quantile_of_ordered(ordered, 0.99) <= limit:
            since = None
            continue
        if since is None:
            since = begin_s if i + 1 == LEAST else end
        until = end if i + 1 == len(requests) else requests[first][0]
        longest = max(longest, until - since)
    return longest
