"""Runs a worker: ``start.py WORKER.py``, a module whose ``OPERATIONS`` are to be served.

Its import, seconds where the vendor's package is large, waits for the first request: from then
on the kernel ends this process when the other end goes away, whatever it is busy with.
"""

from __future__ import annotations

import importlib
import os
import sys

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from serve import Operation, serve


def main(worker: str) -> None:
    folder, name = os.path.split(os.path.abspath(worker))

    def load() -> dict[str, Operation]:
        if folder not in sys.path:
            sys.path.append(folder)
        operations: dict[str, Operation] = importlib.import_module(name[: -len(".py")]).OPERATIONS
        return operations

    serve(load)


if __name__ == "__main__":
    main(sys.argv[1])
