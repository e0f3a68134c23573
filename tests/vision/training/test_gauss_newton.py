"""Second-order training of prompts: its products against finite differences and an explicit Jacobian, its fits against
scikit-learn and against the truth.

Tolerances are rounding where nothing else is said: float64, sums in another order.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_packed import backbone
from torch import nn

from moe_prompts.errors import InputError
from moe_prompts.estimators.result import FitStatus
from moe_prompts.vision import VAPT, VPT, PackedTrials
from moe_prompts.vision.training import cross_entropy, gauss_newton
from moe_prompts.vision.training.cross_entropy import CrossEntropy, fisher_factors, in_precision
from moe_prompts.vision.training.gauss_newton import fit
from moe_prompts.vision.training.packed import entering_states
from moe_prompts.vision.training.packed_peers import PackedPeers

CLASSES, IMAGES = 4, 30
RIDGE = {"head.weight": 0.5}
CONFIGS = {
    "fixed": VPT(2),
    "shallow": VPT(2, deep=False),
    "adaptive": VAPT(2, hidden=3, activation="gelu"),
    "last blocks": VAPT(2, hidden=3, blocks=2, activation="gelu", offset=True),
}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def moved(trials: PackedTrials, size: float = 0.5, seed: int = 1) -> PackedTrials:
    """The same with every parameter moved at random: adaptive prompts start at zero."""
    generator = draws(seed)
    with torch.no_grad():
        for value in trials.parts.values():
            value.add_(size * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value))
    return trials


def objective(config, head: int | nn.Linear = CLASSES, targets=None, n: int = IMAGES, **options) -> CrossEntropy:
    model = backbone()
    trials = in_precision(moved(PackedTrials(model, config, head, [draws()])), torch.float64)
    images = torch.randn(n, 3, 32, 24, generator=draws(2), dtype=torch.float64)
    states = entering_states(trials.model, trials.first, images)
    if targets is None:
        targets = torch.eye(CLASSES, dtype=torch.float64)[torch.arange(n) % CLASSES]
    ridge = RIDGE if isinstance(head, int) else None
    return CrossEntropy(trials, states, targets, ridge, **{"steering": torch.float64} | options)


def known_head() -> nn.Linear:
    layer = nn.Linear(24, CLASSES).double().requires_grad_(False)
    with torch.no_grad():
        layer.weight.normal_(0, 2, generator=draws(5))
        layer.bias.normal_(generator=draws(6))
    return layer


def at_a_saddle() -> tuple[CrossEntropy, torch.Tensor, float]:
    """Q of a student of two prompts in the last block, a point where they are equal, and the least value of Q.

    Q is least at the teacher, where it is the entropy of the law of labels. By symmetry the gradient never parts
    two equal prompts.
    """
    teacher = objective(VPT(2, blocks=1), known_head(), n=40)
    x = teacher.start()
    law = teacher.logits(x, teacher.states).softmax(dim=-1)
    equal = x.view(2, -1).mean(dim=0).expand(2, -1).reshape(-1)
    return objective(VPT(2, blocks=1), known_head(), law, n=40), equal, float(-(law * law.log()).sum())


def apart(found) -> float:
    """Return how far the two prompts of a fit are from each other."""
    first, second = found.value.trial(0)["2.tokens"]
    return float((first - second).norm())


@pytest.mark.parametrize("name", CONFIGS)
def test_derivatives_are_those_of_finite_differences(name):
    """The tolerance is that of a central difference with step h: h^2 of the third derivative, and rounding / h."""
    Q = objective(CONFIGS[name], n=12)
    x, direction = Q.start(), torch.randn(len(Q.ridge), generator=draws(3), dtype=torch.float64)
    direction, h = direction / direction.norm(), 1e-5
    (above, up), (below, down) = (Q.value_and_gradient(x + sign * h * direction) for sign in (1, -1))
    value, gradient = Q.value_and_gradient(x)
    assert value == pytest.approx(Q.value(x), rel=1e-12)
    assert float(gradient @ direction) == pytest.approx((above - below) / (2 * h), rel=1e-6)
    product = Q.hessian_product(x, direction)
    assert torch.allclose(product, (up - down) / (2 * h), atol=1e-6 * float(product.norm()))


@pytest.mark.parametrize("name", CONFIGS)
def test_gauss_newton_is_that_of_an_explicit_jacobian(name):
    Q = objective(CONFIGS[name], n=8)
    x = Q.start()
    J = torch.autograd.functional.jacobian(lambda theta: Q.logits(theta, Q.states), x)
    p = Q.logits(x, Q.states).softmax(dim=-1)
    W = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    expected = torch.einsum("icp,icd,idq->pq", J, W, J) + torch.diag(Q.ridge)
    size = float(expected.norm())
    assert torch.allclose(Q.gauss_newton(x, left_out=0.0), expected, atol=1e-12 * size)
    assert torch.allclose(Q.gauss_newton_diagonal(x), expected.diagonal(), atol=1e-12 * size)
    direction = torch.randn(len(x), generator=draws(3), dtype=torch.float64)
    assert torch.allclose(Q.gauss_newton_product(x, direction), expected @ direction, atol=1e-11 * size)
    rows = torch.cat(list(Q.jacobian(x, lambda logits: torch.eye(CLASSES).to(logits).expand(len(logits), -1, -1))))
    assert torch.allclose(rows, J, atol=1e-12 * float(J.norm()))


@pytest.mark.parametrize("name", ["shallow", "adaptive"])
def test_threads_change_no_bit(name, monkeypatch):
    """Blocks of 4 images, so that three threads have eight of them to share."""
    monkeypatch.setattr(cross_entropy, "TOGETHER", 4)
    one, three = (objective(CONFIGS[name], steering=torch.float32, threads=count) for count in (1, 3))
    x = one.start()
    direction = torch.randn(len(x), generator=draws(3), dtype=torch.float64)
    assert one.value(x) == three.value(x)
    own, other = ((*Q.value_and_gradient(x), *Q.steered(x)) for Q in (one, three))
    for found, again in zip(own, other, strict=True):
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(again))
    assert torch.equal(one.hessian_product(x, direction), three.hessian_product(x, direction))
    assert torch.equal(one.gauss_newton_product(x, direction), three.gauss_newton_product(x, direction))
    assert torch.equal(one.gauss_newton(x), three.gauss_newton(x))


@pytest.mark.parametrize("name", CONFIGS)
def test_slopes_that_steer_are_those_of_the_objective_to_single_precision(name):
    """Some hundred roundings of 6e-8 add up."""
    Q = objective(CONFIGS[name], steering=torch.float32)
    value, gradient = Q.value_and_gradient(Q.start())
    found, slope = Q.steered(Q.start())
    assert found == pytest.approx(value, rel=1e-5)
    assert found != value
    assert slope.dtype == torch.float64
    assert float((slope - gradient).norm()) < 1e-4 * float(gradient.norm())
    direction = torch.randn(len(Q.ridge), generator=draws(3), dtype=torch.float64)
    product, rough = (Q.hessian_product(Q.start(), direction, roughly) for roughly in (False, True))
    assert rough.dtype == torch.float64
    assert 0 < float((rough - product).norm()) < 1e-4 * float(product.norm())


def test_slopes_that_lie_take_no_step(monkeypatch):
    """What steers says each time that a step won 100 nats: Q is asked, and never rises."""
    Q = objective(VPT(1, blocks=2), known_head(), n=40)
    calls = iter(range(10_000))
    monkeypatch.setattr(gauss_newton, "NEAR", float("inf"))
    monkeypatch.setattr(Q, "steered", lambda x: (-100.0 * next(calls), Q.value_and_gradient(x)[1]))
    found = fit(Q, rng=rng(), max_iterations=6)
    assert found.passes["steered"] > 3
    assert all(b <= a for a, b in zip(found.history["value"], found.history["value"][1:], strict=False))
    last = CrossEntropy(found.value, Q.states, Q.targets).start()
    assert -found.log_likelihood == pytest.approx(Q.value(last), rel=1e-12)
    assert Q.value(last) <= found.history["value"][-1]


@pytest.mark.parametrize("lie", [1e6, -1e6], ids=["nothing is left", "bent down"])
def test_products_that_lie_certify_nothing(lie, monkeypatch):
    """What steers says at a saddle that H is very large, or negative: H is asked in float64, and is neither."""
    Q, equal, _ = at_a_saddle()
    exact = Q.hessian_product
    monkeypatch.setattr(Q, "hessian_product", lambda x, v, roughly=False: lie * v if roughly else exact(x, v))
    found = fit(Q, equal, rng=rng())
    assert found.status is FitStatus.CERTIFIED
    assert found.passes["hessian_steered"] > 0
    assert apart(found) > 0.1


def test_the_hessian_is_gauss_newton_where_the_fit_is_the_law():
    """Where p = t the second part of the Hessian is 0, as the gradient is."""
    Q = objective(VAPT(2, hidden=3, activation="gelu"), known_head(), n=8)
    x = Q.start()
    own = objective(VAPT(2, hidden=3, activation="gelu"), known_head(), Q.logits(x, Q.states).softmax(dim=-1), n=8)
    direction = torch.randn(len(x), generator=draws(3), dtype=torch.float64)
    product = own.gauss_newton_product(x, direction)
    assert torch.allclose(own.hessian_product(x, direction), product, atol=1e-10 * float(product.norm()))


def test_factors_of_the_fisher_information_leave_out_what_was_allowed():
    logits = 3 * torch.randn(50, CLASSES, generator=draws(), dtype=torch.float64)
    p = logits.softmax(dim=-1)
    whole = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    for allowed, most in ((0.0, 3), (0.3, 2)):
        u = fisher_factors(logits, allowed)
        rest = whole - u.transpose(1, 2) @ u
        share = float(rest.diagonal(dim1=1, dim2=2).sum() / whole.diagonal(dim1=1, dim2=2).sum())
        assert u.shape[1] <= most
        assert -1e-12 <= share <= allowed + 1e-12
        assert torch.linalg.eigvalsh(rest).min() > -1e-12


def test_a_head_is_that_of_scikit_learn():
    """Logistic regression on the same features with the same ridge, to the gradient tolerance of both.

    A gap of 1e-12 nats, where a step of length r costs at least ridge r^2 / 2, is a distance of 2e-6.
    """
    Q = objective(None, n=40)
    found = fit(Q, rng=rng(), tolerance=1e-12)
    assert found.status is FitStatus.CERTIFIED
    model = Q.trials.model
    with torch.no_grad():
        features = model.forward_head(model.norm(Q.states), pre_logits=True).numpy()
    labels = Q.targets.argmax(dim=-1).numpy()
    known = LogisticRegression(C=1 / RIDGE["head.weight"], tol=1e-10, max_iter=10_000).fit(features, labels)
    ours = found.value.trial(0)
    probabilities = torch.from_numpy(features @ ours["head.weight"].numpy().T) + ours["head.bias"]
    assert np.allclose(ours["head.weight"].numpy(), known.coef_, atol=1e-5)
    assert np.allclose(probabilities.softmax(dim=-1).numpy(), known.predict_proba(features), atol=1e-5)
    penalty = RIDGE["head.weight"] * float((ours["head.weight"] ** 2).sum()) / 2
    assert found.log_likelihood == pytest.approx(penalty - found.history["value"][-1], rel=1e-9)
    assert "the ridge costs" in found.detail


@pytest.mark.parametrize("steering", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("dense", "blocks"), [(3000, 2), (10, 1)], ids=["with a matrix", "without"])
def test_a_student_at_the_teacher_stays_and_one_beside_it_comes_back(dense, blocks, steering, monkeypatch):
    """On the teacher's own probabilities Q is least at the teacher, where it is the entropy."""
    monkeypatch.setattr(gauss_newton, "DENSE", dense)
    teacher = objective(VPT(1, blocks=blocks), known_head(), n=20)
    law = teacher.logits(teacher.start(), teacher.states).softmax(dim=-1)
    Q = objective(VPT(1, blocks=blocks), known_head(), law, n=20, steering=steering)
    least = float(-(law * law.log()).sum())
    there = fit(Q, rng=rng())
    assert there.status is FitStatus.CERTIFIED
    assert there.iterations == 1
    assert torch.equal(CrossEntropy(there.value, Q.states, law).start(), Q.start())
    beside = Q.start() + 0.1 * torch.randn(len(Q.ridge), generator=draws(4), dtype=torch.float64)
    assert Q.value(beside) > least + 0.002
    back = fit(Q, beside, rng=rng())
    assert -1e-9 <= -back.log_likelihood - least < 1e-3
    if dense > len(Q.ridge):
        assert back.status is FitStatus.CERTIFIED
    else:  # in the metric of the diagonal 8 products may not be enough for a certificate, which then is not given
        assert back.certified == (back.certificate.gap_nats <= gauss_newton.TOLERANCE)
    assert all(b <= a for a, b in zip(back.history["value"], back.history["value"][1:], strict=False))


