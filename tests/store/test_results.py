"""The store: whole files only, checked on the way out."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from k210tasks.store import files, results
from k210tasks.store.checked import checked
from k210tasks.store.results import DamagedObject, Result, Store, place


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def put(store: Store, tmp_path: Path, key: str, **roles: str) -> None:
    places: dict[str, dict[str, str]] = {}
    for role, text in roles.items():
        path = tmp_path / f"made-{role}"
        path.write_text(text)
        places[role] = {"": str(path)}
    contents = {role: {"": digest(text)} for role, text in roles.items()}
    store.put(Result(key=key, outputs=contents, task="kmodel:x"), places)


def objects(store: Store) -> list[Path]:
    assert store.root is not None
    return sorted(p for p in Path(store.root, "objects").rglob("*") if p.is_file())


def test_what_is_put_is_found(store: Store, tmp_path: Path) -> None:
    assert store.find("k1") is None
    put(store, tmp_path, "k1", kmodel="bytes", listing="lines")
    record = store.find("k1")
    assert record is not None
    assert record.outputs == {"kmodel": {"": digest("bytes")}, "listing": {"": digest("lines")}}
    assert record.task == "kmodel:x"
    store.copy_out(digest("bytes"), str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "bytes"


def test_objects_are_read_only_and_shared_with_no_visible_file(
    store: Store, tmp_path: Path
) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")
    (path,) = objects(store)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    store.copy_out(digest("bytes"), str(tmp_path / "out"))
    out = tmp_path / "out"
    assert path.stat().st_nlink == out.stat().st_nlink == 1
    assert out.stat().st_mode & stat.S_IWUSR
    out.write_text("scribbled")
    (tmp_path / "made-kmodel").write_text("scribbled")
    assert path.read_text() == "bytes"


def test_equal_content_is_kept_once(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "k1", kmodel="same")
    put(store, tmp_path, "k2", kmodel="same", listing="same")
    assert len(objects(store)) == 1


@pytest.mark.parametrize("how", ["changed", "cut", "missing"])
def test_a_damaged_object_is_removed_and_named(store: Store, tmp_path: Path, how: str) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")
    (path,) = objects(store)
    path.chmod(0o644)
    if how == "missing":
        path.unlink()
        found = "it is missing"
    else:
        path.write_text("bytez" if how == "changed" else "byt")
        found = f"its SHA-256 is {digest(path.read_text())[:12]}…"
    with pytest.raises(DamagedObject) as caught:
        store.copy_out(digest("bytes"), str(tmp_path / "out"))
    assert str(caught.value) == f"{path} should hold {digest('bytes')[:12]}…, but {found}"
    assert not path.exists()
    assert not (tmp_path / "out").exists()
    # Put again, it is whole again.
    put(store, tmp_path, "k1", kmodel="bytes")
    store.copy_out(digest("bytes"), str(tmp_path / "out"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_target_that_cannot_be_written_leaves_the_object(
    store: Store, tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")

    class Full(io.FileIO):
        def write(self, _: object) -> int:
            raise OSError(code, os.strerror(code))

    def opening(path: str, mode: str = "r", **more: Any) -> Any:
        return Full(path, "x") if mode == "xb" else open(path, mode, **more)  # noqa: PTH123

    monkeypatch.setattr(files, "open", opening, raising=False)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        store.copy_out(digest("bytes"), str(tmp_path / "out"))
    monkeypatch.undo()
    (tmp_path / "out").unlink()
    store.copy_out(digest("bytes"), str(tmp_path / "out"))


def test_a_folder_that_may_not_be_written_leaves_the_object(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")
    with pytest.raises(NotADirectoryError):
        store.copy_out(digest("bytes"), str(tmp_path / "made-kmodel" / "out"))
    store.copy_out(digest("bytes"), str(tmp_path / "out"))


def test_a_really_full_disk_leaves_the_object(store: Store, tmp_path: Path) -> None:
    """A limit on the size of files, in a process of its own: nothing is simulated."""
    put(store, tmp_path, "k1", kmodel="b" * 5000)
    script = (
        "import resource, signal, sys\n"
        "from k210tasks.store.results import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "Store(sys.argv[1]).copy_out(sys.argv[2], sys.argv[3])\n"
    )
    text = digest("b" * 5000)
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.root), text, str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert "File too large" in done.stderr
    (tmp_path / "out").unlink()
    store.copy_out(text, str(tmp_path / "out"))


def test_an_object_that_cannot_be_read_is_damaged(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")
    (path,) = objects(store)

    class Worn(io.FileIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def opening(path: str, mode: str = "r", **more: Any) -> Any:
        return Worn(path) if mode == "rb" else open(path, mode, **more)  # noqa: PTH123

    monkeypatch.setattr(files, "open", opening, raising=False)
    with pytest.raises(DamagedObject):
        store.copy_out(digest("bytes"), str(tmp_path / "out"))
    assert not path.exists()


def test_what_is_collected_while_a_result_is_put_is_put_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tmp_path, "k1", kmodel="old")
    other = Store(store.root)
    real = files.copy_file

    def copy(source: str, target: str, **more: Any) -> str:
        other.collect(lambda record: False)  # gc, between the look and the lock
        return real(source, target, **more)

    monkeypatch.setattr(results, "copy_file", copy)
    put(store, tmp_path, "k2", kmodel="old", listing="new")
    monkeypatch.undo()
    store.copy_out(digest("old"), str(tmp_path / "kmodel"))
    store.copy_out(digest("new"), str(tmp_path / "listing"))


def test_an_unreadable_record_is_a_miss(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")
    assert store.root is not None
    record = Path(store.root, "results", "k1", "k1.json")
    for bad in ("", "{", "[]", '{"format": 99, "key": "k1"}', '{"format": 1, "key": "k2"}'):
        record.write_text(bad)
        assert store.find("k1") is None


def test_a_file_that_changed_since_it_was_hashed_is_refused(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "made"
    path.write_text("other")
    with pytest.raises(DamagedObject):
        store.put(
            Result(key="k1", outputs={"kmodel": {"": digest("bytes")}}), {"kmodel": {"": str(path)}}
        )
    assert store.find("k1") is None
    assert objects(store) == []


def test_nothing_temporary_stays(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")
    assert store.root is not None
    assert os.listdir(Path(store.root, "tmp")) == []  # noqa: PTH208
    assert not list(Path(store.root).rglob("*.tmp"))
    assert not list(Path(store.root).rglob("*.lock"))


def test_collect(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "k1", kmodel="one", listing="shared")
    put(store, tmp_path, "k2", kmodel="two!", listing="shared")

    def keep(record: dict[str, Any]) -> bool:
        return bool(record.key == "k1")

    assert store.collect(keep, dry_run=True) == (1, 1, 4)
    assert store.find("k2") is not None
    assert store.collect(keep) == (1, 1, 4)
    assert store.find("k2") is None
    assert len(objects(store)) == 2
    assert store.collect(keep) == (0, 0, 0)


def test_nothing_is_collected_while_a_result_cannot_be_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, tmp_path, "k1", kmodel="one")

    def opening(path: str, mode: str = "r", **more: Any) -> Any:
        if str(path).endswith("k1.json"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open(path, mode, **more)  # noqa: PTH123

    monkeypatch.setattr(results, "open", opening, raising=False)
    assert store.find("k1") is None
    with pytest.raises(OSError, match="Too many open files"):
        store.collect(lambda record: True)
    monkeypatch.undo()
    assert store.find("k1") is not None
    store.copy_out(digest("one"), str(tmp_path / "out"))


def test_a_store_that_is_off() -> None:
    store = Store(None)
    assert not store
    assert store.find("k1") is None
    store.put(Result(key="k1", outputs={}), {})
    assert not store.drop("k1")
    assert store.collect(lambda record: True) == (0, 0, 0)
    with store.lock_key("k1", lambda: None):
        pass


def test_the_place_of_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("K210_STORE", raising=False)
    assert place("/p") == os.path.join("/p", ".k210", "store")  # noqa: PTH118
    monkeypatch.setenv("K210_STORE", "off")
    assert place("/p") is None
    monkeypatch.setenv("K210_STORE", "OFF")
    assert place("/p") is None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("K210_STORE", "here")
    assert place("/p") == str(tmp_path / "here")


@pytest.mark.parametrize("moment", range(3))
def test_what_a_killed_put_leaves_is_swept(store: Store, tmp_path: Path, moment: int) -> None:
    code = (
        "import os, sys\n"
        "from tests.store.test_results import Store, Path, put\n"
        "real, left = os.replace, [int(sys.argv[1])]\n"
        "def replace(source, target):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0:\n"
        "        os._exit(9)\n"
        "    real(source, target)\n"
        "os.replace = replace\n"
        "put(Store(sys.argv[2]), Path(sys.argv[3]), 'ab' * 32, a='one')\n"
    )
    assert store.root is not None
    ended = subprocess.run(
        [sys.executable, "-c", code, str(moment), store.root, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert ended.returncode == 9
    store.sweep()
    assert list(Path(store.root, "tmp").iterdir()) == []
    assert [p for p in Path(store.root).rglob("*") if p.suffix == ".tmp"] == []
    assert store.find("ab" * 32) is None


#: what a person, or a program, may have put into a store that several write to
TAMPERED = {
    "a digest that is a path": {"kmodel": {"": "../../../victim"}},
    "an absolute digest": {"kmodel": {"": "VICTIM"}},
    "a digest in capitals": {"kmodel": {"": "A" * 64}},
    "a path upwards": {"kmodel": {"../../victim": "0" * 64}},
    "an absolute path": {"kmodel": {"/victim": "0" * 64}},
    "a path of Windows": {"kmodel": {"..\\victim": "0" * 64}},
    "a drive": {"kmodel": {"C:victim": "0" * 64}},
    "a zero byte": {"kmodel": {"victim\0": "0" * 64}},
    "an empty part": {"kmodel": {"a//victim": "0" * 64}},
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_tampered_result_is_a_miss(store: Store, tmp_path: Path, what: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    put(store, tmp_path, "k1", kmodel="bytes")
    assert store.root is not None
    (path,) = Path(store.root, "results").rglob("*.json")
    told = json.loads(path.read_text())
    del told["sum"]
    text = json.dumps(TAMPERED[what]).replace("VICTIM", str(victim))
    path.write_bytes(checked({**told, "outputs": json.loads(text)}))
    assert store.find("k1") is None
    assert store.read(str(victim)) is None
    with pytest.raises(ValueError, match="is no SHA-256"):
        store.copy_out(str(victim), str(tmp_path / "out"))
    store.collect(lambda record: True)
    assert victim.read_text() == "mine"


def test_every_byte_of_a_result_counts(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")
    assert store.root is not None
    (path,) = Path(store.root, "results").rglob("*.json")
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in (0, 5):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            path.write_bytes(changed)
            assert store.find("k1") is None, at


def test_collect_leaves_what_is_none_of_ours(store: Store, tmp_path: Path) -> None:
    put(store, tmp_path, "k1", kmodel="bytes")
    assert store.root is not None
    strangers = [Path(store.root, name) for name in ("results/notes.txt", "objects/me.jpg")]
    for stranger in strangers:
        stranger.write_text("mine")
    store.collect(lambda record: False)
    assert [stranger.read_text() for stranger in strangers] == ["mine", "mine"]
    assert not list(Path(store.root).rglob("*.json"))
