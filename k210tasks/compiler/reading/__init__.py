"""Handlers of the ops of a TFLite file, used by :mod:`k210tasks.compiler.reader`."""
