"""A child that crashes, hangs or takes all memory is an error of what it worked on, no more."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k210tasks.compiler.numerics.calibration import Calibration, CalibrationError
from k210tasks.compiler.numerics.collect import collect
from k210tasks.errors import K210Error
from k210tasks.reference import apart as module
from k210tasks.reference import float_model
from k210tasks.reference.apart import Apart, EndedApart
from k210tasks.reference.float_model import Reference, measure_to, understood
from k210tasks.reference.litert import FloatModel, measurable
from k210tasks.steps.signature import read_signature
from tests.compiler.tflite_builder import Net

Reply = Callable[[Any], None]
FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
END = ": the model is damaged, or larger than any that a K210 can hold; convert it again from its "


class Peculiar(K210Error):
    def __init__(self, first: int, second: int):
        self.sum = first + second
        super().__init__(f"{first} and {second}")


def echo(inbox: Iterator[Any], reply: Reply) -> None:
    for item in inbox:
        reply(item)


def crash(inbox: Iterator[Any], reply: Reply) -> None:
    next(inbox)
    ctypes.string_at(0)


def abort(inbox: Iterator[Any], reply: Reply) -> None:
    next(inbox)
    os.write(2, b"INFO: a remark\nthe reason, at last\n")
    os.abort()


def spin(inbox: Iterator[Any], reply: Reply) -> None:
    for _ in inbox:
        while True:
            pass


def hoard(inbox: Iterator[Any], reply: Reply) -> None:
    kept = []
    for _ in inbox:
        while True:
            kept.append(np.ones(8 << 20))


def complain(inbox: Iterator[Any], reply: Reply) -> None:
    raise Peculiar(*next(inbox))


@pytest.mark.parametrize(
    ("body", "how"),
    [
        (crash, "ended its process by SIGSEGV"),
        (abort, "ended its process by SIGABRT (the reason, at last)"),
        (spin, "took more than 1 s of processor time at once"),
        (hoard, "needs more than 768 MiB of memory"),
    ],
)
def test_what_ends_a_child(body: Any, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SECONDS", 1 if body is spin else 60)
    for _ in range(2):  # and the next one goes on
        with pytest.raises(EndedApart) as caught, Apart(body, "trying") as child:
            child.ask(1)
        assert str(caught.value) == f"trying {how}{END}source"
    with Apart(echo, "trying") as child:
        assert child.ask({"a": 1}) == {"a": 1}


def test_an_error_crosses_whole_whatever_its_constructor_takes() -> None:
    with pytest.raises(Peculiar, match="3 and 4") as caught, Apart(complain, "trying") as child:
        child.ask((3, 4))
    assert caught.value.sum == 7
    assert "complain" in str(caught.value.__cause__)


def test_arrays_cross_and_what_is_sent_to_a_dead_child_is_no_error() -> None:
    array = np.random.default_rng(1).normal(size=(300, 1000)).astype(np.float32)
    with Apart(echo, "trying") as child:
        np.testing.assert_array_equal(child.ask(array), array)
    with Apart(crash, "trying") as child:
        assert child.send(1)
        while child.send(array):
            pass
        with pytest.raises(EndedApart):
            child.receive()


def test_a_child_keeps_no_file_and_no_lock_of_ours(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        child = Apart(echo, "trying")
        assert child.ask(1) == 1
    with (tmp_path / "lock").open("w") as again:
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    child.close()


def test_a_child_ends_when_we_do() -> None:
    given, told = os.pipe()
    ours = os.fork()
    if not ours:
        try:
            child = Apart(spin, "trying")
            child.ask_later = child.send(1)  # type: ignore[attr-defined]
            idle = Apart(echo, "trying")
            idle.ask(1)
            os.write(told, f"{idle._pid}\n".encode())
            os.kill(child._pid, signal.SIGKILL)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(ours, 0)
    pid = int(os.read(given, 100))
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0]
        except OSError:
            break
        if state == "Z":  # ended; whoever inherited it has not looked yet
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"process {pid} lives on")


def test_threads_have_children_of_their_own() -> None:
    found: list[Any] = []

    def work(number: int) -> None:
        with Apart(echo, "trying") as child:
            found.extend(child.ask(number) for _ in range(20))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == sorted([n for n in range(6) for _ in range(20)])


def network() -> bytes:
    net = Net((1, 8, 8, 3))
    net.softmax(net.dense(net.reshape(net.conv(net.input, 4), (1, 256)), 3))
    return net.build()


def test_apart_or_here_the_results_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tflite = network()
    assert understood(tflite)
    samples = list(np.random.default_rng(2).normal(size=(12, 1, 8, 8, 3)).astype(np.float32))
    collect(tflite, samples, measurable, fed="tensors").to_npz(tmp_path / "here.npz")
    monkeypatch.setattr(float_model, "understood", lambda data: False)
    counted: list[tuple[int, int]] = []
    measure_to(
        tmp_path / "apart.npz", tflite, iter(samples), total=12, fed="tensors",
        progress=lambda done, total, what: counted.append((done, total)),
    )  # fmt: skip
    assert (tmp_path / "apart.npz").read_bytes() == (tmp_path / "here.npz").read_bytes()
    assert counted == [(n, 12) for n in range(1, 13)]
    assert Calibration.from_npz(tmp_path / "apart.npz").fed == "tensors"
    model, reference = FloatModel(tflite, keep_all=True), Reference(tflite, keep_all=True)
    assert (reference.shape, reference.names) == (model.input_shape, model.output_names)
    for sample in samples[:3]:
        np.testing.assert_array_equal(reference.run(sample)[0], model.run(sample)[0])
        (tensor,) = reference.tensors(sample, [3])
        np.testing.assert_array_equal(tensor, model.looked_at(sample, [3])[0])


def test_errors_of_samples_and_of_what_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float_model, "understood", lambda data: False)

    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((1, 8, 8, 3), np.float32)
        raise Peculiar(1, 2)

    with pytest.raises(Peculiar):
        measure_to(tmp_path / "made", network(), broken())
    with pytest.raises(CalibrationError, match="sample 1 has the shape"):
        measure_to(tmp_path / "made", network(), [np.zeros((1, 9, 8, 3), np.float32)] * 99)
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no fixtures beside the clone")
def test_the_models_that_end_litert(tmp_path: Path) -> None:
    ended = 0
    for name in ("segv", "tflite_030", "tflite_034", "tflite_048", "tflite_062"):
        tflite = (FIXTURES / "hostile" / f"{name}.tflite").read_bytes()
        assert not understood(tflite)
        shape = read_signature(tflite, name).input.shape
        try:
            measure_to(tmp_path / "made", tflite, [np.ones(shape, np.float32)] * 3)
        except EndedApart:
            ended += 1
        except K210Error:
            pass  # what it reads beside its memory differs from machine to machine
    assert ended


def test_only_what_is_known_in_full_runs_with_us() -> None:
    net = Net((1, 8, 8, 3))
    net.op("CUMSUM", [net.input, net.const(np.array(1, np.int32))], (1, 8, 8, 3), "CumsumOptions")
    assert not understood(net.build())
    net = Net((1, 8, 8, 3))
    net.op("RELU", [net.input], (1, 8, 8, 4))
    assert not understood(net.build())
    assert not understood(b"TFL3")


def deaf(inbox: Iterator[Any], reply: Reply) -> None:
    time.sleep(60)


def dumb(inbox: Iterator[Any], reply: Reply) -> None:
    for _ in inbox:
        time.sleep(60)


@pytest.mark.parametrize("body", [deaf, dumb])
def test_a_child_that_takes_or_gives_nothing_is_given_up(
    body: Callable[[Iterator[Any], Reply], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.3)
    apart = Apart(body, "reading")
    taken = apart.send(b"x" * (8 << 20))
    assert taken == (body is dumb)
    with pytest.raises(EndedApart) as caught:
        apart.receive()
    assert str(caught.value).startswith("reading did not come back within 0.3 s: the model is dam")


def test_more_than_a_pipe_holds_arrives() -> None:
    with Apart(echo, "reading") as apart:
        given = np.random.default_rng(0).bytes(8 << 20)
        assert apart.ask(given) == given
