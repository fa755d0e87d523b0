"""The C side of :mod:`k210tasks.firmware.snippets`.

Calls as in ``kendryte-standalone-sdk:lib/drivers/include/kpu.h``,
``kendryte-freertos-sdk:lib/bsp/include/devices.h`` and ``Maixduino:libraries/Maix_KPU``.
The SDK's own examples bring the flash driver ``w25qxx``; where a firmware has another, the
snippet takes the bytes and says which to read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from k210tasks.firmware.c_header import c_string
from k210tasks.firmware.contract import number
from k210tasks.firmware.entry import Entry, Snippet, suffix_of
from k210tasks.profiles import Profile
from k210tasks.samples.preprocess import numbers


def c_snippet(image: str, profile: Profile, entries: Sequence[Entry]) -> Snippet:
    """The functions ``NAME_load`` and ``NAME_run`` for every model of the image."""
    includes, body = _DIALECTS[profile.name]
    head = (
        f"/* Loads the models of firmware image {_comment(ascii(image))} for profile"
        f" {profile.name}; made by k210tasks. */\n"
    )
    if any(entry.contract.input.formula is not None for entry in entries):
        includes = ("<math.h>", *includes)
    lines = "".join(f"#include {name}\n" for name in includes)
    parts = [_about(entry) + _constants(entry) + _code(entry) + body(entry) for entry in entries]
    return Snippet(suffix_of(profile), "\n".join([head + lines, *parts]))


def _comment(text: str) -> str:
    return text.replace("*/", "* /")


def _about(entry: Entry) -> str:
    contract = entry.contract
    lines = [
        f"{contract.model!a}: kmodel {contract.kmodel} at {entry.address:#x}, {entry.nbytes} bytes",
        f"input: {contract.input.sentence}",
        *(
            f"output {i}: {out.name!a} {'x'.join(map(str, out.shape)) or '1'} {out.dtype}"
            for i, out in enumerate(contract.outputs)
        ),
    ]
    return "/* " + _comment("\n * ".join(lines)) + " */\n"


def _constants(entry: Entry) -> str:
    text = ""
    if entry.contract.labels:
        labels = ", ".join(map(c_string, entry.contract.labels))
        text += f"const char *const {_name(entry)}_labels[] = {{{labels}}};\n"
    if entry.boxes:
        anchors = ", ".join(f"{anchor!r}f" for anchor in map(float, entry.boxes))
        text += f"const float {_name(entry)}_anchors[] = {{{anchors}}};\n"
    return text


def _code(entry: Entry) -> str:
    """The function that makes the code of a number, where the input is codes of numbers."""
    given = entry.contract.input
    scale, zero = given.scale, given.zero_point
    if given.formula is None or scale is None or zero is None:
        return ""
    step, at = (f"{float(number(v))!r}f" for v in numbers(scale) + numbers(zero))
    return (
        f"/* {given.formula}, clamped to 0..255 */\n"
        f"static inline uint8_t {_name(entry)}_code(float x)\n{{\n"
        f"    float code = rintf(x / {step}) + {at};\n"
        "    return (uint8_t)(code > 0.0f ? (code < 255.0f ? code : 255.0f) : 0.0f);\n}\n"
    )


def _name(entry: Entry) -> str:
    """A C identifier: a model's name may begin with a digit."""
    return f"model_{entry.symbol}"


def _read_flash(entry: Entry, read: str) -> str:
    """Memory for the file, aligned as the compilers lay it out (section 5), and its bytes."""
    return (
        f"    uint8_t *memory = (uint8_t *)malloc({entry.nbytes} + 255);\n"
        "    if (memory == NULL)\n"
        "        return -1;\n"
        "    uint8_t *model = (uint8_t *)(((uintptr_t)memory + 255) & ~(uintptr_t)255);\n"
        f"    {read}\n"
    )


