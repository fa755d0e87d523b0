"""``k210 report``: write the HTML report from what results there are, and perhaps show it."""

from __future__ import annotations

import argparse

from k210tasks.errors import K210Error

EXAMPLE = "k210 report"


class NotWritten(K210Error):
    def __init__(self, error: OSError) -> None:
        super().__init__(f"the report cannot be written: {error}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--open", action="store_true", help="show it in the web browser")
    parser.add_argument(
        "-f", "--file", default="models.yaml", help="of the project (default: models.yaml)"
    )


def run(args: argparse.Namespace) -> int:
    from k210tasks.engine.opening import open_project
    from k210tasks.steps.chain import chain_of
    from k210tasks.steps.report import write

    project, manifest = open_project(args.file)
    plans = [plan for plan in chain_of(manifest).plans() if plan.step != "vectors"]
    try:
        index = write(project, manifest, plans)
    except OSError as error:
        raise NotWritten(error) from error
    print(index)
    if args.open:
        import webbrowser
        from pathlib import Path

        if not webbrowser.open(Path(index).resolve().as_uri()):
            print("no web browser was found; open the file yourself")
    return 0
