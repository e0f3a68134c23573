"""Search for planted prompts by certified second-order fits from several starts.

    excess risk of a student = E_x KL(teacher(x) || student(x)),   0 at the teacher

Every fit is ``gauss_newton.fit`` from one start, on n images whose targets are the teacher's probabilities
("law") or labels drawn from them ("drawn"). With the law as targets the least value of the cross-entropy is
known: it is the teacher's entropy, reached at the teacher. A certified fit above it is a local minimum, and
no fault of the sample's labels. Each fit is a cell of its own, so that a run can be stopped after any of
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from moe_prompts.engine.grid import Row, Study
from moe_prompts.errors import InputError
from moe_prompts.estimators.result import FitResult
from moe_prompts.seeds import rng_at
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.data_efficiency.curves import PLANTED
from moe_prompts.vision.data_efficiency.sources import TEST_IMAGES, student_config, teacher_of
from moe_prompts.vision.data_efficiency.teacher import CLASSES, Planted
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.tasks.replicates import TEST
from moe_prompts.vision.training.cross_entropy import TOGETHER, CrossEntropy, in_precision, theta_of
from moe_prompts.vision.training.gauss_newton import fit
from moe_prompts.vision.training.methods import Sizes
from moe_prompts.vision.training.packed import PackedTrials, entering_states
from moe_prompts.vision.training.runs import Setup, weights_hash
from moe_prompts.vision.training.sgd import init_generator, trial_seed

#: Where prompts are planted unless another place is given: as in the planted study.
SETUP = Setup("small-gain", sizes=Sizes(4))
#: Starts by name: where prompts begin by default; a draw of the law that the teacher is a draw of; the
#: teacher; fixed prompts fitted first, with adaptive ones of no effect beside them; and the fixed prompts
#: alone, for comparison.
OFFICIAL, DRAWN, TEACHER, FROM_FIXED, FIXED = "official", "teacher's law", "teacher", "fixed first", "fixed alone"
STARTS = (OFFICIAL, DRAWN, TEACHER, FROM_FIXED, FIXED)
#: Starts that know nothing of the teacher that is looked for.
ORDINARY = (OFFICIAL, DRAWN)
#: Gain left in nats of the total at a certified fit. Prompts pass a relu, and a fit comes to stand on some of
#: its very many kinks, where no smooth model promises less than some hundredths of a nat.
TOLERANCE = 0.05
#: Iterations after which a fit gives up.
ITERATIONS = 100
#: What an image's target is.
TARGETS = ("law", "drawn")


@dataclass(frozen=True)
class SearchCell:
    """Hold one fit.

    truth       one of ``curves.PLANTED``
    teacher     number of the teacher, added to the seed of the run
    n           training images
    targets     "law" or "drawn"
    start       one of ``STARTS``
    number      of the images, the labels and the start; fits with one number share them
    setup       backbone and number of tokens
    iterations  after which a fit gives up
    threads     blocks of images that a fit computes at once, which changes no bit of it
    """

    truth: str
    teacher: int
    n: int
    targets: str
    start: str
    number: int
    setup: Setup
    iterations: int
    threads: int = 1
    replicates: int = 1

    @property
    def label(self) -> str:
        """Return the cell's name in file names."""
        start = self.start.replace(" ", "-").replace("'", "")
        return f"{self.truth}_t{self.teacher}_{self.targets}_n{self.n}_{start}_{self.number}"

    @property
    def data_size(self) -> int:
        """Return the number of training images."""
        return self.n

    @property
    def cost(self) -> float:
        """Return the images that are passed, about, in a whole fit; one from the teacher goes nowhere."""
        return self.n * (3.0 if self.start == TEACHER else float(self.iterations))


def run_cell(cell: SearchCell, replicates: tuple[int, ...], entropy: int) -> list[Row]:
    """Return the row of the fit: status, certificate, what is left on its images, and its excess risk."""
    torch.set_num_threads(1)
    truth = teacher_of(cell.truth, cell.setup, entropy + cell.teacher)
    found, Q, entropy_of_targets = searched(cell, truth, entropy)
    x = theta_of(found.value)
    return [
        {
            "truth": cell.truth,
            "teacher": cell.teacher,
            "n": cell.n,
            "targets": cell.targets,
            "start": cell.start,
            "number": cell.number,
            "parameters": len(x),
            "train_excess": -found.log_likelihood / cell.n - entropy_of_targets,
            "excess": excess(Q, x, truth),
            "gap_nats": found.certificate.gap_nats,
            "curvature": found.certificate.relative_lmin,
            "iterations": found.iterations,
            "largest": float(x.abs().max()),
            "replicate": replicates[0],
            "status": found.status.name,
        }
    ]


def searched(cell: SearchCell, truth: Planted, entropy: int) -> tuple[FitResult, CrossEntropy, float]:
    """Return the fit of a cell, its objective, and the entropy of its targets in nats an image."""
    images = truth.draw(cell.n, cell.number)
    law = truth.log_probabilities(images.pixels).double().exp()
    law = law / law.sum(dim=-1, keepdim=True)
    labels = torch.tensor(images.labels, dtype=torch.int64)
    targets = law if cell.targets == "law" else torch.eye(CLASSES, dtype=law.dtype)[labels]
    left = float(-torch.special.xlogy(targets, targets).sum()) / cell.n
    rng = rng_at(entropy, "search", cell.truth, cell.teacher, cell.number)
    student = first_student(cell, truth, entropy)
    states = states_of(student, truth, images.pixels)
    Q = CrossEntropy(student, states, targets, threads=cell.threads)
    if cell.start == FROM_FIXED:
        fixed_student = _student(truth.fixed(truth.tokens), truth, cell, entropy)
        before = CrossEntropy(fixed_student, states, targets, threads=cell.threads)
        fixed = fit(before, rng=rng, max_iterations=cell.iterations, tolerance=TOLERANCE)
        Q = CrossEntropy(from_fixed(student, fixed.value), states, targets, threads=cell.threads)
    return fit(Q, rng=rng, max_iterations=cell.iterations, tolerance=TOLERANCE), Q, left


