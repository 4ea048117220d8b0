"""A tenant in which something else has the driver's QMD callback before LithOS and past it, as a debugger has. Launches kernels that
could be cut, by the driver's interface alone, and says "ok" when all of them have ended well."""
import ctypes
import os
import pathlib
import sys
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench/models"))
import toy  # noqa: E402

QMD_TABLE = bytes.fromhex("2c8e0ad80710ab4e90dd54719fe5f74b")
SUBSCRIBE, ENABLE, DOMAIN, CALLBACK = 3, 6, 0xb, 1
CALLED = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
seen = []
callback = CALLED(lambda *_: seen.append(1))


def subscribe():
    driver, table, handle = ctypes.CDLL(os.environ["LITHOS_LIBCUDA"]), ctypes.POINTER(ctypes.c_void_p)(), ctypes.c_uint32()
    assert driver.cuGetExportTable(ctypes.byref(table), QMD_TABLE) == 0
    first = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, CALLED, ctypes.c_void_p)(table[SUBSCRIBE])
    assert first(ctypes.byref(handle), callback, None) == 0
    enable = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_int, ctypes.c_int)(table[ENABLE])
    assert enable(1, handle, DOMAIN, CALLBACK) == 0


subscribe()
runner = toy.Runner(types.SimpleNamespace(time_scale=1, tiny=False, apart=False, pauses=None, seed=1))
for _ in range(3):
    runner.step(4)
print("ok" if len(seen) >= 36 else f"{len(seen)} callbacks")
