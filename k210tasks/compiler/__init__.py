"""The built-in compiler: TFLite to kmodel 3 and 4.

``load(tflite)`` reads, ``calibrate(tflite, samples, open_model)`` measures, ``compile(tflite,
calibration, options)`` compiles, ``check(tflite, kmodel)`` says what would be in the way.
Importing this package imports nothing heavy; the first use of a name does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from k210tasks.compiler.options import Compiled, Options

if TYPE_CHECKING:
    from k210tasks.compiler.checking import Report, check
    from k210tasks.compiler.numerics.calibration import Calibration
    from k210tasks.compiler.numerics.collect import collect as calibrate
    from k210tasks.compiler.pipeline import compile
    from k210tasks.compiler.problems import CompileError
    from k210tasks.compiler.reader import load

__all__ = [
    "Calibration",
    "CompileError",
    "Compiled",
    "Options",
    "Report",
    "calibrate",
    "check",
    "compile",
    "load",
]

_WHERE = {
    "Calibration": ("k210tasks.compiler.numerics.calibration", "Calibration"),
    "CompileError": ("k210tasks.compiler.problems", "CompileError"),
    "Report": ("k210tasks.compiler.checking", "Report"),
    "check": ("k210tasks.compiler.checking", "check"),
    "calibrate": ("k210tasks.compiler.numerics.collect", "collect"),
    "compile": ("k210tasks.compiler.pipeline", "compile"),
    "load": ("k210tasks.compiler.reader", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _WHERE[name]
    return getattr(import_module(module), attribute)
