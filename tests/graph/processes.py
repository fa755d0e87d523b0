"""Processes, as /proc shows them."""

from __future__ import annotations

from pathlib import Path


def _stat(pid: str) -> tuple[str, int] | None:
    """State letter and parent of a process."""
    try:
        fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def running(pid: int) -> bool:
    found = _stat(str(pid))
    return found is not None and found[0] != "Z"


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with their command lines."""
    parents = {
        int(entry.name): stat[1]
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (stat := _stat(entry.name)) is not None
    }
    found: dict[int, str] = {}
    level = {pid}
    while level:
        level = {p for p, parent in parents.items() if parent in level}
        for p in level:
            try:
                words = Path("/proc", str(p), "cmdline").read_bytes().split(b"\0")
            except OSError:
                words = []
            found[p] = b" ".join(words).decode(errors="replace")
    return found
