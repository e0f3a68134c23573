"""Give the images of a curve over n, and judge what was trained on them.

TaskImages     images and labels of a task. Methods learn prompts and a head, and are judged by the labels of
               its test images. Stand-ins are drawn: every replicate has its own images, and fresh ones, none
               seen twice, measure a method's floor. Other tasks have a pool, of which every replicate takes
               its own stratified n.
PlantedImages  drawn images whose labels a teacher's prompts draw, in a frozen model with a known head.
               Students learn prompts, and are judged against the teacher's law, exactly given the test
               images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import metadata
from typing import Any, ClassVar, Protocol

import torch

from moe_prompts.errors import InputError
from moe_prompts.seeds import rng_at
from moe_prompts.vision.backbones.normalisation import normalisation_of, normalised
from moe_prompts.vision.data_efficiency.curves import PLANTED
from moe_prompts.vision.data_efficiency.teacher import Planted
from moe_prompts.vision.prompting.config import VAPT, VPT, first_block
from moe_prompts.vision.prompting.prompted import mean_states
from moe_prompts.vision.tasks.named import TaskSpec, short
from moe_prompts.vision.tasks.procedural import FORMULAS, Procedural
from moe_prompts.vision.tasks.replicates import ENDLESS, TEST, TUNING, VALIDATION, replicate_images
from moe_prompts.vision.tasks.subsets import stratified_subset
from moe_prompts.vision.tasks.task import ImageSet, Pixels, Subset
from moe_prompts.vision.training.methods import Sizes, check_method, matched_tokens
from moe_prompts.vision.training.packed import PackedTrials
from moe_prompts.vision.training.runs import (
    Setup,
    backbone,
    entering,
    keeps_states,
    opened,
    train_and_score,
    trained_parameters,
    weights_hash,
)
from moe_prompts.vision.training.sgd import Outcome, Recipe, Score, Trial, evaluate, init_generator, train_packed
from moe_prompts.vision.training.states import States

#: Images to judge settings by and to feed generators that are blind to the image; of planted truths also to
#: test on.
VALIDATION_IMAGES, TEST_IMAGES = 1000, 2000
#: The share of n images that judges settings where there are no other images.
HELD_OUT = 0.2
#: Students by their prompts: fixed ones of the teacher's number of tokens, of VAPT's number of parameters and
#: of twice that; adaptive ones, blind to the image, and with free vectors beside, which hold the fixed ones.
STUDENTS = ("vpt_deep", "vpt_matched", "vpt_large", "vapt", "vapt_constant", "vapt_offset")
#: A student of the teacher's own class that starts where the teacher stands: what statistics costs without
#: the search.
AT_TEACHER = "at_teacher"

Measured = tuple[Outcome, dict[str, float]]


class Source(Protocol):
    """Describe one task of a curve; ``setup`` says on which backbone, and how long, methods are trained.

    measures  names of what ``measured`` gives of each trial
    study     what a study of these sources alone is called
    """

    measures: ClassVar[tuple[str, ...]]
    study: ClassVar[str]

    @property
    def name(self) -> str:
        """Return the name of the task, as tables have it."""
        ...

    @property
    def label(self) -> str:
        """Return the name of the task, as file names have it."""
        ...

    @property
    def endless(self) -> bool:
        """Return whether as many images can be drawn as one likes."""
        ...

    def check(self, methods: Sequence[str], sizes: Sequence[int], setup: Setup, entropy: int) -> None:
        """Raise ``InputError`` for a method, a size or a backbone that this task does not take."""
        ...

    def parameters(self, method: str, setup: Setup, entropy: int) -> int:
        """Return the number of trained numbers beside the head."""
        ...

    def tuned_as(self, method: str) -> str:
        """Return the method whose tuned setting this one has."""
        ...

    def images(self, n: int, replicate: int, setup: Setup, entropy: int) -> ImageSet:
        """Return the n training images of a replicate; those of a smaller n are among them."""
        ...

    def tuning_images(self, n: int, setup: Setup, entropy: int) -> tuple[ImageSet, ImageSet]:
        """Return images to fit settings on, and images to judge them by."""
        ...

    def reads_states(self, number: int, setup: Setup) -> bool:
        """Return whether trials that train on ``number`` images in all read kept states, as far as known."""
        ...

    def judged(
        self, method: str, setup: Setup, trials: Sequence[Trial], train: ImageSet, judge: ImageSet, entropy: int
    ) -> list[tuple[Outcome, Score]]:
        """Train the trials on one set and return their scores by the labels of another."""
        ...

    def measured(
        self, method: str, setup: Setup, trials: Sequence[Trial], train: Sequence[ImageSet], entropy: int
    ) -> list[Measured]:
        """Train each trial on its own set and return its ``measures`` on test images."""
        ...

    @classmethod
    def identity(cls, sources: Sequence[Any], setup: Setup, fresh_steps: int, rates: list[Any]) -> dict[str, Any]:
        """Return what a run of these sources must agree on to be resumed."""
        ...


@dataclass(frozen=True)
class TaskImages:
    """Give the images of the task ``spec``, as the module says."""

    spec: TaskSpec
    measures: ClassVar[tuple[str, ...]] = ("cross_entropy", "accuracy")
    study: ClassVar[str] = "tasks"

    @property
    def name(self) -> str:
        """Return the task's name."""
        return self.spec.name

    @property
    def label(self) -> str:
        """Return the name for file names."""
        return self.spec.label

    @property
    def endless(self) -> bool:
        """Return whether as many images can be drawn as one likes."""
        return self.spec.is_stand_in and short(self.name) in FORMULAS

    def check(self, methods: Sequence[str], sizes: Sequence[int], setup: Setup, entropy: int) -> None:
        """Raise ``InputError`` for what this task does not take.

        That is an unknown method, images of another size than the backbone's, or an n that is too large for
        the pool.
        """
        for method in methods:
            check_method(method)
        wanted = tuple(backbone(setup).patch_embed.img_size)
        if wanted != (self.spec.size, self.spec.size):
            raise InputError(
                f"{self.name}: images of {self.spec.size} x {self.spec.size} pixels; {setup.backbone} takes "
                f"{wanted[0]} x {wanted[1]}: give its size"
            )
        if not self.endless:
            for n in sizes:
                self.images(n, 0, setup, entropy)

    def parameters(self, method: str, setup: Setup, entropy: int) -> int:
        """Return the number of trained numbers beside the head."""
        return trained_parameters(method, setup.sizes, backbone(setup))

    def tuned_as(self, method: str) -> str:
        """Return the method itself."""
        return method

    def images(self, n: int, replicate: int, setup: Setup, entropy: int) -> ImageSet:
        """Return the n training images of a replicate; ``InputError`` if the pool has fewer."""
        if self.endless:
            draw = _drawn_endless if replicate == ENDLESS else _drawn_once
            return draw(self.name, self.spec.size, replicate, n, entropy)
        pool = opened(self.spec).split("train800val200")
        rng = rng_at(entropy, self.name, "images of a replicate", replicate)
        try:
            return Subset(pool, stratified_subset(pool.labels, n, rng))
        except InputError as error:
            raise InputError(f"task {self.name}, n = {n}: {error}") from error

    def tuning_images(self, n: int, setup: Setup, entropy: int) -> tuple[ImageSet, ImageSet]:
        """Return images to fit settings on, and images to judge them by.

        Of a drawn task no replicate trains on them. Of a pool they are replicate 0's own: four fifths fit and
        one fifth judges.
        """
        if not self.endless:
            return halves(self.images(n, 0, setup, entropy), entropy)
        train = self.images(n, TUNING, setup, entropy)
        return train, self.images(VALIDATION_IMAGES, VALIDATION, setup, entropy)

    def reads_states(self, number: int, setup: Setup) -> bool:
        """Return whether steps read states: from a folder, or from memory that holds test images, too.

        How many test images a pool has is known only once they are read, so of memory the answer is no.
        """
        task = opened(self.spec)
        known = number + task.n_test if isinstance(task, Procedural) else None
        return setup.states is not None or (known is not None and keeps_states(setup, backbone(setup), known))

    def judged(
        self, method: str, setup: Setup, trials: Sequence[Trial], train: ImageSet, judge: ImageSet, entropy: int
    ) -> list[tuple[Outcome, Score]]:
        """Train the trials on one set and return their scores by the labels of another."""
        return self._scored(method, setup, trials, train, judge, entropy)

    def measured(
        self, method: str, setup: Setup, trials: Sequence[Trial], train: Sequence[ImageSet], entropy: int
    ) -> list[Measured]:
        """Train each trial on its own set and return its scores on the test images.

        They are cross-entropy in nats and accuracy as a share.
        """
        results = self._scored(method, setup, trials, train, opened(self.spec).split("test"), entropy)
        return [(outcome, {name: getattr(score, name) for name in self.measures}) for outcome, score in results]

    def _scored(
        self,
        method: str,
        setup: Setup,
        trials: Sequence[Trial],
        train: ImageSet | Sequence[ImageSet],
        judge: ImageSet,
        entropy: int,
    ) -> list[tuple[Outcome, Score]]:
        task = opened(self.spec)
        unlabelled = (
            self.images(VALIDATION_IMAGES, VALIDATION, setup, entropy) if self.endless else task.split("train800")
        )
        return train_and_score(method, setup, task.classes, trials, train, judge, unlabelled)

    @classmethod
    def identity(
        cls, sources: Sequence[TaskImages], setup: Setup, fresh_steps: int, rates: list[Any]
    ) -> dict[str, Any]:
        """Return setup, rates, what the tasks say of their data, and versions.

        The keys are those of older runs, which can so be resumed.
        """
        return {
            "place": setup.identity() | {"fresh_steps": fresh_steps},
            "task rates": rates,
            "tasks": {source.name: opened(source.spec).facts for source in sources},
            "vision": {name: metadata.version(name) for name in ("torch", "timm", "pillow")},
        }


