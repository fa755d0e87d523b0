from __future__ import annotations

import errno
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from k210tasks.toolchains.unpacking import BadArchive, CannotUnpack, find_program, unpack
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


def encrypted() -> bytes:
    """A zip whose entry says that it takes a password."""
    data = bytearray(zipped("ncc", b"program"))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def long_header(size: int) -> bytes:
    """A tar of whose next name it is said that it is so many bytes long, all of them zero."""
    info = kind(tarfile.GNUTYPE_LONGNAME)
    info.name, info.size = "././@LongLink", size
    block = info.tobuf(tarfile.GNU_FORMAT)
    packer = lzma.LZMACompressor()
    return packer.compress(block) + packer.compress(bytes(1 << 26)) + packer.flush()


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
        (tar({"a": b"1", "./a": b"2"}), "it holds './a' twice"),
        (tar({"A": b"1", "a": b"2"}), "the names of its entries 'A' and 'a' differ by case only"),
        (tar({"Lib/a": b"1", "lib/b": b"2"}), "its entries 'Lib' and 'lib' differ by case only"),
        (tar({"a": b"1", "a/b": b"2"}), "its entry 'a/b' lies behind a file"),
        (tar({"a": b"1", "a/b/c": b"2"}), "its entry 'a/b/c' lies behind a file"),
        (tar({"a": b"1", "a/b/c": kind(tarfile.DIRTYPE)}), "'a/b/c' lies behind a file"),
        (tar({"a/b": b"1", "a": b"2"}), "it holds 'a' twice"),
        (tar({"a": b"1", "a/": kind(tarfile.DIRTYPE)}), "it holds 'a' twice"),
        (tar({"a": kind(tarfile.DIRTYPE), "./a": link("b")}), "it holds './a' twice"),
        (tar({".": b"1"}), "its entry '.' has no name"),
        (zipped(".", b"1"), "its entry '.' has no name"),
        (tar({"x" * 300: b"1"}), f"its entry '{'x' * 100}…' has a longer name than file systems"),
        (tar({"x" * 300: kind(tarfile.DIRTYPE)}), "has a longer name than file systems hold"),
        (tar({"ü" * 200: b"1"}), "has a longer name than file systems hold: 255 bytes, and 1000"),
        (tar({"a/" * 600 + "b": b"1"}), "has a longer name than file systems hold"),
        (zipped("x" * 300, b"1"), "has a longer name than file systems hold"),
        (tar({"a": link("x" * 5000)}), "it is damaged or no archive (File name too"),
        (tar({"a": link("")}), "its link 'a' leads nowhere"),
        (tar({"l": link("."), "m": link("l/l/../../etc")}), "its link 'm' leads out of its folder"),
        (tar({"m": link("..\\..\\etc")}), "its link 'm' leads out of its folder"),
        (long_header(1 << 30), "one of its headers claims 1073741824 bytes"),
        (encrypted(), "is encrypted, password required"),
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


def test_folders_may_be_named_again(tmp_path: Path) -> None:
    folder = kind(tarfile.DIRTYPE)
    out = open_(tar({".": folder, "a/": folder, "a/b": b"1", "./a": folder}), tmp_path)
    assert (out / "a" / "b").read_bytes() == b"1"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_the_disk_is_not_the_archives_fault(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(CannotUnpack) as caught:
        open_(tar({"a": b"x"}), tmp_path)
    assert str(caught.value) == (
        f"tool.tar.xz was not unpacked: {os.strerror(number)} at {tmp_path / 'out' / 'a'}. Mend "
        "that, or set K210_CACHE to a folder for tools elsewhere"
    )


def test_no_program(tmp_path: Path) -> None:
    out = open_(tar({"README": b"x"}), tmp_path)
    with pytest.raises(BadArchive, match="it holds no file ncc"):
        find_program(out, "ncc", tmp_path / "tool.tar.xz")
