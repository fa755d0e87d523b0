"""Load snippets: they compile, and call the firmware as its sources define it."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.firmware.entry import Entry, set_outputs_shape
from k210tasks.firmware.snippets import load_snippet
from k210tasks.profiles import PROFILES

EVIL = '*/ "quoted" лицо-1.0\\'
CLASSIFIER = Contract(
    "nn-xo",
    4,
    "maixpy",
    Input((1, 28, 28), color="gray", stated=False),
    (Output("out */", (2,)), Output("map", (30, 7, 9))),
    ("cross, or so", 'circ"lé'),
)
DETECTOR = Contract(
    EVIL, 3, "maixpy", Input((3, 240, 320), color="bgr"), (Output("grid", (30, 7, 10)),), ("face",)
)
TENSOR = Contract(
    "tensor",
    3,
    "maixpy",
    Input((5,), "flat", "float32", kind="tensors"),
    (Output("y", ()), Output("z", (4, 2))),
)
ANCHORS = (1.0, 2.5, 3.0, 4.0, 5.0, 6.25)
ENTRIES = (
    Entry(CLASSIFIER, 0x300000, 41000),
    Entry(DETECTOR, 0x310000, 388776, ANCHORS),
    Entry(TENSOR, 0x380000, 436, ANCHORS),  # no feature map: the anchors belong to nothing
)


class Calls(list[str]):
    """Records every call of every attribute, and answers as a board would."""

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kw: Any) -> Any:
            said = [*map(repr, args), *(f"{k}={v!r}" for k, v in kw.items())]
            self.append(f"{name}({', '.join(said)})")
            return [0.5] if name in ("forward", "get_output") else len(self)

        return call


def run(profile: str, module: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    snippet = load_snippet("demo", PROFILES[profile], ENTRIES)
    assert snippet.suffix == ".py"
    assert snippet.text.isascii()
    fake: Any = ModuleType(module)
    if module == "KPU":
        fake = value
    else:
        fake.KPU = value
    monkeypatch.setitem(__import__("sys").modules, module, fake)
    names: dict[str, Any] = {}
    exec(compile(snippet.text, "load.py", "exec"), names)
    return names


@pytest.mark.parametrize("profile", ["maixpy", "maixpy-minimum", "maixpy-lvgl", "m5stickv"])
def test_maixpy_calls(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    names = run(profile, "KPU", calls, monkeypatch)
    assert calls == [
        f"load({0x300000})",
        "set_outputs(1, 0, 1, 1, 2)",
        "set_outputs(1, 1, 9, 7, 30)",
        f"load({0x310000})",
        f"init_yolo2(4, 0.5, 0.3, 3, {ANCHORS!r})",
        f"load({0x380000})",
    ]
    labels = next(v for n, v in names.items() if n.startswith("labels_nn_xo"))
    assert labels == CLASSIFIER.labels
    del calls[:]
    runs = {n: f for n, f in names.items() if n.startswith("run_")}
    assert len(runs) == 3
    for function in runs.values():
        function("image")
    assert calls == [
        "forward(1, 'image')",
        "get_output(1, 1)",
        "run_yolo2(4, 'image')",
        "forward(6, 'image')",
        "get_output(6, 1)",
    ]


def test_a_model_whose_outputs_do_not_fit_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(load=lambda address: address, set_outputs=lambda *args: False)
    with pytest.raises(ValueError, match=r"^the model at 0x300000 is another one$"):
        run("maixpy", "KPU", fake, monkeypatch)


def test_canmv_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    names = run("canmv", "maix", lambda: calls, monkeypatch)
    assert calls == [
        f"load_kmodel({0x300000}, 41000)",
        f"load_kmodel({0x310000}, 388776)",
        f"init_yolo2({ANCHORS!r}, anchor_num=3, img_w=320, img_h=240, net_w=320, net_h=240,"
        " layer_w=10, layer_h=7, threshold=0.5, nms_value=0.3, classes=1)",
        f"load_kmodel({0x380000}, 436)",
    ]
    del calls[:]
    for name, function in names.items():
        if name.startswith("run_"):
            function("given")
    assert calls == [
        "run_with_output('given', getlist=True)",
        "run_with_output('given')",
        "regionlayer_yolo2()",
        "run_with_output('given', getlist=True)",
    ]


def test_canmv_with_kmodel_5_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, yolo = Calls(), Calls()
    kpu: Any = SimpleNamespace(
        load=calls.load, run=calls.run, get_outputs=calls.get_outputs, Yolo2=lambda: yolo
    )
    names = run("canmv-kpu5", "maix", lambda: kpu, monkeypatch)
    assert calls[0] == f"load({0x300000}, size=41000)"
    assert yolo == [f"init({ANCHORS!r}, 0.5, 0.3)"]
    for name, function in names.items():
        if name.startswith("run_"):
            function("image")
    assert "run_tensor" not in names  # this firmware feeds images alone
    ran = ["run('image')"]
    assert calls[3:] == [*ran, "get_outputs()", *ran]
    assert yolo[1:] == ["run()"]


def test_shapes_for_set_outputs_keep_their_product() -> None:
    for shape, expected in {
        (30, 7, 9): (9, 7, 30),
        (4420, 4): (4, 4420, 1),
        (1000,): (1, 1, 1000),
        (): (1, 1, 1),
        (2, 3, 4, 5): (5, 4, 6),
    }.items():
        assert set_outputs_shape(shape) == expected


def test_snippets_use_no_syntax_a_boards_python_lacks() -> None:
    for profile in PROFILES.values():
        if profile.language == "micropython":
            tree = ast.parse(load_snippet("demo", profile, ENTRIES).text)
            assert not [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr | ast.AnnAssign)]


HEADERS = {
    "kpu.h": """#include <stddef.h>