@lru_cache(maxsize=8)
def _drawn_once(name: str, *where: int) -> Pixels:
    return replicate_images(short(name), *where)


@lru_cache(maxsize=1)
def _drawn_endless(name: str, *where: int) -> Pixels:
    """Return a row of some hundred megabytes: one at a time, which all methods on a task share."""
    return replicate_images(short(name), *where)


def halves(images: ImageSet, entropy: int) -> tuple[ImageSet, ImageSet]:
    """Return images to fit on and the rest to judge by, split at random.

    Their shares are 1 - ``HELD_OUT`` and ``HELD_OUT``; at least one image judges.
    """
    order = rng_at(entropy, "held out").permutation(len(images.labels))
    held = max(1, round(HELD_OUT * len(order)))
    return Subset(images, order[held:]), Subset(images, order[:held])


@dataclass(frozen=True)
class PlantedImages:
    """Give images whose labels a teacher's prompts draw, as the module says.

    truth      one of ``curves.PLANTED``: the teacher's kind
    sharpness  of labels, as ``Planted`` has it

    Teacher and students have the tokens, hidden units and blocks that ``setup.sizes`` says. Images are
    normalised as the backbone wants it, whatever ``setup.recipe`` says.
    """

    truth: str
    sharpness: float = Planted.sharpness
    measures: ClassVar[tuple[str, ...]] = ("excess", "cross_entropy", "accuracy")
    study: ClassVar[str] = "planted"
    endless: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Return the truth's name."""
        return self.truth

    @property
    def label(self) -> str:
        """Return the name for file names."""
        return self.truth

    def check(self, methods: Sequence[str], sizes: Sequence[int], setup: Setup, entropy: int) -> None:
        """Raise ``InputError`` for an unknown student or truth, or prompts that do not fit the backbone."""
        truth = self._truth(setup, entropy)
        for student in methods:
            student_config(student, truth).check(len(truth.model.blocks), truth.model.patch_embed.grid_size)

    def parameters(self, method: str, setup: Setup, entropy: int) -> int:
        """Return the number of trained numbers; the head is known."""
        truth = self._truth(setup, entropy)
        model = truth.model
        config = student_config(method, truth)
        return config.n_parameters(model.embed_dim, len(model.blocks), model.patch_embed.grid_size)

    def tuned_as(self, method: str) -> str:
        """Return the student whose rate this one has.

        ``at_teacher`` has that of its class: tuned itself, it would be told to stay.
        """
        return method if method != AT_TEACHER else "vpt_deep" if self.truth == PLANTED[0] else "vapt"

    def images(self, n: int, replicate: int, setup: Setup, entropy: int) -> ImageSet:
        """Return n images of a replicate with drawn labels.

        The endless row is one for all replicates, whose seeds draw other orders and starts.
        """
        truth = self._truth(setup, entropy)
        keeping = _keeping(truth, setup)
        if replicate == ENDLESS:
            return _planted_endless(truth, n, keeping)
        return _planted_once(truth, n, replicate, keeping)

    def tuning_images(self, n: int, setup: Setup, entropy: int) -> tuple[ImageSet, ImageSet]:
        """Return a data set of its own, and a third one whose labels judge."""
        return (
            self.images(n, TUNING, setup, entropy),
            self.images(VALIDATION_IMAGES, VALIDATION, setup, entropy),
        )

    def reads_states(self, number: int, setup: Setup) -> bool:
        """Return whether steps read states, from a folder or from memory that holds test images, too."""
        model = backbone(setup)
        own = first_block(VPT(1, blocks=setup.sizes.blocks), len(model.blocks))
        return own > 0 and keeps_states(setup, model, number + TEST_IMAGES)

    def judged(
        self, method: str, setup: Setup, trials: Sequence[Trial], train: ImageSet, judge: ImageSet, entropy: int
    ) -> list[tuple[Outcome, Score]]:
        """Train the trials on one set and return their scores by the labels of another."""
        truth = self._truth(setup, entropy)
        results: list[tuple[Outcome, Score]] = []
        for packed, outcomes, read in _students(method, truth, setup, trials, [train] * len(trials), judge):
            forward = packed.of_states if isinstance(read, States) else packed
            scores = evaluate(forward, read, _recipe(truth, setup), truth.head.weight)
            results += zip(outcomes, scores, strict=True)
        return results

    def measured(
        self, method: str, setup: Setup, trials: Sequence[Trial], train: Sequence[ImageSet], entropy: int
    ) -> list[Measured]:
        """Train each trial on its own set and return its risks on the test images.

        They are excess risk and cross-entropy in nats and accuracy as a share: expectations over the labels,
        given the images.
        """
        truth = self._truth(setup, entropy)
        test = _planted_once(truth, TEST_IMAGES, TEST, _keeping(truth, setup))
        results: list[Measured] = []
        for packed, outcomes, read in _students(method, truth, setup, trials, train, test):
            risks = truth.risks(packed, read)
            results += [
                (outcome, {name: float(risks[name][number]) for name in self.measures})
                for number, outcome in enumerate(outcomes)
            ]
        return results

    @classmethod
    def identity(
        cls, sources: Sequence[PlantedImages], setup: Setup, fresh_steps: int, rates: list[Any]
    ) -> dict[str, Any]:
        """Return backbone, tokens, steps and rates, and what else is not as it was in older runs.

        The keys are those of older runs, which can so be resumed.
        """
        planting = {
            "backbone": setup.backbone,
            "tokens": setup.sizes.tokens,
            "steps": setup.recipe.steps,
            "fresh_steps": fresh_steps,
            "device": setup.device,
        }
        if setup.weights is not None:
            planting["weights"] = weights_hash(setup.weights)
        by_source = {source.name: source.sharpness for source in sources}
        values = set(by_source.values())
        sharpness = values.pop() if len(values) == 1 else by_source
        return {"planting": planting | unusual(setup, sharpness), "planted rates": rates}

    def _truth(self, setup: Setup, entropy: int) -> Planted:
        return teacher_of(self.truth, setup, entropy, self.sharpness)


