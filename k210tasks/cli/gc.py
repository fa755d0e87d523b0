"""``k210 gc``: remove results no task uses any more, and what killed runs left behind."""

from __future__ import annotations

import argparse

EXAMPLE = "k210 gc --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", default="models.yaml", help="default: models.yaml")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would go")


def run(args: argparse.Namespace) -> int:
    from k210tasks.steps.chain import chain_of
    from k210tasks.steps.opening import open_project
    from k210tasks.steps.upkeep import collect

    project, manifest = open_project(args.file)
    if not project.store:
        print("the store is off (K210_STORE=off)")
        return 0
    tasks = {plan.id for plan in chain_of(manifest).plans()}
    results, objects, freed = collect(project, tasks, dry_run=args.dry_run)
    verb = "would remove" if args.dry_run else "removed"
    print(
        f"{verb} {results} result{'s'[: results != 1]}, {objects} file{'s'[: objects != 1]}, "
        f"{freed / 1e6:.1f} MB, from {project.store.root}"
    )
    return 0