def test_a_saddle_that_bends_up_again_is_left_by_a_short_step():
    """Q = k x^4 - x^2 / 2 lies below 0 for x^2 < 1 / (2 k) alone, at most 1 / (16 k) = 6e-7 nats deep."""
    k, one = 1e5, torch.ones(1, dtype=torch.float64)
    coordinates = gauss_newton.Coordinates(None, one, one > 0, [1], 1.0)
    seen = gauss_newton.Krylov(coordinates, one[:, None], -one, one[:, None], 0 * one, 1e-3 * one)
    quartic = SimpleNamespace(value=lambda x: float(k * x**4 - x**2 / 2))
    found = gauss_newton._lower(quartic, 0 * one, 0.0, seen, bound=1e3)
    assert -1 / (16 * k) <= quartic.value(found) < -1 / (32 * k)
    flat = SimpleNamespace(value=lambda x: float(x**2))
    assert gauss_newton._lower(flat, 0 * one, 0.0, seen, bound=1e3) is None


def test_parameters_on_the_bound_are_held_and_said():
    Q = objective(None, n=40)
    found = fit(Q, rng=rng(), bound=0.05, tolerance=1e-6, start=torch.zeros(len(Q.ridge), dtype=torch.float64))
    x = CrossEntropy(found.value, Q.states, Q.targets, RIDGE).start()
    assert float(x.abs().max()) == 0.05
    assert "on the bound 0.05" in found.detail
    gradient = Q.value_and_gradient(x)[1]
    held = x.abs() >= 0.05
    inwards = gradient[held] * x[held].sign()
    assert float(inwards.clamp(min=0).max()) < 0.01
    assert found.status is FitStatus.CERTIFIED


