"""Count the parameters that a fit really uses, and predict from them what it pays above its floor.

    F = (1 / m) sum_i g_i g_i',   g_i = gradient of log p(y_i | x_i) at the fit, y_i drawn from the fit
    P_eff = tr F (F + ridge)^-1 = sum_j mu_j / (mu_j + ridge),   mu_j eigenvalues of K / m,   K_il = g_i' g_l
    predicted excess risk = P_eff / (2 n) nats

F is the Fisher information. Its trace needs only the m x m matrix K, however many parameters there are. As
this F is that of a sample of m images, it has rank m at most: its P_eff is below m, and below that of all
images even where m is several times as large. ``parameters_of_all`` estimates the latter from the same K.
The training fixes ``ridge``, not the data: SGD that moves a direction of curvature mu for a time S leaves the
share exp(-mu S) of the way undone, as a ridge of about 1 / S does. S sums the rates of all steps, over
1 - momentum; weight decay adds to the ridge. A regular fit on n images pays P / (2 n) on new images and gains
as much on its own: so half of the gap between the two losses is what is observed of it without a known floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import Tensor

from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.seeds import rng_at
from moe_prompts.vision.data_efficiency.curves import FRESH
from moe_prompts.vision.data_efficiency.sources import VALIDATION_IMAGES, TaskImages
from moe_prompts.vision.prompting.config import VAPT
from moe_prompts.vision.tasks.replicates import VALIDATION
from moe_prompts.vision.tasks.task import ImageSet
from moe_prompts.vision.training.methods import PEERS, RELATIVE_SECONDS, TRAINS_BACKBONE
from moe_prompts.vision.training.packed import PackedTrials, entering_states
from moe_prompts.vision.training.runs import Setup, opened, status_of, train_and_score
from moe_prompts.vision.training.sgd import Recipe, Setting, Trial, as_input, factors, init_generator, trial_seed
from moe_prompts.vision.training.statuses import TRAINED

#: Images whose gradients are computed at once, each by a copy of the trial.
TOGETHER = 16
#: Most images whose gradients are taken.
MOST = 10_000
#: Smallest ridge of a sample that is tried, as a share of the ridge of all images.
SMALLEST = 1e-9
#: Weight decay of a run that does not name it.
USUAL_DECAY = 1e-4


def effective_parameters(gram: np.ndarray, ridge: float) -> float:
    """Return P_eff = sum_j mu_j / (mu_j + ridge) from K (m, m), the products of m gradients.

    ridge  positive, in the units of the eigenvalues mu_j of K / m

    It is below m, whatever the fit uses: it is that of these m images, and ``parameters_of_all`` that of all.

    Raises ``InputError`` for another shape, no image, entries that are not finite, or a ridge that is not a
    positive finite number.
    """
    _check("effective_parameters", gram, ridge)
    # K has no negative eigenvalues; those of rounding would count as negative parameters.
    sizes = np.maximum(np.linalg.eigvalsh(gram / len(gram)), 0.0)
    return float((sizes / (sizes + ridge)).sum())


def parameters_of_all(gram: np.ndarray, ridge: float) -> float:
    """Return P_eff of all images, tr F (F + ridge)^-1 with F = E g g', from K (m, m) of m of them.

        q_i = 1 - t R_ii,   R = (K / m + t)^-1,   P_eff = sum_i q_i,
        where t > 0 solves   ridge = sum_i (q_i / R_ii) / sum_i q_i

    ridge  positive, in the units of the eigenvalues of K / m

    A sample of m gradients with the ridge t uses as many parameters as all gradients with a larger ridge. To
    see this let S be the sample's matrix, d_i = g_i' (S_i + t)^-1 g_i / m with image i left out of S_i, and
    g_i = sqrt(w_i) z_i with z_i of one law, independent of w_i. In high dimension all d_i / w_i are near.
    Then (S + t)^-1 S is near (S + t)^-1 c F with c = sum_i d_i / (1 + d_i) / sum_i d_i, so S (S + t)^-1 is
    near F (F + t / c)^-1. By Sherman and Morrison d_i / (1 + d_i) = q_i.

    Images must be drawn independently: a copy of an image is taken for a sign that there are few parameters.
    Where z_i is not of one law the estimate is off: by some per cent in a softmax regression, and several
    times too high, or NaN, where a few images in a hundred have most directions to themselves.

    The result is NaN where it would be as large as the number of images whose gradient is not 0, which is at
    most m, or larger: then they do not say it. Raises ``InputError`` as ``effective_parameters`` does.
    """
    _check("parameters_of_all", gram, ridge)
    sizes, vectors = np.linalg.eigh(gram / len(gram))
    sizes, weights = np.maximum(sizes, 0.0), vectors**2

    def of_sample(own: float) -> tuple[float, float]:
        """Return the ridge of all images that a ridge of the sample amounts to, and the count of both."""
        diagonal = weights @ (1 / (sizes + own))
        shares = weights @ (sizes / (sizes + own))
        return float((shares / diagonal).sum() / shares.sum()), float(shares.sum())

    if sizes[-1] == 0.0:
        return 0.0
    least = max(SMALLEST * ridge, np.finfo(float).tiny)
    if of_sample(least)[0] > ridge:
        return float("nan")
    if of_sample(ridge)[0] <= ridge:  # they differ by less than rounding where the ridge is far above all of K
        return of_sample(ridge)[1]
    own = brentq(lambda own: of_sample(own)[0] - ridge, least, ridge, xtol=least, rtol=1e-12)
    return of_sample(own)[1]


def _check(caller: str, gram: np.ndarray, ridge: float) -> None:
    """Raise ``InputError`` for a matrix K or a ridge that is none."""
    square = gram.ndim == 2 and gram.shape[0] == gram.shape[1] > 0
    if not square or not np.isfinite(gram).all() or not 0 < ridge < np.inf:
        raise InputError(
            f"{caller}: K of shape {gram.shape}, ridge {ridge}; expected a square matrix of finite numbers and a "
            "positive ridge"
        )


def ridge_of(recipe: Recipe, setting: Setting, n: int) -> float:
    """Return the ridge that a training on n images amounts to, as the module says.

    It is (1 - momentum) / (sum of the rates of all steps) + weight decay.
    """
    rates = setting.lr * recipe.batch / 256 * factors(recipe, n).sum()
    return (1 - recipe.momentum) / rates + setting.weight_decay


def gradients(fitted: PackedTrials, trial: int, inputs: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Return the gradients of log p(y | x) of single images at one fitted trial, (m, P), float64.

    inputs  (m, 3, H, W), normalised images
    rng     draws a label for each image from the fitted model

    Rows have the trial's parameters in the order of ``named_parts``, prompts and head alike. Raises
    ``InputError`` where prompts are made from another image of the batch: then no image has a gradient of its
    own.
    """
    if isinstance(fitted.config, VAPT) and fitted.config.source == "another":
        raise InputError("gradients: prompts from another image; expected a method whose images stand alone")
    rows = []
    for some in entering_states(fitted.model, fitted.first, inputs).split(TOGETHER):
        copies = _copies(fitted, trial, len(some))
        # A batch of one image for each copy: the gradient of its parameters is that of its image.
        log_p = copies.of_states(some[:, None], torch.arange(len(some))).log_softmax(dim=-1)[:, 0]
        shares = log_p.detach().double().exp().cumsum(dim=1).cpu().numpy()
        drawn = (rng.random((len(some), 1)) * shares[:, -1:] > shares[:, :-1]).sum(axis=1)
        F.nll_loss(log_p, torch.from_numpy(drawn).to(log_p.device), reduction="sum").neg().backward()
        parts = [value.grad for _, value in copies.named_parts()]
        rows.append(torch.cat([part.flatten(1).double() for part in parts if part is not None], dim=1).cpu().numpy())
    return np.concatenate(rows)


