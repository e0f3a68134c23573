"""Images of a list of files as bytes: decoded, resized, and kept in a cache that cannot be changed.

    file --Pillow--> RGB --bilinear--> bytes (H, W, 3)

The published protocols resize with TensorFlow, which does not antialias; Pillow does when it shrinks. Both are offered
and results name the one used. A cache is one .npy file, named by a hash of the list, of every file's size and time of
change and of the resizing; it is written image by image, appears whole or not at all, and is opened read-only. EXIF
orientation is ignored, transparency is dropped.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.task import ImageSet, Pixels

if TYPE_CHECKING:
    from PIL import Image

ANTIALIASED, PLAIN = "bilinear", "bilinear-no-antialias"
RESAMPLE = (ANTIALIASED, PLAIN)
#: Part of every cache's name; raised when the meaning of its bytes changes.
CACHE_VERSION = 1
#: What is opened, by content: formats that Pillow decodes by itself, without starting a program.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
#: What Pillow raises for files that it cannot read; its decoders are many and each has errors of its own.
READING = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    ArithmeticError,
    AttributeError,
    struct.error,
    zlib.error,
)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A regular file as an image of a format in ``FORMATS``; raises ``InputError`` for anything else.

    Pillow would hand PostScript to a program, wait for a pipe, and only warn of an image that fills the memory.
    """
    from PIL import Image

    try:
        # Without waiting: opening a pipe to read waits for somebody who writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{path} is no regular file; expected an image")
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(file, formats=FORMATS) as image:
                    yield image
    except InputError:
        raise
    except Image.UnidentifiedImageError as error:
        raise InputError(
            f"{path}: unreadable image (none of {', '.join(FORMATS)}); expected a whole image of one of these formats: "
            "copy or export it again"
        ) from error
    except READING as error:
        raise _unreadable(path, error) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{path}: too many pixels ({error}); expected an image for a ViT: export a smaller one"
        ) from error


