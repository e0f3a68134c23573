"""A run is a folder: results.parquet, timings.parquet, meta.json, figures; and the finished blocks (``shards``).

Every file appears whole or not at all (``files``), and one run works in a folder at a time (``lock``). A run that was
killed is resumed from its finished blocks and ends with the same results.parquet as one that was not.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from moe_prompts.engine.files import appearing, write_atomically
from moe_prompts.engine.grid import Study
from moe_prompts.engine.lock import locked
from moe_prompts.engine.shards import SEGMENT, Shards, in_order
from moe_prompts.errors import InputError

PACKAGES = ("moe-prompts", "numpy", "scipy", "pandas", "pyarrow")
#: How finished blocks lie in a folder; a run is resumed in its own layout only.
LAYOUT = "sealed shards and segments"


def versions() -> dict[str, str]:
    """Of what rows depend on."""
    return {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}


class RunFolder:
    """The folder of one run of one study."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.meta = self.path / "meta.json"
        self.errors = self.path / "errors"
        self.shards = Shards(self.path)

    @contextmanager
    def opened(self, study: Study, resume: bool) -> Iterator[set[str]]:
        """Hold the folder for this study, new or to ``resume``; gives the names of the blocks finished there.

        Raises ``InputError`` with what to do where another run works in it or it holds another study.
        """
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
            commands = self._commands_of_this_study(identity) if resume else []
            with self._writing():
                self.shards.prepare()
                finished = self.shards.finished()
                self._refuse_to_shrink(study, finished)
                command = [Path(sys.argv[0]).name, *sys.argv[1:]]  # where the script stands is the machine's business
                content = describe(study, identity) | {"commands": [*commands, command]}
                write_atomically(self.meta, json.dumps(content, indent=2).encode())
                for file in self.errors.glob("*.txt"):
                    file.unlink()
            yield finished

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write to {self.path} ({error.strerror}); choose a folder you may write to with --out"
            ) from error

    def _commands_of_this_study(self, identity: dict[str, Any]) -> list[list[str]]:
        """The commands that wrote the folder so far; raises if it holds another study."""
        meta = self.read_meta()
        found = meta["identity"]
        if found != identity:
            differing = sorted(key for key in found.keys() | identity.keys() if found.get(key) != identity.get(key))
            shown = "; ".join(
                f"{key}: {_short(found.get(key))} there, {_short(identity.get(key))} here" for key in differing
            )
            raise InputError(
                f"{self.path} holds another study ({shown}); give the same options or choose another --out"
            )
        return meta["commands"]

    def read_meta(self) -> dict[str, Any]:
        """meta.json of a run in this layout."""
        try:
            meta = json.loads(self.meta.read_text(encoding="utf-8"))
            found = meta["identity"], meta["commands"]
        except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{self.meta} was not written by a study of this package; choose another --out") from error
        if meta.get("layout") != LAYOUT or not isinstance(found[0], dict):
            raise InputError(f"{self.path} was begun by an earlier version of this package; choose another --out")
        return meta

    def _refuse_to_shrink(self, study: Study, finished: set[str]) -> None:
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
        """What all rows of a folder share; versions are part of it, so that no table mixes two of them."""
        return {"study": study.name, "entropy": study.entropy, "versions": versions(), **study.identity}

    def write_error(self, name: str, text: str) -> None:
        self.errors.mkdir(exist_ok=True)
        write_atomically(self.errors / f"{name}.txt", text.encode())

    def merge(self, study: Study) -> pd.DataFrame:
        """Write results.parquet and timings.parquet from the study's blocks, in its order; returns the results."""
        schema, tables, blocks = in_order(self.shards.pieces(), [block.name for block in study.blocks])
        with appearing(self.path / "results.parquet") as file, pq.ParquetWriter(file, schema, compression="zstd") as to:
            for table in tables:
                to.write_table(table, row_group_size=len(table))
        with appearing(self.path / "timings.parquet") as file:
            pq.write_table(pa.Table.from_pylist(blocks), file, compression="zstd")
        del tables, blocks
        pa.default_memory_pool().release_unused()
        # One column after the other, as its own copy, which may be written to: a long table is never held twice.
        written = pq.ParquetFile(self.path / "results.parquet", pre_buffer=False)
        columns = {name: written.read([name]).column(0).to_pandas().copy() for name in schema.names}
        return pd.DataFrame(columns, copy=False)


def gather(out: Path, parts: Sequence[Path]) -> int:
    """Put finished blocks of several folders of one study into the new folder ``out``; returns how many there are.

    The parts stay as they are. ``run_study`` on ``out`` with ``resume=True`` completes the whole and writes its table.
    """
    target = RunFolder(out)
    if target.meta.exists():
        raise InputError(f"{out} already holds a run; choose another --out")
    metas = [RunFolder(part).read_meta() for part in parts]
    for part, meta in zip(parts, metas, strict=True):
        if meta["identity"] != metas[0]["identity"]:
            raise InputError(f"{part} and {parts[0]} are no parts of one study; expected runs of the same command")
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for folder in (out, *parts):
            stack.enter_context(locked(folder))
        target.shards.prepare()
        damaged = []
        for part in parts:
            source = Shards(part)
            pieces = source.pieces()
            while some := list(islice(pieces, SEGMENT)):
                target.shards.write_segments(some)
            damaged += source.set_aside
        # Last, so that a folder that was not filled is no run.
        commands = [command for meta in metas for command in meta["commands"]]
        write_atomically(target.meta, json.dumps(metas[0] | {"commands": commands}, indent=2).encode())
    for path in damaged:
        print(f"{path}: damaged and set aside; its blocks are missing", file=sys.stderr)
    return len(target.shards.finished())


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def describe(study: Study, identity: dict[str, Any]) -> dict[str, Any]:
    """What meta.json says of a run."""
    return {
        "identity": identity,
        "layout": LAYOUT,
        "replicates": study.replicates,
        "cells": [cell.label for cell in study.cells],
        **study.describe,
        **surroundings(),
    }


def surroundings() -> dict[str, Any]:
    """Where a run is made: commit, host and platform."""
    return {"git_commit": _git_commit(), "host": platform.node(), "platform": platform.platform()}


def _git_commit() -> str | None:
    """Of the checkout that the package runs from; None where it is installed without one."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