def _copies(fitted: PackedTrials, trial: int, count: int) -> PackedTrials:
    """Return ``count`` trials with the parameters of one fitted trial."""
    values = dict(fitted.named_parts())
    classes = values["head.weight"].shape[1]
    rngs = [init_generator(0)] * count
    copies = PackedTrials(fitted.model, fitted.config, classes, rngs, fitted.mean_states)
    with torch.no_grad():
        for name, value in copies.named_parts():
            value.copy_(values[name][trial].expand_as(value))
    return copies


def countable(method: str) -> bool:
    """Return whether images have gradients of their own in this method, and its trials are packed."""
    return method not in (*TRAINS_BACKBONE, *PEERS, "vapt_shuffled")


@dataclass(frozen=True)
class EffectiveCell:
    """Hold one method on one task with n images, trained with a given setting.

    setup   as the curve's run had it
    images  m, the number of validation images whose gradients are taken
    """

    source: TaskImages
    method: str
    n: int
    setup: Setup
    setting: Setting
    replicates: int
    images: int

    @property
    def label(self) -> str:
        """Return the cell's name in file names."""
        return f"{self.source.label}_{self.method}_n{self.n}"

    @property
    def data_size(self) -> int:
        """Return the number of training images of a replicate."""
        return self.n

    @property
    def cost(self) -> float:
        """Return the steps of a replicate in units of VAPT's by time, without the gradients."""
        return RELATIVE_SECONDS.get(self.method, 1.0) * self.setup.recipe.total(self.n)


