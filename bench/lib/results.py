"""The result file: one JSON document a benchmark, with its raw cases, its bars and the commit that ran. Until all is measured what
there is stands in NAME.part, for those whose benchmark was ended before: the same document, with "incomplete" and without bars."""
import contextlib
import datetime
import json
import math
import operator
import pathlib
import statistics
import subprocess
import sys
import time

OPS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}


def median(values):
    return statistics.median(values)


def quantile(values, q):
    """By nearest rank; None of nothing."""
    return quantile_of_ordered(sorted(values), q)


def quantile_of_ordered(ordered, q):
    return ordered[min(len(ordered) - 1, max(0, math.ceil(q * len(ordered)) - 1))] if ordered else None


def percent(part, whole):
    return 100 * part / whole if whole else None


class Result:
    def __init__(self, name, command, repetitions, place, gpus):
        """gpus: what lithos-probe printed."""
        gpu = (gpus.get("gpus") or [{}])[0]
        card = gpu.get("name") or "unknown"
        self.doc = {
            "name": name,
            "card": f"virtual {card}" if gpus.get("virtual") and "virtual" not in card.lower() else card,
            "driver": str(gpus.get("driver") or "unknown"),
            "commit": place.commit(),
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "command": command,
            "repetitions": repetitions,
            "cases": [],
            "bars": [],
            "notes": "",
        }
        self.notes = []
        self.root = str(place.root)
        out = getattr(place, "out", None)
        self.part = pathlib.Path(out, name + ".part") if out else None
        self.with_each = {}  # what each case that is added now has as well

    def index(self):
        """The beginning of an index of files made in this run."""
        return {**{k: self.doc[k] for k in ("card", "driver", "commit", "date", "command")}, "traces": []}

    def without_places(self, text):
        """Without folders of this machine."""
        text = text.replace(self.root, "PREFIX")
        return text if sys.prefix == sys.base_prefix else text.replace(sys.prefix, "PYTHON")

    def case(self, case, rep, **figures):
        figures = {k: self.without_places(v) if isinstance(v, str) else v for k, v in figures.items()}
        self.doc["cases"].append({"case": case, "rep": rep, **self.with_each, **figures})
        if self.part:
            self.save(self.part, {**self.doc, "bars": [], "notes": " ".join(self.notes),
                                  "incomplete": "ended before all was measured, and so without bars"})

    def repeat(self, o, begun):
        """The repetitions' numbers, until --keep-going-after since begun (time.monotonic()) is over. The result has those that were ended."""
        done = 0
        for rep in range(1, o.repetitions + 1):
            if o.keep_going_after and time.monotonic() - begun > o.keep_going_after:
                self.note(f"Only {done} repetitions: time ran out.")
                break
            yield rep
            done = rep
        self.doc["repetitions"] = done

    @contextlib.contextmanager
    def keeps_what_was_measured(self):
        """A signal to end ends what is in it, and no more: the bars that cannot be told of what there is say so."""
        try:
            yield
        except SystemExit:
            self.note("Ended before its end, by a signal.")

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def bar(self, what, value, op, limit):
        """A bar that could not be measured keeps a value that misses it, and a note says why."""
        if value is None:
            self.note(f"{what}: could not be measured")
            value = -1 if op in (">=", ">", "==") else 1e9
        self.doc["bars"].append({"what": what, "value": value if isinstance(value, int) else round(value, 4),
                                 "op": op, "limit": limit})

    def figures(self, case, key, turns=None):
        """Values of one figure over the repetitions of a case; turns: of those in these turns alone."""
        return [c[key] for c in self.doc["cases"] if c["case"] == case and isinstance(c.get(key), (int, float)) and
                (turns is None or c.get("turn") in turns)]

    def median(self, case, key):
        values = self.figures(case, key)
        return median(values) if values else None

    @staticmethod
    def save(path, doc):
        """Whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".writing")
        temporary.write_text(json.dumps(doc, indent=1) + "\n")
        temporary.replace(path)

    def write(self, out):
        """Writes OUT/NAME.json whole or not at all, prints the bars. Number of bars missed."""
        self.doc["notes"] = " ".join(self.notes)
        path = pathlib.Path(out, self.doc["name"] + ".json")
        self.save(path, self.doc)
        if self.part:
            self.part.unlink(missing_ok=True)
        missed = 0
        for b in self.doc["bars"]:
            met = OPS[b["op"]](b["value"], b["limit"])
            missed += not met
            print(f"{'met   ' if met else 'MISSED'} {b['what']}: {b['value']} {b['op']} {b['limit']}", flush=True)
        print(f"wrote {path}", flush=True)
        return missed

    def end(self, out, failures=0):
        """Writes it and ends the program: 1 when a bar was missed or something failed."""
        sys.exit(1 if self.write(out) or failures else 0)


def probe(place, env=None, timeout_s=180):
    """What lithos-probe says about the card: driver, name, TPCs."""
    run = subprocess.run([place.program("lithos-probe"), "--json"], env=env, stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=timeout_s)
    try:
        return json.loads(run.stdout)
    except ValueError:
        raise SystemExit(f"bench: lithos-probe --json: exit code {run.returncode}: {run.stderr.strip() or run.stdout[:300]}")
