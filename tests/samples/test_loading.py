"""Reading pictures and tensors: the contract's arithmetic, and every file that is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from k210tasks.samples.loading import Loader, normalise, planar, stretch
from k210tasks.samples.preprocess import Color, Preprocess
from k210tasks.samples.refusals import (
    NotForPictures,
    PictureImplausible,
    PictureTooLarge,
    PictureUnreadable,
    PictureWrongSize,
    SampleError,
    TensorNotFinite,
    TensorUnreadable,
    TensorWrongLength,
    TensorWrongShape,
    TensorWrongType,
    WrongColor,
    WrongNumbers,
)

RGB = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)  # (H, W, C)
GREY = RGB[:, :, :1]


def save(path: Path, picture: np.ndarray, **options: object) -> Path:
    Image.fromarray(picture.squeeze()).save(path, **options)
    return path


def rgb_loader(**preprocess: object) -> Loader:
    return Loader((1, 4, 6, 3), Preprocess(**preprocess))


class TestPictures:
    @pytest.mark.parametrize("suffix", ["png", "bmp"])
    def test_pixels_are_planar_raw_and_in_rgb_order(self, tmp_path: Path, suffix: str) -> None:
        pixels = rgb_loader().pixels(save(tmp_path / f"a.{suffix}", RGB))
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, RGB.transpose(2, 0, 1))

    def test_bgr_reverses_the_planes(self, tmp_path: Path) -> None:
        pixels = rgb_loader(color="bgr").pixels(save(tmp_path / "a.png", RGB))
        assert np.array_equal(pixels, RGB[:, :, ::-1].transpose(2, 0, 1))

    def test_a_model_with_one_channel_gets_luma(self, tmp_path: Path) -> None:
        red = np.zeros((2, 2, 3), np.uint8)
        red[..., 0] = 200
        pixels = Loader((1, 2, 2, 1), Preprocess()).pixels(save(tmp_path / "a.png", red))
        assert pixels.shape == (1, 2, 2)
        assert np.all(pixels == 60)  # 0.299 * 200

    def test_an_input_without_a_channel_axis_counts_as_grey(self, tmp_path: Path) -> None:
        loader = Loader((1, 4, 6), Preprocess())
        sample = loader.load(save(tmp_path / "a.png", GREY))
        assert sample.pixels is not None
        assert sample.pixels.shape == (1, 4, 6)
        assert np.array_equal(sample.tensor, (GREY[None, :, :, 0] / 255).astype(np.float32))

    def test_a_grey_picture_fills_all_planes_of_a_colour_model(self, tmp_path: Path) -> None:
        pixels = rgb_loader().pixels(save(tmp_path / "a.png", GREY))
        assert np.array_equal(pixels, np.repeat(GREY.transpose(2, 0, 1), 3, 0))

    def test_the_tensor_is_channels_last_with_mean_and_std(self, tmp_path: Path) -> None:
        tensor = rgb_loader(mean=0.5, std=0.25).tensor(save(tmp_path / "a.png", RGB))
        assert tensor.dtype == np.float32
        assert np.array_equal(tensor, ((RGB / 255 - 0.5) / 0.25).astype(np.float32)[None])

    def test_mean_and_std_may_be_of_each_channel_in_the_order_it_is_fed(
        self, tmp_path: Path
    ) -> None:
        loader = rgb_loader(color="bgr", mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
        sample = loader.load(save(tmp_path / "a.png", RGB))
        for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 1.0), (0.3, 2.0)]):
            wanted = (RGB[:, :, 2 - channel] / 255 - mean) / std
            np.testing.assert_array_equal(sample.tensor[0, :, :, channel], np.float32(wanted))
        one = rgb_loader(mean=0.1, std=(0.5, 1.0, 2.0)).tensor(tmp_path / "a.png")
        np.testing.assert_array_equal(one[0, :, :, 2], np.float32((RGB[:, :, 2] / 255 - 0.1) / 2))

    def test_exif_orientation_is_obeyed(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned a quarter clockwise
        path = save(tmp_path / "a.png", RGB, exif=exif)
        pixels = Loader((1, 6, 4, 3), Preprocess(resize="exact")).pixels(path)
        assert np.array_equal(pixels, np.rot90(RGB, -1).transpose(2, 0, 1))

    def test_a_damaged_exif_block_is_no_reason_to_refuse(self, tmp_path: Path) -> None:
        path = save(
            tmp_path / "a.jpg", np.full((4, 6, 3), 9, np.uint8), exif=b"Exif\0\0MM\0*\xff\xff"
        )
        assert np.all(rgb_loader().pixels(path) == 9)

    def test_jpeg_whatever_its_suffix(self, tmp_path: Path) -> None:
        path = tmp_path / "really_a_jpeg.png"
        Image.fromarray(np.full((4, 6, 3), 90, np.uint8)).save(path, "JPEG")
        assert np.abs(rgb_loader().pixels(path).astype(int) - 90).max() <= 2

    def test_palettes_transparency_and_the_first_frame(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(np.full((4, 6), v, np.uint8)) for v in (10, 200)]
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert np.all(rgb_loader().pixels(tmp_path / "a.gif") == 10)
        alpha = np.dstack([RGB, np.zeros((4, 6), np.uint8)])
        pixels = rgb_loader().pixels(save(tmp_path / "b.png", alpha))
        assert np.array_equal(pixels, RGB.transpose(2, 0, 1))

    def test_sixteen_bit_grey_keeps_the_upper_byte(self, tmp_path: Path) -> None:
        wide = (GREY.astype(np.uint16) << 8) + 17
        pixels = Loader((1, 4, 6, 1), Preprocess()).pixels(save(tmp_path / "a.png", wide))
        assert np.array_equal(pixels, GREY.transpose(2, 0, 1))

    def test_another_size_is_stretched(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", RGB)
        pixels = Loader((1, 8, 3, 3), Preprocess()).pixels(path)
        assert np.array_equal(pixels, stretch(RGB, 8, 3).transpose(2, 0, 1))


class TestStretch:
    def test_halving_averages_the_four_pixels(self) -> None:
        picture = np.array([[10, 20, 0, 0], [30, 41, 0, 255]], np.uint8)[..., None]
        assert stretch(picture, 1, 2)[..., 0].tolist() == [[25, 64]]

    def test_doubling_leaves_the_edges_and_mixes_by_quarters(self) -> None:
        row = np.array([[0, 100]], np.uint8)[..., None]
        assert stretch(row, 1, 4)[..., 0].tolist() == [[0, 25, 75, 100]]

    @settings(max_examples=40, deadline=None)
    @given(st.tuples(*[st.integers(1, 40)] * 4), st.integers(0, 255))
    def test_stays_within_the_range_and_keeps_flat_pictures(
        self, sizes: tuple[int, int, int, int], value: int
    ) -> None:
        height, width, to_height, to_width = sizes
        flat = np.full((height, width, 3), value, np.uint8)
        assert np.all(stretch(flat, to_height, to_width) == value)
        ramp = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)
        out = stretch(ramp, to_height, to_width)
        assert out.shape == (to_height, to_width, 1)
        assert ramp.min() <= out.min() <= out.max() <= ramp.max()
        assert np.array_equal(stretch(ramp, height, width), ramp)


class TestRefusedPictures:
    def refuse(self, loader: Loader, path: Path, kind: type[SampleError]) -> str:
        with pytest.raises(kind) as caught:
            loader.load(path, "images/a.png")
        assert caught.value.file == "images/a.png"
        return str(caught.value)

    def test_no_picture_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"hello")
        assert self.refuse(rgb_loader(), tmp_path / "a.png", PictureUnreadable) == (
            "images/a.png cannot be read as a picture: its content is no JPEG, PNG, BMP or GIF; "
            "replace or remove it"
        )

    def test_missing(self, tmp_path: Path) -> None:
        assert self.refuse(rgb_loader(), tmp_path / "a.png", PictureUnreadable) == (
            "images/a.png cannot be read as a picture: No such file or directory; "
            "replace or remove it"
        )

    def test_truncated(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
        for suffix in ("png", "jpg", "bmp"):
            whole = io.BytesIO()
            Image.fromarray(noise).save(whole, {"jpg": "JPEG"}.get(suffix, suffix))
            (tmp_path / f"a.{suffix}").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
            text = self.refuse(rgb_loader(), tmp_path / f"a.{suffix}", PictureUnreadable)
            assert text.startswith("images/a.png cannot be read as a picture: ")
            assert "truncated" in text

    def test_too_many_pixels_by_header_alone(self, tmp_path: Path) -> None:
        def png(width: int, height: int) -> bytes:
            def chunk(name: bytes, data: bytes) -> bytes:
                checked = name + data
                return (
                    struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))
                )

            header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
            return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")

        (tmp_path / "a.png").write_bytes(png(10_000, 9_000))
        assert self.refuse(rgb_loader(), tmp_path / "a.png", PictureTooLarge) == (
            "images/a.png has 10000x9000 = 90000000 pixels; at most 64000000 are read. "
            "Scale it down"
        )
        (tmp_path / "a.png").write_bytes(png(100_000, 100_000))
        assert self.refuse(rgb_loader(), tmp_path / "a.png", PictureTooLarge) == (
            "images/a.png has too many pixels; at most 64000000 are read. Scale it down"
        )

    def test_too_many_pixels_for_its_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "flat.gif"
        Image.new("RGB", (3000, 3000)).save(path)
        with pytest.raises(PictureImplausible) as caught:
            rgb_loader().pixels(path, "flat.gif")
        assert str(caught.value) == (
            f"flat.gif claims 3000x3000 = 9000000 pixels in {path.stat().st_size} bytes; a large "
            "picture has at most 250 for each byte. It is damaged, or made to fill the memory: "
            "replace or remove it, or save it smaller"
        )

    @pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16"])
    def test_large_ones_are_taken_in_strips(self, mode: str, tmp_path: Path) -> None:
        noise = np.random.default_rng(2).integers(0, 256, (1100, 1000, 3), np.uint8)
        picture = Image.fromarray(noise)
        if mode == "I;16":
            picture = Image.fromarray(noise[..., 0].astype(np.uint16) * 256 + 255)
        else:
            picture = picture.convert(mode)
        picture.save(tmp_path / "a.png")
        pixels = Loader((1, 1100, 1000, 3), Preprocess()).pixels(tmp_path / "a.png")
        wanted = noise if mode in ("RGB", "RGBA") else np.repeat(noise[..., :1], 3, 2)
        if mode in ("L", "P"):
            wanted = np.asarray(picture.convert("RGB"))
        assert np.array_equal(pixels, wanted.transpose(2, 0, 1))

    def test_exact_refuses_another_size(self, tmp_path: Path) -> None:
        loader = Loader((1, 28, 32, 3), Preprocess(resize="exact"))
        path = save(tmp_path / "a.png", RGB)
        assert self.refuse(loader, path, PictureWrongSize) == (
            "images/a.png is 6x4 pixels, the model's input 32x28 (width x height), and "
            "preprocess.resize is exact; scale the picture, or set resize: stretch"
        )

    @pytest.mark.parametrize(
        ("shape", "color", "why"),
        [
            ((1, 785), None, "has no height, width and channels"),
            ((4, 8, 8, 3), None, "is a batch of 4"),
            ((1, 8, 8, 6), None, "has 6 channels, neither 1 (grey) nor 3 (colour)"),
        ],
    )
    def test_inputs_no_picture_fits(
        self, tmp_path: Path, shape: tuple[int, ...], color: str | None, why: str
    ) -> None:
        loader = Loader(shape, Preprocess(color=color))
        times = "x".join(map(str, shape))
        assert self.refuse(loader, save(tmp_path / "a.png", RGB), NotForPictures) == (
            f"images/a.png is a picture, but the model's input {times} {why}; "
            "give .npy or raw float32 .bin tensors"
        )

    def test_numbers_of_channels_the_input_has_not(self, tmp_path: Path) -> None:
        loader = Loader((1, 8, 8, 1), Preprocess(mean=(0.1, 0.2, 0.3)))
        with pytest.raises(WrongNumbers) as caught:
            loader.pixels(tmp_path / "a.png", "images/a.png")
        assert str(caught.value) == (
            "images/a.png is a picture, and preprocess.mean has 3 numbers, one a channel, but the "
            "model's input 1x8x8x1 has 1 channel; write one number"
        )

    @pytest.mark.parametrize(
        ("channels", "color", "rest"),
        [
            (3, "gray", "1x8x8x3 has 3 channels; set it to rgb or bgr, or leave it out"),
            (1, "bgr", "1x8x8x1 has 1 channel; set it to gray, or leave it out"),
        ],
    )
    def test_colours_the_input_has_not(
        self, tmp_path: Path, channels: int, color: Color, rest: str
    ) -> None:
        loader = Loader((1, 8, 8, channels), Preprocess(color=color))
        assert self.refuse(loader, save(tmp_path / "a.png", RGB), WrongColor) == (
            f"images/a.png is a picture, and preprocess.color is {color}, but the model's input "
            f"{rest}"
        )

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_any_damage_is_read_or_refused_in_a_sentence(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        kind = data.draw(st.sampled_from(["PNG", "JPEG", "BMP", "GIF"]))
        whole = io.BytesIO()
        Image.fromarray(RGB).save(whole, kind)
        damaged = bytearray(whole.getvalue())
        for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
            damaged[at] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.mktemp("damaged") / "a.png"
        path.write_bytes(damaged)
        try:
            shape, refusal = rgb_loader().pixels(path).shape, ""
        except SampleError as error:
            shape, refusal = None, str(error)
        assert shape == (3, 4, 6) or str(path) in refusal


class TestTensors:
    loader = Loader((1, 2, 3, 2), Preprocess(mean=0.5, std=0.5))
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 2, 3, 2)

    def test_npy_is_the_model_input_as_it_stands(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", self.values[0].astype(np.float64))
        sample = self.loader.load(tmp_path / "a.npy", "a.npy")
        assert sample.file == "a.npy"
        assert sample.pixels is None
        assert sample.tensor.dtype == np.float32
        assert np.array_equal(sample.tensor, self.values)

    def test_bin_is_little_endian_float32(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(self.values.astype("<f4").tobytes())
        assert np.array_equal(self.loader.tensor(tmp_path / "a.bin"), self.values)

    def refuse(self, path: Path, kind: type[SampleError]) -> str:
        with pytest.raises(kind) as caught:
            self.loader.load(path, f"t/{path.name}")
        return str(caught.value)

    def test_shape(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((2, 2, 3), np.float32))
        assert self.refuse(tmp_path / "a.npy", TensorWrongShape) == (
            "t/a.npy holds a tensor of shape 2x2x3; the model's input is 1x2x3x2 "
            "(the batch of 1 may be left out, and N samples in one .npy have N in its place)"
        )

    def test_type(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((2, 3, 2), np.uint8))
        assert self.refuse(tmp_path / "a.npy", TensorWrongType) == (
            "t/a.npy holds uint8 numbers; a tensor is the float model's own input, float32, "
            "with mean and std applied"
        )

    def test_length(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(bytes(47))
        assert self.refuse(tmp_path / "a.bin", TensorWrongLength) == (
            "t/a.bin has 47 bytes; the model's input 1x2x3x2 takes 48 bytes of float32"
        )

    def test_not_finite(self, tmp_path: Path) -> None:
        bad = self.values.copy()
        bad[0, 0, 0] = np.nan, np.inf
        np.save(tmp_path / "a.npy", bad)
        assert self.refuse(tmp_path / "a.npy", TensorNotFinite) == (
            "t/a.npy holds 2 values that are infinite or not a number"
        )

    def test_archive(self, tmp_path: Path) -> None:
        with (tmp_path / "a.npy").open("wb") as file:
            np.savez(file, self.values)
        assert self.refuse(tmp_path / "a.npy", TensorUnreadable) == (
            "t/a.npy cannot be read as a tensor: it is an archive of arrays; replace or remove it"
        )

    def test_objects_are_not_unpickled(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([print]), allow_pickle=True)
        text = self.refuse(tmp_path / "a.npy", TensorUnreadable)
        assert text.startswith("t/a.npy cannot be read as a tensor: ")

    def test_a_header_that_lies_allocates_nothing(self, tmp_path: Path) -> None:
        with (tmp_path / "a.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
            )
        text = self.refuse(tmp_path / "a.npy", TensorUnreadable)
        assert text.startswith("t/a.npy cannot be read as a tensor: ")

    def test_missing(self, tmp_path: Path) -> None:
        for name in ("a.npy", "a.bin"):
            assert self.refuse(tmp_path / name, TensorUnreadable) == (
                f"t/{name} cannot be read as a tensor: No such file or directory; "
                "replace or remove it"
            )


def test_planar_turns_feature_maps_and_leaves_the_rest() -> None:
    tensor = normalise(RGB.transpose(2, 0, 1), 0, 1)
    assert tensor.shape == (1, 4, 6, 3)
    assert np.array_equal(planar(tensor), tensor[0].transpose(2, 0, 1))
    assert planar(np.zeros((1, 10))).shape == (10,)
    assert planar(np.zeros((1, 5, 3))).shape == (5, 3)


def test_no_other_decoder_is_imported(tmp_path: Path) -> None:
    """Pillow imports forty where it misses one of those named: that takes 20 ms."""
    picture = save(tmp_path / "p.png", RGB)
    code = (
        "import sys; from pathlib import Path; from k210tasks.samples.loading import Loader\n"
        "from k210tasks.samples.preprocess import Preprocess\n"
        "Loader((1, 4, 6, 3), Preprocess()).tensor(Path(sys.argv[1]))\n"
        "print(*(name for name in sys.modules if name.startswith('PIL.')))"
    )
    command = [sys.executable, "-c", code, str(picture)]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    plugins = {name for name in loaded if name.endswith("Plugin")}
    assert {"PIL.PngImagePlugin", "PIL.JpegImagePlugin"} <= plugins
    assert not {"PIL.PdfImagePlugin", "PIL.EpsImagePlugin", "PIL.WebPImagePlugin"} & plugins
