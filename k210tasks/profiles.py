"""What the board runs: which kmodel versions each firmware loads, and where things lie in flash.

Data only. Facts come from section 5 of ``docs/kpu-and-kmodel.md`` and from the public
repositories named in ``sources``; what no source states is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Sizes common to the boards, in bytes (docs/kpu-and-kmodel.md, sections 1.1 and 5).
FLASH_BYTES = 16 * 2**20
SRAM_BYTES = 6 * 2**20
#: The stock flasher writes frames of this size, padding the last one (section 5).
FLASH_FRAME_BYTES = 64 * 2**10

#: The flash area that the MicroPython builds keep their SPIFFS in: start, end (exclusive).
_SPIFFS = (0xD00000, 0x1000000)


@dataclass(frozen=True, slots=True)
class Profile:
    """One firmware. Addresses are flash offsets and sizes bytes; see the module for sources."""

    name: str
    title: str
    kmodels: tuple[int, ...]  # versions it loads, ascending
    model_base: int  # where models go by default
    language: Literal["micropython", "c"]  # of the load snippet
    runtime: str  # what executes kmodel 3 and 4, by its name in k210tasks.kmodel.runtimes
    filesystem: tuple[int, int] | None = None  # start, end (exclusive); None: none, or not known
    sram_free: int | None = None  # bytes free for model, working memory, camera and LCD buffers
    note: str = ""  # what a user should know beside the numbers
    sources: tuple[str, ...] = ()

    def loads(self, kmodel: int) -> bool:
        """Whether this firmware loads a file of that kmodel version."""
        return kmodel in self.kmodels


PROFILES: dict[str, Profile] = {
    p.name: p
    for p in (
        Profile(
            "maixpy",
            "MaixPy, the normal build",
            (3, 4),
            0x300000,
            "micropython",
            "maixpy",
            _SPIFFS,
            sram_free=4374528,
            note="free heap of an idle v0.5.0_246 on a MaixDock with the default 512 KiB for "
            "Python; camera and LCD take their buffers from it",
            sources=(
                "sipeed/MaixPy-v1:tools/release/readme.txt",
                "sipeed/MaixPy-v1:projects/maixpy_k210/config_defaults.mk",
                "wiki.sipeed.com/soft/maixpy/en/api_reference/Maix/utils.html (heap_free)",
            ),
        ),
        Profile(
            "maixpy-minimum",
            "MaixPy, the _minimum builds without kmodel 4",
            (3,),
            0x300000,
            "micropython",
            "maixpy",
            _SPIFFS,
            note="the _minimum_with_kmodel_v4_support build loads kmodel 4: use maixpy for it",
            sources=(
                "sipeed/MaixPy-v1:tools/release/readme.txt",
                "sipeed/MaixPy-v1:projects/maixpy_k210_minimum/config_with_ide_support.mk",
            ),
        ),
        Profile(
            "maixpy-lvgl",
            "MaixPy with LVGL",
            (3,),
            0x300000,
            "micropython",
            "maixpy",
            _SPIFFS,
            sources=(
                "sipeed/MaixPy-v1:tools/release/readme.txt",
                "sipeed/MaixPy-v1:projects/maixpy_k210/config_with_lvgl.mk",
            ),
        ),
        Profile(
            "m5stickv",
            "MaixPy for the M5StickV",
            (3, 4),
            0x300000,
            "micropython",
            "maixpy",
            _SPIFFS,
            sources=(
                "sipeed/MaixPy-v1:tools/release/readme.txt",
                "sipeed/MaixPy-v1:projects/maixpy_m5stickv/config_defaults.mk",
            ),
        ),
        Profile(
            "canmv",
            "CanMV for the K210, main branch",
            (3, 4),
            0x300000,
            "micropython",
            "canmv",
            _SPIFFS,
            sources=("kendryte/canmv:projects/canmv_k210/config_standard.mk",),
        ),
        Profile(
            "canmv-kpu5",
            "CanMV for the K210 with kmodel 5 (branch feat/kpu, nncase 1.1.0 runtime)",
            (3, 4, 5),
            0x300000,
            "micropython",
            "canmv",
            _SPIFFS,
            sources=("kendryte/canmv:projects/canmv_k210/config_lite_kmodel_v5.mk",),
        ),
        Profile(
            "sdk",
            "kendryte-standalone-sdk, master",
            (3,),
            0xA00000,
            "c",
            "sdk_master",
            sources=("kendryte/kendryte-standalone-sdk:lib/drivers/kpu.c (master)",),
        ),
        Profile(
            "sdk-develop",
            "kendryte-standalone-sdk, develop (V0.5.6 and later)",
            (3, 4, 5),
            0xA00000,
            "c",
            "sdk_develop",
            note="kmodel 5 loads only where the SDK's nncase runtime matches the compiler",
            sources=("kendryte/kendryte-standalone-sdk:lib/drivers/kpu.c (develop)",),
        ),
        Profile(
            "freertos",
            "kendryte-freertos-sdk (archived)",
            (3,),
            0xA00000,
            "c",
            "freertos",
            sources=("kendryte/kendryte-freertos-sdk:lib/bsp/device/kpu.cpp",),
        ),
        Profile(
            "rt-thread",
            "RT-Thread with its K210 package",
            (3, 4),
            0xA00000,
            "c",
            "rt_thread",
            sources=("the K210 package of RT-Thread, which wraps kendryte-standalone-sdk",),
        ),
        Profile(
            "arduino",
            "Arduino, Maixduino core 0.3",
            (3,),
            0x300000,
            "c",
            "maixduino",
            note="whether it loads kmodel 4 is not known",
            sources=("sipeed/Maixduino:libraries/Maxi_KPU/src/Maix_KPU.h",),
        ),
    )
}


def loading(kmodel: int) -> tuple[str, ...]:
    """The names of the profiles that load a kmodel of that version."""
    return tuple(name for name, profile in PROFILES.items() if profile.loads(kmodel))