def first_student(cell: SearchCell, truth: Planted, entropy: int) -> PackedTrials:
    """Return the student of a cell where it starts, in float64 (before fixed prompts are fitted)."""
    if cell.start == TEACHER:
        return in_precision(truth.teacher, torch.float64)
    if cell.start == DRAWN:
        # Another teacher of the same kind on the same network: the same law, another draw.
        other = replace(truth, entropy=_other_seed(cell, entropy))
        made = PackedTrials(truth.model, truth.config, truth.head, [torch.Generator().manual_seed(0)])
        made.fill(dict(other.teacher.named_parts()))
        return in_precision(made, torch.float64)
    config = {
        OFFICIAL: truth.config,
        FIXED: truth.fixed(truth.tokens),
        FROM_FIXED: student_config("vapt_offset", truth),
    }[cell.start]
    return _student(config, truth, cell, entropy)


def _other_seed(cell: SearchCell, entropy: int) -> int:
    """Return the seed of a draw of the teacher's law that is no teacher of any run."""
    return int(rng_at(entropy, "another teacher", cell.teacher, cell.number).integers(2**40, 2**41))


def _student(config: VPT | VAPT, truth: Planted, cell: SearchCell, entropy: int) -> PackedTrials:
    seed = trial_seed(entropy + cell.teacher, cell.number)
    return in_precision(PackedTrials(truth.model, config, truth.head, [init_generator(seed)]), torch.float64)


def from_fixed(student: PackedTrials, fixed: PackedTrials) -> PackedTrials:
    """Return adaptive prompts with offsets that compute what fixed prompts do.

    Position weights and biases are 0, so that the adaptive part has no effect, but a gradient.
    """
    there = dict(fixed.named_parts())
    with torch.no_grad():
        for name, value in student.named_parts():
            block, _, kind = name.partition(".")
            if kind in ("tokens", "offset"):
                value.copy_(there[f"{block}.tokens"])
            elif kind in ("weight", "bias"):
                value.zero_()
    return student


def states_of(student: PackedTrials, truth: Planted, pixels: np.ndarray) -> Tensor:
    """Return the states (n, T, d) that enter the student's first block with prompts."""
    like = next(student.model.parameters())
    return entering_states(student.model, student.first, normalised(pixels, truth.normalisation, like))


def excess(objective: CrossEntropy, x: Tensor, truth: Planted) -> float:
    """Return the excess risk of a student in nats, over the labels given the test images."""
    pixels = truth.draw(TEST_IMAGES, TEST).pixels
    law = truth.log_probabilities(pixels).double()
    with torch.no_grad():
        blocks = states_of(objective.trials, truth, pixels).split(TOGETHER)
        ours = torch.cat([objective.logits(x, block) for block in blocks]).log_softmax(dim=-1)
    return float((law.exp() * (law - ours)).sum(dim=-1).mean())


def search_study(
    truth: str,
    teachers: Sequence[int],
    sizes: Sequence[int],
    targets: Sequence[str],
    starts: Sequence[str],
    count: int,
    *,
    entropy: int,
    setup: Setup | None = None,
    iterations: int = ITERATIONS,
    once: Sequence[str] = (TEACHER, FIXED),
    threads: int = 1,
) -> Study:
    """Return the study of fits from every start.

    truth       one of ``curves.PLANTED``
    teachers    their numbers
    sizes       n
    targets     of ``TARGETS``
    starts      of ``STARTS``
    count       fits from each start for each teacher, n and kind of target; each has images of its own
    entropy     seed of everything
    setup       backbone, with its weights, device and size, and tokens; a fit takes no recipe. None:
                ``small-gain`` with four tokens, as the planted study has them
    iterations  after which a fit gives up
    once        starts that are fitted once with the law as targets, as nothing but the images changes there;
                with drawn labels every start is fitted to every data set, so that differences are paired
    threads     of each fit; its results do not depend on them

    Raises ``InputError`` for unknown names.
    """
    for given, known, what in ((starts, STARTS, "start"), (targets, TARGETS, "targets"), ([truth], PLANTED, "truth")):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise InputError(f"search: {what} {unknown[0]!r}; expected some of {', '.join(known)}")
    setup = setup or SETUP
    # All starts of one number before the next number: a run that is cut short has something of each.
    cells = [
        SearchCell(truth, teacher, n, kind, start, number, setup, iterations, threads)
        for kind in targets
        for n in sizes
        for number in range(count)
        for teacher in teachers
        for start in starts
        if number == 0 or kind == "drawn" or start not in once
    ]
    facts = {
        "backbone": setup.backbone,
        "sizes": asdict(setup.sizes),
        "iterations": iterations,
        "tolerance": TOLERANCE,
    }
    # Runs that do not name these have the default ones.
    if setup.weights is not None:
        facts["weights"] = weights_hash(setup.weights)
    facts |= {name: getattr(setup, name) for name in ("size", "device") if getattr(setup, name) != getattr(Setup, name)}
    identity = {"search": facts}
    return Study("search", cells, 1, entropy, run_cell, identity, weights=setup.loaded())
