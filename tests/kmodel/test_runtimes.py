"""The table of runtimes."""

from __future__ import annotations

import pytest

from k210tasks.kmodel.runtimes import RUNTIMES, UnknownRuntime, runtime_of


def test_every_runtime_is_found_by_its_name_and_states_its_sources() -> None:
    for name, runtime in RUNTIMES.items():
        assert runtime.name == name
        assert runtime_of(name) is runtime is runtime_of(runtime)
        assert runtime.sources
        assert runtime.says.endswith("(not recorded)") != runtime.recorded


def test_an_unknown_runtime_is_refused_by_name() -> None:
    with pytest.raises(UnknownRuntime) as error:
        runtime_of("esp32")
    assert str(error.value) == (
        "no runtime is called 'esp32'; there are host, maixpy, maixpy_dma, sdk_master, "
        "sdk_develop, canmv, maixduino, freertos, rt_thread"
    )
