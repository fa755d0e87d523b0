from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from k210tasks.toolchains.unpacking import BadArchive, find_program, unpack
from tests.toolchains.loopback import tar


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def kind(type_: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type = type_
    return info


def zipped(name: str, content: bytes, mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return buffer.getvalue()


def open_(data: bytes, tmp_path: Path, **limits: int) -> Path:
    archive = tmp_path / "tool.tar.xz"
    archive.write_bytes(data)
    unpack(archive, tmp_path / "out", **limits)
    return tmp_path / "out"


def test_good(tmp_path: Path) -> None:
    out = open_(tar({"./ncc": b"program", "lib/a.so": b"x", "lib/b.so": link("a.so")}), tmp_path)
    assert (out / "ncc").read_bytes() == b"program"
    assert (out / "lib" / "b.so").read_bytes() == b"x"


def test_execute_bit_is_set(tmp_path: Path) -> None:
    out = open_(tar({"deep/ncc": b"program"}), tmp_path)
    assert not os.access(out / "deep" / "ncc", os.X_OK)
    program = find_program(out, "ncc", tmp_path / "tool.tar.xz")
    assert os.access(program, os.X_OK)


def test_zip(tmp_path: Path) -> None:
    out = open_(zipped("a/ncc", b"program", 0o100755), tmp_path)
    assert (out / "a" / "ncc").read_bytes() == b"program"
    assert os.access(out / "a" / "ncc", os.X_OK)


def test_hard_link_inside(tmp_path: Path) -> None:
    out = open_(tar({"a": b"x", "b": link("a", tarfile.LNKTYPE)}), tmp_path)
    assert (out / "b").read_bytes() == b"x"


BOMB = tar({"big": bytes(1 << 22)})


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (tar({"../evil": b"x"}), "its entry '../evil' lies outside its folder"),
        (tar({"/etc/evil": b"x"}), "its entry '/etc/evil' lies outside its folder"),
        (tar({"a/../../evil": b"x"}), "its entry 'a/../../evil' lies outside its folder"),
        (tar({"a\\..\\..\\evil": b"x"}), "lies outside its folder"),
        (tar({"C:evil": b"x"}), "its entry 'C:evil' lies outside its folder"),
        (
            tar({"l": link("/etc")}),
            "its link 'l' leads out of its folder, to '/etc'",
        ),
        (tar({"a/l": link("../../x")}), "its link 'a/l' leads out of its folder, to '../../x'"),
        (tar({"d": link("."), "d/evil": b"x"}), "its entry 'd/evil' lies behind a link"),
        (tar({"h": link("../../x", tarfile.LNKTYPE)}), "its entry '../../x' lies outside"),
        (tar({"h": link("x", tarfile.LNKTYPE)}), "its hard link 'h' leads to no earlier file"),
        (tar({"p": kind(tarfile.FIFOTYPE)}), "its entry 'p' is a device or a pipe"),
        (tar({"p": kind(tarfile.CHRTYPE)}), "its entry 'p' is a device or a pipe"),
        (tar({"A": b"1", "a": b"2"}), "it holds 'a' twice"),
        (BOMB, "its entry 'big' claims 4194304 bytes, the limit is 1000000"),
        (tar({str(n): b"" for n in range(60)}), "it has more than 50 entries"),
        (tar({"a": b"x" * 600_000, "b": b"x" * 600_000}), "it unpacks to more than 1000000"),
        (tar({}), "it is empty"),
        (b"<html>Not found</html>", "it is damaged or no archive"),
        (b"", "it is damaged or no archive"),
        (tar({"a": os.urandom(20_000)})[:-9_000], "it is damaged or no archive"),
        (zipped("../evil", b"x"), "its entry '../evil' lies outside its folder"),
        (zipped("l", b"/etc", 0o120777), "its link 'l' leads out of its folder"),
        (zipped("big", bytes(1 << 22)), "it unpacks to more than 1000000 bytes"),
        (zipped("p", b"", 0o010644), "its entry 'p' is a device or a pipe"),
    ],
)
def test_refused(data: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(BadArchive) as caught:
        open_(data, tmp_path, max_bytes=1_000_000, max_files=50)
    assert str(caught.value).startswith("tool.tar.xz was not unpacked: ")
    assert why in str(caught.value)
    assert not list(tmp_path.rglob("evil"))
    assert not Path("/etc/evil").exists()


def test_no_program(tmp_path: Path) -> None:
    out = open_(tar({"README": b"x"}), tmp_path)
    with pytest.raises(BadArchive, match="it holds no file ncc"):
        find_program(out, "ncc", tmp_path / "tool.tar.xz")
