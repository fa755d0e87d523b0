"""What runs a kmodel for ``verify`` and ``k210 compare``: our simulator, or nncase's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from k210tasks.artifacts.measurement import Simulated
from k210tasks.engine.job import StepFailed
from k210tasks.npz import BadArrays, read
from k210tasks.store.scratch import scratch_folder


class NoSimulator(StepFailed):
    def __init__(self, kmodel: int) -> None:
        super().__init__(
            f"kmodel {kmodel} cannot be run here: kmodel 3 and 4 run in the project's own "
            "simulator, kmodel 5 in that of nncase-1.9.0"
        )


class BadOutputs(StepFailed):
    def __init__(self, tool: str, why: str) -> None:
        super().__init__(f"the outputs that {tool} wrote cannot be read: {why}; run doit again")


class ProjectSimulator:
    """Runs kmodel 3 and 4 as a runtime does, bit exact; raises KmodelError where it would not."""

    name = "simulator"

    def __init__(self, kmodel: bytes, runtime: str | None = None) -> None:
        from k210tasks.kmodel import parse
        from k210tasks.simulator import Simulator

        self.simulator: Any = Simulator(parse(kmodel), runtime or "host")
        said = self.simulator.runtime
        self.runtime = Simulated(said.name, said.title, said.recorded)

    def run(self, inputs: NDArray[Any]) -> Iterator[list[NDArray[Any]]]:
        for x in inputs:
            yield list(self.simulator.run(x))


class NncaseSimulator:
    """Runs kmodel 5 in nncase's environment, a group of inputs at a time."""

    name = "nncase-1.9.0"
    runtime = None

    def __init__(self, toolchain: Any, kmodel: Path, log: TextIO) -> None:
        self._toolchain, self._kmodel, self._log = toolchain, kmodel, log

    def run(self, inputs: NDArray[Any]) -> Iterable[list[NDArray[Any]]]:
        from k210tasks.toolchains import nncase

        with scratch_folder() as scratch:
            fed, got = Path(scratch, "inputs.npy"), Path(scratch, "outputs.npz")
            np.save(fed, inputs)
            nncase.simulate(
                self._toolchain, kmodel=self._kmodel, inputs=fed, out=got, log=self._log
            )
            try:
                found = read(got)
                arrays = [found[f"output_{i}"] for i in range(len(found))]
            except (OSError, BadArrays, KeyError) as error:
                raise BadOutputs(self.name, str(error)) from error
        return [[array[n] for array in arrays] for n in range(len(inputs))]


def engine_for(
    version: int,
    kmodel: Path,
    toolchain: Callable[[str], Any],
    log: TextIO,
    runtime: str | None = None,
) -> ProjectSimulator | NncaseSimulator:
    """What runs a kmodel of that version; ``toolchain`` gives one by name, if need be.

    ``runtime``: which one kmodel 3 and 4 are run as; None: the host build.
    """
    if version in (3, 4):
        return ProjectSimulator(kmodel.read_bytes(), runtime)
    if version == 5:
        return NncaseSimulator(toolchain(NncaseSimulator.name), kmodel, log)
    raise NoSimulator(version)
