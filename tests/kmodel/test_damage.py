"""Damaged files: clean errors, bounded memory; examples that hypothesis can shrink."""

from __future__ import annotations

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.kmodel import KmodelError, parse, v3_layers, v4_ops, write
from k210tasks.kmodel.codec import MAIN, MemoryRange
from k210tasks.kmodel.v3 import KmodelV3
from k210tasks.kmodel.v4 import KmodelV4
from tests import fuzz_kmodel
from tests.kmodel import samples
from tests.simulator import models

FILES = [write(make()) for make in (models.net_v3, models.cpu_net_v3, models.net_v4)]
EDITS = st.lists(st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=4)), max_size=4)


@settings(max_examples=150, deadline=None)
@given(data=st.sampled_from(FILES), edits=EDITS, length=st.none() | st.integers(0, 5000))
def test_overwritten_and_cut_files_run_or_are_refused(
    data: bytes, edits: list[tuple[int, bytes]], length: int | None
) -> None:
    damaged = bytearray(data)
    for at, new in edits:
        damaged[at : at + len(new)] = new
    with contextlib.suppress(KmodelError):
        fuzz_kmodel.check(bytes(damaged[:length]))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x03\0\0\0", b"LDMK\x04\0\0\0"]))
def test_noise_is_refused_or_runs(noise: bytes, head: bytes) -> None:
    with contextlib.suppress(KmodelError):
        fuzz_kmodel.check(head + noise)


def many_layers() -> list[tuple[str, bytes]]:
    """Files that make the most of their bytes: as many small records as a parser accepts."""
    conv = samples.conv_v4(np.random.default_rng(0))
    conv.skips = (0, 0, 0)
    memory = MemoryRange(MAIN, 0, 0, 8)
    concat = v4_ops.Concat(
        out=memory, inner=1, outer=1, n=64, inputs=[memory] * 64, dims=[100000] * 64
    )

    def v4(node: v4_ops.Node, count: int) -> bytes:
        return write(
            KmodelV4(nodes=[node] * count, inputs=[], input_shapes=[], outputs=[], main_mem=8)
        )

    small = v3_layers.Softmax(in_mem=70000, out_mem=70000, channels=70000)
    joined = v3_layers.Concat.of(70000, [(70000, 70000)] * 64)
    return [
        ("small v3 layers", write(KmodelV3(layers=[small] * 2048, outputs=[], main_mem=8))),
        ("v3 concats", write(KmodelV3(layers=[joined] * 2048, outputs=[], main_mem=8))),
        ("v4 convolutions", v4(conv, 2048)),
        ("v4 concats", v4(concat, 2048)),
    ]


@pytest.mark.parametrize(("name", "data"), many_layers(), ids=lambda v: v if type(v) is str else "")
def test_parsing_stays_within_its_memory(name: str, data: bytes) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        model = parse(data)
        used = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert len(model.layers) == 2048
    assert used <= 8 * len(data) + (16 << 20), f"{used} bytes for a file of {len(data)}"
