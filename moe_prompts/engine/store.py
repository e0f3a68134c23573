"""Keep a run in a folder: results.parquet, timings.parquet, meta.json, figures, and its finished blocks.

Every file appears whole or not at all (``files``), and one run at a time works in a folder (``lock``). A run
that was killed is resumed from its finished blocks (``shards``), and ends with the same results.parquet as
one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_info

from moe_prompts.checks import listed, shown
from moe_prompts.compilation import route
from moe_prompts.engine.code import code_of
from moe_prompts.engine.files import TEMPORARY, appearing, entries, reason, remedy, write_atomically
from moe_prompts.engine.grid import MOST_FITS, Study
from moe_prompts.engine.lock import locked
from moe_prompts.engine.shards import SEGMENT, Piece, Shards, in_order, piece_of, seal_of
from moe_prompts.errors import InputError

PACKAGES = ("moe-prompts", "numpy", "scipy", "pandas", "pyarrow")
#: How finished blocks lie in a folder; a run is resumed in its own layout only.
LAYOUT = "sealed shards and segments of a known study"
RESULTS, TIMINGS = "results.parquet", "timings.parquet"
#: What tells kinds of processors apart, which often share a name, and how Linux calls it.
CPU_NUMBERS = {"family": "cpu family", "model": "model", "stepping": "stepping"}
#: Bytes of a description; that of 500 000 cells is smaller.
MOST_JSON = 2**25
#: Where an identity has the hashes of weights that were loaded.
WEIGHTS = "loaded weights"
#: What a command may allow that is refused otherwise, with its option.
CODE_CHANGE, CLEAR, SIZE = "code change", "clear", "size"
ALLOWED = {CODE_CHANGE: "--accept-code-change", CLEAR: "--clear", SIZE: "--insist"}
#: Differences that an error tells of two studies; what stands for an entry that one of them lacks.
MOST_TOLD, ABSENT = 5, object()


@cache
def version_of(name: str) -> str:
    """Return the version of an installed package, read once: what a process has loaded does not change."""
    return metadata.version(name)


def versions() -> dict[str, str]:
    """Return the versions of what rows depend on: packages, route of the compiled passes, Python."""
    compiler = {"passes": route(), "numba": version_of("numba") if route() == "compiled" else "none"}
    return {name: version_of(name) for name in PACKAGES} | compiler | {"python": platform.python_version()}


class RunFolder:
    """Hold the folder ``path`` of one run of one study: what is in it, and who may write there."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.meta = self.path / "meta.json"
        self.errors = self.path / "errors"

    @property
    def shards(self) -> Shards:
        """Return the finished blocks; meta.json says which count."""
        return Shards(self.path, seals_of(self.read_meta()))

    @contextmanager
    def opened(self, study: Study, resume: bool, allow: Collection[str] = ()) -> Iterator[tuple[Shards, set[str]]]:
        """Hold the folder for this study, and give its blocks and the names of those that are finished.

        study   what is to be run
        resume  complete the run that is there; otherwise the folder must hold none
        allow   words of ``ALLOWED``: what is refused otherwise

        Raises ``InputError``, which says what to do, where another run works in the folder, where it holds
        another study, and where it cannot be written to.
        """
        if unknown := [word for word in listed(allow, "allow") if word not in [*ALLOWED]]:
            raise InputError(f"allow = {shown(unknown)}; expected some of {', '.join(map(repr, ALLOWED))}")
        study.check_labels()
        if study.fits > MOST_FITS and SIZE not in allow:
            raise InputError(
                f"the study has {study.fits:.3g} fits, more than {MOST_FITS:.0e}; check its replicates and sizes, or "
                f"say that you mean it: {ALLOWED[SIZE]}"
            )
        if resume and not self.meta.exists():
            raise InputError(f"{self.path} holds no run to resume; check --out or leave out --resume")
        with ExitStack() as stack:
            with self._writing():
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self.path))
            if self.meta.exists() and not resume:
                raise InputError(
                    f"{self.path} already holds a run; add --resume to complete it or choose another --out"
                )
            identity = json.loads(json.dumps(self.identity(study)))
            before = self._of_this_study(identity, CODE_CHANGE in allow) if resume else {"commands": []}
            commands = [*before["commands"], _command(identity, study)]
            shards = Shards(self.path, seals_of({"commands": commands}))
            with self._writing():
                if not resume:
                    self._refuse_leftovers(shards, CLEAR in allow)
                shards.prepare()
                self._clear_temporary()
                finished = shards.finished()
                self._refuse_to_shrink(study, finished)
                content = describe(study, identity) | {"commands": commands}
                if "sha256" in before:  # of the table that is there until this run writes its own
                    content["sha256"] = before["sha256"]
                write_atomically(self.meta, json.dumps(content, indent=2).encode())
                for file in entries(self.errors, ".txt"):
                    file.unlink()
            yield shards, finished

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say in one line why the folder cannot be written to."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write to {self.path} ({reason(error)}); choose a folder you may write to with --out"
            ) from error

    @contextmanager
    def explaining_errors(self, again: str = "--resume") -> Iterator[None]:
        """Say in one line what the system refused while a command worked in this folder.

        ``again`` is the option with which the command is repeated. Raises ``InputError`` for every error of
        the system that has no better line by then.
        """
        try:
            yield
        except OSError as error:
            where = self.path if error.filename is None else os.fsdecode(error.filename)
            raise InputError(
                f"{where}: {reason(error)}, while the command worked in {self.path}; finished blocks are kept: "
                f"{remedy(error)}, and repeat the command with {again}"
            ) from error

    def _clear_temporary(self) -> None:
        """Remove what a killed command left half written beside the blocks."""
        for folder in (self.path, self.errors):
            for file in entries(folder, TEMPORARY):
                file.unlink(missing_ok=True)

    def _refuse_leftovers(self, shards: Shards, clear: bool) -> None:
        """Refuse blocks without meta.json, since nobody knows which study they are of."""
        if not shards.files():
            return
        if not clear:
            raise InputError(
                f"{self.path} holds finished blocks but no meta.json that says of which study: it was lost, or a "
                f"command was killed; choose another --out, or remove the blocks with {ALLOWED[CLEAR]}"
            )
        shards.clear()

    def _of_this_study(self, identity: dict[str, Any], code_may_change: bool) -> dict[str, Any]:
        """Return meta.json as the commands so far left it; raise ``InputError`` if it holds another study."""
        meta = self.read_meta()
        found = {WEIGHTS: identity.get(WEIGHTS)} | meta["identity"]  # earlier versions did not write them
        differing = sorted(key for key in found.keys() | identity.keys() if found.get(key) != identity.get(key))
        if differing == ["code"]:
            if not code_may_change:
                raise InputError(
                    f"{self.path} was made by other code (code: {found.get('code')} there, {identity['code']} here): "
                    "the sources of this package, or the study's own function, have changed since; go back to them, "
                    f"choose another --out, or let rows of both stand in one table with {ALLOWED[CODE_CHANGE]}"
                )
        elif differing:
            told = [_told(*parts) for key in differing for parts in _unequal(key, found, identity)]
            more = [f"and {len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
            raise InputError(
                f"{self.path} holds another study ({'; '.join([*told[:MOST_TOLD], *more])}); give the same options or "
                "choose another --out"
            )
        return meta

    def read_meta(self) -> dict[str, Any]:
        """Return the content of meta.json.

        Raises ``InputError`` where it is damaged or of an earlier layout.
        """
        meta = read_json(self.meta)
        with described_in(self.meta):
            if meta.get("layout") == LAYOUT:
                _check_meta(meta)
                return meta
        raise InputError(f"{self.path} was begun by an earlier version of this package; choose another --out")

    def _refuse_to_shrink(self, study: Study, finished: set[str]) -> None:
        """Raise ``InputError`` where finished blocks are not in the grid of the study."""
        counts = {cell.label: getattr(cell, "replicates", study.replicates) for cell in study.cells}
        for name in sorted(finished):
            label, _, span = name.rpartition("_r")
            if label not in counts or int(span.split("-")[1]) >= counts[label]:
                raise InputError(
                    f"{self.path} has finished fits that this grid leaves out ({name}); a run may grow, not shrink: "
                    f"give at least its sizes, kinds, k and replicates, or choose another --out"
                )

    @staticmethod
    def identity(study: Study) -> dict[str, Any]:
        """Return what all rows of a folder share.

        Versions and code are part of it, so that no table mixes two of them unnoticed.
        """
        shared = {"study": study.name, "entropy": study.entropy, "versions": versions(), "code": code_of(study.run)}
        return shared | study.identity | ({WEIGHTS: study.weights} if study.weights else {})

    def write_error(self, name: str, text: str) -> None:
        """Keep the traceback of a block."""
        self.errors.mkdir(exist_ok=True)
        write_atomically(self.errors / f"{name}.txt", text.encode(errors="backslashreplace"))

    def merge(self, study: Study, shards: Shards) -> pd.DataFrame:
        """Write results.parquet and timings.parquet from the study's blocks, in order; return the results."""
        schema, tables, blocks = in_order(shards.pieces(), [block.name for block in study.blocks])
        options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
        with appearing(self.path / RESULTS) as file, pq.ParquetWriter(file, schema, **options) as to:
            for table in tables:
                to.write_table(table, row_group_size=len(table))
        with appearing(self.path / TIMINGS) as file:
            pq.write_table(pa.Table.from_pylist(blocks), file, **options)
        del tables, blocks
        pa.default_memory_pool().release_unused()
        keep_sums(self.path, RESULTS, TIMINGS)
        # One column after the other, as its own copy, which may be written to: a long table is never held
        # twice. On this thread: one of Arrow's that still holds Python's file when Python ends would abort
        # the finished command.
        with open(self.path / RESULTS, "rb") as file:  # Arrow takes a name for an address, and not every name
            written = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            columns = {
                name: written.read([name], use_threads=False).column(0).to_pandas().copy() for name in schema.names
            }
        return pd.DataFrame(columns, copy=False)

    @staticmethod
    def read(shards: Shards, names: Sequence[str]) -> pd.DataFrame:
        """Return the rows of the blocks ``names``, in this order, without writing anything.

        The blocks must have ended.
        """
        schema, tables, _ = in_order(shards.pieces(), names)
        return pa.Table.from_batches([batch for table in tables for batch in table.to_batches()], schema).to_pandas(
            use_threads=False
        )


def seals_of(meta: dict[str, Any]) -> list[str]:
    """Return the seals of the studies whose blocks count: those of the commands that wrote the folder."""
    return list(dict.fromkeys(command["seal"] for command in reversed(meta["commands"])))[::-1]


def _command(identity: dict[str, Any], study: Study) -> dict[str, Any]:
    """Return the entry of this command in meta.json; where the script stands is the machine's business."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "began": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "seal": seal_of(identity),
        "code": identity["code"],
        "replicates": study.replicates,
        **({WEIGHTS: study.weights} if study.weights else {}),
        **surroundings(),
    }


def other_weights(one: Mapping[str, Any], another: Mapping[str, Any]) -> list[str]:
    """Return the names of weights that have one hash in an identity and another hash in another one.

    An identity of an earlier version has no hashes.
    """
    there, here = one.get(WEIGHTS, {}), another.get(WEIGHTS, {})
    return [name for name in there.keys() & here.keys() if there[name] != here[name]]


def _check_meta(meta: dict[str, Any]) -> None:
    """Raise ``TypeError`` or ``KeyError`` unless every entry that runs and gathers use is of its kind."""
    commands = meta["commands"]
    texts = [meta["layout"], *meta["cells"]]
    for command in commands:
        texts += [command["seal"], command["code"]]
    sums = meta.get("sha256", {})
    texts += [*sums.keys(), *sums.values()]
    kinds = [(meta["identity"], dict), (commands, list), (meta["cells"], list), (meta["replicates"], int), (sums, dict)]
    if not commands or not all(isinstance(value, kind) for value, kind in [*kinds, *((text, str) for text in texts)]):
        raise TypeError("an entry of another kind")


@contextmanager
def described_in(path: Path) -> Iterator[None]:
    """Say in one line that ``path`` lacks an entry that the block of code reads, or has one of another kind.

    Only what reads plain values belongs into that block. Raises ``InputError``.
    """
    try:
        yield
    except InputError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise _not_ours(path) from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file that this package wrote.

    Raises ``InputError`` where it cannot be read, where it is no regular file, and where it is larger than
    any that was written here.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_JSON:
            raise _not_ours(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError) as error:
        raise _not_ours(path) from error
    except OSError as error:
        raise InputError(f"cannot read {path} ({reason(error)}): {remedy(error)}") from error


def _not_ours(path: Path) -> InputError:
    """Return the error for a file that no study of this package wrote."""
    return InputError(
        f"{path} was not written by a study of this package, or is damaged; expected the folder of a run: check the "
        "folder, or choose another --out"
    )


def sha256_of(path: Path) -> str:
    """Return the sha256 of a regular file, in hexadecimal digits; ``InputError`` if it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path} is no regular file; expected one that a run wrote")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path} ({reason(error)}): {remedy(error)}") from error


