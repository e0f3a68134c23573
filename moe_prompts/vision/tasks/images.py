"""Read image files as bytes: decode them, resize them, and keep the result in a cache that cannot be changed.

    file --Pillow--> RGB --bilinear--> bytes (H, W, 3)

The published protocols resize with TensorFlow, which does not antialias; Pillow does when it shrinks an
image. Both ways are offered, and results name the one used. EXIF orientation is ignored, transparency is
dropped.

A cache is one .npy file. Its name is a hash of the list, of every file's size and time of change, and of the
resizing, so a change of any of them makes a new file. It is written image by image, appears whole or not at
all, and is opened read-only.
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
    """Open a regular file as an image of a format in ``FORMATS``; raise ``InputError`` for anything else.

    Left to itself, Pillow would hand PostScript to another program, wait for ever on a named pipe, and only
    warn of an image that fills the memory.
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
    """Return the decoded image in RGB; raise ``InputError`` if Pillow cannot read it to its end."""
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
    """Make Pillow refuse images that are cut off, even where another package told it to accept them."""
    from PIL import ImageFile

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def read_header(path: Path) -> tuple[str, tuple[int, int]]:
    """Return the format that Pillow finds, whatever the file is called, and (height, width) in pixels.

    Raises ``InputError`` if the file is no image.
    """
    with opened(path) as image:
        return str(image.format), (image.height, image.width)


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path}: no such image; expected every listed image beside its list")
    why = str(error).replace(f" {str(path)!r}", "")
    return InputError(f"{path}: unreadable image ({why}); expected a whole image: copy or export it again")


@dataclass(frozen=True)
class Resize:
    """Resize RGB images to bytes.

    size         side in pixels
    keep_aspect  False: to ``size`` x ``size``, ignoring the aspect ratio; True: the shorter side becomes
                 ``size``
    resample     "bilinear" (Pillow, antialiased where it shrinks) or "bilinear-no-antialias" (torch, as
                 TensorFlow does it)

    Raises ``InputError`` for a size below 1 or an unknown ``resample``.
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
        """Return the (height, width) in pixels that an image of this height and width gets."""
        if not self.keep_aspect:
            return self.size, self.size
        short = min(height, width)
        return round(height * self.size / short), round(width * self.size / short)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Return the bytes (H, W, 3) of a resized RGB image."""
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


def leads_below(name: str) -> bool:
    """Say whether a name that a list gives is a path below the list's folder."""
    return not name.startswith("/") and ".." not in Path(name).parts and "\0" not in name


def shown(name: str) -> str:
    """Return a name as errors quote it, cut after 60 characters."""
    return repr(name if len(name) <= 60 else name[:57] + "...")


@dataclass(frozen=True)
class Files:
    """List images on disk, each of which is decoded when it is asked for.

    folder    where the images lie
    names     paths below ``folder``
    resize    what is done to each image
    label     what progress bars and errors call these images
    anywhere  True: names may lead out of ``folder``, for lists that the user wrote
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
        """Return the file of a name; raise ``InputError`` if the name leads out of ``folder``.

        The check is on the name, which the author of a list chose. Links that the user laid inside the folder
        are followed.
        """
        if not self.anywhere and not leads_below(name):
            raise InputError(
                f"{self.label}: the list names {shown(name)}, which is not below {self.folder}; expected files "
                "below it: move the images there, or allow others with anywhere=True (in commands --anywhere)"
            )
        return self.folder / name

    def has(self, name: str) -> bool:
        """Say whether the file of a name is there; raise ``InputError`` as ``path`` does."""
        return os.path.isfile(self.path(name))  # False also for a name that no file system takes

    def shapes(self) -> np.ndarray:
        """Return height and width of every image after resizing, (n, 2), from the headers of the files."""
        shapes = [self.resize.shape(*read_header(self.path(name))[1]) for name in self.names]
        return np.array(shapes, dtype="<i8").reshape(len(self), 2)

    def fingerprint(self) -> str:
        """Return a hash that changes whenever the list, one of its files or the resizing does."""
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
        """Yield all images in order, with a progress bar if that takes more than two seconds."""
        from tqdm import tqdm

        for index in tqdm(range(len(self)), desc=f"decoding {self.label}", unit="image", delay=2, disable=None):
            yield self[index]


class Decoded(Protocol):
    """Describe decoded images that are asked for by number: each is bytes (H, W, 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Ragged:
    """Hold images of several sizes in one row of bytes.

        image i = row[starts[i] : starts[i + 1]], as an array (*shapes[i], 3)

    row     (total,) bytes
    shapes  (n, 2) height and width
    starts  (n + 1,) positions in the row
    """

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
    """Decode images anew for every batch: this is slow, but nothing is kept."""

    files: Files
    labels: np.ndarray

    def __post_init__(self) -> None:
        self.labels.setflags(write=False)

    def batch(self, indices: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return bytes (len(indices), size, size, 3); nothing is drawn from ``rng``."""
        size = self.files.resize.size
        images = np.empty((len(indices), size, size, 3), dtype=np.uint8)
        for image, index in zip(images, indices, strict=True):
            image[...] = self.files[index]
        return images


def image_set(files: Files, labels: np.ndarray, cache: Path | None) -> ImageSet:
    """Return square images with their labels (n,).

    cache  folder of the decoded images; None decodes for every batch
    """
    if cache is None:
        return FromFiles(files, labels)
    return Pixels(cached(files, cache), labels)


def cached(files: Files, folder: Path) -> np.ndarray:
    """Return the images as bytes (n, size, size, 3), read-only, mapped from a file in ``folder``.

    They are decoded and written first if the file is not there or not whole. Raises ``InputError`` if an
    image cannot be read, or the cache cannot be written.
    """
    path = folder / f"{files.label}-{files.fingerprint()[:24]}.npy"
    shape = (len(files), files.resize.size, files.resize.size, 3)
    found = _open(path)
    if found is None or found.shape != shape:
        _write(path, shape, files.decoded())
        found = _reopen(path)
    return found


def cached_ragged(files: Files, folder: Path) -> Ragged:
    """Return images of several sizes from a file in ``folder``, which is written first where it is missing.

    The file begins with the images' shapes, two 8-byte integers each. Raises ``InputError`` as ``cached``
    does.
    """
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
    """Return the images of a row of bytes, or None if the row does not hold so many."""
    if row.ndim != 1 or len(row) < 16 * number:
        return None
    shapes = np.frombuffer(row[: 16 * number].tobytes(), dtype="<i8").reshape(number, 2)
    starts = np.concatenate([[0], np.cumsum(3 * shapes.prod(axis=1))]) + 16 * number
    return Ragged(row, shapes, starts) if starts[-1] == len(row) and (shapes > 0).all() else None


def _open(path: Path) -> np.ndarray | None:
    """Return the bytes of a cache file, read-only; None if it is missing, cut off or of another kind."""
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
    """Write a .npy file of bytes from pieces that follow each other; memory holds one piece at a time."""
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
