"""SRAM: what is known decides, what is not known only warns."""

from __future__ import annotations

from dataclasses import replace

from k210tasks.firmware.sram import fit
from k210tasks.profiles import PROFILES, SRAM_BYTES

MAIXPY = PROFILES["maixpy"]
SDK = PROFILES["sdk"]


def test_the_users_number_comes_first() -> None:
    assert fit("m", 1000, 500, MAIXPY, sram_free=1500).fits
    tight = fit("m", 1000, 500, MAIXPY, sram_free=1499)
    assert not tight.fits
    assert tight.sentence == (
        "model m needs 1500 bytes of SRAM (file 1000, working memory 500); sram_free is 1499, 1"
        " too few: shrink the model or its input, or choose a firmware that leaves more"
        " (sram_free: says how much yours does)"
    )
    assert tight.warning == tight.sentence


def test_then_what_the_profile_leaves() -> None:
    free = MAIXPY.sram_free
    assert free is not None
    assert fit("m", free - 10, 10, MAIXPY).fits
    assert fit("m", free - 10, 10, MAIXPY).warning is None
    assert fit("m", free, 10, MAIXPY).sentence == (
        f"model m needs {free + 10} bytes of SRAM (file {free}, working memory 10); profile maixpy"
        f" leaves {free}, 10 too few: shrink the model or its input, or choose a firmware that"
        f" leaves more (sram_free: says how much yours does). {free}: {MAIXPY.note}"
    )


def test_what_nobody_knows_is_bounded_by_the_chip_and_the_program() -> None:
    unknown = replace(SDK, sram_free=None)
    loose = fit("m", 2 * 2**20, 100, unknown, program=2**20)
    assert loose.fits
    assert loose.available == SRAM_BYTES - 2**20
    assert loose.warning == (
        "model m needs 2097252 bytes of SRAM (file 2097152, working memory 100); at most 5242880"
        " are free; what profile sdk really leaves is not known: set sram_free: on the model where"
        " you know it"
    )
    assert not fit("m", 5 * 2**20, 100, unknown, program=2**20).fits


def test_a_format_that_does_not_say_its_working_memory() -> None:
    five = fit("m", 1000, None, MAIXPY)
    assert five.needed == 1000
    assert "(file 1000, working memory not known)" in five.sentence