def test_a_search_that_is_cut_short_says_so():
    Q = objective(None, n=40)
    found = fit(Q, torch.ones(len(Q.ridge), dtype=torch.float64), rng=rng(), max_iterations=1)
    assert found.status is FitStatus.NOT_CERTIFIED
    assert found.certificate.gap_nats > 1e-3


@pytest.mark.parametrize("dense", [3000, 10], ids=["with a matrix", "without"])
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_fit_that_ends_on_a_step_says_nothing_of_the_point_it_reached(iterations, dense, monkeypatch):
    """What was asked at the point before the step is no evidence at the point behind it."""
    monkeypatch.setattr(gauss_newton, "DENSE", dense)
    Q = objective(None, n=40)
    start = torch.ones(len(Q.ridge), dtype=torch.float64)
    found = fit(Q, start, rng=rng(), max_iterations=iterations)
    reached = CrossEntropy(found.value, Q.states, Q.targets, RIDGE).start()
    assert found.status is FitStatus.NOT_CERTIFIED
    assert Q.value(reached) < found.history["value"][-1]
    assert found.certificate.gap_nats == np.inf
    assert np.isnan(found.certificate.relative_lmin)


@pytest.mark.parametrize("dense", [3000, 10], ids=["with a matrix", "without"])
def test_a_saddle_is_no_minimum_and_every_pass_over_the_images_is_counted(dense, monkeypatch):
    """Two equal prompts are a saddle that steps along the gradient never leave: certified is what is below it.

    Where there is no matrix, steps along negative curvature are among the passes.
    """
    monkeypatch.setattr(gauss_newton, "DENSE", dense)
    Q, equal, least = at_a_saddle()
    kinds = {
        "value": "value",
        "gradient": "value_and_gradient",
        "steered": "steered",
        "gauss_newton": "gauss_newton" if dense > len(equal) else "gauss_newton_diagonal",
        "gauss_newton_product": "gauss_newton_product",
        "hessian": "hessian_product",
    }
    calls = dict.fromkeys((*kinds, "hessian_steered"), 0)

    def counted(kind, method):
        def call(*arguments, **options):
            calls[kind + "_steered" * options.get("roughly", False)] += 1
            return method(*arguments, **options)

        return call

    for kind, name in kinds.items():
        monkeypatch.setattr(Q, name, counted(kind, getattr(Q, name)))
    lowered = []
    lower = gauss_newton._lower
    monkeypatch.setattr(gauss_newton, "_lower", lambda *arguments: lowered.append(1) or lower(*arguments))
    found = fit(Q, equal, rng=rng())
    assert found.status is FitStatus.CERTIFIED
    assert apart(found) > 0.1
    assert -found.log_likelihood - least < 0.01
    assert bool(lowered) == (dense < len(equal))
    assert found.passes == calls
    assert (calls["gauss_newton_product"] > 0) == (dense < len(equal))


