"""Installing an archive toolchain from a server that misbehaves."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from k210tasks import toolchains
from k210tasks.toolchains.archive import ArchiveToolchain, platform_tag
from k210tasks.toolchains.catalogue import ToolchainOverride
from k210tasks.toolchains.download import DownloadFailed, HashMismatch
from k210tasks.toolchains.errors import InstallFailed, NoPlatform, NotInstalled
from k210tasks.toolchains.lockfile import Locked
from k210tasks.toolchains.unpacking import BadArchive
from tests.toolchains.fake_ncc import NCC_01, NCC_02
from tests.toolchains.loopback import Site, tar

ARCHIVE = tar({"ncc/ncc": NCC_02, "ncc/LICENSE": b"x" * 4000 + os.urandom(4000)})
SHA = hashlib.sha256(ARCHIVE).hexdigest()
NAME = "ncc-0.2.0-beta4"

pytestmark = pytest.mark.usefixtures("cache")


def chain(site: Site, lock: Path, sha256: str | None = None, name: str = NAME) -> ArchiveToolchain:
    made = toolchains.get(name, ToolchainOverride(name, url=site.url, sha256=sha256), lock)
    assert isinstance(made, ArchiveToolchain)
    return made


def leftovers(cache: Path) -> list[str]:
    """Files that an installation leaves beside its folder."""
    kept = [p for p in cache.rglob("*") if p.is_file() and "locks" not in p.parts]
    return sorted(p.name for p in kept if f"{NAME}-{SHA[:16]}" not in p.parts)


def test_install(site: Site, cache: Path, tmp_path: Path) -> None:
    site.body = ARCHIVE
    site.plan = [5000]  # a cut on the way
    lock = tmp_path / "k210.lock"
    tool = chain(site, lock)
    assert not tool.installed()
    assert tool.pin() == {"name": NAME, "version": "0.2.0-beta4", "url": site.url}
    said: list[str] = []
    tool.install(said.append)
    assert tool.installed()
    assert said == [f"{NAME}: fetching {site.url}", f"{NAME}: trying it", f"{NAME}: ready"]
    assert tool.pin() == {"name": NAME, "version": "0.2.0-beta4", "sha256": SHA}
    assert json.loads(lock.read_text())["archives"] == {
        NAME: {platform_tag(): {"sha256": SHA, "size": len(ARCHIVE), "url": site.url}}
    }
    assert os.access(tool.program, os.X_OK)
    receipt = tool.receipt()
    assert receipt is not None
    assert receipt["proof"] == {"usage": "DESCRIPTION"}
    assert leftovers(cache) == []
    asked = len(site.seen)
    tool.install(said.append)
    assert len(site.seen) == asked
    assert len(said) == 3


def test_another_file_than_recorded(site: Site, cache: Path, tmp_path: Path) -> None:
    lock = tmp_path / "k210.lock"
    lock.write_text(
        json.dumps({"version": 1, "archives": {
            NAME: {platform_tag(): {"sha256": "0" * 64, "size": 1, "url": "x"}}}})
    )  # fmt: skip
    site.body = ARCHIVE
    tool = chain(site, lock)
    with pytest.raises(HashMismatch) as caught:
        tool.install(lambda text: None)
    assert str(caught.value) == (
        f"{site.url} has the SHA-256\n  {SHA}, but {lock} says\n  {'0' * 64}\n"
        "The file was refused. If the publisher replaced it on purpose, and you trust the new "
        f"one, remove the entry from {lock}"
    )
    assert not tool.installed()
    assert leftovers(cache) == []


def test_hash_in_models_yaml(site: Site, cache: Path, tmp_path: Path) -> None:
    site.body = ARCHIVE
    lock = tmp_path / "k210.lock"
    with pytest.raises(HashMismatch, match=r"but models.yaml says"):
        chain(site, lock, "0" * 64).install(lambda text: None)
    chain(site, lock, SHA.upper()).install(lambda text: None)
    assert not lock.exists()  # models.yaml already holds it


def test_locked(site: Site, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.body = ARCHIVE
    lock = tmp_path / "k210.lock"
    monkeypatch.setenv("CI", "true")
    tool = chain(site, lock)
    with pytest.raises(Locked, match=r"has no entry for ncc-0.2.0-beta4"):
        tool.install(lambda text: None)
    assert site.seen == []
    chain(site, lock, SHA).install(lambda text: None)
    monkeypatch.setenv("K210_LOCKED", "0")
    tool.install(lambda text: None)
    monkeypatch.delenv("K210_LOCKED")
    other = cache.parent / "other"
    monkeypatch.setenv("K210_CACHE", str(other))
    tool.install(lambda text: None)  # recorded now, so a locked run may fetch it
    assert tool.folder.is_relative_to(other)


def test_second_project_shares_the_tool(site: Site, tmp_path: Path) -> None:
    site.body = ARCHIVE
    chain(site, tmp_path / "a.lock").install(lambda text: None)
    second = chain(site, tmp_path / "b.lock")
    assert not second.installed()
    said: list[str] = []
    second.install(said.append)
    assert said == [f"{NAME}: already in the cache; recorded in b.lock"]
    assert len(site.seen) == 1
    assert second.installed()


def test_mirror_must_serve_the_recorded_file(site: Site, tmp_path: Path) -> None:
    site.body = ARCHIVE
    lock = tmp_path / "k210.lock"
    chain(site, lock).install(lambda text: None)
    mirror = tmp_path / "ncc.tar.xz"
    mirror.write_bytes(ARCHIVE)
    override = ToolchainOverride(NAME, url=mirror.as_uri())
    assert toolchains.get(NAME, override, lock).installed()
    assert toolchains.get(NAME, override, lock).pin()["sha256"] == SHA


def test_local_file(tmp_path: Path) -> None:
    copy = tmp_path / "ncc.tar.xz"
    copy.write_bytes(ARCHIVE)
    tool = toolchains.get(NAME, ToolchainOverride(NAME, url=copy.as_uri()), tmp_path / "k210.lock")
    tool.install(lambda text: None)
    assert tool.installed()
    assert copy.exists()


@pytest.mark.parametrize(
    ("body", "error", "why"),
    [
        (b"<html>gone</html>", BadArchive, "ncc.tar.xz was not unpacked: it is damaged or no arch"),
        (tar({"../ncc": NCC_02}), BadArchive, "its entry '../ncc' lies outside its folder"),
        (tar({"readme": b"x"}), BadArchive, "it holds no file ncc"),
        (
            tar({"ncc": b"#!/bin/sh\nexit 3\n"}),
            InstallFailed,
            f"installing {NAME}: ncc --help did not print the usage of ncc 0.2 and ended with exit "
            "code 3:\n  it printed nothing",
        ),
        (
            tar({"ncc": b"#!/bin/sh\nkill -SEGV $$\n"}),
            InstallFailed,
            "did not print the usage of ncc 0.2 and was ended by the signal SIGSEGV",
        ),
        (tar({"ncc": NCC_01}), InstallFailed, "did not print the usage of ncc 0.2"),
        (
            tar({"ncc": b"\x7fELF" + bytes(60)}),
            InstallFailed,
            "Exec format error: the program was built for another processor",
        ),
    ],
)
def test_what_does_not_work_is_not_installed(
    body: bytes, error: type[Exception], why: str, site: Site, cache: Path, tmp_path: Path
) -> None:
    site.body = body
    lock = tmp_path / "k210.lock"
    tool = chain(site, lock)
    with pytest.raises(error) as caught:
        tool.install(lambda text: None)
    assert why in str(caught.value)
    assert not tool.installed()
    assert not lock.exists()
    assert leftovers(cache) == []
    site.body = ARCHIVE
    tool.install(lambda text: None)
    assert tool.installed()


def test_lost_execute_bit_reinstalls(site: Site, tmp_path: Path) -> None:
    site.body = ARCHIVE
    tool = chain(site, tmp_path / "k210.lock")
    tool.install(lambda text: None)
    tool.program.chmod(0o644)
    assert not tool.installed()
    with pytest.raises(
        NotInstalled, match=r"is not installed; run: doit toolchain:ncc-0.2.0-beta4"
    ):
        tool.require()
    tool.install(lambda text: None)
    assert os.access(tool.program, os.X_OK)


def test_platform_without_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("k210tasks.toolchains.archive.platform_tag", lambda: "linux-riscv64")
    tool = toolchains.get(NAME, None, tmp_path / "k210.lock")
    with pytest.raises(NoPlatform) as caught:
        tool.install(lambda text: None)
    assert str(caught.value) == (
        f"{NAME} is published for linux-x86_64 only, this machine is linux-riscv64. Ways out: "
        "build it and name the archive in models.yaml under toolchains: "
        f"{{{NAME}: {{url: …, sha256: …}}}}; use another compiler:; or set optional: true on the "
        "models that need it"
    )
    assert isinstance(caught.value, toolchains.ToolchainUnavailable)
    assert not tool.installed()


def test_unreachable_is_no_unavailability(cache: Path, tmp_path: Path) -> None:
    override = ToolchainOverride(NAME, url="file:///no/such/archive")
    with pytest.raises(DownloadFailed) as caught:
        toolchains.get(NAME, override, tmp_path / "k210.lock").install(lambda text: None)
    assert not isinstance(caught.value, toolchains.ToolchainUnavailable)


INSTALL = """
import sys
from pathlib import Path
from k210tasks import toolchains
from k210tasks.toolchains.catalogue import ToolchainOverride
name, url, lock = sys.argv[1:]
tool = toolchains.get(name, ToolchainOverride(name, url=url), Path(lock))
tool.install(lambda text: print(text, flush=True))
assert tool.installed()
"""


def installer(url: str, lock: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INSTALL, NAME, url, str(lock)], stdout=subprocess.PIPE, text=True
    )


def test_two_at_once(site: Site, tmp_path: Path) -> None:
    site.body = ARCHIVE
    lock = tmp_path / "k210.lock"
    both = [installer(site.url, lock) for _ in range(2)]
    said = [p.communicate(timeout=60)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert len(site.seen) == 1
    assert sorted("fetching" in text for text in said) == [False, True]


def test_killed_holder_does_not_block(cache: Path, tmp_path: Path) -> None:
    """Its program hangs in its proof; the process is killed; the next one installs."""
    ready = tmp_path / "ready"
    hang = f"#!/bin/sh\nif [ -e {ready} ]; then echo 'ncc compile'; exit; fi\n"
    hang += f"touch {ready}\nexec sleep 60\n"
    copy = tmp_path / "ncc.tar.xz"
    copy.write_bytes(tar({"ncc": hang.encode()}))
    first = installer(copy.as_uri(), tmp_path / "k210.lock")
    wait_for(ready.exists)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = installer(copy.as_uri(), tmp_path / "k210.lock")
    second.communicate(timeout=30)
    assert second.returncode == 0


def wait_for(condition: object, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
