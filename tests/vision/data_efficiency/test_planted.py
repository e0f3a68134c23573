"""Planted truths: the excess risk is 0 at the teacher and nowhere negative, labels have its law, n is nested."""

import numpy as np
import pytest
import torch
from scipy import stats

from moe_prompts.errors import InputError
from moe_prompts.vision import VPT, PackedTrials, create_backbone
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.data_efficiency.curves import PLANTED
from moe_prompts.vision.data_efficiency.teacher import CLASSES, Planted
from moe_prompts.vision.tasks.replicates import TEST, VALIDATION
from moe_prompts.vision.training.sgd import Recipe, Setting, Trial, init_generator, train_packed

IMAGES = 128


@pytest.fixture(scope="module", params=PLANTED)
def truth(request) -> Planted:
    return Planted(request.param, create_backbone("small").requires_grad_(False))


def at_teacher(truth: Planted) -> PackedTrials:
    """A student of the teacher's class that stands where it stands."""
    student = PackedTrials(truth.model, truth.config, truth.head, [init_generator(0)])
    student.load_state_dict(truth.teacher.state_dict())
    return student


def test_the_excess_risk_is_none_at_the_teacher_and_positive_elsewhere(truth):
    pixels = truth.draw(IMAGES, TEST).pixels
    assert truth.risks(at_teacher(truth), pixels)["excess"] == pytest.approx(0.0, abs=1e-9)
    others = PackedTrials(truth.model, VPT(3), truth.head, [init_generator(seed) for seed in range(4)])
    assert (truth.risks(others, pixels)["excess"] > 0.01).all()


def test_the_excess_risk_is_a_sum_over_classes_by_hand(truth):
    pixels = truth.draw(IMAGES, TEST).pixels
    student = PackedTrials(truth.model, VPT(3), truth.head, [init_generator(0)])
    p, q = (np.exp(truth.log_probabilities(pixels, one).numpy().astype(float)) for one in (None, student))
    expected = np.mean([stats.entropy(ours, theirs) for ours, theirs in zip(p, q[0], strict=True)])
    # Probabilities are float32: relative rounding 1e-7 of logarithms of size 10.
    assert truth.risks(student, pixels)["excess"][0] == pytest.approx(expected, rel=1e-4)


def test_prompts_of_the_teacher_matter(truth):
    """Labels can tell the teacher from the plain model, or nothing could be learned."""
    pixels = truth.draw(IMAGES, TEST).pixels
    plain = truth.head(truth._features(pixels)).log_softmax(dim=-1)
    ours = truth.log_probabilities(pixels)
    assert float((ours.exp() * (ours - plain)).sum(dim=-1).mean()) > 0.1


def test_labels_have_the_law_of_the_teacher(truth):
    """Pearson's test of the numbers of labels on many draws for the same images, at level 1e-4 (seeded)."""
    drawn = truth.draw(1000, 3)
    found = truth.log_probabilities(drawn.pixels)
    expected = found.exp().double().sum(dim=0).numpy()
    keep = expected > 5
    counts = np.bincount(drawn.labels, minlength=CLASSES)
    # Labels of different images have different laws, so the variance is at most that of Pearson's: a safe test.
    statistic = ((counts - expected)[keep] ** 2 / expected[keep]).sum()
    assert statistic < stats.chi2.ppf(1 - 1e-4, keep.sum())
    agreement = (found.argmax(dim=1).numpy() == drawn.labels).mean()
    top = found.exp().max(dim=1).values.double()
    error = float((top * (1 - top)).mean() / 1000) ** 0.5
    assert abs(agreement - float(top.mean())) < 4 * error


def test_a_smaller_n_is_the_beginning_of_a_larger_one(truth):
    small, large = truth.draw(70, 5), truth.draw(130, 5)
    assert (small.pixels == large.pixels[:70]).all()
    assert (small.labels == large.labels[:70]).all()
    assert not (truth.draw(70, 6).pixels == small.pixels).all()
    assert not (truth.draw(70, VALIDATION).pixels == truth.draw(70, TEST).pixels).all()


def test_a_student_that_starts_at_the_teacher_stays_near_it(truth):
    """A few small steps on many images leave the risk far below what the start of any other student has."""
    student = at_teacher(truth)
    data = truth.draw(256, 0)
    train_packed(student, data, [Trial(Setting(0.01, 0.0), 0)], Recipe(steps=8, normalisation=truth.normalisation))
    assert truth.risks(student, truth.draw(IMAGES, TEST).pixels)["excess"][0] < 0.01


def test_at_the_teacher_the_mean_score_is_noise(truth):
    """The gradient of the log-likelihood has mean zero there: every entry within 5 standard errors over images."""
    data = truth.draw(96, 1)
    places = torch.arange(len(data.labels))
    # One student for each image, all of them the teacher: the gradients of all images in one pass.
    students = PackedTrials(truth.model, truth.config, truth.head, [init_generator(0)] * len(places))
    students.fill({name: value.expand(len(places), *value.shape[1:]) for name, value in truth.teacher.named_parts()})
    inputs = normalised(data.pixels, truth.normalisation, truth.head.weight)
    logits = students(inputs[:, None], places)[:, 0]
    logits.log_softmax(dim=-1)[places, torch.tensor(data.labels)].sum().backward()
    found = torch.cat([value.grad.flatten(1) for _, value in students.named_parts()], dim=1)
    z = found.mean(dim=0) / (found.std(dim=0) / len(found) ** 0.5 + 1e-12)
    # Thousands of correlated entries: 5 standard errors bound all of them at level about 1e-3.
    assert float(z.abs().max()) < 5


def test_wrong_kind():
    with pytest.raises(InputError, match="planted truth 'planted'; expected one of planted-fixed, planted-adaptive"):
        Planted("planted", create_backbone("small"))
