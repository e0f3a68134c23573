"""Keep finished blocks on disk: one small file per block, put together by the thousand, each with a checksum.

A file is an Arrow stream of rows, followed by the 16 bytes of its BLAKE2b hash. The stream's schema says
which blocks the rows are of, and of which study. Blocks of one file have equal columns. A file whose checksum
is wrong, or whose blocks are of another study, is set aside, and its blocks count as not yet run.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moe_prompts.engine.files import TEMPORARY, entries, sync_folder, write_atomically
from moe_prompts.engine.grid import Row
from moe_prompts.errors import InputError

DIGEST = 16
ENDING, DAMAGED, FOREIGN = ".arrow", ".damaged", ".foreign"
#: Blocks in a segment; and the rows from which on merged tables come in several row groups.
SEGMENT, ROW_GROUP = 1024, 2**16
_BLOCKS = b"blocks"
#: Types of values that Arrow would give these types of columns, too.
PLAIN = {float: pa.float64(), np.float64: pa.float64(), int: pa.int64(), str: pa.string(), bool: pa.bool_()}
#: Threads of Arrow's that still hold memory of Python's when Python ends would abort the command at its very
#: end.
READ, WRITE = pa.ipc.IpcReadOptions(use_threads=False), pa.ipc.IpcWriteOptions(use_threads=False)
PACK = pa.ipc.IpcWriteOptions(use_threads=False, compression="zstd")


@dataclass(frozen=True)
class Piece:
    """Hold the rows of some blocks, and of each block its name, seal, number of rows, seconds and host.

    Rows come in the order of ``blocks``. A seal is the hash of the identity of the study that a block was run
    for.
    """

    table: pa.Table
    blocks: list[Row]


def seal_of(identity: dict[str, Any]) -> str:
    """Return the hash of a study's identity: its name, seed, options, versions and code."""
    return blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()


def record_of(name: str, seal: str, rows: int, seconds: float, host: str) -> Row:
    """Return the record that a file keeps of a block.

    name     of the block
    seal     of its study
    rows     how many it has
    seconds  that it took, of the clock
    host     where it ran
    """
    return {"block": name, "seal": seal, "rows": rows, "seconds": seconds, "host": host}


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table with every column that one of them has, in order of appearance.

    Raises ``InputError`` that names the column where Arrow cannot hold a value.
    """
    if (batch := _plain_batch(rows)) is not None:
        return pa.Table.from_batches([batch])
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row.get(name) for row in rows] for name in names}
    columns = _plain_columns(values, len(rows))
    for name in [name for name in names if name not in columns]:
        try:
            columns[name] = pa.array(values[name])
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            kinds = ", ".join(sorted({type(value).__name__ for value in values[name]}))
            raise InputError(
                f"column {name!r} cannot be stored ({str(error).splitlines()[0]}); its values are of type {kinds}: "
                "expected numbers within 64 bits, text, truth values or None, of one kind in a column"
            ) from error
        _check_parquet(name, columns[name].type)
    try:
        return pa.Table.from_pydict({name: columns[name] for name in names})
    except (pa.ArrowException, TypeError) as error:
        raise InputError(f"the names of columns {names!r}: {error}; expected text") from error


def _check_parquet(name: str, kind: pa.DataType) -> None:
    """Raise ``InputError`` for a type that a block's file can hold and the table cannot, as that of ``{}``."""
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([("value", kind)])).close()
    except pa.ArrowException as error:
        raise InputError(
            f"column {name!r} cannot be stored ({str(error).splitlines()[0]}); expected numbers within 64 bits, text, "
            "truth values or None"
        ) from error


def _plain_batch(rows: Sequence[Row]) -> pa.RecordBatch | None:
    """Return rows whose columns are the same, each of one plain type or None; None where they are not.

    Nearly all studies have such rows. Arrow goes through them itself: the columns one by one would take most
    of the engine's time.
    """
    kind = _struct_of(frozenset((*row, *map(type, row.values())) for row in rows))
    if kind is None:
        return None
    try:
        return pa.RecordBatch.from_struct_array(pa.array(rows, kind))
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None  # one by one, so that the column that cannot be stored is told


