"""The time left, on runs made up from a clock, and the first rows of a real run."""

import heapq
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moe_prompts import cli
from moe_prompts.commands import sample_efficiency
from moe_prompts.engine.executors import Joblib
from moe_prompts.engine.grid import Block, Study, joined
from moe_prompts.engine.progress import TimeLeft, clock
from moe_prompts.engine.runner import first_look, in_turn, run_study

SIZES = (1_000, 5_623, 31_623, 177_828, 1_000_000)


@dataclass(frozen=True)
class Gates:
    """A cell whose table of costs knows its time up to a factor of its line and one that grows with n."""

    line: int
    k: int
    data_size: int

    @property
    def label(self) -> str:
        return f"{type(self).__name__}{self.line}_n{self.data_size}"

    @property
    def cost(self) -> float:
        return (self.data_size + 150_000.0) * self.k


@dataclass(frozen=True)
class Prompts(Gates):
    @property
    def cost(self) -> float:
        return 3e4 * self.k


def blocks_of(rng):
    cells = [sort(line, int(rng.integers(2, 8)), n) for sort in (Gates, Prompts) for line in range(14) for n in SIZES]
    return [Block(cell, tuple(range(8 * b, 8 * b + 8))) for cell in cells for b in range(2)]


def true_seconds(blocks, rng):
    """Seconds of a processor: costs times factors of lines (e^N(0, .6)), of n (n^N(0, .04)) and noise; 500 in all."""
    line = {(type(b.cell), b.cell.line): np.exp(0.6 * rng.standard_normal()) for b in blocks}
    power = {sort: 0.04 * rng.standard_normal() for sort in (Gates, Prompts)}
    took = {
        b.name: b.cost
        * line[type(b.cell), b.cell.line]
        * (b.cell.data_size / 1_000) ** power[type(b.cell)]
        * np.exp(0.15 * rng.standard_normal())
        for b in blocks
    }
    whole = sum(took.values())
    return {name: 500 * seconds / whole for name, seconds in took.items()}


def on_the_clock(seconds, began, busy, step=0.05):
    """How long work of so many seconds takes while the machine is ``busy(t)`` times slower."""
    took = 0.0
    while seconds > 0:
        seconds -= step / busy(began + took)
        took += step
    return took


def error_after_a_minute(blocks, took, busy, workers=2):
    """Return the relative error of the time left that is said at the first end of a block after 60 s."""
    queue = in_turn(blocks, first_look(blocks))
    left, running, now, said = TimeLeft(queue, workers), [], 0.0, None
    while queue or running:
        while queue and len(running) < workers:
            name = queue.pop(0).name
            spent = on_the_clock(took[name], now, busy)
            heapq.heappush(running, (now + spent, name, spent))
        now, name, spent = heapq.heappop(running)
        left.end(name, spent, took[name])
        if said is None and now >= 60:
            said, at = left.seconds, now
    assert left.seconds == 0
    assert left.share == 1
    return said / (now - at) - 1


#: How many times slower a machine is than a quiet one, t seconds after the start.
BUSY = {
    "quiet": lambda t: 1.0,
    "busy, then quiet": lambda t: 2.5 if t < 30 else 1.0,
    "quiet, then busy": lambda t: 1.0 if t < 35 else 2.0,
}


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY)
def test_after_a_minute_the_time_left_is_within_30_percent(busy):
    """In nine of ten runs: where the one line that takes half of a run has not begun, nothing can know it."""
    errors = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        blocks = blocks_of(rng)
        errors.append(error_after_a_minute(blocks, true_seconds(blocks, rng), busy))
    assert np.mean(np.abs(errors) < 0.3) >= 0.9
    assert np.median(np.abs(errors)) < 0.15


def default_study():
    """The study of ``sample_efficiency.py`` without options."""
    arguments = sample_efficiency.parser().parse_args([])
    sizes = cli.sizes("1e3..1e6", 5)
    return joined(
        "all", [make(arguments, sizes, None) for make in (sample_efficiency.gaussian, sample_efficiency.attention)]
    )


def recorded_seconds(blocks, rng):
    """Recorded processor seconds of each line and size of the default study, with the spread of blocks between runs."""
    table = pd.read_csv(Path(__file__).with_name("recorded_seconds.csv"), index_col="line")
    took = {}
    for block in blocks:
        line = re.sub(r"_n\d+$", "", block.cell.label)
        each = table.loc[line, str(block.cell.data_size or SIZES[0])]
        took[block.name] = each * len(block.replicates) * np.exp(0.15 * rng.standard_normal())
    return took


@pytest.mark.parametrize("busy", BUSY.values(), ids=BUSY)
def test_after_a_minute_of_the_default_study_the_time_left_is_within_30_percent(busy):
    blocks = default_study().blocks
    errors = [error_after_a_minute(blocks, recorded_seconds(blocks, np.random.default_rng(s)), busy) for s in range(5)]
    assert np.abs(errors).max() < 0.3


def test_the_share_grows_to_one_and_nothing_is_said_of_what_nobody_knows():
    blocks = blocks_of(np.random.default_rng(0))[:4]
    left = TimeLeft(blocks)
    assert (left.seconds, left.share) == (0.0, 0.0)
    shares = []
    for block in blocks:
        left.end(block.name, 2.0, 1.0)
        shares.append(left.share)
    assert sorted(shares) == shares
    assert shares[-1] == 1


def test_blocks_that_take_no_measurable_time():
    blocks = blocks_of(np.random.default_rng(0))[:4]
    left = TimeLeft(blocks)
    left.end(blocks[0].name, 0.0, 0.0)
    assert np.isfinite(left.seconds)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3_599.7, "1:00:00"), (3_725, "1:02:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text


@dataclass(frozen=True)
class Tiny:
    line: str
    data_size: int
    cost: float = 1.0

    @property
    def label(self) -> str:
        return f"{self.line}_n{self.data_size}"


def rows_of(cell, replicates, entropy):
    return [{"line": cell.line, "n": cell.data_size, "replicate": r, "value": float(entropy + r)} for r in replicates]


def study(sizes=(10, 100, 1_000)):
    return Study("tiny", [Tiny(line, n) for line in "ab" for n in (0, *sizes)], 12, 3, rows_of)


def test_every_line_comes_first_on_its_smallest_data():
    blocks = study().blocks
    order = in_turn(blocks, first_look(blocks))
    assert {block.name for block in order} == {block.name for block in blocks}
    assert [block.cell.label for block in order[:2]] == ["a_n10", "b_n10"]
    assert [block.cell.data_size for block in order[2:]] == sorted((b.cell.data_size for b in order[2:]), reverse=True)
    assert first_look(study((10,)).blocks) == [], "one size alone: the whole table is the first"


def test_the_first_rows_are_shown_once_and_change_nothing(tmp_path):
    seen = []
    shown = run_study(study(), tmp_path / "shown", progress=False, look=seen.append)
    plain = run_study(study(), tmp_path / "plain", progress=False)
    several = run_study(study(), tmp_path / "several", executor=Joblib(2), progress=False, look=seen.append)
    pd.testing.assert_frame_equal(shown, plain)
    pd.testing.assert_frame_equal(several, plain)
    wanted = plain[(plain["n"] == 10) & (plain["replicate"] < 8)].reset_index(drop=True)
    assert len(seen) == 2
    for rows in seen:
        pd.testing.assert_frame_equal(rows, wanted)
    run_study(study(), tmp_path / "shown", progress=False, resume=True, look=seen.append)
    assert len(seen) == 2, "a run whose first rows were there says nothing of them"