def run_cell(cell: EffectiveCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Train the replicates again as the curve's run did, and return a row for each.

    ``all_parameters`` counts the head too, as P_eff does. ``effective`` is P_eff of all images (NaN where
    ``cell.images`` are too few to say it), ``of_sample`` that of the images whose gradients were taken.
    ``half_gap`` is half of test less training loss.
    """
    torch.set_num_threads(1)
    source, setup = cell.source, cell.setup
    task = opened(source.spec)
    unlabelled, shown = (source.images(m, VALIDATION, setup, entropy) for m in (VALIDATION_IMAGES, cell.images))
    ridge = ridge_of(setup.recipe, cell.setting, cell.n)
    rows = []
    for replicate in replicates:
        found: list[dict[str, float]] = []

        def count(packed: PackedTrials, drawn: int = replicate, found: list[dict[str, float]] = found) -> None:
            rng = rng_at(entropy, "labels of gradients", cell.label, drawn)
            like = next(packed.parameters())
            some = shown.batch(np.arange(cell.images))
            rows = gradients(packed, 0, as_input(some, setup.recipe.normalisation, like), rng)
            counts = {"effective": np.nan, "of_sample": np.nan}
            if np.isfinite(rows).all():
                gram = rows @ rows.T
                counts = {"effective": parameters_of_all(gram, ridge), "of_sample": effective_parameters(gram, ridge)}
            found.append({"all_parameters": rows.shape[1]} | counts)

        trial = Trial(cell.setting, trial_seed(entropy, replicate))
        images: ImageSet = source.images(cell.n, replicate, setup, entropy)
        [(outcome, score)] = train_and_score(
            cell.method, setup, task.classes, [trial], images, task.split("test"), unlabelled, count
        )
        rows.append(
            {
                "task": source.name,
                "method": cell.method,
                "n": cell.n,
                "replicate": replicate,
                "lr": cell.setting.lr,
                "ridge": ridge,
                **found[0],
                "predicted": found[0]["effective"] / (2 * cell.n),
                "train_loss": outcome.train_loss,
                "cross_entropy": score.cross_entropy,
                "half_gap": (score.cross_entropy - outcome.train_loss) / 2,
                "status": status_of(outcome, score),
            }
        )
    return rows


def effective_study(
    curves: pd.DataFrame, sources: Sequence[TaskImages], setup: Setup, images: int, replicates: int, entropy: int
) -> Study:
    """Return the study that counts the effective parameters of the fits of a table of curves.

    curves      its rows; those on n images of a method whose images have gradients of their own are taken
    sources     the tasks of the table that are asked for
    setup       as the table's run had it
    images      m, the number of validation images whose gradients are taken, at most ``MOST``
    replicates  of each method, task and n, at most as many as the table has
    entropy     that of the table's run

    Raises ``InputError`` if the table has no such rows, for more images or replicates than there are, and for
    a task with a pool, whose further images are those that fits train on.
    """
    if images > MOST:
        raise InputError(
            f"effective_study: {images} images; expected at most {MOST}, whose products of gradients fill 800 MB"
        )
    pools = [source.name for source in sources if not source.endless]
    if pools:
        raise InputError(
            f"effective_study: {pools[0]} has a pool of images and no new ones; expected tasks whose images are drawn "
            "without end"
        )
    sound = curves[(curves["n"] != FRESH) & (curves["status"] == TRAINED)]
    cells = []
    for source in sources:
        own = sound[sound["task"] == source.name]
        for (method, n), group in own.groupby(["method", "n"], sort=False):
            if countable(str(method)):
                setting = Setting(float(group["lr"].iloc[0]), float(group["weight_decay"].iloc[0]))
                cells.append(EffectiveCell(source, str(method), int(str(n)), setup, setting, replicates, images))
    if not cells:
        raise InputError("effective_study: no rows of linear, VPT or VAPT on these tasks; expected a finished run")
    there = curves.groupby(["task", "method", "n"])["replicate"].nunique()
    for cell in cells:
        # The gap of a further replicate was never observed, so nothing could stand beside its count.
        if replicates > (known := there[cell.source.name, cell.method, cell.n]):
            raise InputError(
                f"effective_study: {replicates} replicates; expected at most {known}, as many as the table has of "
                f"{cell.method} on {cell.source.name} with n = {cell.n}"
            )
    facts: dict[str, Any] = {"place": setup.identity(), "images": images}
    rates = [
        [cell.source.name, cell.method, cell.n, cell.setting.lr]
        + ([] if cell.setting.weight_decay == USUAL_DECAY else [cell.setting.weight_decay])
        for cell in cells
    ]
    facts["rates"] = rates
    return Study("effective-parameters", cells, replicates, entropy, run_cell, facts, weights=setup.loaded())