def _context(entry: Entry, load: str) -> str:
    name = _name(entry)
    return (
        f"static kpu_model_context_t {name};\n"
        f"static volatile int {name}_done;\n\n"
        f"static void {name}_on_done(void *userdata)\n{{\n"
        f"    (void)userdata;\n    {name}_done = 1;\n}}\n\n"
        f"{load}\n"
        "/* input: as above. Then kpu_get_output(&context, index, &data, &size) per output. */\n"
        f"int {name}_run(const uint8_t *input)\n{{\n"
        f"    {name}_done = 0;\n"
        f"    if (kpu_run_kmodel(&{name}, input, DMAC_CHANNEL5, {name}_on_done, NULL) != 0)\n"
        "        return -1;\n"
        f"    while (!{name}_done)\n        ;\n"
        "    return 0;\n}\n\n"
        f"int {name}_output(uint32_t index, uint8_t **data, size_t *size)\n{{\n"
        f"    return kpu_get_output(&{name}, index, data, size);\n}}\n"
    )


def _sdk(entry: Entry) -> str:
    name = _name(entry)
    read = f"w25qxx_read_data({entry.address:#x}, model, {entry.nbytes}, W25QXX_QUAD_FAST);"
    return _context(
        entry,
        "/* After w25qxx_init(3, 0) and w25qxx_enable_quad_mode(). */\n"
        f"int {name}_load(void)\n{{\n{_read_flash(entry, read)}"
        f"    return kpu_load_kmodel(&{name}, model);\n}}\n",
    )


def _rt_thread(entry: Entry) -> str:
    name = _name(entry)
    return _context(
        entry,
        f"/* model: the {entry.nbytes} bytes at flash address {entry.address:#x}, aligned to 256;"
        " kept while it is used. */\n"
        f"int {name}_load(const uint8_t *model)\n{{\n"
        f"    return kpu_load_kmodel(&{name}, model);\n}}\n",
    )


def _freertos(entry: Entry) -> str:
    name = _name(entry)
    read = f"w25qxx_read_data({entry.address:#x}, model, {entry.nbytes});"
    return (
        f"static handle_t {name};\n\n"
        "/* After w25qxx_init(spi3). */\n"
        f"int {name}_load(void)\n{{\n{_read_flash(entry, read)}"
        f"    {name} = kpu_model_load_from_buffer(model);\n"
        f"    return {name} == 0 ? -1 : 0;\n}}\n\n"
        "/* input: as above. */\n"
        f"int {name}_run(const uint8_t *input)\n{{\n    return kpu_run({name}, input);\n}}\n\n"
        f"int {name}_output(uint32_t index, uint8_t **data, size_t *size)\n{{\n"
        f"    return kpu_get_output({name}, index, data, size);\n}}\n"
    )


def _arduino(entry: Entry) -> str:
    name = _name(entry)
    return (
        f"static KPUClass {name};\n\n"
        f"/* model: the {entry.nbytes} bytes at flash address {entry.address:#x}, aligned to 256;"
        " kept while it is used. */\n"
        f"int {name}_load(uint8_t *model)\n{{\n    return {name}.begin(model);\n}}\n\n"
        "/* input: as above. Then getResult(&data, &size) for output 0. */\n"
        f"int {name}_run(uint8_t *input)\n{{\n"
        f"    int error = {name}.forward(input);\n"
        f"    while (error == 0 && !{name}.isForwardOk())\n        ;\n"
        "    return error;\n}\n"
    )


_STANDARD = ("<stddef.h>", "<stdint.h>", "<stdlib.h>")
_Dialect = tuple[tuple[str, ...], Callable[[Entry], str]]

_DIALECTS: dict[str, _Dialect] = {
    "sdk": ((*_STANDARD, '"kpu.h"', '"w25qxx.h"'), _sdk),
    "sdk-develop": ((*_STANDARD, '"kpu.h"', '"w25qxx.h"'), _sdk),
    "freertos": ((*_STANDARD, "<devices.h>", '"w25qxx.h"'), _freertos),
    "rt-thread": ((*_STANDARD, '"kpu.h"'), _rt_thread),
    "arduino": (("<Maix_KPU.h>",), _arduino),
}