def read_rgb(path: Path) -> Image.Image:
    """Return the decoded image; raises ``InputError`` if Pillow cannot read it to its end."""
    with _whole_images(), opened(path) as image:
        if image.mode.startswith(("I", "F")):
            raise InputError(
                f"{path}: pixels of more than 8 bits (mode {image.mode}); expected 8 bits per channel, so export "
                "the image anew"
            )
        # Pillow warns when it turns a transparent palette into RGB in one step.
        return (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")


@contextmanager
def _whole_images() -> Iterator[None]:
    """Pillow refuses images that are cut off, also where another package told it to fill them with grey."""
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_header(path: Path) -> tuple[str, tuple[int, int]]:
    """Return the format that Pillow finds, whatever the file is called, and (height, width)."""
    with opened(path) as image:
        return str(image.format), (image.height, image.width)


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such image; expected every listed image beside its list")
    why = str(error).replace(f" {str(path)!r}", "")
    return InputError(f"{path}: unreadable image ({why}); expected a whole image: copy or export it again")


@dataclass(frozen=True)
class Resize:
    """To ``size`` x ``size`` ignoring the aspect ratio, or (``keep_aspect``) the shorter side to ``size``.

    resample  "bilinear" (Pillow, antialiased where it shrinks) or "bilinear-no-antialias" (torch, as TensorFlow's)
    """

    size: int = 224
    keep_aspect: bool = False
    resample: str = ANTIALIASED

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1:
            raise InputError(f"Resize: size = {self.size!r}; expected a whole number of at least 1, as 224")
        if self.resample not in RESAMPLE:
            raise InputError(f"Resize: resample {self.resample!r}; expected one of {', '.join(RESAMPLE)}")

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the result."""
        if not self.keep_aspect:
            return self.size, self.size
        short = min(height, width)
        return round(height * self.size / short), round(width * self.size / short)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Bytes (H, W, 3) of an RGB image."""
        from PIL import Image

        height, width = self.shape(image.height, image.width)
        if self.resample == PLAIN:
            return _without_antialias(np.array(image), height, width)
        return np.array(image.resize((width, height), Image.Resampling.BILINEAR))


def _without_antialias(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    import torch

    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(
        image, (height, width), mode="bilinear", align_corners=False, antialias=False
    )
    return resized[0].permute(1, 2, 0).round().to(torch.uint8).contiguous().numpy()


@dataclass(frozen=True)
class Files:
    """Images on disk: ``names`` under ``folder``, each decoded when asked for; ``label`` is theirs in progress bars.

    ``anywhere``: names may lead out of the folder, as those of a list of one's own may.
    """

    folder: Path
    names: tuple[str, ...]
    resize: Resize
    label: str
    anywhere: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.resize(read_rgb(self.path(self.names[index])))

    def path(self, name: str) -> Path:
        """Return the file of a name; raises ``InputError`` if it leads out of ``folder``.

        Links within the folder's tree to other places stay as the user laid them; names are what a list's author chose.
        """
        inside = not name.startswith("/") and ".." not in Path(name).parts and "\0" not in name
        if not inside and not self.anywhere:
            shown = repr(name if len(name) <= 60 else name[:57] + "...")
            raise InputError(
                f"{self.label}: the list names {shown}, which is not below {self.folder}; expected files "
                "below it: move the images there, or allow others with anywhere=True"
            )
        return self.folder / name

    def shapes(self) -> np.ndarray:
        """(n, 2): height and width after resizing, from the headers."""
        shapes = [self.resize.shape(*read_header(self.path(name))[1]) for name in self.names]
        return np.array(shapes, dtype="<i8").reshape(len(self), 2)

    def fingerprint(self) -> str:
        """Changes whenever the list, one of its files or the resizing does."""
        import PIL

        digest = sha256(f"{CACHE_VERSION} Pillow {PIL.__version__} {self.resize} {self.folder.resolve()}".encode())
        for name in self.names:
            try:
                status = os.stat(self.path(name))
            except OSError as error:
                raise _unreadable(self.folder / name, error) from error
            digest.update(f"\n{name}\0{status.st_size}\0{status.st_mtime_ns}".encode())
        return digest.hexdigest()

    def decoded(self) -> Iterator[np.ndarray]:
        """All of them in order, with a progress bar if that takes more than two seconds."""
        from tqdm import tqdm

        for index in tqdm(range(len(self)), desc=f"decoding {self.label}", unit="image", delay=2, disable=None):
            yield self[index]


class Decoded(Protocol):
    """Decoded images by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Ragged:
    """Images of several sizes in one row of bytes: image i is ``row[starts[i] : starts[i + 1]]`` as ``shapes[i]``."""

    row: np.ndarray
    shapes: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        height, width = self.shapes[index]
        return self.row[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3)


@dataclass(frozen=True)
class FromFiles:
    """Images decoded anew for every batch: slow, and nothing is kept."""

    files: Files
    labels: np.ndarray

    def __post_init__(self) -> None:
        self.labels.setflags(write=False)

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        size = self.files.resize.size
        images = np.empty((len(indices), size, size, 3), dtype=np.uint8)
        for image, index in zip(images, indices, strict=True):
            image[...] = self.files[index]
        return images


def image_set(files: Files, labels: np.ndarray, cache: Path | None) -> ImageSet:
    """Square images with their labels; ``cache`` is the folder of the decoded ones, None to keep none."""
    if cache is None:
        return FromFiles(files, labels)
    return Pixels(cached(files, cache), labels)


def cached(files: Files, folder: Path) -> np.ndarray:
    """Bytes (n, size, size, 3), read-only, from ``folder``; decoded first if they are not there whole."""
    path = folder / f"{files.label}-{files.fingerprint()[:24]}.npy"
    shape = (len(files), files.resize.size, files.resize.size, 3)
    found = _open(path)
    if found is None or found.shape != shape:
        _write(path, shape, files.decoded())
        found = _reopen(path)
    return found


def cached_ragged(files: Files, folder: Path) -> Ragged:
    """As ``cached`` for images of several sizes: the file begins with their shapes, two 8-byte integers each."""
    path = folder / f"{files.label}-{files.fingerprint()[:24]}.npy"
    found = _open(path)
    ragged = None if found is None else _ragged(found, len(files))
    if ragged is None:
        shapes = files.shapes()
        head = np.frombuffer(shapes.tobytes(), dtype=np.uint8)
        _write(path, (len(head) + int(3 * shapes.prod(axis=1).sum()),), _joined(head, files.decoded()))
        ragged = _ragged(_reopen(path), len(files))
        assert ragged is not None  # what was just written
    return ragged


def _joined(head: np.ndarray, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    yield head
    yield from images


def _ragged(row: np.ndarray, number: int) -> Ragged | None:
    """None if the row does not hold so many images."""
    if row.ndim != 1 or len(row) < 16 * number:
        return None
    shapes = np.frombuffer(row[: 16 * number].tobytes(), dtype="<i8").reshape(number, 2)
    starts = np.concatenate([[0], np.cumsum(3 * shapes.prod(axis=1))]) + 16 * number
    return Ragged(row, shapes, starts) if starts[-1] == len(row) and (shapes > 0).all() else None


def _open(path: Path) -> np.ndarray | None:
    """The bytes of a cache file, read-only; None if there is none or it is another kind of file, or cut off."""
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return np.asarray(found) if found.dtype == np.uint8 and found.flags.c_contiguous else None


def _reopen(path: Path) -> np.ndarray:
    found = _open(path)
    if found is None:
        raise InputError(f"{path}: cannot be read back; choose another cache folder")
    return found


def _write(path: Path, shape: Sequence[int], pieces: Iterable[np.ndarray]) -> None:
    """One .npy file of bytes from pieces that follow each other, so that memory holds one of them."""
    needed = prod(shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if needed > free:
            raise InputError(
                f"{path.parent}: the decoded images need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; choose "
                "another cache folder, smaller images, or no cache"
            )
        _write_whole(path, shape, pieces)
    except OSError as error:
        raise InputError(
            f"{path.parent}: cannot write decoded images ({error.strerror}); choose another cache folder"
        ) from error


def _write_whole(path: Path, shape: Sequence[int], pieces: Iterable[np.ndarray]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # never through a link that somebody else laid there
            header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for piece in pieces:
                file.write(piece.tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