def unusual(setup: Setup, sharpness: float | dict[str, float] = Planted.sharpness) -> dict[str, Any]:
    """Return the settings of planted truths that differ from the defaults, by name.

    sharpness  of all sources, or of each by its name where they differ

    Backbone, weights, tokens, steps and device are not among them, and neither is what changes rows by
    rounding alone. Every setting of the recipe is, but not its normalisation: images are normalised as the
    backbone wants it, whatever the recipe says.
    """
    recipe = asdict(setup.recipe)
    del recipe["normalisation"]
    if recipe.pop("steps") is not None:
        del recipe["epochs"]  # which then change nothing
    usual = {name: getattr(Recipe, name) for name in recipe}
    found = recipe | {
        "size": setup.size,
        "blocks": setup.sizes.blocks,
        "hidden": setup.sizes.hidden,
        "normalisation": normalisation_of(setup.backbone),
        "sharpness": sharpness,
    }
    usual |= {
        "size": None,
        "blocks": None,
        "hidden": Sizes.hidden,
        "normalisation": "half",
        "sharpness": Planted.sharpness,
    }
    return {name: value for name, value in found.items() if value != usual[name]}


def teacher_of(truth: str, setup: Setup, entropy: int, sharpness: float = Planted.sharpness) -> Planted:
    """Return the planted truth of this name on the backbone of ``setup``; all who ask share one.

    Of ``setup.sizes``, tokens, hidden units and blocks count.
    """
    plain = Setup(setup.backbone, setup.weights, device=setup.device, size=setup.size)
    sizes = Sizes(setup.sizes.tokens, setup.sizes.hidden, blocks=setup.sizes.blocks)
    return _teacher(truth, plain, sizes, entropy, sharpness)


