#!/usr/bin/env python3
"""lithosd in advise mode beside a real run: what the governor would set, what the card draws meanwhile, whose energy it was.

Sets nothing, so it may run on a card that others use; the card's own changes of its clock are all it has to tell sensitivities by."""
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from lib import cli, models, results, servers  # noqa: E402
from lib.proc import Child, Failed, log  # noqa: E402

MODELS = ["resnet50 inference", "llama decode", "llama training"]


def tenant_command(o, place, name, d, scratch):
    """A process that says "ready" and then works until it is ended."""
    if o.samples:
        return d.run("50%", "tenant", [place.program("lithos-burn"), "--seconds", "0", "--gate", "--time-scale", f"{o.scale:g}"])
    return d.run("100%", "tenant", models.command(o, name, "--seconds", "1000000", "--gate"))


def look(d):
    s = d.status()
    gpu = s["power"]["gpus"][0]
    tenant = next((t for t in s["tenants"] if t["name"] == "tenant"), None)
    return {"t": time.monotonic(), "mhz": gpu["mhz"], "watts": gpu["watts"], "joules": gpu["joules"], "locked_mhz": gpu["locked_mhz"],
            "advice": gpu["advice"], "idle_watts": gpu["energy"]["idle_watts"], "energy": tenant and tenant["energy"]}


def figures(looks, scale):
    first, last = looks[0], looks[-1]
    seconds = last["t"] - first["t"]
    drawn = last["joules"] - first["joules"]  # in the card's time, which is slower on a virtual one
    own, before = last["energy"], first["energy"]
    requests = own["requests"] - before["requests"]
    return {"seconds": round(seconds, 2), "watts_by_counter": round(drawn * scale / seconds, 2),
            "watts_told": round(statistics.fmean(x["watts"] for x in looks), 2),
            "idle_watts": round(last["idle_watts"] * scale, 2), "mhz_min": min(x["mhz"] for x in looks), "mhz_max": max(x["mhz"] for x in looks),
            "advice_mhz": last["advice"]["mhz"], "formula_mhz": last["advice"]["formula_mhz"],
            "sensitivity": round(last["advice"]["sensitivity"], 4), "unseen": round(last["advice"]["unseen"], 4),
            "tenant_joules": round(own["joules"] - before["joules"], 3), "tenant_joules_least": round(own["joules_least"] - before["joules_least"], 3),
            "card_joules": round(drawn, 3), "requests": requests,
            "joules_per_request": round((own["joules"] - before["joules"]) / requests, 5) if requests else None,
            "locks": sum(1 for x in looks if x["locked_mhz"])}


def one(o, place, scratch, result, name, rep):
    with servers.Lithosd(place, scratch, f"ld{rep}-{name.replace(' ', '-')}", ["--power=advise"]) as d:
        time.sleep(o.idle)  # what it draws idle
        with Child(tenant_command(o, place, name, d, scratch), models.environment(d.env, scratch), scratch.path / "tenant.err") as child:
            child.expect("ready", o.model_timeout)
            child.tell("go")
            deadline = time.monotonic() + 60
            while not (look(d)["energy"] or {}).get("joules"):
                if time.monotonic() > deadline:
                    raise Failed("no energy is told of the tenant")
                time.sleep(0.1)
            looks = [look(d)]
            end = time.monotonic() + o.seconds
            while time.monotonic() < end:
                time.sleep(min(0.5, o.seconds / 4))
                looks.append(look(d))
    got = figures(looks, o.scale)
    result.case(name, rep, **{k: v for k, v in got.items() if v is not None})
    log(f"[{rep}] {name}:", ", ".join(f"{k} {v}" for k, v in got.items()))
    return got


def main():
    p = cli.parser(__doc__.splitlines()[0], repetitions=1)
    models.add_options(p, MODELS)
    p.add_argument("--seconds", type=float, default=30, help="of each run (default: %(default)s)")
    p.add_argument("--idle", type=float, default=3, metavar="S", help="before it, with nothing running (default: %(default)s)")
    p.add_argument("--samples", action="store_true", help="the sample tenant instead of models (always with --virtual)")
    o, place = cli.start(p)
    o.samples |= o.virtual
    failures, runs = 0, []
    with servers.Scratch() as scratch:
        result = results.Result("power-advise", cli.command_line(), o.repetitions, place, results.probe(place, servers.clean_env()))
        with result.keeps_what_was_measured():
            for rep in range(1, o.repetitions + 1):
                for name in ["sample"] if o.samples else models.choose(o, result):
                    try:
                        runs.append(one(o, place, scratch, result, name, rep))
                    except (Failed, OSError, ValueError, KeyError) as e:
                        failures += 1
                        result.case(name, rep, error=str(e)[:1000])
                        log(f"[{rep}] {name}: FAILED: {e!r}")
        result.bar("clocks set in advise mode", sum(r["locks"] for r in runs), "==", 0)
        result.bar("energy of the tenant over that of the card", max((r["tenant_joules"] / r["card_joules"] for r in runs), default=None), "<=", 1.1)
        result.note("Sensitivity is 1 for what has been seen at one clock only: a card that never changes its clock tells none. "
                    "advice_mhz goes by the formula, since nobody follows it. What is drawn is read ten times a second, so that the tenant's and "
                    "the card's energy may be apart by what is drawn in a tenth of a second.")
        result.end(o.out, failures)


main()