def keep_sums(run: Path, *names: str) -> None:
    """Write the sha256 of some tables of a run into its meta.json, where ``read_table`` looks for them."""
    meta = read_json(run / "meta.json")
    meta["sha256"] = meta.get("sha256", {}) | {name: sha256_of(run / name) for name in names}
    write_atomically(run / "meta.json", json.dumps(meta, indent=2).encode())


def identity_of(run: Path, *names: str, **kinds: type) -> dict[str, Any]:
    """Return the identity in meta.json of a run, such as its study and seed.

    names  entries that it must have
    kinds  entries that it must have, with the type of each, such as ``entropy=int``

    Raises ``InputError`` where there is no meta.json, where it is damaged, where it lacks an entry, and where
    one is of another type.
    """
    meta = read_json(run / "meta.json")
    with described_in(run / "meta.json"):
        identity = meta["identity"]
        lacking = [name for name in (*names, *kinds) if name not in identity]
        if not isinstance(identity, dict) or lacking or not all(_is(identity[name], kinds[name]) for name in kinds):
            raise TypeError("an entry is missing or of another kind")
    return identity


def _is(value: Any, kind: type) -> bool:
    """Return whether a value is of a type; truth values are no numbers here."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def read_table(run: Path, name: str = RESULTS) -> pd.DataFrame:
    """Return a table of a run as the run wrote it; its sha256 and the checksums of its pages are verified.

    run   folder of the run
    name  of the table in it

    Raises ``InputError`` where there is no such table, where meta.json knows another sha256, and where it
    cannot be read.
    """
    path = run / name
    if not path.exists():
        raise InputError(f"{run} has no {name}; expected the folder of a finished run")
    meta = read_json(run / "meta.json")
    known = meta.get("sha256") if isinstance(meta, dict) else None
    if not isinstance(known, dict) or name not in known:
        raise InputError(f"{run / 'meta.json'} has no sha256 of {name}; {_again(meta)}")
    if sha256_of(path) != known[name]:
        raise InputError(
            f"{path} is not the file that the run wrote: its sha256 differs from that in meta.json; it is damaged or "
            f"was changed: {_again(meta)}, or fetch the file anew"
        )
    try:
        with open(path, "rb") as file:
            found = pq.ParquetFile(file, pre_buffer=False, page_checksum_verification=True)
            return found.read(use_threads=False).to_pandas(use_threads=False)  # as in ``merge``
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read ({why}); {_again(meta)}") from error


def _again(meta: Any) -> str:
    """Return how the table of a run is written anew; runs of an earlier layout are not resumed."""
    if isinstance(meta, dict) and meta.get("layout") == LAYOUT:
        return "repeat the run's command with --resume"
    return "the run is of an earlier version of this package, or damaged: repeat its command with another --out"


def gather(out: Path, parts: Sequence[Path], allow: Collection[str] = ()) -> int:
    """Put finished blocks of several folders of one study into the new folder ``out``; return their number.

    The parts stay as they are. ``run_study`` on ``out`` with ``resume=True`` completes the whole and writes
    its table.

    out    a folder without a run
    parts  folders of runs with ``--shard``
    allow  "code change" (parts of different code), "clear" (remove blocks in ``out`` that no meta.json
           explains)

    Raises ``InputError`` where a part holds no run, is of another study or is in use, and where ``out`` holds
    a run.
    """
    target = RunFolder(out)
    with target.explaining_errors(ALLOWED[CLEAR]):
        return _gather(target, parts, allow)


def _gather(target: RunFolder, parts: Sequence[Path], allow: Collection[str]) -> int:
    out = target.path
    for part in parts:
        if not part.is_dir():
            raise InputError(f"{part} is no folder; expected the folders of parts that ran with --shard")
        if part.resolve() == out.resolve():
            raise InputError(f"{out} is one of the parts; expected a new folder for the whole")
    if target.meta.exists():
        raise InputError(f"{out} already holds a run; choose another --out")
    metas = [_part_meta(part) for part in parts]
    # Parts of earlier versions do not know what weights were loaded: all are compared with one that does.
    known = next((number for number, meta in enumerate(metas) if WEIGHTS in meta["identity"]), 0)
    for part, meta in zip(parts, metas, strict=True):
        _refuse_other(part, meta, parts[known], metas[known], CODE_CHANGE in allow)
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        for part in dict.fromkeys(part.resolve() for part in parts):
            stack.enter_context(locked(part, to_read=True))
        commands = [command for meta in metas for command in meta["commands"]]
        shards = Shards(out, seals_of({"commands": commands}))
        target._refuse_leftovers(shards, CLEAR in allow)
        shards.prepare()
        for part, meta in zip(parts, metas, strict=True):
            for path in _gathered(Shards(part, seals_of(meta)), shards):
                print(f"{path}: damaged or of another study; its blocks are missing", file=sys.stderr)
        # Last, so that a folder that was not filled is no run.
        content = {key: value for key, value in metas[known].items() if key != "sha256"} | {"commands": commands}
        write_atomically(target.meta, json.dumps(content, indent=2).encode())
        return len(shards.finished())


def _part_meta(part: Path) -> dict[str, Any]:
    """Return meta.json of a part that is to be gathered."""
    meta = RunFolder(part).meta
    if not meta.exists():
        raise InputError(
            f"{part} holds no run: it has no meta.json; expected the folder of a part that ran with --shard"
        )
    return RunFolder(part).read_meta()


def _refuse_other(part: Path, meta: dict[str, Any], first: Path, wanted: dict[str, Any], code_may_change: bool) -> None:
    """Raise ``InputError`` unless two parts are of one study, one grid and one code."""
    own, other = dict(meta["identity"]), dict(wanted["identity"])
    if WEIGHTS in other:
        own.setdefault(WEIGHTS, other[WEIGHTS])
    if own.pop("code", None) != other.pop("code", None) and not code_may_change and own == other:
        raise InputError(
            f"{part} and {first} were made by different code; make one of them anew, or let rows of both stand in one "
            f"table with {ALLOWED[CODE_CHANGE]}"
        )
    unequal = sorted(key for key in own.keys() | other.keys() if own.get(key) != other.get(key))
    differing = [name for key in unequal for name, _, _ in _unequal(key, own, other)]
    differing += [key for key in ("cells", "replicates") if meta.get(key) != wanted.get(key)]
    if differing:
        raise InputError(
            f"{part} and {first} are no parts of one study (they differ in {', '.join(differing)}); expected runs of "
            "the same command, each with its own --shard"
        )


def _gathered(source: Shards, target: Shards) -> list[Path]:
    """Copy finished blocks, one file at a time in memory, and return the files that do not count."""
    some: list[Piece] = []
    for path, content, found in source.sound(rename=False):
        if path.parent == source.segments:
            target.write_segment(content)
            continue
        some.append(piece_of(found))
        if len(some) == SEGMENT:
            target.write_segments(some)
            some = []
    target.write_segments(some)
    return source.set_aside


def _unequal(
    key: str, there: Mapping[str, Any], here: Mapping[str, Any], inside: str = ""
) -> list[tuple[str, Any, Any]]:
    """Return the parts in which two entries differ and which are no objects: name, value there and value here.

    inside  what the entry is part of, with a full stop behind it
    """
    old, new = there.get(key, ABSENT), here.get(key, ABSENT)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        unequal = [part for part in {**old, **new} if old.get(part, ABSENT) != new.get(part, ABSENT)]
        return [found for part in unequal for found in _unequal(part, old, new, f"{inside}{key}.")]
    return [(f"{inside}{key}", old, new)]


def _told(name: str, there: Any, here: Any) -> str:
    """Return the line that tells how a part of an entry differs."""
    one, other = _short(*("nothing" if value is ABSENT else json.dumps(value) for value in (there, here)))
    return f"{name}: {one} there, {other} here"


def _short(one: str, other: str) -> tuple[str, str]:
    """Return two texts of at most 60 characters, which show where they begin to differ."""
    begin = next((at for at, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), 0)
    cut = max(0, begin - 20) if max(len(one), len(other)) > 60 and begin > 40 else 0
    texts = [("..." if cut else "") + text[cut:] for text in (one, other)]
    first, second = (text if len(text) <= 60 else text[:57] + "..." for text in texts)
    return first, second


def describe(study: Study, identity: dict[str, Any]) -> dict[str, Any]:
    """Return what meta.json says of a run.

    That is: identity, layout, replicates, cells, the study's own entries, and the run's surroundings.
    """
    return {
        "identity": identity,
        "layout": LAYOUT,
        "replicates": study.replicates,
        "cells": [cell.label for cell in study.cells],
        **study.describe,
        **surroundings(),
    }


def surroundings() -> dict[str, Any]:
    """Return where a run is made: commit, host, platform, processor and BLAS.

    Rows are bit-identical on one kind of processor: BLAS and the compiled passes choose their instructions
    by it.
    """
    return {
        "git_commit": _git_commit(),
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": processor(),
        "blas": blas(),
    }


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name, family, model and stepping of the processor, or else what Python knows of it."""
    try:
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    numbers = [f"{name} {fields[key]}" for name, key in CPU_NUMBERS.items() if key in fields]
    return ", ".join([fields.get("model name") or platform.processor() or platform.machine(), *numbers])


def blas() -> list[str]:
    """Return the linear algebra libraries that are loaded, as "openblas 0.3.30 SkylakeX", each once."""
    found = [
        " ".join(filter(None, (one.get("internal_api"), one.get("version"), one.get("architecture"))))
        for one in threadpool_info()
        if one.get("user_api") == "blas"
    ]
    return list(dict.fromkeys(found))


@cache
def _git_commit() -> str | None:
    """Return the commit of the checkout that the package runs from; None where there is no checkout.

    It is asked once, as the sources are (``code.package_code``): a process runs what it has loaded.
    """
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
