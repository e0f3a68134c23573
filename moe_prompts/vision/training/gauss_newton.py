"""Fit prompts and a head by Levenberg-Marquardt on the exact cross-entropy, with a certificate.

    step = -(|A| + damping I)^-1 g   in coordinates in which the scaled Gauss-Newton matrix + floor I is I

Far from a minimum A is the Gauss-Newton matrix G, held as a matrix up to ``DENSE`` parameters and as
products beyond. Close to one it is the exact Hessian H. Lanczos' method sees H in the metric of G, where H
is near to I: a few products give the step, the gain that is left and the smallest curvature. Everything
that decides anything is computed in float64. What steers steps may be of single precision: the dense G, the
slopes of BFGS, and products with H as long as they promise a gain.
A part's step is at most as long as the part, or as one of rms 1, since norms inside a network make lengths of
prompts a symmetry. Where a step promises little, steps of BFGS follow with the same G and with what is known
of H.

**What a certificate says.** The gain left in the quadratic model of Q at the fit, g'H^-1 g / 2, is at most
the tolerance, and Lanczos' method, from the gradient and from a random direction, met no direction along
which Q is bent down: a step of length 1 gains at most half the tolerance by curvature. Lengths are in units
in which a step along one parameter alone costs half a nat. So the fit is a local minimum of Q to this
tolerance, on the box and with the ridge that are given, as far as these products see. ``relative_lmin`` is
the smallest curvature that was met, relative to G: 1 where Fisher information alone bends Q, and 0 along
symmetries. Of a fit that is not certified both numbers may be of single precision. Nothing is said of other
minima. At a kink of relu, H is that of the smooth piece on which the fit stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moe_prompts.errors import InputError
from moe_prompts.estimators.result import Certificate, FitResult, FitStatus
from moe_prompts.vision.training.cross_entropy import CrossEntropy

KIND = "cross-entropy"
#: Parameters up to which the Gauss-Newton matrix is held as one.
DENSE = 3000
#: Gain left in the total, in nats, below which a minimum is certified unless another is asked for.
TOLERANCE = 1e-3
#: Predicted gain, in units of the tolerance, above which steps use G alone.
CLOSE = 1.0
#: Products with H in a step, those that look for negative curvature, and products with G in a step without a
#: matrix.
PRODUCTS, PROBES, GAUSS_NEWTON_PRODUCTS = 8, 8, 40
#: What is added to S G S before it measures curvatures, in units of the tolerance. In the units of S a step
#: of length 1 along one parameter alone costs half a nat.
FLOOR = 10.0
#: The least diagonal entry of G in units of the mean of its part.
LEAST = 1e-2
#: Damping beyond which no step is left to try, and the least.
MAX_DAMPING, MIN_DAMPING = 1e10, 1e-8
#: The longest step of a part, in units of the longer of the part and of one of rms 1.
REACH = 1.0
#: Steps of BFGS that follow a step with the same matrix, the share of that one's gain, or of the tolerance
#: where it is larger, below which no other follows, and the predicted gain in nats below which there are such
#: steps.
SECANT_STEPS, WORTH, NEAR = 20, 0.02, 1.0
#: Shortenings of such a step before it is given up.
SHORTENED = 3
#: What ``FitResult.passes`` of these fits counts.
PASSES = ("value", "gradient", "steered", "gauss_newton", "gauss_newton_product", "hessian", "hessian_steered")
#: Gains in nats that steps along negative curvature try for. Where Q bends up again soon, only the short ones
#: go down.
ESCAPES = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


class Coordinates:
    """Hold coordinates u with theta = S L^-T u, in which S G S + floor I = L L' is I.

    S is the root of the inverse diagonal of G, which is at least ``LEAST`` of the mean of its part, and 0 for
    parameters that are held. Without a matrix L is I.
    """

    def __init__(
        self, matrix: Tensor | None, diagonal: Tensor, free: Tensor, sizes: Sequence[int], floor: float
    ) -> None:
        # Parameters of a part have the same units: one that these images hardly see must not run off.
        usual = torch.cat([part.mean().expand_as(part) for part in diagonal.split(list(sizes))])
        least = torch.maximum(LEAST * usual, torch.full_like(usual, 1e-12 * float(diagonal.max())))
        self.scale = free * torch.maximum(diagonal, least).rsqrt()
        self.scaled = None if matrix is None else matrix * self.scale[:, None] * self.scale
        self.factor = None if self.scaled is None else _factor(self.scaled, floor)

    def into(self, gradient: Tensor) -> Tensor:
        """Return the gradient (P,) in these coordinates, L^-1 S g."""
        scaled = self.scale * gradient
        if self.factor is None:
            return scaled
        return torch.linalg.solve_triangular(self.factor, scaled[:, None], upper=False)[:, 0]

    def back(self, vector: Tensor) -> Tensor:
        """Return the direction S L^-T u of theta."""
        if self.factor is None:
            return self.scale * vector
        return self.scale * torch.linalg.solve_triangular(self.factor.T, vector[:, None], upper=True)[:, 0]

    def inverse(self, vector: Tensor) -> Tensor:
        """Return the product (G + floor S^-2)^-1 v of theta; without a matrix S^2 v."""
        return self.back(self.into(vector))

    def lengths(self, vectors: Tensor) -> Tensor:
        """Return the squared lengths (K,) of S^-1 theta of vectors u, the columns of (P, K)."""
        if self.factor is not None:
            vectors = torch.linalg.solve_triangular(self.factor.T, vectors, upper=True)
        return vectors.square().sum(dim=0)

    def product(self, of_theta: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return the product u -> A u of a matrix that is given by its products with directions of theta."""
        return lambda vector: self.into(of_theta(self.back(vector)))