#include <stdint.h>
typedef struct { int x; } kpu_model_context_t;
typedef enum { DMAC_CHANNEL5 = 5 } dmac_channel_number_t;
typedef void (*kpu_done_callback_t)(void *userdata);
int kpu_load_kmodel(kpu_model_context_t *ctx, const uint8_t *buffer);
int kpu_run_kmodel(kpu_model_context_t *ctx, const uint8_t *src, dmac_channel_number_t dma_ch,
                   kpu_done_callback_t done_callback, void *userdata);
int kpu_get_output(kpu_model_context_t *ctx, uint32_t index, uint8_t **data, size_t *size);
""",
    "devices.h": """#include <stddef.h>
#include <stdint.h>
typedef uintptr_t handle_t;
handle_t kpu_model_load_from_buffer(uint8_t *buffer);
int kpu_run(handle_t context, const uint8_t *src);
int kpu_get_output(handle_t context, uint32_t index, uint8_t **data, size_t *size);
""",
    "Maix_KPU.h": """#include <stddef.h>
#include <stdint.h>
class KPUClass {
public:
    int begin(uint8_t *model);
    int forward(uint8_t *imgSrc, uint8_t dmaCh = 0);
    bool isForwardOk();
    int getResult(uint8_t **data, size_t *count, uint32_t startIndex = 0);
};
""",
}
FLASH = {
    "sdk": """#include <stdint.h>
typedef enum { W25QXX_QUAD_FAST } w25qxx_read_t;
int w25qxx_read_data(uint32_t addr, uint8_t *data_buf, uint32_t length, w25qxx_read_t mode);
""",
    "freertos": """#include <stdint.h>
int w25qxx_read_data(uint32_t addr, uint8_t *data_buf, uint32_t length);
""",
}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
@pytest.mark.parametrize("profile", ["sdk", "sdk-develop", "freertos", "rt-thread", "arduino"])
def test_c_snippets_compile(profile: str, tmp_path: Path) -> None:
    snippet = load_snippet("demo", PROFILES[profile], ENTRIES)
    for name, text in HEADERS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "w25qxx.h").write_text(FLASH.get(profile, FLASH["sdk"]))
    source = tmp_path / f"load{snippet.suffix}"
    source.write_text(snippet.text, encoding="ascii")
    done = subprocess.run(
        ["cc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I", tmp_path, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "0x310000" in snippet.text
    assert "388776" in snippet.text
