"""``k210 flash``: build a firmware image if need be, and write it to a board."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from k210tasks.errors import K210Error

if TYPE_CHECKING:
    from k210tasks.firmware.kfpkg import Kfpkg
    from k210tasks.manifest.model import Firmware, Manifest

EXAMPLE = "k210 flash demo"


class NoSuchImage(K210Error):
    def __init__(self, path: str, name: str, known: list[str]) -> None:
        has = f"it has {', '.join(known)}" if known else "it has none: list one under firmware:"
        super().__init__(f"{path} has no firmware image {name}; {has}")


class NoSuchModel(K210Error):
    def __init__(self, image: str, model: str, held: list[str]) -> None:
        has = f"it holds {', '.join(held)}" if held else "it holds none"
        super().__init__(f"image {image} holds no model {model}; {has}")


class NotBuilt(K210Error):
    def __init__(self, image: str) -> None:
        super().__init__(f"firmware:{image} was not built, nothing is flashed; see above")


class NoImageFile(K210Error):
    def __init__(self, path: str, image: str, built: bool) -> None:
        super().__init__(
            f"{path} was not made: a model in it is optional and was skipped; see above"
            if built
            else f"{path} does not exist; build it: doit firmware:{image}"
        )


class Overlapping(K210Error):
    def __init__(self, path: str, told: str) -> None:
        super().__init__(
            f"{path}: {told}, so the later one would overwrite the earlier; pack it anew, "
            "each part in frames of its own, or write one model with --only"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from k210tasks.cli.contract_args import count
    from k210tasks.firmware.flasher import BAUD, BOARDS

    parser.add_argument("image", metavar="NAME", help="an image of models.yaml, or a file X.kfpkg")
    parser.add_argument("--port", help="serial port; default: the first of a known USB chip")
    parser.add_argument(
        "--board",
        choices=BOARDS,
        metavar="BOARD",
        help=f"how it is reset: {', '.join(BOARDS)}; default: tried one after the other",
    )
    parser.add_argument(
        "--baud", type=count, default=BAUD, metavar="N", help=f"bits a second (default {BAUD})"
    )
    parser.add_argument("--only", metavar="MODEL", help="write that model and nothing else")
    parser.add_argument(
        "--no-build", action="store_true", help="write what is there, if it is current"
    )
    parser.add_argument(
        "-f", "--file", metavar="models.yaml", default="models.yaml", help="where NAME is listed"
    )


def run(args: argparse.Namespace) -> int:
    from k210tasks.cli.given import read_bytes
    from k210tasks.firmware import kfpkg
    from k210tasks.firmware.describe import overlaps
    from k210tasks.firmware.flasher import flash
    from k210tasks.progress import shown
    from k210tasks.store.scratch import scratch_folder

    if args.image.lower().endswith(".kfpkg"):
        image = kfpkg.read(read_bytes(args.image), args.image)
    else:
        image = _of_manifest(args)
    if args.only is not None:
        only = image.only(args.only)
        if only is None:
            held = [str(p.source) for p in image.parts if p.is_model]
            raise NoSuchModel(args.image, args.only, held)
        image = only
    for told in overlaps(image):
        raise Overlapping(args.image, told)
    with scratch_folder() as scratch, shown(f"flash:{args.image}") as progress:
        # A copy of what was checked: the file may be built anew while it is written.
        path = Path(scratch, "image.kfpkg")
        path.write_bytes(kfpkg.write(image))
        image = kfpkg.read(path.read_bytes(), args.image)
        flash(path, image, port=args.port, board=args.board, baud=args.baud, progress=progress)
    for part in image.parts:
        print(f"{part.address:#010x}  {len(part.data):>8} bytes  {part.source or part.bin}")
    print("written; the board starts again")
    return 0


def _of_manifest(args: argparse.Namespace) -> Kfpkg:
    """The image of that name, built and found current."""
    from k210tasks import manifest as manifests
    from k210tasks.cli.current_image import check_current
    from k210tasks.cli.given import read_bytes
    from k210tasks.firmware import kfpkg

    manifest = manifests.load(args.file)
    wanted = _wanted(manifest, args.image)
    root = Path(manifest.root)
    if not args.no_build and not _build(root, Path(args.file).name, wanted.name):
        raise NotBuilt(wanted.name)
    path = root / "build" / f"{wanted.name}.kfpkg"
    shown = f"build/{wanted.name}.kfpkg"
    if not path.exists():
        raise NoImageFile(shown, wanted.name, built=not args.no_build)
    image = kfpkg.read(read_bytes(str(path)), shown)
    check_current(shown, image, wanted, root)
    return image


def _wanted(manifest: Manifest, name: str) -> Firmware:
    known = {image.name: image for image in manifest.firmware}
    if name not in known:
        raise NoSuchImage(manifest.path, name, list(known))
    return known[name]


def _build(root: Path, manifest: str, image: str) -> bool:
    """Have doit make the image, with the project's dodo.py where there is one."""
    if (root / "dodo.py").exists():
        command = ["-m", "doit"]
    else:
        code = "import sys; from doit.doit_cmd import DoitMain; from k210tasks.plugin import"
        code += " K210Loader; sys.exit(DoitMain(K210Loader()).run(sys.argv[1:]))"
        command = ["-c", code, "run", "-f", manifest]
    done = subprocess.run([sys.executable, *command, f"firmware:{image}"], cwd=root, check=False)
    return done.returncode == 0