def _factor(scaled: Tensor, damping: float) -> Tensor:
    """Return the Cholesky factor of scaled + damping I; a matrix that rounding made indefinite gets more damping."""
    while True:
        damped = scaled.clone()
        damped.diagonal().add_(damping)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not int(failed):
            return factor
        if not damping < MAX_DAMPING:
            raise torch.linalg.LinAlgError("the Gauss-Newton matrix is not finite")
        damping = max(10 * damping, 1e-12)


@dataclass(frozen=True)
class Matrix:
    """Hold a quadratic model of Q whose curvature is G, as a matrix."""

    coordinates: Coordinates
    gradient: Tensor

    def solver(self, damping: float) -> Callable[[Tensor], Tensor]:
        """Return the product with (G + damping D)^-1."""
        assert self.coordinates.scaled is not None
        scale = self.coordinates.scale
        factor = _factor(self.coordinates.scaled, max(damping, 1e-12))
        return lambda vector: scale * torch.cholesky_solve((scale * vector)[:, None], factor)[:, 0]

    def step(self, damping: float) -> Tensor:
        """Return the step -(G + damping D)^-1 g of theta."""
        return -self.solver(damping)(self.gradient)

    @property
    def gain(self) -> float:
        """Return g'G^-1 g / 2 in nats."""
        return float((self.coordinates.into(self.gradient) ** 2).sum()) / 2


@dataclass(frozen=True)
class Krylov:
    """Hold what Lanczos' method found of a symmetric matrix A from a vector b, in coordinates u.

    basis  (P, K), orthonormal, b first
    sizes  (K,), Ritz values
    turn   (K, K), Ritz vectors in the basis
    pushed (K,), b in the Ritz vectors
    flat   (K,), sizes of curvatures that count as none
    """

    coordinates: Coordinates
    basis: Tensor
    sizes: Tensor
    turn: Tensor
    pushed: Tensor
    flat: Tensor

    def step(self, damping: float) -> Tensor:
        """Return the step -(|A| + damping)^-1 b of theta, in the space that was seen."""
        # Curvatures enter by their size, so that a step goes down along negative ones too.
        return self.coordinates.back(-self.basis @ (self.turn @ (self.pushed / (self.sizes.abs() + damping))))

    @property
    def gain(self) -> float:
        """Return b'A^-1 b / 2 in nats; infinite where A has a negative curvature that counts."""
        if self.bent_down:
            return float("inf")
        return float((self.pushed**2 / torch.maximum(self.sizes, self.flat)).sum()) / 2

    @property
    def bent_down(self) -> bool:
        """Return whether a negative curvature counts."""
        return bool((self.sizes < -self.flat).any())

    @property
    def smallest(self) -> float:
        """Return the smallest Ritz value; no eigenvalue of A lies above it that is the smallest."""
        return float(self.sizes[0])

    def most_bent(self) -> tuple[Tensor, float]:
        """Return the direction of theta in which a unit step gains most, and its relative curvature."""
        k = int((self.sizes / self.flat).argmin())
        return self.coordinates.back(self.basis @ self.turn[:, k]), float(self.sizes[k])


