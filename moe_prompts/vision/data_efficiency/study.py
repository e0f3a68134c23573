"""Train methods, or students of a planted truth, on n images each: one study of images from either source.

A regular method whose class holds the truth pays P / (2 n) nats for its P parameters. One whose class does
not hold it meets a floor, which is measured with images that no step sees twice. ``curves`` summarises the
rows.

Fits have no certificate: they end after a fixed number of steps. So a curve is one of training, not of a
maximum of the likelihood, and a measured floor is an upper bound of the floor of the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from moe_prompts.engine.grid import Row, Study
from moe_prompts.vision.data_efficiency.curves import FRESH
from moe_prompts.vision.data_efficiency.rates import Rates, best
from moe_prompts.vision.data_efficiency.sources import Source
from moe_prompts.vision.tasks.replicates import ENDLESS
from moe_prompts.vision.training.methods import RELATIVE_SECONDS
from moe_prompts.vision.training.runs import Setup, status_of
from moe_prompts.vision.training.sgd import Score, Setting, Trial, trial_seed
from moe_prompts.vision.training.statuses import UNTUNED


@dataclass(frozen=True)
class CurveCell:
    """Hold one method on one task with n images, or ``FRESH`` ones.

    Every replicate has its own images, labels and start.

    setup     its recipe has the steps of this cell
    settings  one, or several that are tuned here, on images of their own
    by        what judges several: "cross_entropy" or "accuracy" on validation images
    """

    source: Source
    method: str
    n: int
    setup: Setup
    settings: tuple[Setting, ...]
    replicates: int
    by: str = "cross_entropy"

    @property
    def label(self) -> str:
        """Return the cell's name in file names."""
        return f"{self.source.label}_{self.method}_n{self.n or 'fresh'}"

    @property
    def data_size(self) -> int:
        """Return the number of training images of a replicate."""
        return self.n or self.setup.recipe.batch * self.setup.recipe.total(0)

    @property
    def cost(self) -> float:
        """Return the steps of a replicate in units of VAPT's by time, with its share of tuning."""
        tuned = len(self.settings) if len(self.settings) > 1 else 0
        steps = self.setup.recipe.total(self.n)
        return RELATIVE_SECONDS.get(self.method, 1.0) * steps * (1 + tuned / self.replicates)

    def reads_states(self, count: int) -> bool:
        """Return whether ``count`` replicates together read kept states; fresh images are one set."""
        return self.source.reads_states(self.data_size * (count if self.n else 1), self.setup)


def run_cell(cell: CurveCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Train the replicates with the given setting, or the one tuned here, and return a row for each."""
    torch.set_num_threads(1)
    source, setup = cell.source, cell.setup
    setting = cell.settings[0] if len(cell.settings) == 1 else _tuned(cell, entropy)
    common = {
        "task": source.name,
        "method": cell.method,
        "n": cell.n,
        "parameters": source.parameters(cell.method, setup, entropy),
    }
    if setting is None:
        nothing = dict.fromkeys(("lr", "weight_decay", *source.measures, "train_loss"), np.nan)
        return [common | {"replicate": replicate} | nothing | {"status": UNTUNED} for replicate in replicates]
    trials = [Trial(setting, trial_seed(entropy, replicate)) for replicate in replicates]
    images = [source.images(cell.data_size, one if cell.n else ENDLESS, setup, entropy) for one in replicates]
    results = source.measured(cell.method, setup, trials, images, entropy)
    return [
        common
        | {"replicate": replicate, "lr": setting.lr, "weight_decay": setting.weight_decay}
        | values
        | {"train_loss": outcome.train_loss}
        | {"status": status_of(outcome, Score(values["accuracy"], values["cross_entropy"]))}
        for replicate, (outcome, values) in zip(replicates, results, strict=True)
    ]


def _tuned(cell: CurveCell, entropy: int) -> Setting | None:
    source = cell.source
    train, judge = source.tuning_images(cell.data_size, cell.setup, entropy)
    trials = [Trial(setting, 0) for setting in cell.settings]
    results = source.judged(source.tuned_as(cell.method), cell.setup, trials, train, judge, entropy)
    return best(cell.settings, [status_of(*pair) for pair in results], [score for _, score in results], cell.by)


def efficiency_study(
    sources: Sequence[Source],
    methods: Sequence[str],
    sizes: Sequence[int] | Mapping[str, Sequence[int]],
    replicates: int,
    setup: Setup,
    fresh_steps: int,
    entropy: int,
    rates: Rates,
    fresh_replicates: int = 1,
) -> Study:
    """Return the study of every method on every source with every n.

    Where images can be drawn without end, it also has fresh images, which measure floors.

    sources           all of one kind
    methods           or students, if the sources are planted
    sizes             n, for all sources or by the source's name
    replicates        of each method on each n
    fresh_steps       steps of SGD on fresh images; on n images those of ``setup.recipe``
    rates             learning rates, given or tuned
    fresh_replicates  starts on fresh images; 0 for no floors

    Raises ``InputError`` for a method, an n or a backbone that a source does not take, before anything runs.
    """
    fresh_setup = replace(setup, recipe=replace(setup.recipe, steps=fresh_steps))
    cells = []
    for source in sources:
        own = sizes[source.name] if isinstance(sizes, Mapping) else sizes
        source.check(methods, own, setup, entropy)
        lengths = [(n, setup, replicates) for n in own]
        if source.endless and fresh_replicates:
            lengths.append((FRESH, fresh_setup, fresh_replicates))
        cells += [
            CurveCell(source, method, n, where, rates.of(source.name, source.tuned_as(method), n), count, rates.by)
            for method in methods
            for n, where, count in lengths
        ]
    identity = sources[0].identity(sources, setup, fresh_steps, rates.facts)
    return Study(sources[0].study, cells, replicates, entropy, run_cell, identity, weights=setup.loaded())
