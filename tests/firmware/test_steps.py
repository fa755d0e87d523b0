"""The bodies of ``firmware`` and ``vectors``: their bytes, and what they refuse."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.engine.job import Job
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.firmware.errors import FirmwareError
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v3_layers import FullyConnected
from k210tasks.kmodel.v3_layers import Output as Range
from k210tasks.steps import firmware, vectors
from k210tasks.steps.versions import VERSIONS
from tests.firmware.test_cli import KMODEL, KMODEL4
from tests.steps.jobs import folder, job

CONTRACT = Contract(
    model="soft",
    kmodel=3,
    profile="maixpy",
    input=Input((2,), "flat", "float32", kind="tensors"),
    outputs=(Output("y", (2,)),),
    labels=("no", "yes"),
    nbytes=len(KMODEL),
    sha256=hashlib.sha256(KMODEL).hexdigest(),
    main_memory=16,
)


#: Two numbers doubled and swapped: exact in any arithmetic.
DENSE = KmodelV3(
    layers=[
        FullyConnected(
            in_mem=0,
            out_mem=8,
            in_ch=2,
            out_ch=2,
            act=0,
            weights=np.array([[0, 2], [2, 0]], np.float32),
            bias=np.array([0, 1], np.float32),
        )
    ],
    outputs=[Range(8, 8)],
    main_mem=16,
).to_bytes()


def part(**more: Any) -> dict[str, Any]:
    empty = {"bin": None, "model": None, "address": None, "sha256_prefix": None, "anchors": None}
    return {**empty, **more}


def image_job(
    tmp_path: Path, kmodel: bytes = KMODEL, contract: Contract = CONTRACT, profile: str = "maixpy"
) -> Job:
    (tmp_path / "fw.bin").write_bytes(b"program")
    (tmp_path / "soft.kmodel").write_bytes(kmodel)
    (tmp_path / "contract.json").write_text(contract.to_json())
    return job(
        "firmware",
        "demo",
        io.StringIO(),
        {
            "part0": tmp_path / "fw.bin",
            "part1": tmp_path / "soft.kmodel",
            "contract1": tmp_path / "contract.json",
        },
        {"kfpkg": tmp_path / "out.kfpkg", "load": tmp_path / "load.py"},
        {"profile": profile, "parts": [part(bin="fw/fw.bin", address=0), part(model="soft")]},
    )


def digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def test_what_an_image_is_made_of_belongs_to_the_version_of_the_step(tmp_path: Path) -> None:
    firmware.run(image_job(tmp_path))
    assert (VERSIONS["firmware"], digest(tmp_path / "out.kfpkg", tmp_path / "load.py")) == (
        2,
        "2a443e38a58fa355",
    )


def test_what_vectors_are_made_of_belongs_to_the_version_of_the_step(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    samples.mkdir()
    np.save(samples / "0.npy", np.array([[0.25, -1.5]], np.float32))
    (tmp_path / "soft.kmodel").write_bytes(DENSE)
    (tmp_path / "contract.json").write_text(CONTRACT.to_json())
    out = tmp_path / "vectors"
    vectors.run(
        job(
            "vectors",
            "soft",
            io.StringIO(),
            {
                "kmodel": tmp_path / "soft.kmodel",
                "contract": tmp_path / "contract.json",
                "images": folder(samples),
            },
            {"vectors": out},
            {
                "preprocess": {"color": None, "mean": 0.0, "std": 1.0, "resize": "stretch"},
                "firmware": "maixpy",
                "address": 0x300000,
            },
        )
    )
    assert (out / "0.input.bin").read_bytes() == np.array([0.25, -1.5], "<f4").tobytes()
    assert (out / "0.output0.bin").read_bytes() == np.array([-3, 1.5], "<f4").tobytes()
    made = sorted(out.iterdir())
    assert len(made) == 5
    assert (VERSIONS["vectors"], digest(*made)) == (2, "fa4cf4b7fe707148")
    assert json.loads((out / "index.json").read_text())["script"] == "check.py"


@pytest.mark.parametrize(
    ("kmodel", "contract", "profile", "message"),
    [
        (
            KMODEL4,
            replace(CONTRACT, kmodel=4, sha256=hashlib.sha256(KMODEL4).hexdigest()),
            "maixpy-minimum",
            "firmware demo: model soft was made for profile maixpy, this image is for"
            " maixpy-minimum; set the same firmware: on the model, or profile: maixpy on the image",
        ),
        (
            KMODEL4,
            replace(
                CONTRACT,
                kmodel=4,
                profile="maixpy-minimum",
                sha256=hashlib.sha256(KMODEL4).hexdigest(),
            ),
            "maixpy-minimum",
            "firmware demo: model soft is kmodel 4, profile maixpy-minimum loads only kmodel 3;"
            " build it as kmodel 3, or flash a firmware that loads version 4: maixpy, m5stickv,"
            " canmv, canmv-kpu5, sdk-develop, rt-thread",
        ),
        (
            KMODEL + b"!",
            CONTRACT,
            "maixpy",
            "firmware demo: build/soft/contract.json is not that of workspace/soft.kmodel; run"
            " doit kmodel:soft",
        ),
        (
            b"<html>not found</html>",
            CONTRACT,
            "maixpy",
            "firmware demo: the file of model soft is no kmodel: byte 0 (0x0), identifier:"
            " 0x6d74683c begins no kmodel (version 3 begins with 3, later ones with LDMK)",
        ),
    ],
)
def test_what_an_image_refuses(
    tmp_path: Path, kmodel: bytes, contract: Contract, profile: str, message: str
) -> None:
    with pytest.raises(FirmwareError) as error:
        firmware.run(image_job(tmp_path, kmodel, contract, profile))
    assert str(error.value) == message


def test_a_model_too_large_beside_this_very_program_is_warned_of(tmp_path: Path) -> None:
    hungry = replace(CONTRACT, profile="maixpy-minimum", main_memory=6 * 2**20)
    made = image_job(tmp_path, contract=hungry, profile="maixpy-minimum")
    firmware.run(made)
    verdict = firmware.judge(
        replace(
            made,
            inputs={**made.inputs, "kfpkg": tmp_path / "out.kfpkg"},
            outputs={"listing": tmp_path / "listing.txt"},
            settings={
                "profile": "maixpy-minimum",
                "unverified": [],
                "sram_free": {"soft": None},
            },
        )
    )
    needed, free = len(KMODEL) + 6 * 2**20, 6 * 2**20 - 7
    assert verdict.ok
    assert verdict.message == (
        f"warning: model soft needs {needed} bytes of SRAM (file {len(KMODEL)}, working memory"
        f" 6291456); at most {free} are free, {needed - free} too few: shrink the model or its"
        " input, or choose a firmware that leaves more (sram_free: says how much yours does)"
    )