def lanczos(
    coordinates: Coordinates,
    of_theta: Callable[[Tensor], Tensor],
    vector: Tensor,
    count: int,
    flat: float,
    tolerance: float = 1e-10,
) -> Krylov:
    """Return what at most ``count`` products with a symmetric matrix show of it.

    of_theta   products of the matrix with directions of theta
    vector     b (P,), in coordinates u; not 0
    flat       curvature that counts as none, in nats for a step of length 1 in the units of S
    tolerance  a next direction that is smaller than this share of the product ends the search
    """
    product, norm = coordinates.product(of_theta), vector.norm()
    basis, products = [vector / norm], []
    while True:
        products.append(product(basis[-1]))
        known, rest = torch.stack(basis, dim=1), products[-1]
        for _ in range(2):  # a second time, since rounding leaves a part of the known directions
            rest = rest - known @ (known.T @ rest)
        if len(basis) == min(count, len(vector)) or rest.norm() <= tolerance * products[-1].norm():
            break
        basis.append(rest / rest.norm())
    projected = known.T @ torch.stack(products, dim=1)
    sizes, turn = torch.linalg.eigh((projected + projected.T) / 2)
    return Krylov(coordinates, known, sizes, turn, turn[0] * norm, flat * coordinates.lengths(known @ turn))


