"""The schema names what other parts of the project really have."""

from __future__ import annotations

from k210tasks.manifest import schema
from k210tasks.manifest.compilers import COMPILERS
from k210tasks.toolchains import catalogue


def test_the_toolchains_that_may_be_overridden_are_those_of_the_catalogue() -> None:
    kinds = {name: type(tool) for name, tool in catalogue.TOOLS.items()}
    assert {n for n, kind in kinds.items() if kind is catalogue.PythonTool} == set(
        schema.ENVIRONMENTS
    )
    assert {n for n, kind in kinds.items() if kind is catalogue.ArchiveTool} == set(schema.ARCHIVES)


def test_every_compiler_has_its_toolchain_and_its_plainest_method() -> None:
    for compiler in COMPILERS.values():
        assert compiler.toolchain is None or compiler.toolchain in catalogue.TOOLS
        assert "minmax" in compiler.methods
