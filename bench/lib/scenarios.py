"""Scenarios of the simulator from the recorded models in bench/traces."""
import json
import pathlib

TRACES = pathlib.Path(__file__).resolve().parent.parent / "traces"
# Kernels of one iteration.
INFERENCE = {"resnet50-inference": 234, "bert-inference": 300, "llama-prefill": 320, "llama-decode": 468}
TRAINING = {"bert-training": 1304, "resnet50-training": 721}
# A trace does not say how much of the memory bandwidth a kernel wants. Assumed, by name, until bench/scaling.py has measured it on
# the card: matrix products of one or a few rows read their weights once, and are held up by that; larger ones compute; what is
# elementwise, or normalises, moves bytes. Kernels of few blocks ask for less than this: the model counts blocks.
MEMORY = {"_64x8_": 1.4, "_8x64_": 1.4, "gemv": 1.5, "nvjet": 0.4, "gemm": 0.4, "cutlass": 0.4, "fmha": 0.4, "sdpa": 0.4, "flash": 0.4,
          "": 1.4}


def program(name, kernels, gaps):
    return {"trace": str(TRACES / f"{name}.trace"), "kernels": kernels, "memory": MEMORY, "gaps": gaps}


# A host that is faster in one second than in the next; pauses take a part of what was recorded, so that the card is idle for a tenth to nearly all of a request.
PACE = {"from": 0.05, "to": 0.6, "every_ms": 500}


def service(name, seconds, gaps, quota=100, beside=None, **tenant):
    """A scenario: the service, closed loop, with the app's recorded pauses or as fast as it can launch."""
    doc = {"name": name, "card": "h100", "seconds": seconds, "bandwidth": True,
           "programs": {"service": program(name, INFERENCE[name], gaps)},
           "tenants": [{"name": "service", "class": "high", "quota": quota, "program": "service", "launch_us": 2,
                        "arrivals": {"think_us": 50}, **tenant}]}
    if beside:
        doc["programs"]["training"] = program(beside, TRAINING[beside], False)
        doc["tenants"].append({"name": "training", "class": "best-effort", "quota": 0, "program": "training", "launch_us": 2})
    return doc


def write(doc, folder):
    path = pathlib.Path(folder) / f"{doc['name']}.json"
    path.write_text(json.dumps(doc))
    return str(path)
