"""In what the runtimes that boards execute differ, as a table (docs/kpu-and-kmodel.md, section 8).

A kmodel's layers say what is computed; the runtime in the firmware decides what really is. The
simulator takes one of these and does as it does, the lint says which files fall into its
pitfalls. ``sources`` name the public files that state the facts; where ``recorded`` is true
the outputs of the runtime itself, executed, have been reproduced too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from k210tasks.errors import K210Error


class UnknownRuntime(K210Error):
    def __init__(self, name: str) -> None:
        super().__init__(f"no runtime is called {name!r}; there are {', '.join(RUNTIMES)}")


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime. The defaults are what the host builds of upstream's sources do."""

    name: str
    title: str  # as messages call it
    recorded: bool  # its outputs were recorded and are reproduced; else known from source only
    kmodels: tuple[int, ...] = (3, 4)
    sources: tuple[str, ...] = ()
    #: Float sums: "matrix" as a matrix product makes them, in any order; "sequential" in the
    #: order of the C loops; "fused" likewise, with a*b+c rounded once as RV64 compilers do it.
    floats: Literal["matrix", "sequential", "fused"] = "matrix"
    #: A float too large for an integer, or NaN, becomes: "clamped" 0 or 255 with NaN 0,
    #: "saturated" likewise with NaN 255 (RV64), "lowest" 0 (x86-64).
    conversion: Literal["clamped", "saturated", "lowest"] = "clamped"
    #: Main memory is what malloc gave when the model was loaded, and a run finds there what the
    #: last one left: a read of bytes that no layer wrote sees it. False: zeros before each run.
    keeps_memory: bool = False
    unwritten: int = 0  # the byte it held before the first run, where that was recorded
    # kmodel 3
    starts_dense: bool = True  # runs a file that begins with FullyConnected
    tells_dense_shape: bool = True  # and can be asked for such a file's input shape
    applies_act: bool = True  # FullyConnected heeds its field ``act``
    pairs_dense: bool = False  # sums a FullyConnected of 8n inputs in eights, two products first
    copies_dense: bool = True  # a FullyConnected's weights fit where they are copied to
    wraps_windows: bool = False  # a pool window beyond the width or height reads other pixels
    reads_beyond: bool = False  # and answers even if these lie beyond main memory
    loses_last_byte: bool = False  # of a map in main memory whose width is a multiple of 64
    upload_stride: int = 1  # lines of maps of width % 8 == 0 are put this many times too far apart
    truncates_quantize: bool = False  # Quantize cuts off instead of rounding
    truncates_add: bool = False  # QuantizedAdd shifts its result without rounding
    requantizes_part: bool = False  # Requantize treats an eighth of its bytes only
    # kmodel 4
    half_even_quantize: bool = False  # quantize rounds ties to even, but for an odd last value
    traps_misaligned: bool = False  # reads KPU registers in words, which must lie on multiples of 8
    knows_late_nodes: bool = True  # every build of it has what nncase 0.2 added after beta2
    lacks: frozenset[str] = frozenset()  # layers it has no code for, as listings call them

    @property
    def fused(self) -> bool:
        return self.floats == "fused"

    @property
    def ordered(self) -> bool:
        """Whether float sums are made in the order of the C loops."""
        return self.floats != "matrix"

    @property
    def says(self) -> str:
        """The title, with what is to be said where nothing was recorded."""
        return self.title if self.recorded else f"{self.title} (not recorded)"


_SDK_KPU = "kendryte/kendryte-standalone-sdk:lib/drivers/kpu.c"
_SDK_NNCASE = "kendryte/kendryte-standalone-sdk:lib/nncase/v0 (develop)"

_MAIXPY = Runtime(
    "maixpy",
    "MaixPy",
    recorded=True,
    sources=(
        "sipeed/MaixPy-v1:components/kendryte_sdk/libs (lib_sipeed_kpu_v4.a, libnncase.a)",
        "sipeed/MaixPy-v1:components/micropython/port/src/Maix/Maix_kpu.c",
    ),
    floats="fused",
    conversion="saturated",
    keeps_memory=True,
    tells_dense_shape=False,
    applies_act=False,
    pairs_dense=True,
    wraps_windows=True,
    loses_last_byte=True,
    half_even_quantize=True,
    knows_late_nodes=False,
)

