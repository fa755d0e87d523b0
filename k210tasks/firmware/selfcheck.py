"""A MicroPython script with which a board checks a model against expected outputs.

Old MicroPython (1.11 on MaixPy) is the language: no f-strings, no annotations. MaixPy and
CanMV's branch feat/kpu feed a model from an image, whose colours an RGB565 buffer holds in
5, 6 and 5 bits; vectors for three channels keep to what such a buffer gives back, so that
the script feeds exactly the recorded bytes.
"""

from __future__ import annotations

from k210tasks.firmware.contract import Contract
from k210tasks.firmware.entry import set_outputs_shape
from k210tasks.profiles import Profile

#: Largest ``|difference| / (1 + |expected|)`` of a float output: the feature maps are exact,
#: the float layers after them sum in another order and use another ``exp``.
TOLERANCE = 1e-3


def why_not(contract: Contract, profile: Profile) -> str | None:
    """Why there can be no script, or None."""
    if profile.language != "micropython":
        return f"profile {profile.name} has no MicroPython: compare the files in C"
    if profile.name == "canmv":
        return None  # takes the file with the raw bytes
    given = contract.input
    picture = given.layout == "planar" and given.dtype == "uint8" and given.shape[0] in (1, 3)
    numbers = given.dtype == "float32" and profile.name != "canmv-kpu5"
    if picture or numbers:
        return None
    return (
        f"profile {profile.name} feeds images of 1 or 3 channels"
        f"{'' if profile.name == 'canmv-kpu5' else ' or float32 numbers'};"
        f" this model takes {contract.input.sentence}"
    )


def feeds_rgb565(contract: Contract, profile: Profile) -> bool:
    """Whether the script puts the vectors into RGB565 images."""
    given = contract.input
    return (
        why_not(contract, profile) is None
        and profile.name != "canmv"
        and given.dtype == "uint8"
        and given.shape[0] == 3
    )


def script(contract: Contract, profile: Profile, address: int, vectors: list[str]) -> str:
    """The text of check.py, for a model at that flash address and vectors of those names."""
    dialect = _DIALECTS.get(profile.name, _MAIXPY)
    given = contract.input
    planes = given.layout == "planar" and given.dtype == "uint8"
    channels, height, width = given.shape if planes else (0, 0, 0)
    outputs = [
        (i, *set_outputs_shape(out.shape), "f" if out.dtype == "float32" else "B")
        for i, out in enumerate(contract.outputs)
    ]
    if profile.name.startswith("canmv"):
        outputs = outputs[:1]  # its API gives no others
    head = _HEAD.format(
        model=ascii(contract.model),
        profile=profile.name,
        input=contract.input.sentence,
        folder=ascii(f"/sd/{contract.model}"),
        address=f"{address:#x}",
        nbytes=contract.nbytes,
        kmodel=contract.kmodel,
        channels=channels,
        height=height,
        width=width,
        outputs=repr(tuple(outputs)),
        vectors=repr(tuple(vectors)),
        tolerance=TOLERANCE,
    )
    return head + _COMPARE + (_PICTURE if "picture(" in dialect else "") + dialect + _MAIN


_HEAD = """\
# Does the board compute what the simulator computed? For {model} on profile {profile};
# made by k210tasks. Copy this folder to FOLDER, set MODEL, run this file on the board.
# input: {input}
try:
    import struct
except ImportError:
    import ustruct as struct

FOLDER = {folder}
MODEL = {address}  # flash address, or the path of the kmodel
MODEL_BYTES = {nbytes}
KMODEL = {kmodel}
CHANNELS, HEIGHT, WIDTH = {channels}, {height}, {width}
# each output: index, width, height, channels, type of its numbers
OUTPUTS = {outputs}
VECTORS = {vectors}
TOLERANCE = {tolerance}
"""

_COMPARE = '''

def compare(got, path, kind):
    """Worst difference to the numbers in the file, and whether all are near enough."""
    size = struct.calcsize(kind)
    worst, good = 0.0, True
    with open(path, "rb") as expected:
        for value in got:
            raw = expected.read(size)
            if len(raw) < size:
                return worst, False
            want = struct.unpack("<" + kind, raw)[0]
            difference = abs(value - want)
            worst = max(worst, difference)
            if not difference <= (TOLERANCE * (1 + abs(want)) if kind == "f" else 0):
                good = False
        return worst, good and not expected.read(1)
'''

_PICTURE = '''

def picture(path):
    """An image whose planes are the bytes of the file."""
    img = image.Image(size=(WIDTH, HEIGHT))
    if CHANNELS == 1:
        img = img.to_grayscale()
    planes = [open(path, "rb") for _ in range(CHANNELS)]
    for i in range(CHANNELS):
        planes[i].seek(i * WIDTH * HEIGHT)
    for y in range(HEIGHT):
        rows = [plane.read(WIDTH) for plane in planes]
        for x in range(WIDTH):
            img.set_pixel(x, y, rows[0][x] if CHANNELS == 1 else tuple([row[x] for row in rows]))
    for plane in planes:
        plane.close()
    img.pix_to_ai()
    return img
'''

_MAIXPY = '''

import image
import KPU as kpu


def numbers(path):
    with open(path, "rb") as file:
        raw = file.read()
    return list(struct.unpack("<%df" % (len(raw) // 4), raw))


def load():
    task = kpu.load(MODEL)
    if KMODEL == 4:
        for index, width, height, channels, kind in OUTPUTS:
            kpu.set_outputs(task, index, width, height, channels)
    return task


def outputs(task, path):
    """What the model gives for the bytes in the file, output by output."""
    fmap = kpu.forward(task, picture(path) if CHANNELS else numbers(path))
    for output in OUTPUTS:
        yield output[0], output[4], (kpu.get_output(task, output[0]) if output[0] else fmap)[:]


def unload(task):
    kpu.deinit(task)
'''

_CANMV = '''

from maix import KPU


def load():
    task = KPU()
    if isinstance(MODEL, str):
        task.load_kmodel(MODEL)
    else:
        task.load_kmodel(MODEL, MODEL_BYTES)
    return task


def outputs(task, path):
    """What the model gives for the bytes in the file: its first output."""
    yield 0, OUTPUTS[0][4], task.run_with_output(path, getlist=True)


def unload(task):
    task.deinit()
'''

_CANMV_KPU5 = '''

import image
from maix import KPU


def load():
    task = KPU()
    task.load(MODEL, size=MODEL_BYTES)
    return task


def outputs(task, path):
    """What the model gives for the bytes in the file: its first output."""
    task.run(picture(path))
    yield 0, OUTPUTS[0][4], task.get_outputs()


def unload(task):
    task.deinit()
'''

_MAIN = '''

def check():
    """Run every vector; True if all outputs are as expected."""
    failed = 0
    task = load()
    for name in VECTORS:
        for index, kind, got in outputs(task, "%s/%s.input.bin" % (FOLDER, name)):
            worst, good = compare(got, "%s/%s.output%d.bin" % (FOLDER, name, index), kind)
            failed += not good
            told = "ok" if good else "DIFFERENT"
            print("%s output %d: %s, largest difference %g" % (name, index, told, worst))
    unload(task)
    print("FAILED: %d outputs differ" % failed if failed else "OK: all outputs as simulated")
    return not failed


if __name__ == "__main__":
    check()
'''

_DIALECTS = {"canmv": _CANMV, "canmv-kpu5": _CANMV_KPU5}
