"""``k210 check``: can this model be compiled by the built-in compiler, and what would it take?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from k210tasks.cli.contract_args import add_sizes, add_small_maps
from k210tasks.cli.given import read_bytes
from k210tasks.errors import K210Error

if TYPE_CHECKING:
    from k210tasks.compiler.checking import Report

EXAMPLE = "k210 check workspace/nn_xo.tflite --firmware maixpy"


class CannotCheck(K210Error):
    """A file or a profile that nothing can be said of."""

    def __init__(self, name: str, why: str):
        super().__init__(f"{name}: {why}")


class NoBuiltin(K210Error):
    """The firmware loads no kmodel that the built-in compiler writes."""

    def __init__(self, firmware: str, loads: str):
        super().__init__(
            f"firmware {firmware} loads kmodel {loads}; the built-in compiler writes 3 and 4"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the model to look at, a .tflite or .onnx")
    parser.add_argument(
        "--kmodel", type=int, choices=(3, 4), help="only this version of the format (default: both)"
    )
    parser.add_argument("--firmware", metavar="PROFILE", help="only what this firmware loads")
    add_small_maps(parser)
    add_sizes(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only verdicts and reasons")


def run(args: argparse.Namespace) -> int:
    """0 when the model can be compiled for one of the versions asked for, else 1."""
    data = read_bytes(args.file)
    versions = _versions(args)
    runtime = _runtime(args)
    from k210tasks.compiler.checking import check
    from k210tasks.compiler.problems import CompileError
    from k210tasks.compiler.reader import opened
    from k210tasks.steps.signature import beside

    try:
        model = opened(data, args.inputs, beside(args.file))
        reports = [check(model, version, args.small_maps, runtime) for version in versions]
    except CompileError as error:
        raise CannotCheck(args.file, str(error)) from error
    for report in reports:
        print("\n".join(_lines(args.file, report, quiet=args.quiet)))
    return 0 if any(report.supported for report in reports) else 1


def _runtime(args: argparse.Namespace) -> str | None:
    from k210tasks.profiles import PROFILES

    return PROFILES[args.firmware].runtime if args.firmware else None


def _versions(args: argparse.Namespace) -> list[int]:
    versions = [3, 4]
    if args.firmware:
        from k210tasks.profiles import PROFILES

        profile = PROFILES.get(args.firmware)
        if profile is None:
            known = ", ".join(sorted(PROFILES))
            raise CannotCheck(args.firmware, f"no such firmware profile; there are {known}")
        versions = [v for v in versions if v in profile.kmodels]
        if not versions:
            raise NoBuiltin(args.firmware, ", ".join(map(str, profile.kmodels)))
    if args.kmodel:
        if args.kmodel not in versions:
            loads = " and ".join(map(str, versions))
            raise CannotCheck(
                args.firmware, f"this firmware loads kmodel {loads}, not {args.kmodel}"
            )
        versions = [args.kmodel]
    return versions


def _lines(name: str, report: Report, *, quiet: bool) -> list[str]:
    from k210tasks.kpu.layout import KPU_RAM_BYTES

    verdict = "can be compiled" if report.supported else "cannot be compiled"
    lines = [f"{name}: {verdict} to kmodel {report.kmodel}"]
    width = max((len(op.label) for op in report.ops), default=0)
    for op in report.ops:
        shape = "x".join(map(str, op.shape)) or "scalar"
        if op.reasons:
            lines += [f"  {op.label:<{width}}  {shape}: NO: {reason}" for reason in op.reasons]
        elif not quiet:
            lines.append(f"  {op.label:<{width}}  {shape}: {op.where}")
    lines += [f"  {problem}" for problem in report.problems]
    if report.kpu_bytes is not None:
        lines += [
            f"  KPU memory usage: {report.kpu_bytes} B of {KPU_RAM_BYTES} B",
            f"  Main memory usage: {report.main_bytes} B",
            f"  Model size: {report.model_bytes} B in {report.layers} layers",
            f"  KPU time: {report.estimated_kpu_ms:.2f} ms, estimated; CPU layers come on top",
        ]
    return lines