RUNTIMES: dict[str, Runtime] = {
    r.name: r
    for r in (
        Runtime(
            "host",
            "the host build",
            recorded=True,
            sources=(
                f"{_SDK_KPU}, compiled for a PC",
                "kendryte/nncase:src/runtime (v0.2.0-beta4), its simulator branch",
            ),
        ),
        _MAIXPY,
        replace(
            _MAIXPY,
            name="maixpy_dma",
            title="MaixPy with kpu.forward(..., dma=1)",
            recorded=False,
            sources=("docs/kpu-and-kmodel.md, section 8",),
            loses_last_byte=False,
        ),
        Runtime(
            "sdk_master",
            "SDK master",
            recorded=True,  # as compiled for x86-64, hence floats and conversion
            kmodels=(3,),
            sources=(f"{_SDK_KPU} (master, which is V0.5.6)",),
            floats="sequential",
            conversion="lowest",
            keeps_memory=True,
            unwritten=0xA5,
            starts_dense=False,
            applies_act=False,
            wraps_windows=True,
            reads_beyond=True,
        ),
        Runtime(
            "sdk_develop",
            "SDK develop",
            recorded=True,
            sources=(f"{_SDK_KPU} (develop; V0.5.7 is the same)", _SDK_NNCASE),
            floats="fused",
            conversion="saturated",
            keeps_memory=True,
            wraps_windows=True,
            half_even_quantize=True,
            traps_misaligned=True,
        ),
        Runtime(
            "canmv",
            "CanMV",
            recorded=False,
            sources=(
                "kendryte/canmv:components/kendryte_sdk/kendryte-standalone-sdk/lib/drivers/kpu.c",
                "kendryte/canmv:components/kendryte_sdk/kendryte-standalone-sdk/lib/nncase",
            ),
            floats="fused",
            conversion="saturated",
            keeps_memory=True,
            wraps_windows=True,
            half_even_quantize=True,
            traps_misaligned=True,
        ),
        Runtime(
            "maixduino",
            "the Maixduino core",
            recorded=False,
            kmodels=(3,),
            sources=(
                "sipeed/kendryte-standalone-sdk:lib/drivers/kpu.c at 1d52a1a, the submodule of "
                "sipeed/Maixduino; but for interrupts it is SDK master's",
            ),
            floats="fused",
            conversion="saturated",
            keeps_memory=True,
            starts_dense=False,
            applies_act=False,
            wraps_windows=True,
        ),
        Runtime(
            "freertos",
            "the FreeRTOS SDK",
            recorded=False,
            kmodels=(3,),
            sources=("kendryte/kendryte-freertos-sdk:lib/bsp/device/kpu.cpp (develop)",),
            floats="fused",
            conversion="saturated",
            keeps_memory=True,
            starts_dense=False,
            applies_act=False,
            copies_dense=False,
            wraps_windows=True,
            upload_stride=8,
            truncates_quantize=True,
            truncates_add=True,
            requantizes_part=True,
            lacks=frozenset(
                {
                    "ChannelwiseDequantize",
                    "Logistic",
                    "QuantizedResizeNearestNeighbor",
                }
            ),
        ),
        Runtime(
            "rt_thread",
            "RT-Thread's K210 package",
            recorded=False,
            sources=(
                "RT-Thread/rt-thread:bsp/k210/README.md (the SDK as a package)",
                "RT-Thread/RT-AK-plugin-k210:backend_plugin_k210 (kpu_run_kmodel, nncase.h)",
                f"{_SDK_KPU} (V0.5.7, the first with nncase.h)",
            ),
            floats="fused",
            conversion="saturated",
            keeps_memory=True,
            wraps_windows=True,
            half_even_quantize=True,
            traps_misaligned=True,
        ),
    )
}
#: Runs what no profile speaks of.
HOST = RUNTIMES["host"]


def runtime_of(which: str | Runtime) -> Runtime:
    """A runtime by name, or as given. Raises :class:`UnknownRuntime`."""
    if isinstance(which, Runtime):
        return which
    if which not in RUNTIMES:
        raise UnknownRuntime(which)
    return RUNTIMES[which]
