from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from k210tasks.toolchains.lockfile import BadLockFile, Entry, Locked, locked, read, record

ONE = Entry("1" * 64, 10, "http://127.0.0.1/a")


def test_recorded_sorted_and_read(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "k210.lock"
    assert read(path, "ncc-0.2.0-beta4", "linux-x86_64") is None
    record(path, "ncc-0.2.0-beta4", "linux-x86_64", ONE)
    record(path, "ncc-0.1.0-rc5", "linux-x86_64", Entry("2" * 64, 20, "file:///b"))
    assert read(path, "ncc-0.2.0-beta4", "linux-x86_64") == ONE
    assert path.read_text() == (
        '{\n  "archives": {\n    "ncc-0.1.0-rc5": {\n      "linux-x86_64": {\n'
        f'        "sha256": "{"2" * 64}",\n        "size": 20,\n        "url": "file:///b"\n'
        '      }\n    },\n    "ncc-0.2.0-beta4": {\n      "linux-x86_64": {\n'
        f'        "sha256": "{"1" * 64}",\n        "size": 10,\n'
        '        "url": "http://127.0.0.1/a"\n      }\n    }\n  },\n  "version": 1\n}\n'
    )
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["k210.lock"]


def test_the_first_entry_stays(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "k210.lock"
    record(path, "a", "p", ONE)
    assert record(path, "a", "p", Entry("3" * 64, 1, "x")) == ONE


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"CI": "true"}, True),
        ({"CI": "1"}, True),
        ({"CI": "false"}, False),
        ({"CI": ""}, False),
        ({"CI": "true", "K210_LOCKED": "0"}, False),
        ({"K210_LOCKED": "1"}, True),
        ({"K210_LOCKED": "yes"}, True),
    ],
)
def test_when_locked(
    environment: dict[str, str], expected: bool, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert locked() is expected


def test_locked_refuses_new(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "k210.lock"
    record(path, "a", "p", ONE)
    monkeypatch.setenv("CI", "true")
    assert record(path, "a", "p", ONE) == ONE
    with pytest.raises(Locked) as caught:
        record(path, "b", "p", ONE)
    assert str(caught.value) == (
        f"{path} has no entry for b on p, and new entries are refused because CI is set "
        f"(the file in the cache has SHA-256 {'1' * 64}). Run once without it: "
        "K210_LOCKED=0 doit toolchain:b, and commit k210.lock; or give the sha256 in models.yaml "
        "under toolchains:"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is no k210.lock"),
        ("{}", "it is no k210.lock"),
        ('{"archives": {}, "version": 2}', "it is of version 2, this is 1"),
        ('{"archives": {"a": 1}, "version": 1}', "it is no k210.lock"),
        (
            '{"archives": {"a": {"p": {"sha256": "zz"}}}, "version": 1}',
            "its entry for a on p is not one of ours",
        ),
        ('{"archives": {"a": {"p": 5}}, "version": 1}', "its entry for a on p is not one of ours"),
    ],
)
def test_damaged(text: str, why: str, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "k210.lock"
    path.write_text(text)
    with pytest.raises(BadLockFile) as caught:
        read(path, "a", "p")
    assert str(caught.value).startswith(f"{path} cannot be used: {why}")
    assert str(caught.value).endswith("or delete it to trust the next download anew")


def write_one(path: Path, number: int) -> None:
    record(path, f"tool-{number}", "p", ONE)


def test_many_writers(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "k210.lock"
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(write_one, [path] * 20, range(20)))
    assert len(json.loads(path.read_text())["archives"]) == 20