def test_bad_input_is_named():
    Q = objective(VPT(1))
    with pytest.raises(InputError, match="without a ridge, and data that it separates have no finite maximum"):
        CrossEntropy(Q.trials, Q.states, Q.targets)
    with pytest.raises(InputError, match=r"ridge nothing = 1\.0; expected at least 0, of 0\.tokens"):
        CrossEntropy(Q.trials, Q.states, Q.targets, RIDGE | {"nothing": 1.0})
    with pytest.raises(InputError, match="rows sum to 1"):
        CrossEntropy(Q.trials, Q.states, 2 * Q.targets, RIDGE)
    with pytest.raises(InputError, match=r"in torch\.float32"):
        CrossEntropy(Q.trials, Q.states.float(), Q.targets, RIDGE)
    with pytest.raises(InputError, match="threads"):
        objective(VPT(1), threads=0)
    assert objective(VPT(1), threads=10**9).threads == 1  # no more than blocks of images
    with pytest.raises(InputError, match="in_precision: trials are PackedPeers; expected PackedTrials"):
        in_precision(PackedPeers(Q.trials.model, "bias", CLASSES, [draws()]), torch.float64)
    two = PackedTrials(Q.trials.model, VPT(1), CLASSES, [draws(), draws()])
    with pytest.raises(InputError, match="2 trials"):
        CrossEntropy(two, Q.states, Q.targets, RIDGE)
    with pytest.raises(InputError, match="prompts from another image"):
        objective(dataclasses.replace(CONFIGS["adaptive"], source="another"))
    with pytest.raises(InputError, match=r"start of shape \(3,\)"):
        fit(Q, torch.zeros(3), rng=rng())


def test_steps_do_not_run_to_the_box(monkeypatch):
    """Norms inside the network make the length of a prompt a symmetry: G sees no cost in it."""
    teacher = objective(VPT(2), known_head(), n=40)
    law = teacher.logits(teacher.start(), teacher.states).softmax(dim=-1)
    Q = objective(VPT(2), known_head(), law, n=40)
    start = 0.1 * torch.randn(len(Q.ridge), generator=draws(4), dtype=torch.float64)

    def longest(iterations: int) -> float:
        found = fit(Q, start, rng=rng(), max_iterations=iterations)
        parts = CrossEntropy(found.value, Q.states, law).start().split(Q.sizes)
        return max(float(part.norm()) / len(part) ** 0.5 for part in parts)

    for iterations in (1, 2, 3):
        assert longest(iterations) <= 0.2 + 2.0**iterations
    monkeypatch.setattr(gauss_newton, "REACH", float("inf"))
    assert longest(1) > 2.2
