#!/usr/bin/env python3
"""Two stacked tenants, for a person to look at: `lithos top` as its terminal shows it (OUT/top.txt) and a trace of both
(OUT/stacked.trace, for tools/trace-picture).

On a card a ResNet-50 service with open-loop requests beside the training of a Llama; without PyTorch, and on the virtual GPU,
the sample tenants.

--draw RESULT.json runs nothing: it draws what a result file says into OUT/NAME-CARD.svg, CARD being the name of the file's folder."""
import contextlib
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, plot, screen, servers, trace  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

DOWN = b"\x1bOB"  # the key: the first tenant's kernels are shown as well


def tenants(o, place):
    """[(name, quota, arguments)]; each says "ready" and goes on at a line."""
    forever = ["--seconds", "1000000", "--gate"]
    if not o.samples and all(models.has_module(o.python, m) for m in ("torch", "torchvision", "transformers")):
        return [("resnet-service", o.quotas[0], models.command(o, "resnet50 inference", "--batch", "4", "--rate", "250", *forever)),
                ("llama-training", o.quotas[1], models.command(o, "llama training", *forever))]
    sample = ["--seconds", "0", "--gate", "--time-scale", f"{o.scale:g}"]
    return [("service", o.quotas[0], [place.program("lithos-serve"), *sample, "--kernels", "4"]),
            ("batch-job", o.quotas[1], [place.program("lithos-burn"), *sample])]


def stacked(o, place, scratch, out):
    with contextlib.ExitStack() as stack:
        d = stack.enter_context(servers.Lithosd(place, scratch))
        children = []
        for name, quota, argv in tenants(o, place):
            log(f"{name}: {' '.join(argv)}")
            children.append(stack.enter_context(Child(d.run(quota, name, argv), models.environment(d.env, scratch),
                                                      scratch.path / f"{name}.err")))
        for child in children:
            child.expect("ready", o.model_timeout)
        for child in children:
            child.tell("")
        time.sleep(o.settle)
        shown = screen.capture([place.program("lithos"), "top"], d.env, [(1.5, DOWN), (2, b"q")], o.rows, o.columns)
        (out / "top.txt").write_text(shown)
        print(shown)
        raw = scratch.path / "stacked.trace"
        with d.record(raw):
            time.sleep(o.seconds)
        packed, blocks, of = trace.pack(raw.read_bytes(), o.bytes)
        (out / "stacked.trace").write_bytes(packed)
        kernels, drops = trace.load(out / "stacked.trace")
        print(f"wrote {out / 'top.txt'} and {out / 'stacked.trace'}: {len(kernels)} kernels of {len({k['tenant'] for k in kernels})} "
              f"tenants, {len(packed)} bytes ({blocks} of {of} blocks), dropped {drops}")
        for child in children:
            if child.popen.poll() is not None:
                raise Failed(f"a tenant ended with {child.popen.returncode}. {child.why()}")


def draw(path, out):
    doc = json.loads(path.read_text())
    if doc["name"] not in plot.DRAWN:
        sys.exit(f"show: {path}: there is no picture of {doc['name']}, only of {', '.join(plot.DRAWN)}")
    picture = out / f"{doc['name']}-{path.resolve().parent.name}.svg"
    picture.write_text(plot.DRAWN[doc["name"]](doc))
    print(f"wrote {picture}")


def main():
    p = cli.parser(__doc__.splitlines()[0])
    models.add_options(p)
    p.add_argument("--samples", action="store_true", help="the sample tenants, though there is PyTorch")
    p.add_argument("--quotas", default="50%,50%", type=lambda s: s.split(","), help="of the two (default: 50%%,50%%)")
    p.add_argument("--settle", type=float, default=6, help="seconds before `lithos top` (default: %(default)s)")
    p.add_argument("--seconds", type=float, default=2, help="of the trace (default: %(default)s)")
    p.add_argument("--bytes", type=int, default=1500000, help="of the trace at most (default: %(default)s)")
    p.add_argument("--rows", type=int, default=24)
    p.add_argument("--columns", type=int, default=110)
    p.add_argument("--draw", type=pathlib.Path, metavar="RESULT.json", help="run nothing, draw what this says")
    o = p.parse_args()
    out = pathlib.Path(o.out)
    out.mkdir(parents=True, exist_ok=True)
    if o.draw:
        return draw(o.draw, out)
    o, place = cli.start(p)
    o.samples = o.samples or o.virtual
    with servers.Scratch() as scratch:
        try:
            stacked(o, place, scratch, out)
        except Failed as e:
            sys.exit(f"show: {e}")


main()
