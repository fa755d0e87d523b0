"""The options that say which runtime a kmodel is simulated as."""

from __future__ import annotations

import argparse


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """``--runtime`` and ``--firmware``, of which one may be given."""
    from k210tasks.kmodel.runtimes import RUNTIMES
    from k210tasks.profiles import PROFILES

    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--runtime",
        choices=tuple(RUNTIMES),
        metavar="NAME",
        help=f"what executes kmodel 3 and 4: {', '.join(RUNTIMES)} (default: that of the "
        "contract's firmware, else host)",
    )
    group.add_argument(
        "--firmware",
        choices=tuple(PROFILES),
        metavar="PROFILE",
        help="the runtime of that firmware instead",
    )


def chosen_runtime(args: argparse.Namespace, default: str = "") -> str:
    """The name of the runtime asked for; ``default``: a firmware, whose runtime is taken else."""
    from k210tasks.profiles import PROFILES

    if args.runtime:
        return str(args.runtime)
    firmware = args.firmware or default
    return PROFILES[firmware].runtime if firmware in PROFILES else "host"
