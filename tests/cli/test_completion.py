"""``k210 completion``: the scripts, each in its real shell."""

from __future__ import annotations

import re
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
    assert complete(folder, "gc", "") == [""]


def test_a_models_yaml_that_cannot_be_read_offers_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "models.yaml").write_text("models: [")
    assert complete(folder, "why", "nothing") == [""]
    assert main(["completion", "--names", "-f", str(folder / "models.yaml")]) == 0
    assert capsys.readouterr().out == ""


def ask(folder: Path, shell: str, script: str, line: str) -> str:
    """What ``script`` prints in that shell, in the project; ``line`` is its argument."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    done = subprocess.run(
        {"fish": ["fish", "-N", "-c"], "zsh": ["zsh", "-f", "-c"]}[shell]
        + [script, *([] if shell == "fish" else ["zsh"]), line],
        cwd=folder,
        env={
            "PATH": f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def fish(folder: Path, line: str) -> list[str]:
    """What fish offers at the end of ``line``: words with their descriptions."""
    script = "k210 completion fish | source; complete -C $argv[1]"
    return ask(folder, "fish", script, line).splitlines()


#: A zsh in a pseudo-terminal, since its completion lives in the line editor: Tab lists what
#: there is, and a mark says that it has.
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'stty -echo cols 200 rows 100; PS1= PROMPT_EOL_MARK=; eval "$(k210 completion zsh)"'
zpty -w shell 'tell() { zle list-choices; zle -R; print -r -- "<DONE>" }'
zpty -w shell 'zle -N tell; bindkey "^I" tell'
zpty -w shell 'print -r -- "<READY"">"'
while zpty -r shell line; do [[ $line == *"<READY>"* ]] && break; done
zpty -w -n shell "$1"$'\t'
while zpty -r shell line; do print -r -- $line; [[ $line == *"<DONE>"* ]] && break; done
zpty -d shell
"""


def zsh(folder: Path, line: str) -> str:
    """What zsh shows when Tab is pressed at the end of ``line``."""
    shown = ask(folder, "zsh", ZSH, line)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")


def test_fish_offers_verbs_with_what_they_do(folder: Path) -> None:
    offered = fish(folder, "k210 ")
    assert [line.split("\t") for line in offered] == [[*pair] for pair in VERBS.items()]


def test_fish_offers_names_options_choices_and_files(folder: Path) -> None:
    assert fish(folder, "k210 why ") == ["demo", "nn_two", "nn_xo"]
    assert fish(folder, "k210 why -f other.yaml an") == ["another"]
    assert fish(folder, "k210 inspect --j") == ["--json\tprint JSON, for programs"]
    assert fish(folder, "k210 init --firmware maixpy-l") == ["maixpy-lvgl"]
    assert fish(folder, "k210 inspect a") == ["a file.kmodel"]
    assert fish(folder, "k210 completion ") == ["bash", "fish", "zsh"]
    assert fish(folder, "k210 gc ") == []


def test_zsh_offers_verbs_with_what_they_do(folder: Path) -> None:
    shown = zsh(folder, "k210 ")
    for verb, text in VERBS.items():
        assert re.search(rf"^{verb} +-- {re.escape(text)}", shown, re.MULTILINE), verb


def test_zsh_offers_names_and_choices(folder: Path) -> None:
    assert {"demo", "nn_two", "nn_xo"} <= set(zsh(folder, "k210 why ").split())
    assert "another" in zsh(folder, "k210 why -f other.yaml ").split()
    assert "maixpy-lvgl" in zsh(folder, "k210 init --firmware ").split()


def test_zsh_offers_options_and_files(folder: Path) -> None:
    assert re.search(r"^--json +-- print JSON, for programs", zsh(folder, "k210 inspect --"), re.M)
    assert "a\\ file.kmodel" in zsh(folder, "k210 inspect ")
    assert ".kmodel" not in zsh(folder, "k210 gc ")


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
