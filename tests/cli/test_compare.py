"""``k210 compare``: real kmodels against their float models, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from k210tasks.cli import main
from k210tasks.firmware.contract import Contract, Input, Output
from k210tasks.kmodel.runtimes import RUNTIMES

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared/fixtures"
real = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"no real models: no {FIXTURES}")
LANDMARK = [
    str(FIXTURES / "tflite/ulffd_landmark.tflite"),
    str(FIXTURES / "kmodel/v4/ulffd_landmark.kmodel"),
]
FACES = ["--images", str(FIXTURES / "images/faces"), "--samples", "2"]


#: What is said of a model without convolutions.
def no_kpu(layers: int) -> list[str]:
    return [
        f"warning: none of {layers} layers runs on the KPU: the CPU computes everything, many",
        "  times slower; the KPU takes 1x1 and 3x3 convolutions (SUPPORTED_OPS.md)",
    ]


@real
def test_a_real_kmodel_4_of_three_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *LANDMARK, *FACES, "--mean", "0.5", "--std", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [o["name"] for o in found["outputs"]] == ["Identity", "Identity_1", "Identity_2"]
    assert all(0.99 < o["cosine_min"] < 1 for o in found["outputs"])
    assert (found["engine"], found["kmodel"], found["samples"]) == ("simulator", 4, 2)
    assert found["warnings"] == ["only 2 images: too few to prove much, 10 are the least"]


@real
@pytest.mark.parametrize(
    ("options", "runtime"),
    [([], "host"), (["--firmware", "canmv"], "canmv"), (["--runtime", "maixpy_dma"], "maixpy_dma")],
)
def test_which_runtime_is_simulated(
    options: list[str], runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *LANDMARK, *FACES, "--mean", "0.5", "--std", "1", *options]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if ", runtime" in line]
    recorded = "" if RUNTIMES[runtime].recorded else " (not recorded)"
    assert said == [f"held out or not is not known, runtime {runtime}{recorded}"]


@real
def test_the_wrong_mean_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *LANDMARK, *FACES]) == 0
    out = capsys.readouterr().out.splitlines()
    assert float(out[1].split()[1]) < 0.98
    assert out[4].startswith("2 samples, worst ")
    assert out[5:8] == [
        "held out or not is not known, runtime host",
        "warning: mean and std are not stated, 0 and 1 are used: the commonest fault is a",
        "  wrong pair; state --mean and --std",
    ]


@real
@pytest.mark.parametrize("version", [3, 4])
def test_tensors_into_a_float_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], version: int
) -> None:
    random = np.random.default_rng(3)
    for i in range(10):
        np.save(tmp_path / f"{i}.npy", random.normal(size=(1, 4)).astype(np.float32))
    kmodel = str(FIXTURES / f"kmodel/v{version}/iris.kmodel")
    tflite = str(FIXTURES / "tflite/iris.tflite")
    assert main(["compare", tflite, kmodel, "--images", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[:3] == ["output", "1.0000", "1.0000"]
    assert out[1].endswith("100 %")
    assert out[3:] == [
        "held out or not is not known, runtime host",
        *no_kpu({3: 2, 4: 4}[version]),  # tensors have no mean and std to be warned of
    ]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["compare", *arguments]) == 1
    return capsys.readouterr().err


@real
def test_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    iris = str(FIXTURES / "tflite/iris.tflite")
    (tmp_path / "a.kmodel").write_bytes(b"LDMK\x06\x00\x00\x00" + bytes(8))
    assert refused([iris, "a.kmodel", *FACES], capsys) == (
        "k210 compare: kmodel 6 cannot be run here: kmodel 3 and 4 run in the project's own "
        "simulator, kmodel 5 in that of nncase-1.9.0\n"
    )
    assert refused([iris, iris, *FACES], capsys) == (
        f"k210 compare: {iris}: byte 0 (0x0), identifier: this is a TFLite model, not a kmodel; "
        "k210 convert makes a kmodel of it\n"
    )
    kmodel = str(FIXTURES / "kmodel/v4/iris.kmodel")
    assert refused([LANDMARK[0], kmodel, *FACES], capsys) == (
        f"k210 compare: {kmodel} takes float32 1x1x4 (CHW), {LANDMARK[0]} takes 1x240x320x3: "
        "it was not made of this model\n"
    )
    assert refused([kmodel, iris, *FACES], capsys) == (
        f"k210 compare: {kmodel} is a kmodel: the float model, a .tflite or .onnx, comes first\n"
    )
    assert refused([str(tmp_path), kmodel, *FACES], capsys) == (
        f"k210 compare: {tmp_path} cannot be read: it is a folder\n"
    )
    (tmp_path / "contract.json").write_text("{}")
    assert refused([iris, kmodel, *FACES, "--contract", "contract.json"], capsys) == (
        "k210 compare: contract.json: version is None; it must be given\n"
    )
    (tmp_path / "mine.json").write_text("no")
    assert refused([iris, kmodel, *FACES, "--contract", "mine.json"], capsys).startswith(
        "k210 compare: mine.json: it is no JSON written by k210tasks: "
    )


@real
def test_a_contract_says_what_the_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Path(LANDMARK[1]).read_bytes()
    outputs = tuple(Output(f"Identity{n}", (3160, k)) for n, k in (("", 4), ("_1", 10), ("_2", 2)))
    contract = Contract("m", 4, "maixpy", Input((3, 240, 320), mean=0.5), outputs, nbytes=len(data))
    (tmp_path / "contract.json").write_text(contract.to_json())
    arguments = [*LANDMARK, *FACES, "--contract", "contract.json", "--mean", "0.5", "--std", "1"]
    assert main(["compare", *arguments]) == 0
    stated = capsys.readouterr().out
    assert main(["compare", *arguments[:-4]]) == 0  # the contract states mean and std
    assert capsys.readouterr().out == stated
    (tmp_path / "contract.json").write_text(replace(contract, sha256="0" * 64).to_json())
    assert refused(arguments, capsys) == (
        f"k210 compare: contract.json was written for another file than {LANDMARK[1]} (their "
        "sha256 differ); give the contract.json of this very kmodel, or none\n"
    )


@real
def test_held_out_is_told_by_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from k210tasks.samples.loading import Loader
    from k210tasks.samples.preprocess import Preprocess
    from k210tasks.samples.seen import Seen

    monkeypatch.chdir(tmp_path)
    calibrated, loader = Seen(), Loader((1, 4), Preprocess())
    random = np.random.default_rng(3)
    for i in range(12):
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            np.save(tmp_path / f"{name}/{i}.npy", random.normal(size=(1, 4)).astype(np.float32))
        calibrated.add(loader.load(tmp_path / f"a/{i}.npy"))
    given = Input((4,), "flat", "float32")
    contract = Contract("iris", 4, "maixpy", given, (Output("output", (3,)),))
    contract = replace(contract, calibration=tuple(calibrated.digests))
    (tmp_path / "contract.json").write_text(contract.to_json())
    arguments = [str(FIXTURES / "tflite/iris.tflite"), str(FIXTURES / "kmodel/v4/iris.kmodel")]

    def told(images: str) -> list[str]:
        options = ["--images", images, "--contract", "contract.json"]
        assert main(["compare", *arguments, *options]) == 0
        return capsys.readouterr().out.splitlines()[3:]

    assert told("b") == ["held out, runtime maixpy", *no_kpu(4)]
    (tmp_path / "b/7.npy").write_bytes((tmp_path / "a/3.npy").read_bytes())
    assert told("b") == [
        "not held out, runtime maixpy",
        *no_kpu(4),
        "warning: not held out: 1 of 12 samples is a calibration sample too, the same in",
        "  content; give others with --images",
    ]
    assert told("a")[-2:] == [
        "warning: not held out: measured on the calibration samples; give others with",
        "  --images",
    ]


@real
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("setosa,iris", "too few: in load.py, score 2 has no label;"),
        ("setosa,iris,lily,rose", "too many: load.py gets all of them, and rose can never be"),
    ],
)
def test_labels_that_do_not_fit(
    classes: list[str], capsys: pytest.CaptureFixture[str], labels: str, said: str
) -> None:
    assert main(["compare", *classes, "--labels", labels]) == 0
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A model of three scores, and samples in the folders of the classes it gives them."""
    from k210tasks.reference.litert import FloatModel

    monkeypatch.chdir(tmp_path)
    tflite = FIXTURES / "tflite/iris.tflite"
    model, random = FloatModel(tflite.read_bytes()), np.random.default_rng(5)
    counts = [0, 0, 0]
    while min(counts) < 4:
        x = random.uniform(0, 8, size=(1, 4)).astype(np.float32)
        picked = int(np.argmax(model.run(x)[0]))
        counts[picked] += 1
        folder = tmp_path / "flowers" / ("setosa", "iris", "lily")[picked]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{sum(counts)}.npy", x)
    return [str(tflite), str(FIXTURES / "kmodel/v4/iris.kmodel"), "--images", "flowers"]


@real
def test_labels_in_the_order_of_the_scores(
    classes: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *classes, "--labels", "setosa,iris,lily"]) == 0
    right = capsys.readouterr().out.splitlines()
    assert right[3:] == [
        "accuracy: float 100 %, kmodel 100 %",
        "held out or not is not known, runtime host",
        *no_kpu(4),
    ]
    assert main(["compare", *classes]) == 0
    wrong = capsys.readouterr().out.splitlines()
    assert " ".join(" ".join(wrong[4:]).split()).endswith(
        "; with --labels setosa,iris,lily: 100 %; labels are in the order of the model's scores"
    )
    assert max(map(len, wrong)) <= 80


@real
def test_labels_that_are_no_folders(classes: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *classes, "--labels", "a,b,c"]) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(
        "warning: no accuracy: images must lie in one folder a class, named as in --labels a,b,c, "
        "below flowers"
    )
