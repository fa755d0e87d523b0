"""Fetching one file: with progress, resumed after a cut, retried, checked, moved into place.

The part that has arrived is kept under its address' own name, so that the next attempt,
also one of another process or another day, asks for the rest only.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from k210tasks.progress import Progress
from k210tasks.toolchains.errors import ToolchainError

ATTEMPTS = 5
TIMEOUT = 60.0  # seconds without a byte
LIMIT = 2 << 30  # bytes; a release archive is some tens of MB
_BLOCK = 1 << 18


class DownloadFailed(ToolchainError):
    """Nothing usable came, after every attempt."""

    def __init__(self, url: str, why: str, kept: int = 0):
        rest = f"; {kept} bytes are kept, the next attempt asks for the rest" if kept else ""
        super().__init__(
            f"cannot download {url}: {why}{rest}. Without network access, fetch the file "
            "elsewhere and name it in models.yaml under toolchains: {…: {url: file:///…}}"
        )


class HashMismatch(ToolchainError):
    """The file that came is not the one that was recorded. It was discarded."""

    def __init__(self, url: str, got: str, wanted: str, where: str):
        super().__init__(
            f"{url} has the SHA-256\n  {got}, but {where} says\n  {wanted}\n"
            "The file was refused. If the publisher replaced it on purpose, and you trust the "
            f"new one, remove the entry from {where}"
        )


class _Cut(Exception):
    """The transfer ended early, or the server answered with something to retry."""


def fetch(
    url: str,
    target: Path,
    *,
    progress: Progress,
    attempts: int = ATTEMPTS,
    pause: Callable[[float], None] = time.sleep,
    limit: int = LIMIT,
    timeout: float = TIMEOUT,
) -> str:
    """Bring ``url`` (http, https or file) to ``target``; returns its SHA-256.

    ``target`` appears whole or not at all. The caller holds the lock on it. Retries with
    1, 2, 4, … seconds between; ``limit`` bytes at most.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    scheme = urlsplit(url).scheme
    if scheme == "file":
        _copy(url, part, progress, limit)
    elif scheme in ("http", "https"):
        _download(url, part, progress, attempts, pause, limit, timeout)
    else:
        raise DownloadFailed(url, f"addresses of the kind {scheme or 'without scheme'!r}")
    digest = sha256_of(part)
    part.replace(target)
    return digest


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _copy(url: str, part: Path, progress: Progress, limit: int) -> None:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise DownloadFailed(url, "a file:// address names no host; write file:///absolute/path")
    source = Path(urllib.request.url2pathname(unquote(parts.path)))
    try:
        total = source.stat().st_size
        if total > limit:
            raise DownloadFailed(url, f"it has {total} bytes, the limit is {limit}")
        with source.open("rb") as file, part.open("wb") as out:
            done = 0
            while block := file.read(_BLOCK):
                out.write(block)
                done += len(block)
                progress(done, total, "copying")
    except OSError as error:
        raise DownloadFailed(url, error.strerror or str(error)) from error


def _download(
    url: str,
    part: Path,
    progress: Progress,
    attempts: int,
    pause: Callable[[float], None],
    limit: int,
    timeout: float,
) -> None:
    why = ""
    for attempt in range(attempts):
        if attempt:
            pause(min(2.0 ** (attempt - 1), 30.0))
        try:
            _transfer(url, part, progress, limit, timeout)
            return
        except urllib.error.HTTPError as error:
            error.close()
            why = f"the server answers {error.code} {error.reason}"
            if error.code == 416:  # what was kept does not fit the file there is now
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                raise DownloadFailed(url, why) from error
        except _Cut as cut:
            why = str(cut)
        except (OSError, http.client.HTTPException) as error:
            why = str(getattr(error, "reason", None) or error) or type(error).__name__
    raise DownloadFailed(url, f"{why} ({attempts} attempts)", _kept(part))


def _tag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _kept(part: Path) -> int:
    """Bytes that the next attempt can build on.

    Only with a strong ETag kept beside them: without one, nothing says that the rest would
    be of the same file.
    """
    return part.stat().st_size if part.exists() and _tag_file(part).exists() else 0


def _transfer(url: str, part: Path, progress: Progress, limit: int, timeout: float) -> None:
    """One attempt: asks for what is missing, appends it to ``part``, or raises."""
    have = _kept(part)
    request = urllib.request.Request(url, headers={"User-Agent": "k210tasks"})
    tag_file = _tag_file(part)
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag_file.read_text(encoding="ascii"))
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        resumed = answer.status == 206
        start, total = _extent(answer, have if resumed else 0)
        if resumed and start != have:
            raise _Cut(f"the server sends from byte {start} instead of {have}")
        if total is not None and total > limit:
            part.unlink(missing_ok=True)
            raise DownloadFailed(url, f"it has {total} bytes, the limit is {limit}")
        tag = answer.headers.get("ETag", "")
        if tag and not tag.startswith("W/") and tag.isascii():
            tag_file.write_text(tag, encoding="ascii")
        else:
            tag_file.unlink(missing_ok=True)
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as out:
            progress(done, total or 0, "downloading")
            while block := answer.read(_BLOCK):
                out.write(block)
                done += len(block)
                if done > limit:
                    raise DownloadFailed(url, f"it has more than the limit of {limit} bytes")
                progress(done, total or done, "downloading")
            out.flush()
            os.fsync(out.fileno())
    if total is not None and done != total:
        raise _Cut(f"the transfer ended after {done} of {total} bytes")
    tag_file.unlink(missing_ok=True)


def _extent(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the body starts in the file, and how long the file is, where that is known."""
    ranged = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if ranged:
        return int(ranged[1]), None if ranged[2] == "*" else int(ranged[2])
    length = answer.headers.get("Content-Length")
    return have, int(length) + have if length and length.isdigit() else None
