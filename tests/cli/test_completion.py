"""``k210 completion``: the scripts, bash's in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from k210tasks.cli import VERBS, main
from k210tasks.cli.completion import SCRIPTS, verbs

MANIFEST = """\
models:
  nn_xo: {source: a.tflite, images: images}
  nn_two: {source: b.tflite, images: images}
firmware:
  demo: {parts: [{model: nn_xo}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project, and a ``k210`` on the path."""
    (tmp_path / "models.yaml").write_text(MANIFEST)
    (tmp_path / "other.yaml").write_text(MANIFEST.replace("nn_xo", "another"))
    (tmp_path / "a file.kmodel").write_text("")
    program = tmp_path / "bin/k210"
    program.parent.mkdir()
    code = "import sys; from k210tasks.cli import main; sys.exit(main())"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}' \"$@\"\n")
    program.chmod(0o755)
    return tmp_path


def complete(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of ``words``."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    script = (
        'eval "$(k210 completion bash)"; COMP_WORDS=(k210 "$@"); COMP_CWORD=$#; _k210; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words],
        cwd=folder,
        env={"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_bash_offers_the_verbs(folder: Path) -> None:
    assert complete(folder, "") == [*VERBS, "--help", "--version"]
    assert complete(folder, "di") == ["diff"]


def test_bash_offers_the_names_of_models_yaml(folder: Path) -> None:
    assert complete(folder, "why", "") == ["nn_xo", "nn_two", "demo"]
    assert complete(folder, "why", "nn_t") == ["nn_two"]
    assert complete(folder, "why", "-f", "other.yaml", "an") == ["another"]


def test_bash_offers_options_choices_and_files(folder: Path) -> None:
    assert "--json" in complete(folder, "inspect", "--")
    assert complete(folder, "inspect", "--j") == ["--json"]
    assert "maixpy" in complete(folder, "init", "--firmware", "")
    assert complete(folder, "init", "--firmware", "maixpy-l") == ["maixpy-lvgl"]
    assert complete(folder, "inspect", "a") == ["a file.kmodel"]
    assert complete(folder, "completion", "") == ["bash", "zsh", "fish"]


def test_a_models_yaml_that_cannot_be_read_offers_nothing(folder: Path) -> None:
    (folder / "models.yaml").write_text("models: [")
    assert complete(folder, "why", "nothing") == [""]


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_verb_and_option_is_in_every_script(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for verb in verbs():
        assert verb.name in script
        for option in verb.options:
            for word in option.words:
                assert (word if shell != "fish" else word.lstrip("-")) in script
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_a_shell_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["completion", "csh"])
    assert "choose from" in capsys.readouterr().err