@lru_cache(maxsize=256)
def _struct_of(signatures: frozenset[tuple[Any, ...]]) -> pa.StructType | None:
    """Return the type of rows that have these names, followed by the types of their values."""
    names = {signature[: len(signature) // 2] for signature in signatures}
    columns = names.pop() if len(names) == 1 else ()
    if not columns or not all(type(name) is str for name in columns):
        return None
    fields = []
    for number, name in enumerate(columns, start=len(columns)):
        kinds = {signature[number] for signature in signatures} - {type(None)}
        if len(kinds) > 1 or not kinds <= PLAIN.keys():
            return None
        fields.append(pa.field(name, PLAIN[kinds.pop()] if kinds else pa.null()))
    return pa.struct(fields)


def _plain_columns(values: dict[str, list[Any]], rows: int) -> dict[str, pa.Array]:
    """Return the columns whose values are all of one plain type, or None.

    Columns of one type are made at once and then cut apart: one by one they would take most of the engine's
    time.
    """
    groups: dict[type, list[str]] = defaultdict(list)
    for name, column in values.items():
        kinds = set(map(type, column)) - {type(None)}
        if len(kinds) == 1 and (kind := kinds.pop()) in PLAIN:
            groups[kind].append(name)
    columns: dict[str, pa.Array] = {}
    for kind, names in groups.items():
        try:
            joined = pa.array([value for name in names for value in values[name]], PLAIN[kind])
        except (pa.ArrowException, OverflowError, ValueError):
            continue  # one by one, so that the column that cannot be stored is told
        columns |= {name: joined.slice(number * rows, rows) for number, name in enumerate(names)}
    return columns


def sealed(piece: Piece, options: pa.ipc.IpcWriteOptions = WRITE) -> bytes:
    """Return the content of a file: rows, the records of the blocks they are of, checksum."""
    table = piece.table.replace_schema_metadata({_BLOCKS: json.dumps(piece.blocks)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    content = sink.getvalue().to_pybytes()
    return content + blake2b(content, digest_size=DIGEST).digest()


def stream(content: bytes) -> pa.RecordBatchStreamReader | None:
    """Return a reader of the rows in a file's content; None where the file is damaged."""
    body, digest = memoryview(content)[:-DIGEST], content[-DIGEST:]
    if blake2b(body, digest_size=DIGEST).digest() != digest:
        return None
    return pa.ipc.open_stream(pa.py_buffer(body), options=READ)


def blocks_of(found: pa.RecordBatchStreamReader) -> list[Row]:
    """Return the records that a file keeps of its blocks."""
    return json.loads(found.schema.metadata[_BLOCKS])


def piece_of(found: pa.RecordBatchStreamReader) -> Piece:
    """Return the rows of a file, with the records of their blocks."""
    return Piece(found.read_all().replace_schema_metadata(None), blocks_of(found))


class Shards:
    """Keep the blocks of a run: one file each in ``blocks/``, and many blocks in each file of ``segments/``.

    path   the run's folder
    seals  of the studies whose blocks count here; new blocks get the last one. There are several where a
           change of the code was accepted.
    """

    def __init__(self, path: Path, seals: Sequence[str]) -> None:
        self.loose, self.segments = path / "blocks", path / "segments"
        self.seals = tuple(seals)
        self.set_aside: list[Path] = []

    def prepare(self) -> None:
        """Make the folders, and clear what a killed process left half written."""
        for folder in (self.loose, self.segments):
            folder.mkdir(parents=True, exist_ok=True)
            for file in entries(folder, TEMPORARY):
                file.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Return all files of blocks, segments first."""
        return [path for folder in (self.segments, self.loose) for path in entries(folder, ENDING)]

    def clear(self) -> None:
        """Remove all blocks."""
        for path in self.files():
            path.unlink()

    def content(self, name: str, rows: Sequence[Row], seconds: float, host: str) -> bytes:
        """Return the content of a block's file; raises ``InputError`` for rows that cannot be stored."""
        return sealed(Piece(table_of(rows), [record_of(name, self.seals[-1], len(rows), seconds, host)]))

    def write(self, name: str, content: bytes, sync: bool = True) -> None:
        """Write the file of a block, whole or not at all; ``sync`` as in ``files.appearing``."""
        write_atomically(self._file(name), content, sync)

    def _file(self, name: str) -> Path:
        # Named after its study, too: a block of another one, finished late, takes no other's place.
        return self.loose / f"{name}.{self.seals[-1]}{ENDING}"

    def counted(self, blocks: Sequence[Row]) -> bool:
        """Return whether all blocks of a file are of the studies that count."""
        return all(block.get("seal") in self.seals for block in blocks)

    def sound(self, rename: bool = True) -> Iterator[tuple[Path, bytes, pa.RecordBatchStreamReader]]:
        """Yield path, content and reader of every file that counts, segments first.

        A block may come twice, with equal rows, after a kill in ``compact``. Files that are damaged or of
        another study are listed in ``set_aside``, with their new names if they are to be renamed.
        """
        for path in self.files():
            content = path.read_bytes() if path.is_file() else b""  # a pipe would be waited for
            found = stream(content)
            if found is not None and self.counted(blocks_of(found)):
                yield path, content, found
            else:
                ending = DAMAGED if found is None else FOREIGN
                self.set_aside.append(path.replace(path.with_name(path.name + ending)) if rename else path)

    def pieces(self) -> Iterator[Piece]:
        """Return an iterator over the rows of all files that count."""
        return (piece_of(found) for _, _, found in self.sound())

    def finished(self) -> set[str]:
        """Return the names of all blocks that count."""
        return {block["block"] for _, _, found in self.sound() for block in blocks_of(found)}

    @property
    def alone(self) -> list[str]:
        """Return the names of the last study's blocks that have a file of their own."""
        ending = f".{self.seals[-1]}{ENDING}"
        return [path.name.removesuffix(ending) for path in entries(self.loose, ending)]

    def compact(self, names: Iterable[str]) -> None:
        """Put the files of the blocks ``names`` into segments, one for each set of columns.

        A kill at any moment leaves single files, segments or both, never a loss.
        """
        found = [(path, stream(path.read_bytes())) for path in map(self._file, names)]
        # Others are set aside by ``sound``.
        sound = [(path, reader) for path, reader in found if reader is not None and self.counted(blocks_of(reader))]
        self.write_segments([piece_of(reader) for _, reader in sound])
        for path, _ in sound:
            path.unlink()

    def write_segments(self, pieces: Sequence[Piece]) -> None:
        """Write one segment for each set of columns."""
        groups: dict[bytes, list[Piece]] = defaultdict(list)
        for piece in pieces:
            groups[_schema_key(piece.table)].append(piece)
        for group in groups.values():
            batches = [batch for piece in group for batch in piece.table.to_batches()]
            table = pa.Table.from_batches(batches, group[0].table.schema).combine_chunks()
            self.write_segment(sealed(Piece(table, [block for piece in group for block in piece.blocks]), PACK))
        sync_folder(self.segments)

    def write_segment(self, content: bytes) -> None:
        """Write a file of several blocks, named after what it holds: no two segments share a name."""
        write_atomically(self.segments / f"{blake2b(content, digest_size=8).hexdigest()}{ENDING}", content)


def _schema_key(table: pa.Table) -> bytes:
    """Return what tables of equal columns have in common."""
    return table.schema.serialize().to_pybytes()


def in_order(pieces: Iterable[Piece], names: Sequence[str]) -> tuple[pa.Schema, Iterator[pa.Table], list[Row]]:
    """Return the rows of the blocks ``names``, in this order: schema, tables of rows, records of the blocks.

    Columns come in order of appearance, and types are the narrowest that hold all values. So a table depends
    on its rows alone. Each table that the iterator yields becomes one row group of the file.

    Raises ``InputError`` for blocks that are missing, and for columns of kinds that do not go together.
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
    schema = _common([tables[key].schema for key in seen])
    return schema, _row_groups(order, tables, schema), [block for _, _, block in order]


def _common(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the narrowest schema that holds all of these; ``InputError`` where there is none."""
    try:
        return pa.unify_schemas(list(schemas), promote_options="permissive")
    except pa.ArrowException as error:
        kinds: dict[str, set[str]] = defaultdict(set)
        for schema in schemas:
            for field in schema:
                kinds[field.name].add(str(field.type))
        mixed = "; ".join(f"{name}: {', '.join(sorted(kinds[name]))}" for name in kinds if len(kinds[name]) > 1)
        raise InputError(
            f"blocks hold values of kinds that do not fit one column ({mixed}); expected the same kind of value in all "
            "rows of a column: mend the function of the study, and run it with another --out"
        ) from error


def _row_groups(
    order: Sequence[tuple[bytes, int, Row]], tables: dict[bytes, pa.Table], schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the rows in tables of about ``ROW_GROUP`` rows, cut between blocks.

    Cuts depend on the blocks alone, so the file does, too.
    """
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
    """Return the rows of consecutive blocks, with the columns and types of ``schema``."""
    runs: list[tuple[bytes, list[np.ndarray]]] = []
    for key, start, block in order:
        if not runs or runs[-1][0] != key:
            runs.append((key, []))
        runs[-1][1].append(np.arange(start, start + block["rows"]))
    parts = [tables[key].take(np.concatenate(indices)) for key, indices in runs]
    try:
        return pa.concat_tables([schema.empty_table(), *parts], promote_options="permissive").combine_chunks()
    except pa.ArrowException as error:
        raise InputError(
            f"{order[0][2]['block']} and the {len(order) - 1} blocks after it hold whole numbers too large for a "
            f"column of other kinds of numbers ({str(error).splitlines()[0]}); expected the same kind of number in all "
            "rows of a column"
        ) from error
