"""The contract of a kmodel file: where it lies, and whether it is that file's own.

``k210 convert`` writes it beside the kmodel as ``FILE.kmodel.contract.json``, the chain as
``build/MODEL/contract.json`` for ``workspace/MODEL.kmodel``.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k210tasks.errors import K210Error
from k210tasks.jsondata import loads

if TYPE_CHECKING:
    from k210tasks.firmware.contract import Contract


class NotOurs(K210Error):
    """Something else lies where a contract would be written."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is no contract that k210tasks wrote, and it would be overwritten; move it "
            "away, or give another -o"
        )


def beside(kmodel: Path) -> Path:
    """Where ``convert`` writes the contract of a kmodel."""
    return kmodel.with_name(f"{kmodel.name}.contract.json")


def refuse_foreign(path: Path) -> None:
    """Raise :class:`NotOurs` for a file, or anything else, that is no contract of any version."""
    if not (path.exists() or path.is_symlink()):
        return
    ours = {"version", "model", "kmodel", "profile", "input", "outputs", "labels"}
    try:
        found = loads(dict[str, Any], path.read_bytes())
    except (OSError, ValueError):
        raise NotOurs(path) from None
    if not ours <= found.keys():
        raise NotOurs(path)


def of_kmodel(verb: str, kmodel: Path, data: bytes) -> tuple[Contract, Path] | None:
    """The contract that lies where one is written, and its path.

    ``data``: the bytes of ``kmodel``. A contract of other bytes, and what cannot be read, is
    not used; that is said on stderr, as by ``k210 VERB``.
    """
    from k210tasks.firmware.contract import Contract, ContractError

    for path in _places(kmodel):
        try:
            contract = Contract.from_json(path.read_bytes())
        except (OSError, ContractError) as error:
            why = error.why if isinstance(error, ContractError) else str(error)
            print(f"k210 {verb}: {path} is not used: {why}", file=sys.stderr)
            continue
        if contract.sha256 == hashlib.sha256(data).hexdigest():
            return contract, path
        print(
            f"k210 {verb}: {path} is not used: it was written for another file than {kmodel} "
            "(their sha256 differ)",
            file=sys.stderr,
        )
    return None


def _places(kmodel: Path) -> Iterator[Path]:
    near = beside(kmodel)
    if near.is_file():
        yield near
    full = kmodel.absolute()
    if full.parent.name == "workspace" and full.suffix == ".kmodel":
        built = full.parent.parent / "build" / full.stem / "contract.json"
        if built.is_file():
            yield built if kmodel.is_absolute() else Path(os.path.relpath(built))
