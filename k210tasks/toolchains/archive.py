"""A toolchain that is a program from a release archive."""

from __future__ import annotations

import hashlib
import os
import platform as platform_module
import re
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from k210tasks.progress import Progress, no_progress
from k210tasks.store.records import Pin
from k210tasks.store.scratch import scratch_folder
from k210tasks.toolchains import lockfile, receipts
from k210tasks.toolchains.cache import cache_root
from k210tasks.toolchains.catalogue import ArchiveTool, ToolchainOverride
from k210tasks.toolchains.errors import InstallFailed, NoPlatform
from k210tasks.toolchains.toolchain import Say, Toolchain, size_of

#: what a program that understands each command line prints when asked for help
_USAGE = {"0.1": r"input-format", "0.2": r"ncc compile|compile\s+<input"}


def platform_tag() -> str:
    """This machine as the catalogue names it: ``linux-x86_64``."""
    machine = platform_module.machine().lower()
    return f"{sys.platform}-{'x86_64' if machine in ('amd64', 'x86_64') else machine}"


class ArchiveToolchain(Toolchain):
    """Downloaded, checked against k210.lock, unpacked, and proved by printing its usage."""

    tool: ArchiveTool

    def __init__(
        self, tool: ArchiveTool, override: ToolchainOverride | None, lock_path: Path | None
    ):
        super().__init__(tool, override)
        self.lock_path = lock_path or cache_root() / "k210.lock"

    @property
    def url(self) -> str:
        """Where it comes from; raises :class:`NoPlatform` where nothing is published."""
        url = self.override.url or self.tool.urls.get(platform_tag())
        if url is None:
            raise NoPlatform(self.name, platform_tag(), sorted(self.tool.urls))
        return url

    def sha256(self) -> str | None:
        """Of the archive, as far as it is known without fetching it."""
        if self.override.sha256:
            return self.override.sha256.lower()
        entry = lockfile.read(self.lock_path, self.name, platform_tag())
        return entry.sha256 if entry is not None else None

    def pin(self) -> Pin:
        """With the archive's hash once that is known, by models.yaml or k210.lock.

        Before the very first installation it is not, and the address stands in for it; so
        ask again after :meth:`install`.
        """
        known = self.sha256()
        identity = {"sha256": known} if known else {"url": self.url}
        return {"name": self.name, "version": self.tool.version, **identity}

    @property
    def folder(self) -> Path:
        return self._folder_of(self.sha256() or "unrecorded")

    def _folder_of(self, sha256: str) -> Path:
        return cache_root() / "toolchains" / f"{self.name}-{sha256[:16]}"

    def installed(self) -> bool:
        sha256 = self.sha256()
        return sha256 is not None and self._receipt_of(sha256) is not None

    def _receipt_of(self, sha256: str) -> receipts.Receipt | None:
        folder = self._folder_of(sha256)
        receipt = receipts.read(folder)
        if receipt is None or receipt.get("pin", {}).get("sha256") != sha256:
            return None
        program = folder / str(receipt.get("program"))
        return receipt if os.access(program, os.X_OK) else None

    @property
    def program(self) -> Path:
        """The executable of the installed tool."""
        self.require()
        receipt = self.receipt()
        assert receipt is not None
        return self.folder / str(receipt["program"])

    def install(self, say: Say, progress: Progress = no_progress) -> None:
        if self.installed():
            return
        url = self.url
        with self._alone(f"{self.name}.lock", say):
            known = self.sha256()
            if known is not None and self._receipt_of(known) is not None:
                return
            if known is None:
                present = self._elsewhere(url)
                if present is not None:  # another project had it from the same address
                    self._record(url, present["pin"]["sha256"], int(present["archive_bytes"]))
                    say(f"{self.name}: already in the cache; recorded in {self.lock_path.name}")
                    return
                if lockfile.locked():
                    raise lockfile.Locked(self.name, platform_tag(), self.lock_path, None)
            self._fetch_and_prove(url, known, say, progress)
        say(f"{self.name}: ready")

    def _elsewhere(self, url: str) -> receipts.Receipt | None:
        for folder in sorted((cache_root() / "toolchains").glob(f"{self.name}-*")):
            receipt = receipts.read(folder)
            if receipt is not None and receipt.get("url") == url:
                return self._receipt_of(receipt["pin"]["sha256"])
        return None

    def _fetch_and_prove(self, url: str, known: str | None, say: Say, progress: Progress) -> None:
        from k210tasks.toolchains import download, unpacking

        base = Path(urlsplit(url).path).name or "archive"
        prefix = hashlib.sha256(url.encode()).hexdigest()[:16]
        archive = cache_root() / "downloads" / prefix / base
        say(f"{self.name}: fetching {url}")
        try:
            sha256 = download.fetch(url, archive, progress=progress)
            if known is not None and sha256 != known:
                where = "models.yaml" if self.override.sha256 else str(self.lock_path)
                raise download.HashMismatch(url, sha256, known, where)
            size = archive.stat().st_size
            folder = self._folder_of(sha256)
            fresh = folder.with_name(f"{folder.name}.new-{os.getpid()}")
            try:
                for leftover in folder.parent.glob(folder.name + ".new*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                unpacking.unpack(archive, fresh)
                program = unpacking.find_program(fresh, self.tool.program, archive)
                say(f"{self.name}: trying it")
                facts: receipts.Facts = {
                    "url": url,
                    "archive_bytes": size,
                    "program": program.relative_to(fresh).as_posix(),
                    "proof": self._prove(program),
                    "installed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                    "bytes": size_of(fresh),
                }
                pin = {"name": self.name, "version": self.tool.version, "sha256": sha256}
                receipts.write(fresh, pin, facts)
                if known is None:  # only what works is worth remembering
                    self._record(url, sha256, size)
                unpacking.remove(folder)
                fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        finally:
            archive.unlink(missing_ok=True)  # a cut download's .part stays, to be resumed

    def _record(self, url: str, sha256: str, size: int) -> None:
        entry = lockfile.Entry(sha256, size, url)
        present = lockfile.record(self.lock_path, self.name, platform_tag(), entry)
        if present.sha256 != sha256:
            from k210tasks.toolchains.download import HashMismatch

            raise HashMismatch(url, sha256, present.sha256, str(self.lock_path))

    def _prove(self, program: Path) -> dict[str, str]:
        """Run it for its usage; raise unless it is the ncc that it should be."""
        from k210tasks.toolchains.messages import explain
        from k210tasks.toolchains.program import run

        with scratch_folder() as scratch:
            try:
                ending = run(
                    [str(program), "--help"],
                    environment=self.tool.environment,
                    folder=scratch,
                    timeout=60,
                )
            except TimeoutError as error:
                raise InstallFailed(self.name, f"{program.name} --help", str(error)) from error
        if ending.code >= 0 and re.search(_USAGE[self.tool.cli], ending.printed):
            first = next((s.strip() for s in ending.printed.splitlines() if s.strip()), "")
            return {"usage": first[:100]}
        told = explain(ending.printed) or "it printed nothing"
        what = f"{program.name} --help did not print the usage of ncc {self.tool.cli}"
        raise InstallFailed(self.name, f"{what} and {ending.how}", told)
