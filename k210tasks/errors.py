"""The base of every error a user is meant to read.

An error names what went wrong, where, the value, the limit and the remedy. Each
package keeps small subclasses, named after what went wrong, whose constructors
build the sentence; callers pass facts, not prose.
"""

from __future__ import annotations


class K210Error(Exception):
    """A failure with a message for the user: ``str(error)`` is the whole text to show."""
