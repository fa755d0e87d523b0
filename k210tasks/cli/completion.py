"""``k210 completion``: a script that lets a shell complete verbs, options and model names."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

EXAMPLE = "k210 completion bash"

SHELLS = ("bash", "zsh", "fish")
#: Verbs whose arguments are names of models.yaml; whether they may be files as well.
NAMED = {"why": False, "forget": False, "diff": True, "flash": True}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "shell",
        nargs="?",
        choices=SHELLS,
        help="whose script to print; to have it: "
        'eval "$(k210 completion bash)" in ~/.bashrc, '
        'eval "$(k210 completion zsh)" in ~/.zshrc, '
        "k210 completion fish | source in ~/.config/fish/config.fish",
    )
    what.add_argument(
        "--names", action="store_true", help="print the models and images of models.yaml"
    )
    parser.add_argument(
        "-f", "--file", default="models.yaml", help="whose names (default: models.yaml)"
    )


def run(args: argparse.Namespace) -> int:
    if args.names:
        for name in names(args.file):
            print(name)
        return 0
    print(SCRIPTS[args.shell](verbs()), end="")
    return 0


def names(file: str) -> list[str]:
    """Models and firmware images; none where models.yaml cannot be read: nothing to complete."""
    from k210tasks import manifest
    from k210tasks.errors import K210Error

    try:
        found = manifest.load(file)
    except (K210Error, OSError):
        return []
    return [*(m.name for m in found.models), *(i.name for i in found.firmware)]


@dataclass(frozen=True, slots=True)
class Option:
    """``words``: as typed. ``values``: what may follow, where that is a choice; ``takes``:
    whether anything follows."""

    words: tuple[str, ...]
    help: str
    takes: bool
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verb:
    name: str
    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...] = ()  # choices of a positional argument
    named: bool = False  # its arguments may be names of models.yaml
    files: bool = False  # its arguments may be files


def verbs() -> list[Verb]:
    """Every verb as its parser has it."""
    from k210tasks.cli import VERBS, build_parser

    parser = build_parser()
    [sub] = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    found = []
    for name, verb in sub.choices.items():
        actions = [a for a in verb._actions if a.help != argparse.SUPPRESS]
        arguments = [a for a in actions if not a.option_strings]
        found.append(
            Verb(
                name,
                VERBS[name],
                tuple(_option(a) for a in actions if a.option_strings),
                tuple(str(word) for a in arguments for word in a.choices or ()),
                name in NAMED,
                NAMED.get(name, any(a.choices is None for a in arguments)),
            )
        )
    return found


def _option(action: argparse.Action) -> Option:
    return Option(
        tuple(action.option_strings),
        (action.help or "").replace("%%", "%"),
        action.nargs != 0,
        tuple(str(choice) for choice in action.choices or ()),
    )


def _cases(verb: Verb, offer: Callable[[str], str], files: str) -> str:
    """The lines of a ``case`` over the option before the cursor: what its value may be."""
    return "\n".join(
        f"          {'|'.join(option.words)}) "
        + (offer(" ".join(option.values)) if option.values else files)
        + " ;;"
        for option in verb.options
        if option.takes
    )


def bash(found: list[Verb]) -> str:
    """For bash 3.2 and later."""
    cases = []
    for verb in found:
        words = " ".join(word for option in verb.options for word in option.words)
        values = _cases(verb, lambda values: f'words="{values}"', 'words=""; files=1')
        more = " ".join(verb.words)
        plain = f'words="{more}"' if more else "files=1" if verb.files else ":"
        if verb.named:
            plain = f"names=1{'; files=1' if verb.files else ''}"
        cases.append(
            f"      {verb.name})\n"
            f'        case "$previous" in\n{values}\n'
            f'          *) case "$current" in -*) words="{words}" ;; *) {plain} ;; esac ;;\n'
            f"        esac ;;"
        )
    body = "\n".join(cases)
    return f"""\
