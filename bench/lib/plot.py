"""Pictures of result files, as SVG. Standard library only."""
import html
import math
import re
import statistics

WIDTH, LEFT, RIGHT, TOP = 1000, 58, 12, 34
BLUE, ORANGE, GREEN, PURPLE, BROWN, GREY = "#2f6fb0", "#d9822b", "#3f9a57", "#a3478f", "#8a6d3b", "#5c6a7a"
LINE = 14  # from a line of text to the next
MISFIT = 0.9  # the R^2 under which a kernel is named


class Svg:
    def __init__(self):
        self.out = []

    def text(self, x, y, words, size=11, anchor="start", colour="#333"):
        self.out.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{html.escape(words)}</text>')

    def line(self, points, colour="#777", width=1.0, more=""):
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self.out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width:.1f}"{more}/>')

    def dot(self, x, y, colour, more=""):
        self.out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"{more}/>')

    def document(self, height):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
                f'font-family="sans-serif">\n<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(self.out) + "\n</svg>\n")


class Linear:
    def __init__(self, low, high):
        self.low, self.high = low, high

    def __call__(self, value):
        """Where a value lies, from 0 to 1; what is outside lies at the end."""
        return min(max((self.of(value) - self.of(self.low)) / (self.of(self.high) - self.of(self.low)), 0), 1)

    @staticmethod
    def of(value):
        return value


class Log(Linear):
    of = staticmethod(math.log)


class Frame:
    """At x, y, of width w and height h; across and up: scales."""

    def __init__(self, svg, x, y, w, h, across, up):
        self.svg, self.x, self.y, self.w, self.h, self.across, self.up = svg, x, y, w, h, across, up
        svg.line([(x, y), (x, y + h), (x + w, y + h)])

    def at(self, a, b):
        return self.x + self.w * self.across(a), self.y + self.h * (1 - self.up(b))

    def ticks(self, across, up, words=True):
        """Values to be named; words=False: those of up where a frame beside names them."""
        foot = self.y + self.h
        for value in across:
            x = self.at(value, self.up.low)[0]
            self.svg.line([(x, foot), (x, foot + 4)])
            self.svg.text(x, foot + 16, f"{value:g}", size=10, anchor="middle")
        for value in up:
            y = self.at(self.across.low, value)[1]
            self.svg.line([(self.x, y), (self.x + self.w, y)], "#ddd", 0.5)
            if words:
                self.svg.text(self.x - 6, y + 4, f"{value:g}", size=10, anchor="end")


# ---- scaling.json: figure 12 of the paper ----

NOBODYS = ("at", "native", "c10", "cutlass", "Kernel2", "cudnn", "engines_precompiled")  # names that say nothing of a kernel
TOKEN = re.compile(r"L[a-z]\d+E|S[0-9A-Z]*_|(\d+)|.")


def own_name(function):
    """What a person calls the function whose mangled name begins so (it may be cut off): its own name, and what it was made for."""
    if not function.startswith("_Z"):
        return function
    words, at = [], 2
    while at < len(function):
        token = TOKEN.match(function, at)
        at = token.end()
        if token[1]:
            word, at = function[at:at + int(token[1])], at + int(token[1])
            if word and at <= len(function) and word not in NOBODYS and not word.startswith(("_GLOBAL__", "gpu_kernel_impl")):
                words.append(word)
    return " of ".join(words[:2]) or function


def by_model(cases):
    """{model: (the case of all its kernels, those of each)}, of the first repetition."""
    kernels, whole = {}, {}
    for case in cases:
        if case["rep"] == 1 and "us" in case:
            kernels.setdefault(case["case"].split(": ")[0], []).append(case)
        elif case["rep"] == 1 and "r2_by_time" in case:
            whole[case["case"]] = case
    return {model: (whole[model], kernels[model]) for model in whole}


def kernels_in(frame, kernels, widest):
    """A line each, those that are named on top of the others."""
    frame.svg.line([frame.at(1, widest), frame.at(widest, 1)], "#333", 1, ' stroke-dasharray="4 3"')
    for k in sorted(kernels, key=lambda k: k["r2"] < MISFIT):
        times = {int(t): us for t, us in k["us"].items()}
        frame.svg.line([frame.at(t, us / times[max(times)]) for t, us in sorted(times.items())], ORANGE if k["r2"] < MISFIT else BLUE,
                       0.6 + k["share_percent"] ** 0.5 / 2, ' stroke-opacity="0.6"')


