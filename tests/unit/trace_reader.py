"""Holds docs/trace.md and src/trace to each other: what the reader of bench/lib/trace.py, written from the page, finds.
trace_reader.py FILE: prints, as JSON, by kind, the sum modulo 2^64 of each field of all events."""
import collections, json, pathlib, sys, zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
from lib.trace import M, events  # noqa: E402


def number(value):
    return zlib.crc32(value) if isinstance(value, bytes) else (value & M) + (value >> 64)


sums = collections.defaultdict(collections.Counter)
for kind, e in events(open(sys.argv[1], "rb").read()):
    sums[kind]["events"] += 1
    for name, value in e.items():
        sums[kind][name] = (sums[kind][name] + number(value)) & M
json.dump({kind: {name: str(value) for name, value in of.items()} for kind, of in sums.items()}, sys.stdout)