# bash completion of k210; made by: k210 completion bash
_k210() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  local verb="" words="" names="" files="" i file="models.yaml"
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "${{COMP_WORDS[i]}}" in
      -f|--file) file="${{COMP_WORDS[i+1]}}" ;;
      -*) ;;
      *) [ -n "$verb" ] || verb="${{COMP_WORDS[i]}}" ;;
    esac
  done
  COMPREPLY=()
  if [ -z "$verb" ]; then
    words="{" ".join(verb.name for verb in found)} --help --version"
  else
    case "$verb" in
{body}
    esac
  fi
  [ -z "$names" ] || words="$words $(k210 completion --names --file "$file" 2>/dev/null)"
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ -n "$files" ] && [ "${{#COMPREPLY[@]}}" -eq 0 ]; then
    compopt -o filenames 2>/dev/null
    local IFS=$'\\n'
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -F _k210 k210
"""


def zsh(found: list[Verb]) -> str:
    """For zsh: evaluated in ``~/.zshrc``, or saved as ``_k210`` in a folder of ``fpath``."""

    def described(word: str, text: str) -> str:
        text = text.replace("\\", "\\\\").replace(":", "\\:").replace("'", "'\\''")
        return f"'{word}:{text}'"

    listed = " ".join(described(verb.name, verb.help) for verb in found)
    cases = []
    for verb in found:
        options = " ".join(
            described(word, option.help) for option in verb.options for word in option.words
        )
        values = _cases(verb, lambda values: f"compadd -- {values}; return", "_files; return")
        words = f"compadd -- {' '.join(verb.words)}"
        if verb.named:
            words = 'compadd -- ${(f)"$(k210 completion --names --file $file 2>/dev/null)"}'
            words += "; _files" if verb.files else ""
        elif not verb.words:
            words = "_files" if verb.files else "_message 'no more arguments'"
        cases.append(
            f"      {verb.name})\n"
            f"        case $words[CURRENT-1] in\n{values}\n        esac\n"
            f"        if [[ $words[CURRENT] == -* ]]; then\n"
            f"          options=({options})\n"
            f"          _describe option options\n"
            f"        else {words}; fi ;;"
        )
    body = "\n".join(cases)
    return f"""\
#compdef k210
# zsh completion of k210; made by: k210 completion zsh
_k210() {{
  local -a verbs options
  local file=models.yaml i
  for ((i = 2; i < CURRENT; i++)); do
    case $words[i] in -f|--file) file=${{(Q)words[i+1]}} ;; esac
  done
  verbs=({listed})
  if (( CURRENT == 2 )); then
    _describe verb verbs
  else
    case $words[2] in
{body}
    esac
  fi
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _k210 "$@"
else
  (( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}
  compdef _k210 k210
fi
"""


def fish(found: list[Verb]) -> str:
    """For fish 3."""

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def listed(words: tuple[str, ...]) -> str:
        # A word and its own description, empty: else each is given the option's.
        return quoted(" ".join(f"{word}\\t" for word in words))

    lines = [
        "# fish completion of k210; made by: k210 completion fish",
        "function __k210_names",
        "    set -l words (commandline -opc)",
        "    set -l file models.yaml",
        "    for i in (seq (count $words))",
        "        contains -- $words[$i] -f --file; and set file $words[(math $i + 1)]",
        "    end",
        "    k210 completion --names --file $file 2>/dev/null",
        "end",
        "complete -c k210 -n __fish_use_subcommand -f",
        *(
            f"complete -c k210 -n __fish_use_subcommand -a {verb.name} -d {quoted(verb.help)}"
            for verb in found
        ),
    ]
    for verb in found:
        seen = f"complete -c k210 -n '__fish_seen_subcommand_from {verb.name}'"
        if verb.words:
            lines.append(f"{seen} -a {quoted(' '.join(verb.words))}")
        if verb.named:
            lines.append(f"{seen} -a '(__k210_names)'")
        if not verb.files:
            lines.append(f"{seen} -f")
        for option in verb.options:
            flags = " ".join(
                f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}"
                for word in option.words
            )
            takes = " -r" if option.takes else ""
            values = f" -f -a {listed(option.values)}" if option.values else ""
            lines.append(f"{seen} {flags}{takes}{values} -d {quoted(option.help)}")
    return "\n".join(lines) + "\n"


SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}