@lru_cache(maxsize=2)
def _teacher(truth: str, plain: Setup, sizes: Sizes, entropy: int, sharpness: float) -> Planted:
    return Planted(
        truth,
        backbone(plain),
        sizes.tokens,
        sharpness,
        entropy,
        normalisation=normalisation_of(plain.backbone),
        blocks=sizes.blocks,
        hidden=sizes.hidden,
    )


def student_config(student: str, truth: Planted) -> VPT | VAPT:
    """Return the prompts of a student, without dropout; raise ``InputError`` for an unknown name."""
    if student == AT_TEACHER:
        return truth.config
    vapt = truth.adaptive
    matched = matched_tokens(vapt, truth.model)
    configs: dict[str, VPT | VAPT] = {
        "vpt_deep": truth.fixed(truth.tokens),
        "vpt_matched": truth.fixed(matched),
        "vpt_large": truth.fixed(2 * matched),
        "vapt": vapt,
        "vapt_constant": replace(vapt, source="mean"),
        "vapt_offset": replace(vapt, offset=True),
    }
    if student not in configs:
        raise InputError(f"student {student!r}; expected one of {', '.join([*STUDENTS, AT_TEACHER])}")
    return configs[student]


def _keeping(truth: Planted, setup: Setup) -> Setup:
    """Return what of ``setup`` says how states of images are kept."""
    recipe = Recipe(normalisation=truth.normalisation, precision=setup.recipe.precision)
    return Setup(recipe=recipe, states=setup.states, memory=setup.memory)


