"""The rules of :mod:`k210tasks.compiler.passes.simplify`."""
