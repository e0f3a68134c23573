"""Fetch emoji as two vendors draw them, as a plain folder: one vendor to train on, the other to test on.

    <root>/emoji/train/CATEGORY/CODE.png   Google's Noto
    <root>/emoji/test/CATEGORY/CODE.png    Twitter's Twemoji

npm downloads one package of each vendor and runs nothing of it. Both archives are known by their sha256. Only
the list of emoji and the images of 64 pixels are read from them, member by member, so nothing else of an
archive reaches the disk. No emoji is on both sides: what is asked for is the category of new things in a new
style. The drawings are under the Apache License 2.0 (Noto Emoji) and CC-BY 4.0 (Twemoji: Copyright Twitter,
Inc. and other contributors); the packages are under the MIT License.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.seeds import rng_at
from moe_prompts.vision.tasks.images import opened

#: Name of the task's folder, images to train on, and the longest member that is read, in bytes.
NAME, TRAIN, LONGEST = "emoji", 1000, 4_000_000
#: Codes of emoji, which become names of files.
CODE = re.compile(r"[0-9a-f]{4,6}(-[0-9a-f]{4,6})*")


@dataclass(frozen=True)
class Vendor:
    """Name one vendor's drawings: npm's package, the folder in it, and the archive's sha256."""

    package: str
    folder: str
    digest: str


VENDORS = {
    "train": Vendor(
        "emoji-datasource-google@16.0.0", "google", "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
    ),
    "test": Vendor(
        "emoji-datasource-twitter@16.0.0", "twitter", "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877"
    ),
}
NOTICE = (
    "train: Noto Emoji, Copyright Google LLC, Apache License 2.0 (https://github.com/googlefonts/noto-emoji)\n"
    "test: Twemoji, Copyright Twitter, Inc. and other contributors, CC-BY 4.0 "
    "(https://github.com/twitter/twemoji)\n"
    "Images of 64 pixels from emoji-datasource 16.0.0 (https://github.com/iamcal/emoji-data), laid on white.\n"
)


def fetch_emoji(root: Path, archives: dict[str, Path] | None = None, entropy: int = 0) -> Path:
    """Write the task's folder under ``root`` and return it.

    archives  the two packages by "train" and "test", as ``npm pack`` leaves them; None: npm downloads them
    entropy   of the draw which emoji are trained on

    Raises ``InputError`` where the folder is there already, npm is missing or fails, or an archive differs.
    """
    out = root / NAME
    if out.exists():
        raise InputError(f"{out} is there already; expected no such folder: move it away, or use it as it is")
    with tempfile.TemporaryDirectory() as scratch:
        found = archives or {part: downloaded(vendor, Path(scratch)) for part, vendor in VENDORS.items()}
        for part, vendor in VENDORS.items():
            check_digest(found[part], vendor)
        return unpack(found, out, entropy)


def downloaded(vendor: Vendor, folder: Path) -> Path:
    """Return the archive that npm downloads into ``folder``; raise ``InputError`` if it does not."""
    command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), vendor.package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except FileNotFoundError as error:
        raise InputError("npm: not found; expected it on the path: install Node.js, or give both archives") from error
    path = folder / f"{vendor.package.replace('@', '-')}.tgz"
    if done.returncode != 0 or not path.is_file():
        said = (done.stderr.strip().splitlines() or ["no file came"])[0]
        raise InputError(f"npm pack {vendor.package}: {said}; expected a registry that answers, or give both archives")
    return path


def check_digest(path: Path, vendor: Vendor) -> None:
    """Raise ``InputError`` unless the archive is the one that is known."""
    try:
        found = sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected the archive of {vendor.package}") from error
    if found != vendor.digest:
        raise InputError(f"{path}: sha256 {found}; expected {vendor.digest}, that of {vendor.package}")


def unpack(archives: dict[str, Path], out: Path, entropy: int) -> Path:
    """Write the images of two archives as a plain folder, which appears whole or not at all."""
    drawings = {part: read_archive(archives[part], vendor.folder) for part, vendor in VENDORS.items()}
    groups = drawings["train"][0]
    both = {code: groups[code] for code in groups if all(code in images for _, images in drawings.values())}
    trained = chosen(both, TRAIN, entropy)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        whole = Path(scratch) / NAME
        for part, (_, images) in drawings.items():
            for code, group in both.items():
                if (code in trained) == (part == "train"):
                    _write(images[code], whole / part / group / f"{code}.png", Path(scratch) / "one.png")
        (whole / "NOTICE").write_text(NOTICE, encoding="utf-8")
        whole.rename(out)
    return out


def read_archive(path: Path, folder: str) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the category of each emoji by its code, and the drawings of 64 pixels by the same codes.

    path    of the archive, a .tgz as ``npm pack`` leaves it
    folder  of the set of drawings in it, such as "google"

    Raises ``InputError`` where the archive cannot be read.
    """
    images: dict[str, bytes] = {}
    listed: list[dict[str, Any]] = []
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                wanted = member.name.startswith(f"package/img/{folder}/64/") or member.name == "package/emoji.json"
                if not wanted or not member.isfile() or member.size > LONGEST:
                    continue
                file = archive.extractfile(member)
                assert file is not None  # a regular file
                if member.name.endswith(".json"):
                    listed = json.loads(file.read())
                elif CODE.fullmatch(code := Path(member.name).stem):
                    images[code] = file.read()
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise InputError(f"{path}: unreadable ({error}); expected an archive as npm pack leaves it") from error
    groups = {}
    for one in listed:
        code = Path(str(one.get("image", ""))).stem
        if CODE.fullmatch(code) and one.get("category") not in (None, "Component"):
            groups[code] = re.sub(r"[^a-z]+", "-", str(one["category"]).lower()).strip("-")
    if not groups or not images:
        raise InputError(f"{path}: no list of emoji or no drawings; expected those of {folder}")
    return groups, images


def chosen(groups: dict[str, str], number: int, entropy: int) -> set[str]:
    """Return which emoji are trained on: every category in its share, at most half of all."""
    from moe_prompts.vision.tasks.subsets import stratified_order

    codes = sorted(groups)
    kinds = sorted(set(groups.values()))
    labels = np.array([kinds.index(groups[code]) for code in codes])
    order = stratified_order(labels, rng_at(entropy, "emoji", "trained on"))
    return {codes[index] for index in order[: min(number, len(codes) // 2)]}


def _write(drawing: bytes, path: Path, scratch: Path) -> None:
    """Lay a drawing on white and write it; it is opened through the door of all images."""
    from PIL import Image

    scratch.write_bytes(drawing)
    with opened(scratch) as image:
        shown = image.convert("RGBA")
    ground = Image.new("RGBA", shown.size, "white")
    ground.alpha_composite(shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    ground.convert("RGB").save(path, format="PNG")
