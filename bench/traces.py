#!/usr/bin/env python3
"""Records a trace of each model, alone on the whole card, for the simulator: OUT/traces/MODEL.trace and an index of them.

Compressed as far as it goes, and cut where a trace would be larger than --bytes: its first part is kept then."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers, trace  # noqa: E402
from lib.proc import Failed, log  # noqa: E402


def record(o, place, scratch, n, name, path):
    """Traces one model. What the index says of it."""
    raw = scratch.path / f"{n}.trace"
    extra = ["--compile"] if o.compile else []
    with servers.Lithosd(place, scratch, f"ld{n}") as d, \
            models.under_lithos(o, d, "100%", "model", name, scratch, *extra) as model:
        with d.record(raw, "model"):
            ran = model.do(f"seconds {o.seconds * o.scale:g}", 120 + 4 * o.seconds * o.scale)
            models.settle()
        model.end()
    return {"model": name, "arguments": " ".join(models.MODELS[name] + extra), "iterations_recorded": ran["iterations"],
            "iteration_p50_us": ran.get("p50_us"), **trace.keep(raw, path, o.bytes)}


def main():
    p = cli.parser(__doc__.splitlines()[0])
    models.add_options(p, models.PAPER + ["vgg19 training"])
    p.add_argument("--seconds", type=float, default=3, help="(default: %(default)s)")
    p.add_argument("--bytes", type=int, default=1500000, help="of a trace at most (default: %(default)s)")
    p.add_argument("--compile", action="store_true", help="with torch.compile")
    o, place = cli.start(p)
    folder = pathlib.Path(o.out) / "traces"
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    with servers.Scratch() as scratch:
        card = results.probe(place, servers.clean_env())
        result = results.Result("traces", cli.command_line(), 1, place, card)
        index = result.index()
        for n, name in enumerate(models.choose(o, result)):
            if o.compile and name == "llama decode":
                continue
            path = folder / (name.replace(" ", "-") + ("-compiled" if o.compile else "") + ".trace")
            try:
                index["traces"].append(record(o, place, scratch, n, name, path))
                log(f"{name}: {index['traces'][-1]}")
            except (Failed, OSError, ValueError, KeyError) as e:
                failures += 1
                log(f"{name}: FAILED: {e!r}")
        index["notes"] = " ".join(result.notes)
    (folder / ("index-compiled.json" if o.compile else "index.json")).write_text(json.dumps(index, indent=1) + "\n")
    print(f"wrote {folder}: {len(index['traces'])} traces, {sum(t['bytes'] for t in index['traces'])} bytes")
    sys.exit(1 if failures else 0)


main()