@lru_cache(maxsize=8)
def _planted_once(truth: Planted, n: int, replicate: int, keeping: Setup) -> Pixels:
    """Return images whose labels the teacher draws, once for all students that see them."""
    return truth.draw(n, replicate, lambda images: entering(truth.first, keeping, truth.model, [], images)[1])


@lru_cache(maxsize=1)
def _planted_endless(truth: Planted, n: int, keeping: Setup) -> Pixels:
    return truth.draw(n, ENDLESS, lambda images: entering(truth.first, keeping, truth.model, [], images)[1])


def _students(
    student: str, truth: Planted, setup: Setup, trials: Sequence[Trial], images: Sequence[ImageSet], judge: ImageSet
) -> Iterator[tuple[PackedTrials, list[Outcome], ImageSet]]:
    """Yield the trials of a student in packs of at most ``setup.pack``, which train at once.

    With each pack come how its trials ended, and what they are judged on: ``judge`` or its states, as steps
    read images or states.
    """
    config, means = student_config(student, truth), None
    if isinstance(config, VAPT) and config.source == "mean":
        pixels = _planted_once(truth, VALIDATION_IMAGES, VALIDATION, _keeping(truth, setup)).pixels
        means = mean_states(truth.model, [normalised(pixels, truth.normalisation, truth.head.weight)])
    read, judged = entering(truth.first, _keeping(truth, setup), truth.model, list(images), judge)
    for start in range(0, len(trials), setup.pack):
        some, own = trials[start : start + setup.pack], read[start : start + setup.pack]
        packed = PackedTrials(truth.model, config, truth.head, [init_generator(trial.seed) for trial in some], means)
        if student == AT_TEACHER:
            there = dict(truth.teacher.named_parts())
            with torch.no_grad():
                for name, value in packed.named_parts():
                    value.copy_(there[name].expand_as(value))
        yield packed, train_packed(packed, own, some, _recipe(truth, setup)), judged


def _recipe(truth: Planted, setup: Setup) -> Recipe:
    """Return the recipe with the teacher's normalisation: a student sees what the teacher saw."""
    return replace(setup.recipe, normalisation=truth.normalisation)
