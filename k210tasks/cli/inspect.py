"""``k210 inspect``: what is in a kmodel: layers, memory, inputs, outputs, who loads it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from k210tasks.cli import contracts
from k210tasks.cli.output import Json, wrapped
from k210tasks.errors import K210Error

if TYPE_CHECKING:
    from k210tasks.firmware.contract import Contract
    from k210tasks.kmodel.listing import Port, Summary

EXAMPLE = "k210 inspect workspace/nn_xo.kmodel"


class NotListed(K210Error):
    def __init__(self, path: str, version: int, producer: str, loaded_by: list[str]):
        firmware = ", ".join(loaded_by) or "no firmware this package knows"
        super().__init__(
            f"{path} is a kmodel {version}, the format of {producer}; layers can be listed for "
            f"versions 3 and 4 only. It is loaded by: {firmware}"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from k210tasks.profiles import PROFILES

    parser.add_argument("file", metavar="FILE", help=".kmodel of version 3 or 4, or .kfpkg")
    parser.add_argument(
        "--base",
        type=offset,
        default=0,
        metavar="N",
        help="byte where the model starts in FILE, e.g. 0x100000 (default 0)",
    )
    parser.add_argument(
        "--lint",
        choices=tuple(PROFILES),
        metavar="PROFILE",
        help="tell what that firmware computes otherwise than the file says, or does not run; "
        "exits 1 if there is anything",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def offset(text: str) -> int:
    """A byte offset, decimal or 0x…."""
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is no byte offset such as 4096 or 0x100000")
    return value


def run(args: argparse.Namespace) -> int:
    from k210tasks.cli.given import read_bytes
    from k210tasks.firmware import kfpkg

    data = read_bytes(args.file)
    if args.lint:
        return lint_for(args.file, data, args.base, args.lint, args.json)
    if args.base == 0 and kfpkg.is_kfpkg(data):
        from k210tasks.cli.inspect_kfpkg import show

        return show(args.file, data, args.json, lambda name, it: as_json(name, look(name, it)))
    found = look(args.file, data, args.base)
    known = None if args.base else contracts.of_kmodel("inspect", Path(args.file), data)
    if known is not None:
        found = with_contract(found, known[0])
    if args.json:
        told = {**as_json(args.file, found), "contract": None if known is None else str(known[1])}
        print(json.dumps(told, indent=2))
        return 0
    print(report(args.file, found))
    if known is not None:
        print(wrapped(f"contract: {known[1]}: {known[0].input.sentence}"))
    return 0


def lint_for(path: str, data: bytes, base: int, firmware: str, as_json: bool) -> int:
    """Print what the runtime of a firmware makes of the kmodel; 1 where it finds fault."""
    import dataclasses

    from k210tasks.cli.given import UnreadableKmodel
    from k210tasks.kmodel import KmodelError, parse
    from k210tasks.kmodel.lint import lint
    from k210tasks.kmodel.runtimes import RUNTIMES
    from k210tasks.profiles import PROFILES

    runtime = RUNTIMES[PROFILES[firmware].runtime]
    try:
        findings = lint(parse(data, base), runtime)
    except KmodelError as error:
        raise UnreadableKmodel(path, error) from error
    if as_json:
        said = {"firmware": firmware, "runtime": runtime.name, "recorded": runtime.recorded}
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"file": path, **said, "findings": rows}, indent=2))
        return bool(findings)
    count = f"{len(findings)} finding{'s'[: len(findings) != 1]}" if findings else "nothing found"
    print(f"{path}: {count} for {firmware}, whose runtime is {runtime.says}")
    for finding in findings:
        print(wrapped(str(finding)))
    return bool(findings)


def with_contract(found: Summary, contract: Contract) -> Summary:
    """With the scale and zero point of the input, which most files do not tell."""
    given = contract.input
    if len(found.inputs) != 1 or given.scale is None or given.zero_point is None:
        return found
    if isinstance(given.scale, tuple) or isinstance(given.zero_point, tuple):
        return found  # of pixels, a scale for each channel
    port = replace(found.inputs[0], scale=given.scale, zero_point=given.zero_point)
    return replace(found, inputs=(port,))


def look(path: str, data: bytes, base: int = 0) -> Summary:
    """The summary of the kmodel in ``data``; raises :class:`K210Error` naming ``path``."""
    from k210tasks.cli.given import UnreadableKmodel
    from k210tasks.kmodel import KmodelError, detect, parse
    from k210tasks.kmodel.listing import summary

    try:
        kind = detect(data, base)
        if not kind.readable:
            raise NotListed(path, kind.version, kind.producer, loaders(kind.version))
        return summary(parse(data, base))
    except KmodelError as error:
        raise UnreadableKmodel(path, error) from error


def loaders(version: int) -> list[str]:
    """The names of the firmware profiles that load a kmodel of ``version``."""
    from k210tasks.profiles import PROFILES

    return [p.name for p in PROFILES.values() if p.loads(version)]


def as_json(path: str, found: Summary) -> Json:
    """What ``--json`` prints: the fields of the summary, and the firmware that loads it."""
    import dataclasses

    return {
        "file": path,
        **dataclasses.asdict(found),
        "loaded_by": loaders(found.version),
    }


def report(path: str, found: Summary) -> str:
    """The text for people, at most 80 columns but for long layer lines."""
    from k210tasks.kmodel.listing import listing_text, memory_lines

    on_kpu = [row for row in found.layers if row.kpu]
    lines = [
        f"{path}: kmodel {found.version} (the format of {found.producer}), "
        f"{found.model_bytes} bytes"
        + (f", {found.trailing_bytes} more follow" if found.trailing_bytes else ""),
        f"{len(found.layers)} layers, {len(on_kpu)} on the KPU, {found.weight_bits}-bit weights",
        "",
        listing_text(found).rstrip(),
        "",
    ]
    if on_kpu:
        lines += [*kpu_table(found), ""]
    lines += memory_lines(found)
    for name, ports in (("input", found.inputs), ("output", found.outputs)):
        for i, port in enumerate(ports):
            lines.append(f"{name} {i}: {port_text(port)}")
    if not found.inputs:
        lines.append("input: the file does not tell")
    for label, text in (
        ("loaded by", ", ".join(loaders(found.version))),
        *(("note", note) for note in found.notes),
    ):
        lines.append(wrapped(f"{label}: {text}"))
    return "\n".join(lines)


def kpu_table(found: Summary) -> list[str]:
    """One line a KPU layer, and their sum."""
    lines = [
        f"{'KPU layer':>9}  {'kernel':<6}  {'pool':<13} {'MACs':>10} {'weight B':>8} "
        f"{'rows in':>7} {'out':>5} {'est. us':>8}"
    ]
    for row in found.layers:
        if row.kpu is None:
            continue
        k = row.kpu
        kernel = f"{k.kernel}x{k.kernel}{' dw' if k.depthwise else ''}"
        lines.append(
            f"{row.index:>9}  {kernel:<6}  {k.pool:<13} {k.macs:>10} {k.weight_bytes:>8} "
            f"{k.rows_in:>7} {k.rows_out:>5} {k.estimated_us:>8.1f}"
        )
    weights = sum(row.kpu.weight_bytes for row in found.layers if row.kpu)
    lines.append(
        f"{'sum':>9}  {'':<6}  {'':<13} {found.macs:>10} {weights:>8} "
        f"{'':>7} {'':>5} {1000 * found.estimated_kpu_ms:>8.1f}"
    )
    return lines


def port_text(port: Port) -> str:
    """One input or output in a line."""
    shape = f" {'x'.join(map(str, port.shape))}" if port.shape else ""
    layout = f" ({port.layout})" if port.layout else ""
    memory = "KPU RAM" if port.memory == "kpu" else "main memory"
    text = f"{port.dtype}{shape}{layout}, {port.nbytes} bytes in {memory} at 0x{port.address:x}"
    if port.scale is not None:
        text += ", rounded to" if port.dtype == "float32" and port.layout is not None else ","
        text += f" steps of {port.scale:.6g}"
    if port.zero_point is not None:
        text += f", zero at code {port.zero_point:.6g}"
    return text
