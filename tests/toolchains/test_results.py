"""A vendor's word that all went well is not taken for it: the file is looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.toolchains import nncase, tensorflow
from k210tasks.toolchains.catalogue import TOOLS
from k210tasks.toolchains.errors import OperationFailed
from k210tasks.toolchains.toolchain import PythonToolchain

FIXTURES = Path(__file__).parents[2].parent / "shared" / "fixtures"


class Liar(PythonToolchain):
    """Its worker writes ``content`` (None: nothing) and reports success."""

    content: bytes | None = None

    def worker(self) -> Any:
        return self

    def call(self, op: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
        if self.content is not None:
            Path(args["out"]).write_bytes(self.content)
        return {"bytes": 7, "inputs": {}, "outputs": [], "printed": ""}


@pytest.mark.parametrize(
    ("content", "start"), [(None, "nothing"), (b"", "nothing"), (b"half a file", "68 61 6c 66")]
)
def test_no_tflite(content: bytes | None, start: str, tmp_path: Path) -> None:
    liar = Liar(TOOLS["tensorflow"], None)  # type: ignore[arg-type]
    liar.content = content
    with (tmp_path / "log").open("w") as log, pytest.raises(OperationFailed) as caught:
        tensorflow.convert(
            liar,
            source=tmp_path / "a.pb",
            kind="pb",
            inputs=None,
            outputs=None,
            out=tmp_path / "a.tflite",
            log=log,
        )
    text = (
        f"tensorflow failed converting a.pb: it wrote no TFLite file: a.tflite starts with {start}"
    )
    assert str(caught.value).startswith(text)
    assert str(caught.value).endswith(f"\nfull log: {tmp_path / 'log'}")


@pytest.mark.skipif(not FIXTURES.exists(), reason=f"the real models are not here: {FIXTURES}")
@pytest.mark.parametrize(
    ("content", "start"), [(None, "nothing"), (b"", "nothing"), (b"LDMK\x04\0\0\0", "4c 44 4d 4b")]
)
def test_no_kmodel(content: bytes | None, start: str, tmp_path: Path) -> None:
    liar = Liar(TOOLS["nncase-1.9.0"], None)  # type: ignore[arg-type]
    liar.content = content
    np.save(tmp_path / "s.npy", np.zeros((1, 4), np.float32))
    with pytest.raises(OperationFailed) as caught:
        nncase.compile(
            liar,
            model=FIXTURES / "tflite" / "iris.tflite",
            samples=tmp_path / "s.npy",
            method="no_clip",
            mean=0.0,
            std=1.0,
            out=tmp_path / "a.kmodel",
        )
    assert str(caught.value).startswith(
        "nncase-1.9.0 failed compiling iris.tflite: it wrote no kmodel 5: the file starts with "
        + start
    )
