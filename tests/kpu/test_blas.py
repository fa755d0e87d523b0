from __future__ import annotations

import threading

import pytest

from k210tasks.kpu import blas


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A library that starts with 8 threads; the list holds every setting."""
    settings = [8]
    monkeypatch.setattr(blas, "_controls", lambda: (lambda: settings[-1], settings.append))
    return settings


def test_one_thread_inside_and_the_old_number_after(counted: list[int]) -> None:
    with blas.one_thread():
        assert counted[-1] == 1
        with blas.one_thread():
            assert counted[-1] == 1
        assert counted[-1] == 1
    assert counted == [8, 1, 8]


def test_an_error_inside_restores_too(counted: list[int]) -> None:
    with pytest.raises(KeyError), blas.one_thread():
        raise KeyError
    assert counted[-1] == 8


def test_the_last_of_several_threads_restores(counted: list[int]) -> None:
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with blas.one_thread():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with blas.one_thread():
        thread.start()
        assert inside.wait(10)
    assert counted[-1] == 1
    leave.set()
    thread.join(10)
    assert counted == [8, 1, 8]


def test_without_openblas_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_controls", lambda: None)
    with blas.one_thread():
        pass


def test_this_numpy_is_told() -> None:
    controls = blas._controls()
    if controls is None:
        pytest.skip("numpy here is not linked to OpenBLAS")
    before = controls[0]()
    with blas.one_thread():
        assert controls[0]() == 1
    assert controls[0]() == before
