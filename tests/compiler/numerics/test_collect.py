"""Calibration: one pass, the same data however it was scheduled, bounded memory, clean files."""

import io

import numpy as np
import pytest

from k210tasks.compiler.numerics import collect as collecting
from k210tasks.compiler.numerics.calibration import Calibration, CalibrationError
from k210tasks.compiler.numerics.collect import collect, sampled_pixels
from k210tasks.reference.litert import measurable
from tests.compiler.tflite_builder import Net


@pytest.fixture(scope="module")
def model():
    net = Net((1, 20, 18, 3))
    x = net.conv(net.input, 6, (3, 3), act="RELU")
    y = net.depthwise(x, (3, 3), stride=(2, 2), act="RELU6")
    z = net.conv(y, 4, (1, 1))
    return net.build(net.reshape(z, (1, 360)))


def pixels(count: int):
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield (rng.integers(0, 256, size=(1, 20, 18, 3)) / 255 - 0.5).astype(np.float32)


def stored(calibration):
    file = io.BytesIO()
    calibration.to_npz(file)
    return file.getvalue()


def test_any_number_of_threads_gives_the_same_bytes(model: bytes) -> None:
    one, two = (stored(collect(model, pixels(30), measurable, threads=n)) for n in (1, 2))
    assert one == two


def test_statistics_are_those_of_all_samples(model: bytes) -> None:
    from k210tasks.reference.litert import FloatModel

    found = collect(model, pixels(9), measurable)
    float_model = FloatModel(model, keep_all=True)
    seen = {index: [] for index in found.tensors}
    for x in pixels(9):
        shown = float_model.looked_at(x, list(seen))
        for arrays, values in zip(seen.values(), shown, strict=True):
            arrays.append(values.copy())
    assert found.samples == 9
    for index, stats in found.tensors.items():
        whole = np.concatenate(seen[index]).reshape(-1, stats.shape[-1])
        assert np.array_equal(stats.channel_low, whole.min(axis=0)), stats.name
        assert np.array_equal(stats.channel_high, whole.max(axis=0)), stats.name
        assert stats.histogram.counts.sum() == whole.size
        if stats.values is None:
            continue
        for k, number in enumerate(found.kept_at):
            flat = seen[index][number].reshape(-1, stats.shape[-1])
            at = found.pixels[stats.pixel_count][k]
            assert np.array_equal(stats.values[k], flat[at]), stats.name


def test_few_whole_samples_are_kept_evenly(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "KEEP", (4, 4))
    assert collect(model, pixels(4), measurable).kept_at == (0, 1, 2, 3)
    assert collect(model, pixels(5), measurable).kept_at == (0, 2, 4)
    found = collect(model, pixels(23), measurable)
    assert found.kept_at == (0, 8, 16)
    assert np.array_equal(found.kept[1], list(pixels(9))[8][0])


def test_small_samples_are_kept_in_greater_number(
    model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "KEEP", (4, 16))
    assert len(collect(model, pixels(23), measurable).kept_at) == 12
    monkeypatch.setattr(collecting, "KEPT_BYTES", 1)
    assert len(collect(model, pixels(23), measurable).kept_at) == 3


def test_sampled_pixels_are_distinct_ascending_and_differ_by_sample() -> None:
    assert sampled_pixels(10, 3).tolist() == list(range(10))
    a, b = sampled_pixels(19200, 0), sampled_pixels(19200, 1)
    for pixels_ in (a, b):
        assert len(set(pixels_.tolist())) == collecting.PIXELS
        assert (np.diff(pixels_) > 0).all()
        assert 0 <= pixels_[0] <= pixels_[-1] < 19200
    assert not np.array_equal(a, b)


def test_the_file_gives_back_what_was_written(model: bytes) -> None:
    for samples in (pixels(5), (x + np.float32(0.001) * i for i, x in enumerate(pixels(5)))):
        made = collect(model, samples, measurable)
        data = stored(made)
        read = Calibration.from_npz(io.BytesIO(data))
        assert stored(read) == data
        assert np.array_equal(read.kept, made.kept)
        assert read.tensors.keys() == made.tensors.keys()


def test_samples_of_pixels_take_a_byte_each(model: bytes) -> None:
    made = collect(model, pixels(5), measurable)
    whole = made.kept.size
    made.kept = made.kept + np.random.default_rng(0).normal(size=made.kept.shape) * 1e-3
    made.kept = made.kept.astype(np.float32)
    small = len(stored(collect(model, pixels(5), measurable)))
    assert len(stored(made)) - small > 2.5 * whole


def test_unusable_samples_are_named(model: bytes) -> None:
    with pytest.raises(CalibrationError) as none:
        collect(model, [], measurable)
    assert str(none.value) == ("no samples to calibrate with: give the folder at least one image")
    with pytest.raises(CalibrationError) as shape:
        collect(model, [next(pixels(1)), np.zeros((1, 20, 18, 1), np.float32)], measurable)
    assert str(shape.value) == (
        "sample 2 has the shape [1, 20, 18, 1], the model's input is [1, 20, 18, 3]"
    )
    bad = next(pixels(1)).copy()
    bad[0, 3, 3, 0] = np.nan
    with pytest.raises(CalibrationError, match=r'the tensor ".*" becomes infinite or not a number'):
        collect(model, [bad], measurable)


def test_an_error_of_the_samples_themselves_comes_through(model: bytes) -> None:
    def broken():
        yield from pixels(3)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        collect(model, broken(), measurable)


def test_other_files_are_refused() -> None:
    for data in (b"", b"not a zip", stored_npz(meta=np.zeros(3, np.uint8))):
        with pytest.raises(CalibrationError, match="not calibration data of the built-in compiler"):
            Calibration.from_npz(io.BytesIO(data))
    old = stored_npz(meta=np.frombuffer(b'{"format": 0}', np.uint8))
    with pytest.raises(CalibrationError) as error:
        Calibration.from_npz(io.BytesIO(old))
    assert str(error.value) == (
        "the calibration data has format 0, this version reads 3: calibrate again"
    )


def stored_npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()
