"""Describe the grid of a study: cells, and the blocks of 8 consecutive replicates in which they run.

A block is the unit of work, of seeding, of writing and of resuming. Blocks do not depend on the number of
workers, so neither do the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from moe_prompts.checks import expect, listed, named, shown, whole
from moe_prompts.errors import InputError

BLOCK_SIZE = 8
#: Bytes of a label: with span, identity, host and process it must fit into the 255 of a file's name.
LONGEST_LABEL = 120
#: Fits of one study that are run without being asked twice.
MOST_FITS = 10**7


class Cell(Protocol):
    """Say what a cell must have: one combination of everything that a study varies, but for the replicate.

    Cells run from large to small ``data_size``. Those of one size run in the study's order, so that cells on
    the same data can share what they draw. A cell without randomness has an attribute ``replicates`` = 1,
    which overrules the study's number of replicates.
    """

    @property
    def label(self) -> str:
        """Return the name of the cell: unique in its study, at most 120 bytes, part of file names."""
        ...

    @property
    def cost(self) -> float:
        """Return a number about proportional to the time that one replicate takes."""
        ...

    @property
    def data_size(self) -> int:
        """Return the number of pairs that one replicate draws; 0 if it draws none."""
        ...


@dataclass(frozen=True)
class Block:
    """Hold one cell and some consecutive replicates of it, which are run and stored together."""

    cell: Any
    replicates: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return the name of the block: the cell's label, first and last replicate.

        An example is ``attention-fixed_fixed_k2_truth_n1000_r0008-0015``, for the replicates 8 to 15.
        """
        return f"{self.cell.label}_r{self.replicates[0]:04d}-{self.replicates[-1]:04d}"

    @property
    def cost(self) -> float:
        """Return a number about proportional to the time that the block takes."""
        return self.cell.cost * len(self.replicates)


Row = dict[str, Any]
RunCell = Callable[[Any, tuple[int, ...], int], list[Row]]


@dataclass(frozen=True)
class Study:
    """Say what is to be run: the cells, how many replicates of each, the seed, the function that makes rows.

    name        of the study; a folder of another name is not resumed
    cells       what is run, in the order of the final table
    replicates  of each cell, at least 1
    entropy     seed from which all data and starts are drawn
    run         ``run(cell, replicates, entropy)`` returns one dict for each fit; workers must be able to
                import it
    identity    what a folder must agree on, besides name and entropy, to be resumed; the grid itself may grow
    describe    further entries of meta.json
    weights     hashes of the frozen weights that rows are computed with, by a name; a folder must agree on
                them, too, where it has any: those of earlier versions have none

    Raises ``InputError`` for fewer than one replicate, for no cells, and for two cells with the same label.

    >>> import moe_prompts as mp
    >>> from moe_prompts.study.gaussian import gaussian_study
    >>> made = gaussian_study(sizes=[200, 1_000], replicates=4, entropy=0, truths=["gmoe-1"], ks=[3])
    >>> isinstance(made, mp.Study), len(made.cells), made.replicates
    (True, 2, 4)
    """

    name: str
    cells: Sequence[Cell]
    replicates: int
    entropy: int
    run: RunCell
    identity: dict[str, Any] = field(default_factory=dict)
    describe: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named(self.name, "Study: name")
        object.__setattr__(self, "replicates", whole(self.replicates, 1, "replicates"))
        whole(self.entropy, 0, "Study: entropy", math.inf)
        if not callable(self.run):
            raise InputError(f"Study: run = {shown(self.run)}; expected a function (cell, replicates, entropy) -> rows")
        object.__setattr__(self, "cells", tuple(listed(self.cells, "Study: cells")))
        for name in ("identity", "describe", "weights"):
            expect(getattr(self, name), dict, f"Study: {name}")
        if not self.cells:
            raise InputError("the study has no cells: its choices of kinds, k and truths leave nothing to fit")
        for cell in self.cells:
            if not all(hasattr(cell, name) for name in ("label", "cost", "data_size")):
                raise InputError(f"Study: a cell {shown(cell)}; expected one with label, cost and data_size")
        labels = [cell.label for cell in self.cells]
        if len(set(labels)) != len(labels):
            twice = sorted({label for label in labels if labels.count(label) > 1})
            raise InputError(f"the study has cells twice: {', '.join(twice[:3])}; name each choice once")

    @property
    def blocks(self) -> list[Block]:
        """Return all blocks of the study, in the order of the final table."""
        blocks = []
        for cell in self.cells:
            count = getattr(cell, "replicates", self.replicates)
            spans = [range(a, min(a + BLOCK_SIZE, count)) for a in range(0, count, BLOCK_SIZE)]
            blocks += [Block(cell, tuple(span)) for span in spans]
        return blocks

    @property
    def fits(self) -> int:
        """Return how many replicates all cells have together."""
        return sum(getattr(cell, "replicates", self.replicates) for cell in self.cells)

    def check_labels(self) -> None:
        """Raise ``InputError`` if a cell's label cannot be part of a file's name."""
        for cell in self.cells:
            if wrong := _wrong_label(cell.label):
                raise InputError(
                    f"the cell {shown(cell.label)} {wrong}; expected a label of 1 to "
                    f"{LONGEST_LABEL} bytes that can be part of a file's name: rename the cell, or the truth, kind or "
                    "task that it is named after"
                )


def _wrong_label(label: Any) -> str:
    """Return what is wrong with a label, in words that follow "the cell"; "" where nothing is."""
    if not isinstance(label, str):
        return f"has a label of type {type(label).__name__}"
    try:
        length = len(label.encode())
    except UnicodeEncodeError:
        return "has a label that is no text"
    if not 1 <= length <= LONGEST_LABEL:
        return f"has a label of {length} bytes"
    if label.startswith("."):
        return "has a label that starts with a dot"
    odd = [character for character in label if character in "/\\" or not character.isprintable()]
    return f"has {odd[0]!r} in its label" if odd else ""


@dataclass(frozen=True)
class Part:
    """Name part ``number`` of ``count`` of a study's blocks; each block is in exactly one of the parts.

    Raises ``InputError`` unless 1 <= number <= count.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(
                f"part {self.number}/{self.count}; expected one from 1/{self.count} to {self.count}/{self.count}"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def chosen(self, blocks: Sequence[Block]) -> list[Block]:
        """Return the blocks of this part.

        All blocks are dealt out from costly to cheap, so that parts take about as long.
        """
        return sorted(blocks, key=lambda block: -block.cost)[self.number - 1 :: self.count]


@dataclass(frozen=True)
class Dispatch:
    """Run cells of several studies, each with the function that ``runs`` holds for the type of the cell."""

    runs: dict[type, RunCell]

    def __call__(self, cell: Any, replicates: tuple[int, ...], entropy: int) -> list[Row]:
        return self.runs[type(cell)](cell, replicates, entropy)


def joined(name: str, studies: Sequence[Study]) -> Study:
    """Return several studies of one seed and number of replicates as one study.

    It has one folder, one table and one progress bar. Seed and number of replicates are those of the first
    study; the cells of different studies must be of different types.
    """
    return Study(
        name=name,
        cells=[cell for study in studies for cell in study.cells],
        replicates=studies[0].replicates,
        entropy=studies[0].entropy,
        run=Dispatch({type(cell): study.run for study in studies for cell in study.cells}),
        identity={key: value for study in studies for key, value in study.identity.items()},
        describe={key: value for study in studies for key, value in study.describe.items()},
        weights={key: value for study in studies for key, value in study.weights.items()},
    )
