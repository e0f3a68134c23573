"""Finished blocks on disk: one small file per block, put together by the thousand, each with a checksum at its end.

A file is an Arrow stream of rows whose schema says which blocks they are of, and the 16 bytes of its BLAKE2b. Blocks of
one file have equal columns. A file whose checksum is wrong is set aside, and its blocks count as not yet run.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from moe_prompts.engine.files import TEMPORARY, sync_folder, write_atomically
from moe_prompts.engine.grid import Row
from moe_prompts.errors import InputError

DIGEST = 16
ENDING, DAMAGED = ".arrow", ".damaged"
#: Blocks in a segment; and the rows from which on merged tables come in several row groups.
SEGMENT, ROW_GROUP = 1024, 2**16
_BLOCKS = b"blocks"


@dataclass(frozen=True)
class Piece:
    """The rows of some blocks, in the order of ``blocks``: name, rows, seconds and host of each."""

    table: pa.Table
    blocks: list[Row]


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table with every column that one of them has, in order of appearance."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.Table.from_pydict({name: [row.get(name) for row in rows] for name in names})


def sealed(piece: Piece, compression: str | None = None) -> bytes:
    table = piece.table.replace_schema_metadata({_BLOCKS: json.dumps(piece.blocks)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    content = sink.getvalue().to_pybytes()
    return content + blake2b(content, digest_size=DIGEST).digest()


def stream(content: bytes) -> pa.RecordBatchStreamReader | None:
    """A reader of a file's rows; None where the file is damaged."""
    body, digest = memoryview(content)[:-DIGEST], content[-DIGEST:]
    return pa.ipc.open_stream(pa.py_buffer(body)) if blake2b(body, digest_size=DIGEST).digest() == digest else None


def blocks_of(found: pa.RecordBatchStreamReader) -> list[Row]:
    return json.loads(found.schema.metadata[_BLOCKS])


def piece_of(found: pa.RecordBatchStreamReader) -> Piece:
    return Piece(found.read_all().replace_schema_metadata(None), blocks_of(found))


class Shards:
    """``blocks/`` with one file per block and ``segments/`` with many blocks in each, under a run's folder."""

    def __init__(self, path: Path) -> None:
        self.loose, self.segments = path / "blocks", path / "segments"
        self.set_aside: list[Path] = []

    def prepare(self) -> None:
        """Make the folders, and clear what a killed process left half written."""
        for folder in (self.loose, self.segments):
            folder.mkdir(parents=True, exist_ok=True)
            for file in folder.glob(f".*{TEMPORARY}"):
                file.unlink(missing_ok=True)

    def write(self, name: str, rows: Sequence[Row], seconds: float, host: str) -> None:
        about = {"block": name, "rows": len(rows), "seconds": seconds, "host": host}
        write_atomically(self._file(name), sealed(Piece(table_of(rows), [about])))

    def _file(self, name: str) -> Path:
        return self.loose / f"{name}{ENDING}"

    def whole(self) -> Iterator[pa.RecordBatchStreamReader]:
        """Of all files, segments first. A block may come twice, with equal rows, after a kill in ``compact``.

        Damaged files are renamed and listed in ``set_aside``.
        """
        for folder in (self.segments, self.loose):
            for path in sorted(folder.glob(f"*{ENDING}")):
                found = stream(path.read_bytes())
                if found is None:
                    self.set_aside.append(path.replace(path.with_name(path.name + DAMAGED)))
                else:
                    yield found

    def pieces(self) -> Iterator[Piece]:
        return map(piece_of, self.whole())

    def finished(self) -> set[str]:
        return {block["block"] for found in self.whole() for block in blocks_of(found)}

    @property
    def alone(self) -> list[str]:
        """Names of blocks that have a file of their own."""
        return [path.name.removesuffix(ENDING) for path in self.loose.glob(f"*{ENDING}")]

    def compact(self, names: Iterable[str]) -> None:
        """Put shards into segments, one for each set of columns; a kill leaves shards, segments or both."""
        found = [(path, stream(path.read_bytes())) for path in map(self._file, names)]
        whole = [(path, reader) for path, reader in found if reader is not None]  # others are set aside in ``whole``
        self.write_segments([piece_of(reader) for _, reader in whole])
        for path, _ in whole:
            path.unlink()

    def write_segments(self, pieces: Sequence[Piece]) -> None:
        groups: dict[bytes, list[Piece]] = defaultdict(list)
        for piece in pieces:
            groups[_schema_key(piece.table)].append(piece)
        for group in groups.values():
            table = pa.concat_tables([piece.table for piece in group]).combine_chunks()
            content = sealed(Piece(table, [block for piece in group for block in piece.blocks]), "zstd")
            # Named after what it holds: no two segments share a name.
            write_atomically(self.segments / f"{blake2b(content, digest_size=8).hexdigest()}{ENDING}", content)
        sync_folder(self.segments)


def _schema_key(table: pa.Table) -> bytes:
    return table.schema.serialize().to_pybytes()


def in_order(pieces: Iterable[Piece], names: Sequence[str]) -> tuple[pa.Schema, Iterator[pa.Table], list[Row]]:
    """The rows of the blocks ``names`` in this order, whatever the pieces: common schema, row groups, and blocks.

    Columns come in order of appearance, and types are the narrowest that hold all: a table depends on its rows alone.
    """
    groups: dict[bytes, list[pa.Table]] = defaultdict(list)
    lengths: dict[bytes, int] = defaultdict(int)
    places: dict[str, tuple[bytes, int, Row]] = {}
    for piece in pieces:
        key = _schema_key(piece.table)
        start = lengths[key]
        for block in piece.blocks:
            places.setdefault(block["block"], (key, start, block))
            start += block["rows"]
        groups[key].append(piece.table)
        lengths[key] = start
    pa.default_memory_pool().release_unused()  # what unpacking took
    missing = [name for name in names if name not in places]
    if missing:
        raise InputError(f"{len(missing)} of {len(names)} blocks are not there ({missing[0]}, ...); complete the run")
    order = [places[name] for name in names]
    tables = {key: pa.concat_tables(parts) for key, parts in groups.items()}
    seen = list(dict.fromkeys(key for key, _, _ in order))
    schema = pa.unify_schemas([tables[key].schema for key in seen], promote_options="permissive")
    return schema, _row_groups(order, tables, schema), [block for _, _, block in order]


def _row_groups(
    order: Sequence[tuple[bytes, int, Row]], tables: dict[bytes, pa.Table], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Cut between blocks, at the same places for the same blocks."""
    waiting: list[tuple[bytes, int, Row]] = []
    rows = 0
    for place in order:
        waiting.append(place)
        rows += place[2]["rows"]
        if rows >= ROW_GROUP:
            yield _taken(waiting, tables, schema)
            waiting, rows = [], 0
    if waiting:
        yield _taken(waiting, tables, schema)


def _taken(order: Sequence[tuple[bytes, int, Row]], tables: dict[bytes, pa.Table], schema: pa.Schema) -> pa.Table:
    """Rows of consecutive blocks, as ``schema``."""
    runs: list[tuple[bytes, list[np.ndarray]]] = []
    for key, start, block in order:
        if not runs or runs[-1][0] != key:
            runs.append((key, []))
        runs[-1][1].append(np.arange(start, start + block["rows"]))
    parts = [tables[key].take(np.concatenate(indices)) for key, indices in runs]
    return pa.concat_tables([schema.empty_table(), *parts], promote_options="permissive").combine_chunks()
