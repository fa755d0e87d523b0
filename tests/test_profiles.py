"""The firmware table: every promised profile, and the arithmetic of its flash addresses."""

from __future__ import annotations

import pytest

from k210tasks import profiles


def test_versions_that_load() -> None:
    assert {name: p.kmodels for name, p in profiles.PROFILES.items()} == {
        "maixpy": (3, 4),
        "maixpy-minimum": (3,),
        "maixpy-lvgl": (3,),
        "m5stickv": (3, 4),
        "canmv": (3, 4),
        "canmv-kpu5": (3, 4, 5),
        "sdk": (3,),
        "sdk-develop": (3, 4, 5),
        "freertos": (3,),
        "rt-thread": (3, 4),
        "arduino": (3,),
    }
    assert profiles.loading(5) == ("canmv-kpu5", "sdk-develop")


@pytest.mark.parametrize("name", list(profiles.PROFILES))
def test_addresses_are_in_flash_aligned_and_apart(name: str) -> None:
    profile = profiles.PROFILES[name]
    assert profile.name == name
    assert profile.model_base % profiles.FLASH_FRAME_BYTES == 0
    assert 0 < profile.model_base < profiles.FLASH_BYTES
    if profile.filesystem:
        start, end = profile.filesystem
        assert profile.model_base < start < end <= profiles.FLASH_BYTES
        assert start % profiles.FLASH_FRAME_BYTES == end % profiles.FLASH_FRAME_BYTES == 0


@pytest.mark.parametrize("name", list(profiles.PROFILES))
def test_a_known_amount_of_memory_has_a_source(name: str) -> None:
    profile = profiles.PROFILES[name]
    assert profile.sources
    if profile.sram_free is not None:
        assert 0 < profile.sram_free < profiles.SRAM_BYTES
        assert any("heap_free" in source for source in profile.sources)
        assert profile.note
