"""What can go wrong between us and a vendor's tool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from k210tasks.errors import K210Error


class ToolchainError(K210Error):
    """A toolchain, or something it was asked to do, failed."""


class ToolchainUnavailable(ToolchainError):
    """It cannot be had on this machine: models marked ``optional: true`` are skipped."""


class NoInterpreter(ToolchainUnavailable):
    """No Python that the toolchain's wheels are made for; says what was looked for where."""

    def __init__(self, name: str, versions: Sequence[str], looked: Sequence[str], variable: str):
        self.looked = list(looked)
        super().__init__(
            f"{name} needs CPython {spoken(versions)}, and none can be had. Looked for:\n"
            + "\n".join(f"  {line}" for line in looked)
            + "\nWays out: install one of them; or name one in models.yaml under toolchains: "
            f"{{{name}: {{python: /path/to/python}}}}; or set {variable}=/path/to/python; "
            "or set optional: true on the models that need it"
        )


class NoPlatform(ToolchainUnavailable):
    """The vendor publishes nothing for this operating system and processor."""

    def __init__(self, name: str, platform: str, published: Sequence[str]):
        super().__init__(
            f"{name} is published for {', '.join(published)} only, this machine is {platform}. "
            f"Ways out: build it and name the archive in models.yaml under toolchains: "
            f"{{{name}: {{url: …, sha256: …}}}}; use another compiler:; "
            "or set optional: true on the models that need it"
        )


class UnknownToolchain(ToolchainError):
    """No entry of the catalogue has that name."""

    def __init__(self, name: str, known: Sequence[str]):
        super().__init__(f"there is no toolchain {name!r}; there are: {', '.join(known)}")


class CacheUnusable(ToolchainError):
    """The folder for all toolchains cannot be written."""

    def __init__(self, folder: Path, error: OSError):
        super().__init__(
            f"the cache folder {folder} cannot be used: {error.strerror or error}; make it "
            "writable for you, or set K210_CACHE to another folder"
        )


class NotInstalled(ToolchainError):
    """An operation was asked of a toolchain that is not there."""

    def __init__(self, name: str):
        super().__init__(f"the toolchain {name} is not installed; run: doit toolchain:{name}")


class InstallFailed(ToolchainError):
    """A step of the installation failed; ``detail`` is what the tool said."""

    def __init__(self, name: str, what: str, detail: str):
        detail = "\n".join(f"  {line}" for line in detail.strip().splitlines()[-12:])
        super().__init__(f"installing {name}: {what}:\n{detail}")


class WorkerDied(ToolchainError):
    """A vendor's process ended, or broke the protocol, in the middle of a request."""

    def __init__(self, name: str, doing: str, how: str, told: str, log: Path | str | None):
        lines = [f"{name} {how} while {doing}"]
        if told:
            lines.append(told)
        if log:
            lines.append(f"full log: {log}")
        super().__init__("\n".join(lines))


class OperationFailed(ToolchainError):
    """A vendor's tool refused or failed; ``told`` is its message with what it means."""

    def __init__(self, name: str, doing: str, told: str, log: Path | str | None):
        super().__init__(f"{name} failed {doing}: {told}" + (f"\nfull log: {log}" if log else ""))


class BadRequest(ToolchainError):
    """What was handed to the tool cannot be used, in a sentence about the user's files."""


def spoken(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
