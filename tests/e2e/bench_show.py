#!/usr/bin/env python3
"""What is made to be looked at: `lithos top` in a terminal, a trace of two stacked tenants, its picture; and traces of models."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import xml.dom.minidom

from probed import bench_environment

BUILD, SOURCE = os.environ["LITHOS_BUILD"], os.environ["LITHOS_SOURCE"]
SCALE = "4"
VIRTUAL = ["--virtual", "--prefix", BUILD, "--scale", SCALE]


def run(*argv, env=None):
    done = subprocess.run([str(a) for a in argv], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    if done.returncode:
        sys.exit(f"{argv[0]}: exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def check(condition, what):
    if not condition:
        sys.exit(what)


def stacked(out, env):
    run(f"{SOURCE}/bench/show.py", *VIRTUAL, "--settle", "1", "--seconds", "1", "--out", out, env=env)
    top = (out / "top.txt").read_text()
    for word in ("service", "batch-job", "66 TPCs", "aaaa", "bbbb", "q quit", "lithos_"):
        check(word in top, f"`lithos top` in a terminal does not show {word}:\n{top}")
    check("\x1b" not in top, f"escape sequences are left in {top!r}")
    stat = json.loads(run(f"{BUILD}/bin/lithos", "trace", "stat", out / "stacked.trace", "--json", "--by", "tenant"))
    check(len(stat["rows"]) == 2 and all(r["count"] > 0 for r in stat["rows"]), f"kernels of two tenants: {stat['rows']}")
    run(f"{SOURCE}/tools/trace-picture", out / "stacked.trace", "-o", out / "p.svg", "--for", "200", "--title", "a < b")
    picture = xml.dom.minidom.parse(str(out / "p.svg"))
    words = [t.firstChild.data for t in picture.getElementsByTagName("text") if t.firstChild]
    for word in ("service", "batch-job", "66 TPCs", "a < b"):
        check(word in words, f"the picture does not say {word}: {words}")
    check(len(picture.getElementsByTagName("polygon")) == 2, "not a counter for each tenant")
    for order in (["service", "batch-job"], ["batch-job", "service"]):
        run(f"{SOURCE}/tools/trace-picture", out / "stacked.trace", "-o", out / "o.svg", "--for", "200", "--order", ",".join(order))
        texts = [t.firstChild.data for t in xml.dom.minidom.parse(str(out / "o.svg")).getElementsByTagName("text") if t.firstChild]
        labels = [w.split(",")[0] for w in texts if w.split(",")[0] in order]
        check(list(dict.fromkeys(labels)) == order, f"--order {order} draws {labels}")
    late = subprocess.run([f"{SOURCE}/tools/trace-picture", out / "stacked.trace", "-o", out / "q.svg", "--from", "1e9"],
                          capture_output=True, text=True, timeout=30)
    check(late.returncode == 1 and "no kernel runs" in late.stderr, f"a picture of nothing: {late}")


def traces(out, env):
    run(f"{SOURCE}/bench/traces.py", *VIRTUAL, "--seconds", "0.3", "--out", out, env=env)
    (entry,) = json.loads((out / "traces/index.json").read_text())["traces"]
    stat = json.loads(run(f"{BUILD}/bin/lithos", "trace", "stat", out / "traces" / entry["file"], "--json"))
    check(sum(r["count"] for r in stat["rows"]) == entry["kernels"] == 12 * entry["iterations_recorded"], f"{entry} {stat['rows']}")
    run(f"{BUILD}/bin/lithos", "trace", "validate", out / "traces" / entry["file"])


def main():
    with tempfile.TemporaryDirectory() as folder, bench_environment(BUILD, SCALE) as env:
        stacked(pathlib.Path(folder), env)
        traces(pathlib.Path(folder), env)
    print("ok")


main()
