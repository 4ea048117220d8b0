#!/usr/bin/env python3
"""lithos sim: the same bytes for the same seed, JSON and pictures that can be read, and errors that say what is wrong."""
import json
import os
import pathlib
import subprocess
import tempfile
import xml.dom.minidom

from stack import check

LITHOS = pathlib.Path(os.environ["LITHOS_BUILD"]).resolve() / "bin/lithos"


def run(*args, timeout=100):
    return subprocess.run([str(LITHOS), "sim", *map(str, args)], capture_output=True, text=True, timeout=timeout,
                          stdin=subprocess.DEVNULL)


def expect(done, code, *words):
    text = done.stdout + done.stderr
    check(done.returncode == code, f"exit {done.returncode}, not {code}: {text[-2000:]}")
    for word in words:
        check(word in text, f"{word!r} is not said: {text[-2000:]}")
    return done


def policies():
    """What --list says, is what runs."""
    listed = [line.split()[0] for line in expect(run("--list"), 0, "lithos", "partition").stdout.splitlines()
              if line.startswith("  ")]
    done = json.loads(expect(run("short", "--policy", "all", "--json", "--seconds", "0.3"), 0).stdout)
    check([r["policy"] for r in done] == listed, f"{[r['policy'] for r in done]} is not {listed}")
    for r in done:
        check(len(r["tenants"]) == 2 and r["tenants"][0]["requests"] > 50, f"{r['policy']}: {r}")
    lithos = done[0]
    check(lithos["checks"]["made"] > 1000 and not lithos["checks"]["failed"], f"{lithos['checks']}")
    check(lithos["tenants"][1]["kept_percent"] > 70, f"{lithos['tenants'][1]}")


def repeats():
    for scenario in ("short", "hybrid", "stack3", "fig10"):
        args = (scenario, "--seconds", "0.5", "--no-alone", "--json")
        first, again, other = run(*args), run(*args), run(*args, "--seed", "2")
        check(expect(first, 0).stdout == expect(again, 0).stdout, f"{scenario}: two runs differ")
        check(json.loads(first.stdout)[0]["trace"] != json.loads(other.stdout)[0]["trace"], f"{scenario}: seeds do not matter")


def pictures(folder):
    svg = folder / "p.svg"
    expect(run("fig10", "--seconds", "0.2", "--no-alone", "--svg", svg, "--from", "50", "--span", "20"), 0)
    doc = xml.dom.minidom.parse(str(svg))
    check(len(doc.getElementsByTagName("rect")) > 20, "no boxes")
    check(len(doc.getElementsByTagName("polyline")) == 2, "not two curves")
    expect(run("fig10", "--seconds", "0.2", "--no-alone", "--svg", folder / "no" / "p.svg"), 1, "cannot be written")


def tuning():
    """A change of the tuning changes what happens."""
    base = json.loads(run("hybrid", "--seconds", "0.5", "--no-alone", "--json").stdout)[0]
    cut = json.loads(expect(run("hybrid", "--seconds", "0.5", "--no-alone", "--json", "--set", "atom_us=60"), 0).stdout)[0]
    check(cut["tenants"][1]["atoms"] > 2 * base["tenants"][1]["atoms"], "atoms are not shorter")


def errors(folder):
    expect(run("--policy", "none"), 2, 'no policy "none"')
    expect(run("nothing"), 2, "cannot be read")
    expect(run("--seed", "x"), 2, '"x" is not understood')
    expect(run("--set", "window_us"), 2, "KEY=VALUE")
    expect(run("--set", "windows=1"), 2, "means nothing")
    expect(run("a", "b"), 2, "one scenario")
    expect(run("--swarm", "1", "--card", "none"), 2, "none")
    bad = folder / "bad.json"
    bad.write_text('{"name": "bad", "tenants": [{"name": "x"}]}')
    expect(run(bad), 2, "\"class\" of x")
    expect(run("--help"), 0, "usage")


def swarm():
    one = expect(run("--swarm", "60", "--seed", "7", "--jobs", "1"), 0, "60 seeds from 7: 0 failed")
    three = expect(run("--swarm", "60", "--seed", "7", "--jobs", "3"), 0, "60 seeds from 7: 0 failed")
    check(one.stdout.split("traces ")[1] == three.stdout.split("traces ")[1], "who runs a seed matters")


def main():
    with tempfile.TemporaryDirectory(prefix="lithos-sim-") as name:
        folder = pathlib.Path(name)
        policies()
        repeats()
        pictures(folder)
        tuning()
        errors(folder)
        swarm()
    print("sim: all as it should be")


main()
