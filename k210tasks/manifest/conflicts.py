"""What the entries of a models.yaml say together: names, firmware images, files written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from k210tasks.manifest import names, schema
from k210tasks.manifest.diagnostics import did_you_mean
from k210tasks.manifest.findings import Findings, Path
from k210tasks.manifest.kinds import listed
from k210tasks.manifest.model import Firmware, Model, Part
from k210tasks.manifest.paths import Written, firmware_files, model_files, normalise
from k210tasks.profiles import PROFILES
from k210tasks.toolchains.catalogue import ToolchainOverride

PARTS_ALLOWED = "allowed: a list of {bin: …} or {model: …}"


def check_names(section: str, entries: Collection[str], found: Findings) -> None:
    """Refuse names that break the rules or that differ only by case."""
    seen: dict[str, str] = {}
    for name in entries:
        why = names.why_not(name)
        if why:
            shown = name if name.isprintable() and len(name) <= 100 else ascii(name)[:100]
            found.add((section, name), f'the name "{shown}" {why}', names.ALLOWED, at_key=True)
        first = seen.setdefault(names.folded(name), name)
        if first != name:
            found.add(
                (section, name),
                f'the names "{first}" and "{name}" differ only by case; their files would be one',
                "rename one of them",
                at_key=True,
                also=[((section, first), "the other")],
            )


def firmware(
    name: str,
    entry: schema.Firmware,
    default_profile: str,
    models: Mapping[str, Model],
    known: Collection[str],
    root: str,
    found: Findings,
) -> Firmware:
    """One firmware image. ``known``: all names under models, also of those with problems."""
    path: Path = ("firmware", name)
    profile = entry.profile or default_profile
    if not entry.parts and not found.broken((*path, "parts")):
        found.add((*path, "parts"), "is empty", PARTS_ALLOWED)
    parts = []
    for i, part in enumerate(entry.parts):
        at: Path = (*path, "parts", i)
        if found.broken((*at, "bin")) or found.broken((*at, "model")):
            continue
        if (part.bin is None) == (part.model is None):
            both = "both bin and model" if part.bin else "neither bin nor model"
            found.add(at, f"has {both}", "allowed: exactly one of bin and model")
        elif part.model is not None:
            _model_part(at, part, profile, models, known, found)
        parts.append(
            Part(
                bin=None if part.bin is None else normalise(part.bin, root),
                model=part.model,
                address=part.address,
                sha256_prefix=part.sha256_prefix,
                made_by=part.made_by or (),
                line=found.document.mark(at).line,
            )
        )
    line = found.document.mark(path, at_key=True).line
    return Firmware(name, profile, tuple(parts), line)


def _model_part(
    at: Path,
    part: schema.Part,
    profile: str,
    models: Mapping[str, Model],
    known: Collection[str],
    found: Findings,
) -> None:
    for key in ("sha256_prefix", "made_by"):
        if key in part.model_fields_set:
            found.add((*at, key), "is for a bin, not for a model", "leave the key out", at_key=True)
    name = part.model or ""
    if name not in known:
        if found.broken(("models",)) and not known:
            return
        found.add(
            (*at, "model"),
            f'there is no model "{name}"{did_you_mean(name, known)}',
            f"allowed: {', '.join(known) or 'a name under models:'}",
        )
        return
    model = models.get(name)
    if model is None or model.firmware == profile:
        return
    places = [("models", name, key) for key in ("firmware", "compiler", "kmodel")]
    places += [("defaults", "firmware", ""), (*at[:2], "profile")]
    if any(found.broken(place) for place in places):
        return
    also = [(("models", name), "the model")]
    can = PROFILES[profile].kmodels
    if model.kmodel not in can:
        found.add(
            (*at, "model"),
            f"{name} is kmodel {model.kmodel}, which {profile} does not load: "
            f"it loads {listed(map(str, can))}",
            f"build the model for firmware: {profile}, or change the image's profile",
            also=also,
        )
    else:
        found.add(
            (*at, "model"),
            f"{name} is built for {model.firmware}, this image is for {profile}",
            f"write firmware: {profile} at the model, or change the image's profile",
            also=also,
        )


def toolchain(name: str, entry: schema.Toolchain, found: Findings) -> ToolchainOverride:
    """One entry of ``toolchains:``."""
    path: Path = ("toolchains", name)
    known = (*schema.ENVIRONMENTS, *schema.ARCHIVES)
    if name not in known:
        found.add(
            path,
            f'there is no toolchain "{name}"{did_you_mean(name, known)}',
            f"allowed: {', '.join(known)}",
            at_key=True,
        )
    is_environment = name in schema.ENVIRONMENTS
    key, what, allowed = (
        ("sha256", "an environment made from hashed packages", "url, python")
        if is_environment
        else ("python", "a program of its own", "url, sha256")
    )
    if name in known and key in entry.model_fields_set:
        found.add((*path, key), f"{name} is {what}", f"allowed for it: {allowed}", at_key=True)
    return ToolchainOverride(
        name, entry.url, entry.sha256.lower() if entry.sha256 else None, entry.python
    )


def check_files_written(
    models: Sequence[Model], images: Sequence[Firmware], found: Findings
) -> None:
    """Refuse two entries that write one file, and sources that doit itself writes."""
    written = Written()
    for model in models:
        for path, task in model_files(model.name, model.source_kind):
            _claim(written, ("models", model.name), path, task, found)
    for image in images:
        for path, task in firmware_files(image.name):
            _claim(written, ("firmware", image.name), path, task, found)

    def read(at: Path, path: str | None, what: str, advice: str) -> None:
        task = written.writer(path) if path is not None else None
        if task:
            found.add(at, f"{path} is written by {task}; it cannot be {what} too", advice)

    for model in models:
        top: Path = ("models", model.name)
        read((*top, "source"), model.source, "a source", "keep sources under another name")
        for at, folder in (
            (found.written((*top, "images")), model.images),
            (
                found.written((*top, "verify", "images")),
                model.verify.images if model.verify else None,
            ),
        ):
            read(at, folder, "a folder of samples", "keep samples in a folder of their own")
            if folder is not None and (folder == "." or f"{folder}/" == "build/"):
                found.add(
                    at,
                    f"{folder} holds build/, where doit writes",
                    "keep samples in a folder of their own",
                )
    for image in images:
        for i, part in enumerate(image.parts):
            read(
                ("firmware", image.name, "parts", i, "bin"),
                part.bin,
                "a binary",
                "to pack a model write {model: NAME}",
            )


def _claim(written: Written, at: Path, path: str, task: str, found: Findings) -> None:
    other = written.claim(path, task)
    if other is None:
        return
    name = names.folded(task.partition(":")[2])
    # Names that are alike or reserved are refused as names.
    if names.folded(other.partition(":")[2]) != name and name not in names.RESERVED:
        found.add(at, f"{path} is written by {other} too", "rename one of them", at_key=True)