def fit(
    objective: CrossEntropy,
    start: Tensor | None = None,
    *,
    rng: np.random.Generator,
    bound: float = 1e3,
    max_iterations: int = 60,
    tolerance: float = TOLERANCE,
) -> FitResult:
    """Return the fit that Levenberg-Marquardt reaches from ``start``, with its certificate.

    objective       Q, whose minimum is looked for
    start           theta (P,); None: the objective's own trial
    rng             of the random direction in which negative curvature is looked for
    bound           largest size of a parameter; one on the bound that is pushed outwards is held there
    max_iterations  matrices G, or steps that were refused, after which the search gives up
    tolerance       gain left, in nats of the total, below which a minimum is certified

    The value is the fitted trial (``PackedTrials``). ``log_likelihood`` is that of the data, without the
    ridge. The history has "value" (Q), "gain" (predicted, in nats) and "damping" of each iteration;
    ``passes`` counts values, gradients, those in the precision of steering ("steered"), matrices G or their
    diagonals ("gauss_newton"), products with G where there is no matrix ("gauss_newton_product"), products
    with H in float64 ("hessian"), and those in the precision of steering ("hessian_steered"). A fit that ends
    on a step, before G and H are asked at the new point, has no evidence there: its certificate says an
    infinite gain and a curvature of NaN.

    Raises ``InputError`` for a start of another shape, or a bound or tolerance that is not positive.

    Source: Levenberg (1944), Marquardt (1963); damping as Nielsen (1999); BFGS as Nocedal (1980).

    >>> import timm, torch
    >>> from moe_prompts.vision import PackedTrials
    >>> from moe_prompts.vision.training.cross_entropy import in_precision
    >>> from moe_prompts.vision.training.packed import entering_states
    >>> model = timm.create_model("test_vit").requires_grad_(False).eval()
    >>> trials = PackedTrials(model, None, 2, [torch.Generator().manual_seed(0)])
    >>> trials = in_precision(trials, torch.float64)
    >>> images = torch.randn(8, 3, 160, 160, dtype=torch.float64)
    >>> states = entering_states(trials.model, trials.first, images)
    >>> targets = torch.eye(2, dtype=torch.float64)[torch.arange(8) % 2]
    >>> Q = CrossEntropy(trials, states, targets, ridge={"head.weight": 1.0})
    >>> fit(Q, rng=np.random.default_rng(0)).status.name
    'CERTIFIED'
    """
    x = objective.start() if start is None else start.detach().double().clone()
    if x.shape != objective.ridge.shape or not bound > 0 or not tolerance > 0:
        raise InputError(
            f"fit: start of shape {tuple(x.shape)}, bound {bound}, tolerance {tolerance}; expected a start of shape "
            f"({len(objective.ridge)},), the others positive"
        )
    x = x.clamp(-bound, bound)
    probe = torch.from_numpy(rng.standard_normal(len(x))).to(x)
    passes = dict.fromkeys(PASSES, 0) | {"gradient": 1}
    history: dict[str, list[float]] = {"value": [], "gain": [], "damping": []}
    value, gradient = objective.value_and_gradient(x)
    damping, factor, gain, smallest = 1e-2, 2.0, float("inf"), float("nan")
    status, model, eager = FitStatus.NOT_CERTIFIED, None, False
    bends: list[tuple[Tensor, Tensor]] = []

    def hessian(direction: Tensor) -> Tensor:
        passes["hessian"] += 1
        return objective.hessian_product(x, direction)

    def steering_hessian(direction: Tensor) -> Tensor:
        passes["hessian_steered"] += 1
        bends.append((direction, objective.hessian_product(x, direction, roughly=True)))
        return bends[-1][1]

    def fisher(direction: Tensor) -> Tensor:
        passes["gauss_newton_product"] += 1
        return objective.gauss_newton_product(x, direction)

    for _ in range(max_iterations):
        if model is None:
            free = ~((x.abs() >= bound) & (gradient * x < 0))
            coordinates, model = _gauss_newton_model(objective, x, gradient, free, FLOOR * tolerance, fisher)
            passes["gauss_newton"] += 1
            gain, smallest = model.gain, float("nan")
            bends.clear()
            # Far away H is often indefinite and a product with it is dear, while steps of G descend well.
            # Near a minimum H is needed: for the last steps, and since G cannot tell a minimum from a saddle.
            if gain < CLOSE * tolerance:
                pushed = coordinates.into(gradient)
                pushed = pushed if pushed.norm() > 0 else probe
                model = lanczos(coordinates, steering_hessian, pushed, PRODUCTS, tolerance)
                gain, smallest = model.gain, model.smallest
                # Single precision may say where a step leads, but not that there is no gain or no minimum.
                if not tolerance < gain < float("inf"):
                    model = lanczos(coordinates, hessian, pushed, PRODUCTS, tolerance)
                    gain, smallest = model.gain, model.smallest
                if gain <= tolerance:
                    seen = lanczos(coordinates, hessian, probe, PROBES, tolerance)
                    smallest = min(smallest, seen.smallest)
                    if not seen.bent_down:
                        status = FitStatus.CERTIFIED
                    else:
                        gain, lower = float("inf"), _lower(objective, x, value, seen, bound)
                        passes["value"] += 2 * len(ESCAPES)
                        if lower is None:
                            status = FitStatus.STALLED
                        else:
                            x, model = lower, None
                            value, gradient = objective.value_and_gradient(x)
                            passes["gradient"] += 1
                            continue
            history["value"].append(value)
            history["gain"].append(gain)
            history["damping"].append(damping)
        if status is FitStatus.NOT_CERTIFIED and damping > MAX_DAMPING:
            status = FitStatus.STALLED
        if status is not FitStatus.NOT_CERTIFIED:
            break
        # The box may cut a step short. What counts is whether Q falls, and by how much of what was hoped for.
        proposed = model.step(damping)
        # Norms inside the network make lengths of prompts a symmetry, so that steps of G would run to the
        # box.
        while damping <= MAX_DAMPING and _too_long(proposed, x, objective.sizes):
            damping *= 3.0
            proposed = model.step(damping)
        history["damping"][-1] = damping
        step = (x + proposed).clamp(-bound, bound) - x
        hoped = -float(gradient @ step) / 2
        # Where the last step was taken this one most often is too: then its gradient is asked for at once.
        slope: Tensor | None = None
        if eager:
            found, slope = objective.value_and_gradient(x + step)
            passes["gradient"] += 1
        else:
            found = objective.value(x + step)
            passes["value"] += 1
        won = value - found
        eager = won > 0 and won > 1e-4 * hoped
        if eager:
            if slope is None:
                slope = objective.value_and_gradient(x + step)[1]
                passes["gradient"] += 1
            # Farther away a new matrix is worth more than steps with the old one.
            if coordinates.factor is not None and gain < NEAR:
                pairs, x, value, gradient = [*bends, (step, slope - gradient)], x + step, found, slope
                inverse = model.solver(damping) if isinstance(model, Matrix) else coordinates.inverse
                worth = WORTH * max(won, tolerance)
                ahead, count = _secant_steps(objective, x, inverse, pairs, worth, bound)
                passes["steered"] += count
                # The steps were taken at rounded slopes. Whether they led down is asked in float64.
                if ahead is not None:
                    found, slope = objective.value_and_gradient(ahead)
                    passes["gradient"] += 1
                    if found < value:
                        x, value, gradient = ahead, found, slope
            else:
                x, value, gradient = x + step, found, slope
            model = None
            ratio = min(max(won / hoped if hoped > 0 else 0.0, 0.0), 1.0)
            damping, factor = max(damping * max(1 / 5, 1 - (2 * ratio - 1) ** 3), MIN_DAMPING), 2.0
        else:
            damping, factor = damping * factor, 2 * factor
    if model is None:  # what is known belongs to the point before the last step
        gain, smallest = float("inf"), float("nan")
    held = int((x.abs() >= bound).sum())
    said = [f"{held} parameters lie on the bound {bound:g}"] if held else []
    penalty = float((objective.ridge * x**2).sum()) / 2
    said += [f"the ridge costs {penalty:.3g} nats"] if penalty else []
    return FitResult(
        value=objective.fitted(x),
        status=status,
        certificate=Certificate(KIND, gain, smallest),
        log_likelihood=penalty - value,
        iterations=len(history["value"]),
        passes=passes,
        history=history,
        detail="; ".join(said),
    )


