"""``k210 why``: which steps would run, and because of which field or file, old → new."""

from __future__ import annotations

import argparse
import json

EXAMPLE = "k210 why nn_xo"

#: reasons printed per step; --json has them all
LIMIT = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="*", metavar="MODEL", help="models or firmware images; default: all"
    )
    parser.add_argument("-f", "--file", default="models.yaml", help="default: models.yaml")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    from k210tasks.cli.chosen import choose
    from k210tasks.engine.foresee import STATUS, foresee
    from k210tasks.engine.reasons import listing

    project, plans = choose(args.file, args.name)
    found = list(foresee(project, plans))
    if args.json:
        tasks = [{"subject": plan.subject, **f.to_json()} for plan, f in found]
        print(json.dumps({"format": 1, "tasks": tasks}, indent=1, ensure_ascii=False))
        return 0
    width = max((len(f.task) for _, f in found), default=0)
    for _, f in found:
        print(f"{f.task:{width}}  {STATUS[f.status]}")
        for text in [*listing(f.reasons, LIMIT), *f.trouble.splitlines()]:
            print(f"    {text}")
    return 0
