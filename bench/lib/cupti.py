"""What PyTorch's profiler (Kineto, on CUPTI) saw of a GPU, from the JSON it writes."""
import json

from lib.match import Launch


def kernels(path):
    """Its kernels in the order they were launched, copies and memsets left out; times in ns since 1970."""
    with open(path, encoding="utf-8", errors="replace") as f:
        document = json.load(f)
    events, base_ns = (document, 0) if isinstance(document, list) else (document["traceEvents"],
                                                                        int(document.get("baseTimeNanoseconds", 0)))
    found = []
    for e in events:
        if e.get("ph") != "X" or str(e.get("cat")).lower() != "kernel":
            continue
        args = e["args"]
        start_ns = base_ns + round(float(e["ts"]) * 1e3)  # whole numbers: these have more digits than a float
        found.append((args.get("correlation", 0), start_ns,
                      Launch(e["name"], args["grid"], args["block"], args.get("stream"), start_ns,
                             start_ns + round(float(e["dur"]) * 1e3))))
    # a graph's nodes have its launch in common
    return [launch for _, _, launch in sorted(found, key=lambda f: f[:2])]
