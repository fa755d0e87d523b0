"""The version of each step's code: part of the key of every result.

Raise a number in the same commit that changes what the step writes for the same inputs;
the golden-bytes tests fail until it is done. Bodies are imported only when they run, so
the numbers live here.
"""

from __future__ import annotations

#: ``kmodel:<compiler>`` per compiler: a change in ours does not repeat a vendor's work.
VERSIONS: dict[str, int] = {
    "convert": 1,
    "calibrate:builtin": 7,
    "calibrate:vendor": 2,
    "kmodel:builtin": 11,
    "kmodel:nncase-1.9.0": 2,
    "kmodel:ncc-0.2.0-beta4": 2,
    "kmodel:ncc-0.1.0-rc5": 2,
    "verify:simulator": 4,  # measured by our simulator
    "verify:nncase-1.9.0": 4,  # measured by nncase's
    "judge": 3,
    "vectors": 2,
    "firmware": 2,
    "judge:firmware": 1,
    "report": 5,
}
