"""``k210 forget``: the next doit computes these steps again, whatever the store had."""

from __future__ import annotations

import argparse

EXAMPLE = "k210 forget nn_xo:kmodel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="+", metavar="MODEL[:STEP]", help="a model or image, or one of its steps"
    )
    parser.add_argument("-f", "--file", default="models.yaml", help="default: models.yaml")


def run(args: argparse.Namespace) -> int:
    from k210tasks.cli.chosen import choose
    from k210tasks.engine.upkeep import forget

    project, plans = choose(args.file, args.name)
    for plan in plans:
        results = forget(project, plan)
        kept = f", {results} result{'s'[: results != 1]} dropped from the store" if results else ""
        print(f"forgot {plan.task}{kept}")
    return 0
