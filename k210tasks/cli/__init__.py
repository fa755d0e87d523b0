"""The ``k210`` command: one small module per verb, imported only when that verb runs.

A verb module has ``add_arguments(parser)``, ``run(args) -> int`` and ``EXAMPLE``, a
command line that works as printed.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import re
import sys
from collections.abc import Sequence

from k210tasks.cli import output
from k210tasks.errors import K210Error

#: verb -> the one line of ``k210 --help``; the module is ``k210tasks.cli.<verb>``.
VERBS: dict[str, str] = {
    "check": "say whether a .tflite can be compiled, op by op, with memory and estimated time",
    "compare": "compare a .kmodel with its float model on images",
    "completion": "print a script for a shell to complete verbs, options and names",
    "convert": "turn one .tflite into a .kmodel, without a models.yaml",
    "diff": "compare two kmodels, or a model's current and previous build",
    "doctor": "show interpreters, toolchains, cache and disk",
    "flash": "build a firmware image if needed and write it to a board",
    "forget": "drop what is known of a model or one of its steps",
    "gc": "remove results no task uses any more from the store",
    "init": "write dodo.py and models.yaml for a new project",
    "inspect": "list what is in a .kmodel or .kfpkg",
    "pack": "make a .kfpkg without a models.yaml",
    "report": "write the HTML report; --open shows it",
    "run": "run a .kmodel in the simulator",
    "why": "say which steps would run, and because of what",
}


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser of ``k210``; only the module of ``verb`` is imported (None: all of them)."""
    parser = argparse.ArgumentParser(
        prog="k210", description="Build, prove and pack models for the Kendryte K210."
    )
    from k210tasks.version import __version__

    version = f"k210tasks {__version__}"
    parser.add_argument("-V", "--version", action="version", version=version)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, text in VERBS.items():
        sub = verbs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if verb is None or verb == name:
            module = importlib.import_module(f"k210tasks.cli.{name}")
            module.add_arguments(sub)
            sub.epilog = f"example:\n  {wrapped(module.EXAMPLE)}"
            sub.set_defaults(run=module.run)
    return parser


def wrapped(command: str) -> str:
    """A command line over several lines of at most 80 columns, as a shell takes it.

    It is cut before options, which keep their values.
    """
    first, *options = re.split(r" (?=-)", command)
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) < 70:
            lines[-1] += f" {option}"
        else:
            lines.append(option)
    return " \\\n      ".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Exit status: 0 done, 1 a refusal or failure in a sentence, 2 usage."""
    if argv is None:  # a process of its own, which ends with the verb
        # The collector goes through all that is loaded three times at exit: some 45 ms of CPU
        # time after a compilation, for memory that the system takes back anyway.
        atexit.register(gc.freeze)
        argv = sys.argv[1:]
    argv = list(argv)
    output.take_any_character()
    verb = next((word for word in argv if not word.startswith("-")), None)
    parser = build_parser(verb if verb in VERBS else "")
    if not argv:
        parser.print_help(sys.stderr)
        return 2
    args = parser.parse_args(argv)
    try:
        with output.visibly():
            status = int(args.run(args) or 0)
        output.flush()
        return status
    except K210Error as error:
        print(f"k210 {args.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        output.abandon()
        return 141
    except OSError as error:
        output.abandon()
        where = f"{error.filename}: " if error.filename else "the output cannot be written: "
        print(f"k210 {args.verb}: {where}{error.strerror or error}", file=sys.stderr)
        return 1
