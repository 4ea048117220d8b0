"""Whose duration is whose: two lists of the same launches, from two observers, laid side by side."""
import collections
import re
import statistics

# Launches that may be missing on one side before the two are thought to have nothing more in common at this place.
WINDOW = 64
# So many in a row must agree before two places are taken for the same after a gap.
RUN = 4


class Launch:
    """One kernel as one observer saw it. Times in ns of that observer's clock; gap_ns: from the end before it on its stream to
    its start, None for the first; iteration: the caller's number, None outside of all."""
    __slots__ = ("name", "grid", "block", "stream", "start_ns", "end_ns", "gap_ns", "iteration", "flags")

    def __init__(self, name, grid, block, stream, start_ns, end_ns, flags=0):
        self.name, self.grid, self.block, self.stream = name, tuple(grid), tuple(block), stream
        self.start_ns, self.end_ns, self.flags = start_ns, end_ns, flags
        self.gap_ns = self.iteration = None

    @property
    def duration_ns(self):
        return self.end_ns - self.start_ns


BASE = re.compile(r"(\w+)\s*$")
_base, _same = {}, {}


def base_name(name):
    """The function's own name out of a demangled one: void at::native::foo<4, float>(int) is foo."""
    if name not in _base:
        text = name.replace("(anonymous namespace)", "_")
        match = BASE.search(re.split(r"[<(]", text, maxsplit=1)[0].split("::")[-1])
        _base[name] = match.group(1) if match else text
    return _base[name]


def same_function(mangled, demangled):
    """Whether these can be two spellings of one function: the linker's and a person's."""
    key = (mangled, demangled)
    if key not in _same:
        _same[key] = mangled == demangled or (mangled.startswith("_Z") and base_name(demangled) in mangled)
    return _same[key]


def same_launch(a, b):
    return a.grid == b.grid and a.block == b.block and (same_function(a.name, b.name) or same_function(b.name, a.name))


def align(a, b, same=same_launch):
    """Pairs (index in a, index in b) in order; on either side some may be missing."""
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if same(a[i], b[j]):
            pairs.append((i, j))
            i, j = i + 1, j + 1
            continue
        i, j = after_gap(a, b, i, j, same)
    return pairs


def after_gap(a, b, i, j, same):
    """The nearest places at or behind these from which both go on alike."""
    for skipped in range(1, WINDOW + 1):
        for in_a in range(skipped + 1):
            at_a, at_b = i + in_a, j + skipped - in_a
            run = min(RUN, len(a) - at_a, len(b) - at_b)
            if run > 0 and all(same(a[at_a + k], b[at_b + k]) for k in range(run)):
                return at_a, at_b
    return i + 1, j + 1


def by_stream(launches):
    streams = collections.defaultdict(list)
    for launch in launches:
        streams[launch.stream].append(launch)
    return streams


def set_gaps(launches):
    """gap_ns of each, from the launches before it on its stream; in order of launch."""
    for row in by_stream(launches).values():
        for before, launch in zip(row, row[1:]):
            launch.gap_ns = launch.start_ns - before.end_ns


def match(a, b):
    """Launches of a with those of b: [(launch, launch)]. Streams have other names on each side: those that have most launches
    in common go together; within two streams by order and function."""
    rows_a, rows_b = by_stream(a), by_stream(b)
    shapes = {side: {s: collections.Counter((x.grid, x.block) for x in row) for s, row in rows.items()}
              for side, rows in (("a", rows_a), ("b", rows_b))}
    common = sorted(((sum((x & y).values()), s, t) for s, x in shapes["a"].items() for t, y in shapes["b"].items()),
                    key=lambda c: -c[0])
    out, taken_a, taken_b = [], set(), set()
    for count, s, t in common:
        if count == 0 or s in taken_a or t in taken_b:
            continue
        taken_a.add(s)
        taken_b.add(t)
        out += [(rows_a[s][i], rows_b[t][j]) for i, j in align(rows_a[s], rows_b[t])]
    return out


def set_iterations(launches, windows, time):
    """Gives each launch the number of the window (begin, end) in which its time(launch) lies; both in order of time."""
    at = 0
    for launch in sorted(launches, key=time):
        t = time(launch)
        while at < len(windows) and windows[at][1] <= t:
            at += 1
        if at < len(windows) and windows[at][0] <= t:
            launch.iteration = at


def typical(launches):
    """One iteration made of many that launch the same: at each place the median duration and gap. (launches, how many
    iterations were the same, of how many)."""
    rows = collections.defaultdict(list)
    for launch in launches:
        if launch.iteration is not None:
            rows[launch.iteration].append(launch)
    kinds = collections.Counter(tuple((x.stream, x.name, x.grid) for x in row) for row in rows.values())
    if not kinds:
        return [], 0, 0
    kind, count = kinds.most_common(1)[0]
    same = [row for row in rows.values() if tuple((x.stream, x.name, x.grid) for x in row) == kind]
    out = []
    for place in zip(*same):
        first = place[0]
        took = statistics.median(x.duration_ns for x in place)
        launch = Launch(first.name, first.grid, first.block, first.stream, 0, took, first.flags)
        gaps = [x.gap_ns for x in place if x.gap_ns is not None]
        launch.gap_ns = statistics.median(gaps) if gaps else None
        out.append(launch)
    return out, count, len(rows)
