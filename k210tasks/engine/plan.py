"""What a step will do, before it does it: a plan is plain, picklable data.

A plan names everything that shapes the result (step, version, settings, inputs, tools,
libraries) and where the results go. The task graph is made from plans, the runner carries
them out, ``k210 why`` explains them; none of them knows what a step computes.

All paths are POSIX, normalised, and relative to the project's root, the folder of
models.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k210tasks.store import records

#: What shapes a result beside its inputs; JSON values only, lists not tuples.
Settings = records.Settings


@dataclass(frozen=True, slots=True)
class FileInput:
    """A file. Only its content counts, not its name. The body gets a ``Path``."""

    path: str


@dataclass(frozen=True, slots=True)
class TreeInput:
    """A folder in which every file counts, by relative path and content (a SavedModel).

    The body gets the folder's ``Path``.
    """

    path: str


@dataclass(frozen=True, slots=True)
class SamplesInput:
    """A folder of samples: pictures or tensors, ``count`` of them, evenly spaced (None: all);
    or a single ``.npy``. Of how many samples an ``.npy`` holds only the step's body knows: what
    it takes of them is a setting of the step.

    Relative paths and contents of the chosen files count. The body gets a
    :class:`~k210tasks.engine.job.Folder`.
    """

    path: str
    count: int | None = None


@dataclass(frozen=True, slots=True)
class OptionalInput:
    """A file that may be missing, which then counts as much as its content would.

    The body gets the ``Path`` either way.
    """

    path: str


Input = FileInput | TreeInput | SamplesInput | OptionalInput


@dataclass(frozen=True, slots=True)
class Judge:
    """A cheap second half of a step, done anew whenever its settings or the result change.

    ``run`` names ``module:function``, called as ``function(job) -> Verdict | None`` with the
    step's own inputs and outputs as ``job.inputs`` (roles must differ), ``settings`` as
    ``job.settings`` and temporary paths for ``outputs``. The outputs are written also when
    the verdict is bad. ``version`` counts changes of the function.
    """

    run: str
    version: int
    settings: Settings
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge found; ``message`` is shown, and is the task's failure when not ``ok``."""

    ok: bool
    message: str = ""


@dataclass(slots=True)  # not frozen: that would triple the cost of making thousands
class StepPlan:
    """One step of the chain for one model (or one firmware image).

    The key of the result covers ``step``, ``version``, ``settings``, the contents of
    ``inputs``, the pins of ``tools`` and the versions of ``libraries``. Everything else says
    where and how.
    """

    task: str  # "calibrate:nn_xo"; with the user's prefix, if any
    step: str  # "calibrate"
    subject: str  # the model, or the firmware image: "nn_xo"
    version: int  # of the step's code, from steps/versions.py
    run: str | None  # "module:function" of the body; None: there is only something to judge
    settings: Settings = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)
    #: role -> file; a name ending in "/" is a folder which the body makes and fills
    outputs: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()  # toolchains, by name
    libraries: tuple[str, ...] = ()  # distributions whose version shapes the bytes
    judge: Judge | None = None
    log: str = ""  # the step's full log file
    optional: bool = False  # an unavailable toolchain skips the step instead of failing it
    made_by: tuple[str, ...] = ()  # the user's tasks that make the inputs
    after: tuple[str, ...] = ()  # our tasks that make the inputs
    even_if_failed: bool = False  # runs when all of ``after`` have ended, well or not
    doc: str = ""

    @property
    def id(self) -> str:
        """What the task is known by in records and locks: its name without any prefix."""
        return f"{self.step}:{self.subject}"
