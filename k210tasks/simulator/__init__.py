"""Runs the bytes of a kmodel file, anyone's, bit exact; shares only ``kpu`` with the compiler."""

from __future__ import annotations

from k210tasks.simulator.simulator import Input, InputError, Simulator

__all__ = ["Input", "InputError", "Simulator"]
