"""The kfpkg: the same bytes always, readable by the stock flasher, hostile ones refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k210tasks.firmware import kfpkg
from k210tasks.firmware.errors import FirmwareError, KfpkgError
from k210tasks.firmware.kfpkg import Kfpkg, Part, read, write

IMAGE = Kfpkg(
    (
        Part(0x300000, b"model" * 1000, False, source="nn_xo", is_model=True, kmodel=3),
        Part(0, b"program" * 300, True, source="firmware/maixpy.bin"),
        Part(0x400000, b"other", False, source="Глаз", is_model=True, kmodel=4),
        Part(0x500000, b"x", False, source="other/maixpy.bin"),
        Part(0x600000, b"y", False, source="con.bin"),
    ),
    "demo",
    "maixpy",
)


def zipped(members: dict[str, bytes], **how: object) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def listed(*files: tuple[str, str]) -> bytes:
    entries = ",".join(
        f'\n{{\n"address": {address},\n"bin": {json.dumps(name)},\n"sha256Prefix": false\n}}'
        for address, name in files
    )
    return f'{{"version": "0.1.0", "files": [{entries}\n]}}'.encode()


def refusal(data: bytes) -> str:
    with pytest.raises(KfpkgError) as error:
        read(data, "x.kfpkg")
    return str(error.value)


def test_reads_back_in_flash_order() -> None:
    image = read(write(IMAGE))
    assert (image.name, image.profile) == ("demo", "maixpy")
    assert [(p.address, p.data, p.sha256_prefix) for p in image.parts] == [
        (p.address, p.data, p.sha256_prefix)
        for p in sorted(IMAGE.parts, key=lambda part: part.address)
    ]
    assert [(p.bin, p.source, p.is_model, p.kmodel) for p in image.parts] == [
        ("maixpy.bin", "firmware/maixpy.bin", False, None),
        ("nn_xo.kmodel", "nn_xo", True, 3),
        ("____.kmodel", "Глаз", True, 4),
        ("04-maixpy.bin", "other/maixpy.bin", False, None),
        ("05-con.bin", "con.bin", False, None),
    ]


def test_a_part_named_like_a_renamed_one_keeps_its_own_place() -> None:
    names = ("a/x.bin", "b/03-x.bin", "c/x.bin")
    parts = tuple(Part(0x10000 * i, b"%d" % i, False, source=n) for i, n in enumerate(names))
    image = read(write(Kfpkg(parts)))
    assert [(p.bin, p.data) for p in image.parts] == [
        ("x.bin", b"0"),
        ("03-x.bin", b"1"),
        ("03-03-x.bin", b"2"),
    ]


def test_the_same_parts_give_the_same_bytes_in_any_order() -> None:
    assert write(IMAGE) == write(Kfpkg(IMAGE.parts[::-1], "demo", "maixpy"))
    assert hashlib.sha256(write(IMAGE)).hexdigest() == (
        "364075e34184c2e53b472559d7854248b81b0080a2ef312194e7d5fe2a052eed"
    )


def test_clock_locale_and_timezone_do_not_matter(tmp_path: Path) -> None:
    code = (
        "import sys, time, locale; locale.setlocale(locale.LC_ALL, '');"
        "time.time = lambda real=time.time: real() + float(sys.argv[1]);"
        "from tests.firmware.test_kfpkg import IMAGE; from k210tasks.firmware.kfpkg import write;"
        "sys.stdout.buffer.write(write(IMAGE))"
    )
    outputs = []
    for offset, environment in [
        ("0", {"TZ": "UTC", "LC_ALL": "C"}),
        ("1e8", {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"}),
    ]:
        outputs.append(
            subprocess.run(
                [sys.executable, "-c", code, offset],
                capture_output=True,
                check=True,
                env={**os.environ, **environment},
                cwd=Path(__file__).parents[2],
            ).stdout
        )
    assert outputs[0] == outputs[1] == write(IMAGE)


def test_members_are_stored_with_one_time_and_mode() -> None:
    with zipfile.ZipFile(io.BytesIO(write(IMAGE))) as archive:
        infos = archive.infolist()
    assert [info.filename for info in infos[:2]] == ["flash-list.json", "k210tasks.json"]
    assert {
        (i.compress_type, i.date_time, i.external_attr >> 16, i.create_system) for i in infos
    } == {(zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0), 0o100644, 3)}


def test_the_flash_list_is_json_before_and_after_the_flashers_substitution() -> None:
    with zipfile.ZipFile(io.BytesIO(write(IMAGE))) as archive:
        text = archive.read("flash-list.json").decode("ascii")
    plain = json.loads(text)
    after = json.loads(re.sub(r'"address": (.*),', r'"address": "\1",', text))
    assert plain["version"] == "0.1.0"
    assert [int(f["address"], 0) for f in after["files"]] == [f["address"] for f in plain["files"]]
    assert plain["files"][:2] == [
        {"address": 0, "bin": "maixpy.bin", "sha256Prefix": True},
        {"address": 0x300000, "bin": "nn_xo.kmodel", "sha256Prefix": False},
    ]


def test_one_model_can_be_taken_out() -> None:
    image = read(write(IMAGE))
    only = image.only("nn_xo")
    assert only is not None
    assert [(p.address, p.data) for p in read(write(only)).parts] == [(0x300000, b"model" * 1000)]
    assert image.only("firmware/maixpy.bin") is None


def test_files_of_others_are_read() -> None:
    data = zipped(
        {
            "flash-list.json": listed(("0x300000", "m.kmodel"), ("4096", "a.bin")),
            "m.kmodel": b"m",
            "a.bin": b"a",
            "readme.txt": b"hello",
        }
    )
    image = read(data)
    assert [(p.address, p.bin, p.source) for p in image.parts] == [
        (0x300000, "m.kmodel", None),
        (0x1000, "a.bin", None),
    ]
    assert (image.name, image.profile) == (None, None)


def test_a_record_of_nonsense_is_ignored() -> None:
    members = {"flash-list.json": listed(("0x300000", "m")), "m": b"m"}
    for record in [
        b"[]",
        b"{",
        b'{"version": 1, "name": 1, "profile": "x", "parts": []}',
        b'{"version": 1, "name": "n", "profile": "x", "parts": [{"bin": []}]}',
        b"[" * 100000,
    ]:
        image = read(zipped({**members, "k210tasks.json": record}))
        assert (image.name, image.parts[0].data) == (None, b"m")


def test_cut_short_or_no_zip() -> None:
    whole = write(IMAGE)
    assert refusal(whole[:-30]) == (
        "x.kfpkg is cut short or damaged: the list of members at its end is missing; build or"
        " download it again"
    )
    assert refusal(b"<html>not found</html>") == (
        "x.kfpkg is not a kfpkg: a kfpkg is a zip file; check the path"
    )
    damaged = whole.replace(b"elmodelmodel", b"elmOdelmodel", 1)
    assert refusal(damaged) == (
        "x.kfpkg is damaged: the member 'nn_xo.kmodel' cannot be read (Bad CRC-32 for file"
        " 'nn_xo.kmodel'); build or download it again"
    )


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/../../b", "C:\\evil", "..\\evil", "c:evil", "a\\b"]
)
def test_hostile_paths(name: str) -> None:
    data = zipped({"flash-list.json": listed(("0", "m")), "m": b"m", name: b"x"})
    assert refusal(data) == (
        f"x.kfpkg holds the member {name!r}, a path outside the folder it is unpacked in; do not"
        " unpack or flash it"
    )


def test_names_that_a_terminal_would_obey() -> None:
    name = "a\x1b[2Jb"
    data = zipped({"flash-list.json": listed(("0", "m")), "m": b"m", name: b"x"})
    assert refusal(data) == (
        "x.kfpkg holds the member 'a\\x1b[2Jb', a name no one can read; do not unpack or flash it"
    )
    told = read(write(Kfpkg((Part(0, b"x", False, source="a\u3000b"),), "模型 é", "maixpy")))
    assert (told.name, told.parts[0].source) == ("模型 é", "a\u3000b")
    told = read(write(Kfpkg((Part(0, b"x", False, source=name),), "x", "maixpy")))
    assert (told.name, told.parts[0].source) == (None, None)


def test_a_symbolic_link() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert refusal(file.getvalue()) == (
        "x.kfpkg holds the symbolic link 'link'; do not unpack or flash it"
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("other", ["m", "M", "ﬀ"])
def test_names_given_twice(other: str) -> None:
    first = "ff" if other == "ﬀ" else "m"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(first, b"1")
        archive.writestr(other, b"2")
    assert refusal(file.getvalue()) == (
        f"x.kfpkg holds the member {other!r} twice; do not unpack or flash it"
    )


def test_sizes_no_flash_can_hold() -> None:
    bomb = zipped({f"m{i}": bytes(4 << 20) for i in range(5)})
    assert len(bomb) < 100_000
    assert refusal(bomb) == (
        "x.kfpkg unpacks to 20971520 bytes, more than the 16777216 of the flash; do not unpack or"
        " flash it"
    )
    assert refusal(zipped({f"{i}": b"" for i in range(300)})) == (
        "x.kfpkg has 300 members, at most 258 are accepted; do not unpack or flash it"
    )


def test_a_member_that_lies_about_its_size() -> None:
    honest = zipped({"flash-list.json": listed(("0", "m")), "m": bytes(1 << 20)})
    lying = honest.replace((1 << 20).to_bytes(4, "little"), (16).to_bytes(4, "little"))
    assert refusal(lying).startswith("x.kfpkg is damaged: the member 'm' cannot be read")


def test_another_compression() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("m", b"1" * 100)
    assert refusal(file.getvalue()) == (
        "x.kfpkg compresses the member 'm' with method 14; store or deflate it: other methods are"
        " not part of the format"
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "x.kfpkg has no flash-list.json; build or download it again"),
        (
            listed(("0x300000", "gone")),
            "x.kfpkg lists 'gone', which is not in it; build or download it again",
        ),
        (
            listed(("0x1000000", "m")),
            "x.kfpkg puts 'm' at 0x1000000, outside the 16 MiB flash; build or download it again",
        ),
        (
            b'{"files": [{"address": 0, "bin": "m", "sha256Prefix": 1}]}',
            "x.kfpkg gives 'm' the sha256Prefix 1; build or download it again",
        ),
        (
            b'{"files": [{"bin": "m"}]}',
            "x.kfpkg has a flash-list.json that cannot be read: 'address'; build or download it"
            " again",
        ),
    ],
)
def test_flash_lists_the_flasher_would_not_take(files: bytes | None, message: str) -> None:
    assert (
        refusal(zipped({"m": b"m"} if files is None else {"flash-list.json": files, "m": b"m"}))
        == message
    )


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_any_damage_is_a_clean_refusal_or_a_whole_image(data: st.DataObject) -> None:
    whole = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = read(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except FirmwareError:
        return
    for part in image.parts:
        assert isinstance(part.data, bytes)
        kfpkg.write(Kfpkg((part,)))


WHOLE = write(
    Kfpkg((Part(0, b"program", True, source="fw.bin"), Part(0x300000, b"m", False)), "d", "maixpy")
)
