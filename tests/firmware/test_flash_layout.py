"""Where parts lie in flash: planned around each other, refused with a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.firmware.errors import FirmwareError
from k210tasks.firmware.flash_layout import (
    PREFIX_BYTES,
    Piece,
    check_loads,
    check_profile,
    plan,
    warnings,
)
from k210tasks.profiles import FLASH_BYTES, FLASH_FRAME_BYTES, PROFILES, Profile

MAIXPY = PROFILES["maixpy"]
KIB, MIB = 1024, 1024 * 1024


def model(name: str, nbytes: int, address: int | None = None) -> Piece:
    return Piece(name, True, nbytes, address)


def binary(name: str, nbytes: int, address: int | None = None, prefix: bool | None = None) -> Piece:
    return Piece(name, False, nbytes, address, prefix)


def refusal(*pieces: Piece) -> str:
    with pytest.raises(FirmwareError) as error:
        plan("demo", pieces, MAIXPY)
    return str(error.value)


def test_models_follow_each_other_from_the_base_of_the_profile() -> None:
    placed = plan("demo", [model("a", 64 * KIB), model("b", 64 * KIB + 1), model("c", 1)], MAIXPY)
    assert [(p.piece.name, p.address) for p in placed] == [
        ("a", 0x300000),
        ("b", 0x310000),
        ("c", 0x330000),
    ]


def test_free_parts_go_around_given_addresses_and_the_file_system() -> None:
    pieces = [
        model("big", 9 * MIB),
        model("given", 1, 0x310000),
        binary("fw.bin", MIB, 0),
    ]
    placed = {p.piece.name: p.address for p in plan("demo", pieces, MAIXPY)}
    assert placed == {"fw.bin": 0, "given": 0x310000, "big": 0x320000}
    beyond = plan("demo", [model("big", 9 * MIB), model("next", 2 * MIB)], replace_fs(0xC00000))
    assert [p.address for p in beyond] == [0x300000, 0xD00000]


def replace_fs(start: int) -> Profile:
    return replace(MAIXPY, filesystem=(start, 0xD00000))


def test_only_a_program_at_zero_has_the_prefix_unless_told() -> None:
    placed = plan(
        "demo",
        [binary("fw.bin", 100, 0), binary("data.bin", 100, 0x200000), model("m", 5)],
        MAIXPY,
    )
    assert [p.sha256_prefix for p in placed] == [True, False, False]
    told = plan("demo", [binary("a", 9, 0, False), binary("b", 9, 0x200000, True)], MAIXPY)
    assert [p.sha256_prefix for p in told] == [False, True]


def test_the_bytes_of_the_prefix_count() -> None:
    fits = 0x300000 - PREFIX_BYTES
    plan("demo", [binary("fw.bin", fits, 0), model("m", 5, 0x300000)], MAIXPY)
    assert refusal(binary("fw.bin", fits + 1, 0), model("m", 5, 0x300000)) == (
        "firmware demo: model m at 0x300000..0x300004 overlaps bin fw.bin at 0x0..0x30ffff; the"
        " flasher writes whole 64 KiB frames, so move it to 0x310000 or beyond, or leave its"
        " address out"
    )


def test_two_parts_in_one_frame_overlap() -> None:
    assert refusal(model("a", 16, 0x300000), model("b", 16, 0x301000)) == (
        "firmware demo: model b at 0x301000..0x30100f overlaps model a at 0x300000..0x30ffff; the"
        " flasher writes whole 64 KiB frames, so move it to 0x310000 or beyond, or leave its"
        " address out"
    )


def test_addresses_outside_the_flash() -> None:
    assert refusal(binary("x.bin", 1, FLASH_BYTES)) == (
        "firmware demo: bin x.bin at 0x1000000 is outside the flash; use 0x0..0xffffff"
    )
    no_fs = replace(MAIXPY, filesystem=None)
    with pytest.raises(FirmwareError) as error:
        plan("demo", [model("m", 2 * MIB, 0xF00000)], no_fs)
    assert str(error.value) == (
        "firmware demo: model m at 0xf00000 ends at 0x1100000, 1048576 bytes beyond the 16 MiB"
        " flash (0x1000000); lower its address or make it smaller"
    )


def test_the_file_system_is_not_for_models() -> None:
    assert refusal(model("m", 2 * MIB, 0xC00000)) == (
        "firmware demo: model m at 0xc00000..0xdfffff lies in the file system of profile maixpy"
        " (0xd00000..0xffffff), which the firmware writes to; end it below 0xd00000"
    )
    assert "lies in the file system" in refusal(binary("fw.bin", 2 * MIB, 0xC00000))
    plan("demo", [binary("spiffs.img", 3 * MIB, 0xD00000)], MAIXPY)  # an image of it is meant


def test_no_room_is_said() -> None:
    pieces = [model("a", 5 * MIB), model("b", 5 * MIB), model("c", 5 * MIB)]
    assert refusal(*pieces) == (
        "firmware demo: no free 5242880 bytes for model c from 0x300000 on; make the parts"
        " smaller, or give addresses that leave a gap of that size"
    )


def test_programs_models_and_addresses_that_make_no_sense() -> None:
    assert refusal(binary("fw.bin", 7 * MIB, 0)) == (
        "firmware demo: bin fw.bin is 7340032 bytes, 1048576 more than the 6291456 bytes of SRAM"
        " the boot ROM copies it into; link a smaller program"
    )
    assert refusal(model("m", 5, 0)) == (
        "firmware demo: model m is at 0x0, where the boot ROM expects the program; give it another"
        " address"
    )
    assert refusal(Piece("m", True, 5, 0x300000, True)) == (
        "firmware demo: model m cannot have sha256_prefix: the header would stand where the"
        " firmware expects the model; leave it out"
    )
    assert refusal(model("m", 5, 0x300010)) == (
        "firmware demo: model m at 0x300010 does not start at a flash sector; use a multiple of"
        " 0x1000, best of 0x10000, for example 0x310000"
    )
    assert refusal(model("m", 0)) == ("firmware demo: model m is empty; there is nothing to flash")


def test_profile_and_version_must_agree() -> None:
    with pytest.raises(FirmwareError) as error:
        check_loads("demo", "m", 4, PROFILES["maixpy-minimum"])
    assert str(error.value) == (
        "firmware demo: model m is kmodel 4, profile maixpy-minimum loads only kmodel 3; build it"
        " as kmodel 3, or flash a firmware that loads version 4: maixpy, m5stickv, canmv,"
        " canmv-kpu5, sdk-develop, rt-thread"
    )
    with pytest.raises(FirmwareError) as error:
        check_profile("demo", "m", "sdk", 3, MAIXPY)
    assert str(error.value) == (
        "firmware demo: model m was made for profile sdk, this image is for maixpy; set the same"
        " firmware: on the model, or profile: sdk on the image"
    )
    check_profile("demo", "m", "maixpy", 4, MAIXPY)


def test_a_model_below_the_base_without_a_program_is_warned_of() -> None:
    low = plan("demo", [model("m", 5, 0x100000)], MAIXPY)
    assert warnings(low, MAIXPY) == (
        "model m at 0x100000 lies below 0x300000, where profile maixpy keeps models; it may"
        " overwrite the firmware on the board",
    )
    with_program = plan("demo", [model("m", 5, 0x100000), binary("fw", 5, 0)], MAIXPY)
    assert warnings(with_program, MAIXPY) == ()


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(1, 3 * MIB),
            st.none() | st.integers(0, 300).map(lambda n: n * FLASH_FRAME_BYTES),
        ),
        max_size=8,
    ),
    st.sampled_from(sorted(PROFILES)),
)
@settings(deadline=None)
def test_what_is_planned_never_overlaps(
    parts: list[tuple[bool, int, int | None]], profile: str
) -> None:
    pieces = [Piece(f"p{i}", *part) for i, part in enumerate(parts)]
    try:
        placed = plan("demo", pieces, PROFILES[profile])
    except FirmwareError:
        return
    assert {p.piece for p in placed} == set(pieces)
    frames: set[int] = set()
    for part in placed:
        own = set(range(part.start, part.end, FLASH_FRAME_BYTES))
        assert own
        assert not own & frames
        frames |= own
        assert part.end <= FLASH_BYTES
        assert part.piece.address in (None, part.address)