def _gauss_newton_model(
    objective: CrossEntropy,
    x: Tensor,
    gradient: Tensor,
    free: Tensor,
    floor: float,
    product: Callable[[Tensor], Tensor],
) -> tuple[Coordinates, Matrix | Krylov]:
    """Return coordinates and the model of Q whose curvature is G, which is a matrix where it is small enough.

    product  of G with a direction, where there is no matrix
    """
    if len(x) <= DENSE:
        matrix = objective.gauss_newton(x)
        coordinates = Coordinates(matrix, matrix.diagonal(), free, objective.sizes, floor)
        return coordinates, Matrix(coordinates, gradient)
    coordinates = Coordinates(None, objective.gauss_newton_diagonal(x), free, objective.sizes, floor)
    return coordinates, lanczos(coordinates, product, coordinates.into(gradient), GAUSS_NEWTON_PRODUCTS, floor)


def _secant_steps(
    objective: CrossEntropy,
    x: Tensor,
    inverse: Callable[[Tensor], Tensor],
    pairs: list[tuple[Tensor, Tensor]],
    worth: float,
    bound: float,
) -> tuple[Tensor | None, int]:
    """Return where steps with one Gauss-Newton matrix lead from x, or None, and how many gradients it took.

    These are steps of limited-memory BFGS whose first inverse is that of the matrix. A gradient in the
    precision of steering costs half of what a matrix does, and pairs of steps and changes of the gradient say
    what G leaves out of the Hessian.

    inverse  product with (G + damping D)^-1
    pairs    steps and the changes of the gradient along them, the last of them the step that led to x; the new
             ones are added
    worth    a gain in nats; after a step with less there is no other
    """
    length, begun = 1.0, x
    value, gradient = objective.steered(x)
    count = 1
    for _ in range(SECANT_STEPS):
        direction = -_two_loops(gradient, pairs, inverse)
        slope = float(gradient @ direction)
        while _too_long(length * direction, x, objective.sizes):
            length /= 2
        if not slope < 0:
            break
        asked = length
        for _ in range(1 + SHORTENED):
            step = (x + length * direction).clamp(-bound, bound) - x
            found, there = objective.steered(x + step)
            count += 1
            won, hoped = value - found, -length * slope
            if won > 1e-4 * hoped:
                break
            # The parabola through the value and slope here and the value there.
            length *= min(max(hoped / (2 * (hoped - won)), 0.1), 0.5)
        else:
            break
        pairs.append((step, there - gradient))
        x, value, gradient = x + step, found, there
        if won < worth:
            break
        if length == asked:
            length = min(1.0, 2 * length)
    return (None if x is begun else x), count


def _two_loops(gradient: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], inverse: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the product of the BFGS inverse with the gradient (Nocedal 1980)."""
    rest, shares = gradient, []
    bent_up = [(s, y, float(s @ y)) for s, y in pairs if float(s @ y) > 0]
    for s, y, sy in reversed(bent_up):
        shares.append(float(s @ rest) / sy)
        rest = rest - shares[-1] * y
    found = inverse(rest)
    for (s, y, sy), share in zip(bent_up, reversed(shares), strict=True):
        found = found + (share - float(y @ found) / sy) * s
    return found


def _too_long(step: Tensor, x: Tensor, sizes: Sequence[int]) -> bool:
    """Return whether a part of the step is longer than ``REACH`` allows."""
    parts = zip(step.split(list(sizes)), x.split(list(sizes)), strict=True)
    return any(float(d.norm()) > REACH * max(float(part.norm()), len(part) ** 0.5) for d, part in parts)


def _lower(objective: CrossEntropy, x: Tensor, value: float, seen: Krylov, bound: float) -> Tensor | None:
    """Return the lowest point along the direction of negative curvature, or None where no step lowers Q."""
    direction, curvature = seen.most_bent()
    steps = [sign * (2 * nats / -curvature) ** 0.5 * direction for nats in ESCAPES for sign in (1.0, -1.0)]
    trials = [(x + step).clamp(-bound, bound) for step in steps]
    found = [objective.value(trial) for trial in trials]
    lowest = int(np.argmin(found))
    return trials[lowest] if found[lowest] < value else None
