"""Write the pinned requirement files beside this script anew: ``python regenerate.py``.

Each file holds every package an environment gets, with the hashes of all its wheels, and
serves every CPython its toolchain may run on, through markers. Only wheels: nothing is
built on the user's machine. Asks the ordinary index, whatever this machine's settings.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from uv import find_uv_bin

HERE = Path(__file__).parent

#: tensorflow-cpu has no wheels for macOS and Linux on ARM, where tensorflow is CPU only;
#: tf_keras asks for tensorflow by name, which must not bring it in a second time
_CPU = "sys_platform == 'win32' or (sys_platform == 'linux' and platform_machine == 'x86_64')"
_OTHER = "sys_platform != 'win32' and (sys_platform != 'linux' or platform_machine != 'x86_64')"

#: file -> oldest CPython, what is wanted, what replaces a package's own requirement
FILES: dict[str, tuple[str, list[str], list[str]]] = {
    "nncase-1.9.0.txt": ("3.7", ["nncase==1.9.0.20230322", "numpy<2"], []),
    "tensorflow.txt": (
        "3.10",
        [
            f"tensorflow-cpu==2.21.0 ; {_CPU}",
            f"tensorflow==2.21.0 ; {_OTHER}",
            "tf_keras==2.21.0",
        ],
        [f"tensorflow==2.21.0 ; {_OTHER}"],
    ),
}

#: the newest CPython that may take part where the wheels end before the newest Python does
CEILING = {"nncase-1.9.0.txt": "python_version < '3.11'", "tensorflow.txt": ""}


def regenerate(name: str) -> None:
    """Resolve one file with uv."""
    oldest, wanted, overrides = FILES[name]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "wanted.in"
        source.write_text("\n".join(_limited(line, CEILING[name]) for line in wanted) + "\n")
        command = [find_uv_bin(), "pip", "compile", "--no-config", "--no-annotate", "--quiet"]
        command += ["--generate-hashes", "--universal", "--no-build", "--python-version", oldest]
        command += ["--default-index", "https://pypi.org/simple"]
        command += ["--custom-compile-command", "python regenerate.py"]
        if overrides:
            (Path(folder) / "override.in").write_text("\n".join(overrides) + "\n")
            command += ["--override", str(Path(folder) / "override.in")]
        subprocess.run([*command, str(source), "-o", str(HERE / name)], check=True, cwd=folder)


def _limited(requirement: str, ceiling: str) -> str:
    if not ceiling or ";" in requirement:
        return requirement
    return f"{requirement} ; {ceiling}"


if __name__ == "__main__":
    for file in FILES:
        regenerate(file)