def scaling(doc):
    """A frame a model, a line a kernel: its time over that on all TPCs. Blue where a line in 1/t says it, the others orange and named."""
    svg, models = Svg(), by_model(doc["cases"])
    gap, height = 12, 250
    w = (WIDTH - LEFT - RIGHT - gap * (len(models) - 1)) / len(models)
    widest = max(int(t) for _, kernels in models.values() for k in kernels for t in k["us"])
    svg.text(LEFT, 16, f"Time on t TPCs over time on all, of kernels of more than 1 % of the time ({doc['card']})", size=13)
    for i, (model, (whole, kernels)) in enumerate(models.items()):
        frame = Frame(svg, LEFT + i * (w + gap), TOP + LINE, w, height, Log(1, widest), Log(0.125, 80))
        frame.ticks([t for t in (1, 2, 4, 8, 16, 33, 66) if t <= widest], [2 ** n for n in range(-3, 7)], words=i == 0)
        svg.text(frame.x, TOP + 4, f"{model}: R² {whole['r2_by_time']:.2f}")
        kernels_in(frame, kernels, widest)
    y = TOP + LINE + height + 34
    svg.text(LEFT, y, "TPCs. Dashed: as many times as long as there are fewer TPCs. A line is the wider the more of its model's time the kernel takes. "
             "R²: of l = m/t + b, by time.")
    misfits = [(model, k) for model, (_, kernels) in models.items() for k in kernels if k["r2"] < MISFIT]
    return svg.document(named(svg, misfits, y + 22) if misfits else y + LINE)


def named(svg, misfits, y):
    """In two columns; where they end."""
    svg.text(LEFT, y, f"Not of that form (R² below {MISFIT:g}): share of the model's time, R²", colour=ORANGE)
    rows = math.ceil(len(misfits) / 2)
    for i, (model, k) in enumerate(misfits):
        function, _, grid = k["case"][len(model) + 2:].rpartition(" ")
        x, line = LEFT + i // rows * (WIDTH - LEFT - RIGHT) / 2, i % rows + 1
        svg.text(x, y + LINE * line, f"{model}: {own_name(function)[:60]} {grid}, {k['share_percent']:.1f} %, {k['r2']:.2f}", size=9)
    return y + LINE * (rows + 1)


# ---- lending.json: what the neighbour keeps over what the owner pays ----

WAYS = {"mps": GREY, "client priority": BROWN, "partition": PURPLE, "lithos": BLUE, "lithos, advised": GREEN, "lithos, bold": ORANGE}
BAR = 1.3, 75  # the owner's p99 over alone, what the neighbour keeps in percent


def medians(cases, key):
    """{case: its median over the repetitions}"""
    out = {}
    for case in cases:
        if isinstance(case.get(key), (int, float)):
            out.setdefault(case["case"], []).append(case[key])
    return {name: statistics.median(values) for name, values in out.items()}


def lending_points(cases):
    """{gaps: [(way, kind, HP p99 over alone, BE kept %)]}"""
    p99, rate, out = medians(cases, "p99_us"), medians(cases, "be_kernels_per_s"), {}
    for name in p99:
        way, kind, gaps = [*name.rsplit(", ", 2), "", ""][:3]
        alone, whole = p99.get(f"hp alone, {gaps}"), rate.get(f"be alone, {kind}")
        if way in WAYS and alone and whole and name in rate:
            out.setdefault(gaps, []).append((way, kind, p99[name] / alone, 100 * rate[name] / whole))
    return out


def bar_in(frame):
    """Where both are met."""
    (x, y), (right, top) = frame.at(frame.across.low, BAR[1]), frame.at(BAR[0], frame.up.high)
    frame.svg.out.append(f'<rect x="{x:.1f}" y="{top:.1f}" width="{right - x:.1f}" height="{y - top:.1f}" fill="{GREEN}" fill-opacity="0.12"/>')


def points_in(frame, points, numbers):
    for way, kind, p99, part in points:
        x, y = frame.at(p99, part)
        frame.svg.dot(x, y, WAYS[way])
        frame.svg.text(x, y + 3, str(numbers[kind]), size=8, anchor="middle", colour="#fff")


def lending(doc):
    """A frame for each way that requests come: what the neighbour keeps over the owner's p99, a dot for each case."""
    svg, frames = Svg(), lending_points(doc["cases"])
    kinds = dict.fromkeys(kind for points in frames.values() for _, kind, _, _ in points)
    numbers = {kind: n for n, kind in enumerate(kinds, 1)}
    gap, height = 24, 260
    w = (WIDTH - LEFT - RIGHT - gap * (len(frames) - 1)) / max(len(frames), 1)
    svg.text(LEFT, 16, f"What a neighbour keeps of its speed (%), over the p99 of an owner's requests of 98 us, times that alone ({doc['card']})", size=13)
    for i, (gaps, points) in enumerate(frames.items()):
        frame = Frame(svg, LEFT + i * (w + gap), TOP + LINE, w, height, Log(0.8, 200), Linear(0, 110))
        frame.ticks((1, 1.3, 2, 4, 10, 20, 50, 100, 200), (0, 25, 50, 75, 100), words=i == 0)
        bar_in(frame)
        svg.text(frame.x, TOP + 4, f"requests {gaps}")
        points_in(frame, points, numbers)
    y = TOP + LINE + height + 36
    for i, (way, colour) in enumerate(WAYS.items()):
        svg.dot(LEFT + 5 + i * 130, y - 4, colour)
        svg.text(LEFT + 15 + i * 130, y, way)
    svg.text(LEFT, y + LINE + 4, "The neighbour's kernels: " + ", ".join(f"{n} {kind}" for kind, n in numbers.items()) +
             f". Shaded: at most {BAR[0]:g} times, {BAR[1]} % kept. Further right than 200: at 200.")
    return svg.document(y + 2 * LINE)


DRAWN = {"scaling": scaling, "scaling-gathered": scaling, "lending": lending}
