"""``k210 gc``: remove results no task uses any more, and what killed runs left behind."""

from __future__ import annotations

import argparse

EXAMPLE = "k210 gc --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--file", default="models.yaml", help="default: models.yaml")
    parser.add_argument("-n", "--dry-run", action="store_true", help="only say what would go")
    parser.add_argument(
        "--toolchains",
        action="store_true",
        help="instead, remove vendor tools from the user's cache whose version or pinned packages "
        "this k210tasks does not name any more; needs no models.yaml",
    )


def run(args: argparse.Namespace) -> int:
    if args.toolchains:
        return _toolchains(args.dry_run)
    from k210tasks.engine.opening import open_project
    from k210tasks.engine.upkeep import collect
    from k210tasks.steps.chain import chain_of

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


def _toolchains(dry_run: bool) -> int:
    from k210tasks.toolchains.cache import cache_root
    from k210tasks.toolchains.leftovers import leftovers, remove

    verb = "would remove" if dry_run else "removed"
    count = 0
    for leftover in leftovers():
        if not dry_run:
            remove(leftover)
        count += 1
        print(f"{verb} {leftover.title}, {leftover.nbytes / 1e6:.1f} MB, {leftover.folder}")
    if not count:
        print(f"nothing to remove: {cache_root()} holds no tools of earlier pins")
    return 0
