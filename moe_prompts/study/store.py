"""A run is a folder: results.parquet, timings.parquet, meta.json, figures; and one shard per finished block.

Every file appears whole or not at all: temporary file, fsync, rename. A run that was killed is resumed from its shards
and ends with the same results.parquet as one that was not.
"""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moe_prompts.errors import InputError
from moe_prompts.study.grid import Row, Study

PACKAGES = ("moe-prompts", "numpy", "scipy", "pandas", "pyarrow")


def write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(path: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


class RunFolder:
    """The folder of one run of one study."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.shards = self.path / "blocks"
        self.timings = self.path / "block_timings"

    def open(self, study: Study, resume: bool) -> None:
        """Create the folder, or check that it holds this study; raise ``InputError`` with what to do otherwise."""
        meta = self.path / "meta.json"
        identity = json.loads(json.dumps(self.identity(study)))
        commands: list[list[str]] = []
        try:
            if meta.exists():
                if not resume:
                    raise InputError(
                        f"{self.path} already holds a run; add --resume to complete it or choose another --out"
                    )
                commands = self._commands_of_this_study(study, identity)
            elif resume:
                raise InputError(f"{self.path} holds no run to resume; check --out or leave out --resume")
            self.shards.mkdir(parents=True, exist_ok=True)
            self.timings.mkdir(exist_ok=True)
            command = [Path(sys.argv[0]).name, *sys.argv[1:]]  # where the script stands is the machine's business
            content = describe(study, identity) | {"commands": [*commands, command]}
            write_atomically(meta, json.dumps(content, indent=2).encode())
        except OSError as error:
            raise InputError(
                f"cannot write to {self.path} ({error.strerror}); choose a folder you may write to with --out"
            ) from error

    def _commands_of_this_study(self, study: Study, identity: dict[str, Any]) -> list[list[str]]:
        """The commands that wrote the folder so far; raises if it holds another study or cells that this grid drops."""
        try:
            meta = json.loads((self.path / "meta.json").read_text(encoding="utf-8"))
            found, commands = meta["identity"], meta["commands"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path}/meta.json was not written by a study of this package; choose another --out"
            ) from error
        if found != identity:
            differing = sorted(key for key in found.keys() | identity.keys() if found.get(key) != identity.get(key))
            shown = "; ".join(
                f"{key}: {_short(found.get(key))} there, {_short(identity.get(key))} here" for key in differing
            )
            raise InputError(
                f"{self.path} holds another study ({shown}); give the same options or choose another --out"
            )
        counts = {cell.label: getattr(cell, "replicates", study.replicates) for cell in study.cells}
        for name in sorted(path.stem for path in self.shards.glob("*.parquet")):
            label, _, span = name.rpartition("_r")
            if label not in counts or int(span.split("-")[1]) >= counts[label]:
                raise InputError(
                    f"{self.path} has finished fits that this grid leaves out ({name}); a run may grow, not shrink: "
                    f"give at least its sizes, kinds, k and replicates, or choose another --out"
                )
        return commands

    @staticmethod
    def identity(study: Study) -> dict[str, Any]:
        """What all rows of a folder share; versions are part of it, so that no table mixes two of them."""
        versions = {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
        return {"study": study.name, "entropy": study.entropy, "versions": versions, **study.identity}

    def write_block(self, name: str, rows: list[Row], timing: Row) -> None:
        """The timing first: a block counts as finished once its rows are there."""
        write_table(self.timings / f"{name}.parquet", pa.Table.from_pylist([timing]))
        write_table(self.shards / f"{name}.parquet", pa.Table.from_pylist(rows))

    def finished(self, study: Study) -> set[str]:
        """Names of the study's blocks that are on disk whole."""
        names = {path.stem for path in self.shards.glob("*.parquet") if _readable(path)}
        return names & {block.name for block in study.blocks}

    def merge(self, study: Study) -> pa.Table:
        """Write results.parquet and timings.parquet from the finished blocks, in the study's order."""
        finished = self.finished(study)
        names = [block.name for block in study.blocks if block.name in finished]
        if not names:
            raise InputError(f"{self.path} has no finished block of this study")
        for source, target in ((self.timings, "timings.parquet"), (self.shards, "results.parquet")):
            tables = [pq.read_table(source / f"{name}.parquet") for name in names]
            merged = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
            write_table(self.path / target, merged)
        return merged


def _readable(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return True


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def describe(study: Study, identity: dict[str, Any]) -> dict[str, Any]:
    """What meta.json says of a run."""
    return {
        "identity": identity,
        "replicates": study.replicates,
        "cells": [cell.label for cell in study.cells],
        **study.describe,
        "git_commit": _git_commit(),
        "host": platform.node(),
        "platform": platform.platform(),
    }


def _git_commit() -> str | None:
    """Of the checkout that the package runs from; None where it is installed without one."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
