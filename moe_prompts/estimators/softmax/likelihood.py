"""Fit softmax-gated experts by maximum likelihood: the textbook EM, or the trust region on exact curvature.

Write X = (1, x), r_ik for the responsibilities, pi_ik for the gates, e = y - a'x - b, and

    u_k = (X, (e/s) X, (e^2/s - 1)/2)

for the derivatives of one atom's log contribution in its gate, its expert and log s_k. Then

    gradient  sum_i r_ik u_ik - pi_ik (X, 0, 0)
    Hessian   sum_i [cov_r(u) - cov_pi((X, 0, 0)) + sum_k r_ik d^2 log N_k],

block products that one matrix multiplication each provides. Beside the certificate of every maximum a gate
has one of its own. Where logits change by more than 5 between neighbouring points and two gates share less
than one point, the gate separates the data: no finite maximum exists, and -H looks positive definite only
because the data end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from moe_prompts.checks import expect, given, resolved, settings
from moe_prompts.compilation import kernels
from moe_prompts.estimators.result import NO_CERTIFICATE, FitResult, FitStatus
from moe_prompts.estimators.trust_region import (
    Ascent,
    CollapseError,
    EMOptions,
    Spectrum,
    TrustRegionOptions,
    ascend,
    no_history,
)
from moe_prompts.models.data import Sample
from moe_prompts.models.softmax_gated import LOG_2PI, SoftmaxGatedFamily, SoftmaxGatedMoE

#: An atom that explains fewer points, or whose noise is smaller in standardised units, counts as collapsed.
MIN_POINTS, MIN_NOISE_SD = 5.0, 3e-4
#: A gate whose logits change by more than this between neighbouring points separates them.
MAX_LOGIT_STEP = 5.0
#: Below this relative curvature, what a certificate calls positive is rounding.
MIN_RELATIVE_LMIN = 1e-8
#: Rows per block: a block's products stay in cache.
BLOCK = 8192
#: Compiled loops, which the sums in NumPy below are compared with.
KERNELS = "moe_prompts.estimators.kernels"


@dataclass(frozen=True)
class SoftmaxOptions(TrustRegionOptions):
    """Set how ``softmax_newton`` climbs: the options of ``TrustRegionOptions`` and three guards.

    max_iterations, gap_tolerance, em_warmup, corrector_steps, corrector_until, radius, max_radius
                    how the trust region climbs, as ``TrustRegionOptions`` says
    max_logit_step  largest change of a gate's logits between neighbouring points; beyond it the gate
                    separates the data
    min_points      smallest number of points that an atom must explain
    min_noise_sd    smallest noise of an atom, a standard deviation in standardised units; in (0, 1)

    Raises ``InputError`` where a number is outside its range.

    >>> import moe_prompts as mp
    >>> mp.SoftmaxOptions(min_noise_sd=0.01).min_noise_sd
    0.01
    """

    max_logit_step: float = MAX_LOGIT_STEP
    min_points: float = MIN_POINTS
    min_noise_sd: float = MIN_NOISE_SD

    def __post_init__(self) -> None:
        super().__post_init__()
        settings(self, max_logit_step="(0, inf)", min_points="(0, inf)", min_noise_sd="(0, 1)")


@dataclass
class SoftmaxLikelihood:
    """Lay out the data of a fit, and give the log-likelihood and its derivatives.

    The vector theta (p,) holds the gates of atoms 1 .. k-1, the experts (b, a) of all atoms, and log s, in
    standardised units: every column of (x, y) has mean 0 and standard deviation 1.

    family        dimensions and number of atoms
    sample        the data
    min_points    guard: points that an atom must explain
    min_noise_sd  guard: smallest noise of an atom, a standard deviation in standardised units
    passes        counts passes over the data: ``e1`` for EM steps, ``e2`` for exact curvature

    Raises ``InputError`` where the sample does not fit the family, or where a column is constant.
    """

    family: SoftmaxGatedFamily
    sample: Sample
    min_points: float = MIN_POINTS
    min_noise_sd: float = MIN_NOISE_SD
    passes: dict[str, int] = field(default_factory=lambda: {"e1": 0, "e2": 0})

    def __post_init__(self) -> None:
        expect(self.family, SoftmaxGatedFamily, "softmax gates: family").check_sample(self.sample)
        x, y = self.sample
        self.shift_x, self.scale_x = x.mean(axis=0), x.std(axis=0)
        self.shift_y, self.scale_y = float(y.mean()), float(y.std())
        size = np.append(np.abs(x).max(axis=0), np.abs(y).max())
        names = [*(f"column {column} of x" for column in range(self.family.d)), "column 0 of y"]
        resolved(np.append(self.shift_x, self.shift_y), np.append(self.scale_x, self.scale_y), size, names)
        z = (x - self.shift_x) / self.scale_x
        self.X = np.ascontiguousarray(np.concatenate([np.ones((self.total, 1)), z], axis=1).T)
        self.y = np.ascontiguousarray((y[:, 0] - self.shift_y) / self.scale_y)
        self.loops = kernels(KERNELS)

    @property
    def total(self) -> int:
        """Return the number of observations n."""
        return self.sample.n

    @property
    def q(self) -> int:
        """Return the number of coefficients of a linear function of x, d + 1."""
        return self.family.d + 1

    # Parameters ---------------------------------------------------------------------------------------------

    def theta_of(self, params: SoftmaxGatedMoE) -> np.ndarray:
        """Return theta (p,) for parameters in the units of the data."""
        p = params.rescaled(self.shift_x, self.scale_x, self.shift_y, self.scale_y).pinned()
        gate = np.concatenate([p.gate_intercepts[:-1, None], p.gate_slopes[:-1]], axis=1)
        experts = np.concatenate([p.intercepts[:, None], p.slopes], axis=1)
        return np.concatenate([gate.ravel(), experts.ravel(), np.log(p.noise_vars)])

    def params_of(self, theta: np.ndarray) -> SoftmaxGatedMoE:
        """Return the parameters, in the units of the data, for theta (p,)."""
        gate, experts, variances = self.parts(theta)
        inner = SoftmaxGatedMoE(gate[:, 0], gate[:, 1:], experts[:, 1:], experts[:, 0], variances)
        return inner.rescaled(
            -self.shift_x / self.scale_x, 1 / self.scale_x, -self.shift_y / self.scale_y, 1 / self.scale_y
        ).pinned()

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the gate (k, q), with a last row of zeros, the experts (k, q) and the variances (k,)."""
        k, q = self.family.k, self.q
        gate = np.concatenate([theta[: (k - 1) * q].reshape(k - 1, q), np.zeros((1, q))])
        rest = theta[(k - 1) * q :]
        return gate, rest[: k * q].reshape(k, q), np.exp(rest[k * q :])

    def _guarded(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ``parts``; raises ``CollapseError`` where an atom's noise is below the guard."""
        gate, experts, variances = self.parts(theta)
        if not np.isfinite(theta).all() or variances.min() < self.min_noise_sd**2:
            raise CollapseError(f"an atom's noise is smaller than the guard of {self.min_noise_sd:.1g} sd")
        return gate, experts, variances

    # Passes -------------------------------------------------------------------------------------------------

    def blocks(self, theta: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield what a pass needs, block by block.

        Each block of m points gives X (q, m), y (m,), the residuals, gates and responsibilities (k, m), and
        its sum of log densities. Atoms are rows, so that every elementwise step runs along memory.

        Raises ``CollapseError`` where an atom's noise is below the guard.
        """
        gate, experts, variances = self._guarded(theta)
        constants = -0.5 * (LOG_2PI + np.log(variances))[:, None]
        precision = 0.5 / variances[:, None]
        for begin in range(0, self.total, BLOCK):
            X, y = self.X[:, begin : begin + BLOCK], self.y[begin : begin + BLOCK]
            residuals = y - experts @ X
            logits = gate @ X
            gates, log_sum = _softmax(logits)
            joint = logits - log_sum + constants - precision * residuals**2
            responsibilities, log_density = _softmax(joint)
            yield X, y, residuals, gates, responsibilities, log_density.sum()

    def em(self, theta: np.ndarray, steps: int) -> np.ndarray:
        """Return theta after that many EM steps.

        A step is weighted least squares for the experts and one Newton step, halved until it ascends, for the
        gate.
        """
        for _ in range(steps):
            theta = self.em_step(theta)[1]
        return theta

    def em_step(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log-likelihood at ``theta`` and the next point.

        Raises ``CollapseError`` where an atom explains too few points or too few distinct inputs, or where
        its noise is below the guard.
        """
        self.passes["e1"] += 1
        value, of_gates, gram, moment, square, score, information = self._step_sums(theta)
        counts, labels = gram[:, 0, 0], gram[:, 0]
        if counts.min() < self.min_points:
            raise CollapseError(f"an atom explains {counts.min():.3g} points")
        try:
            experts = np.linalg.solve(gram, moment[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError as error:
            raise CollapseError("an atom explains too few distinct inputs") from error
        variances = (square - (experts * moment).sum(axis=1)) / counts
        if variances.min() < self.min_noise_sd**2:
            raise CollapseError(f"an atom's noise is smaller than the guard of {self.min_noise_sd:.1g} sd")
        gate = self._gate_step(theta, score, information, labels, of_gates)
        return value, np.concatenate([gate, experts.ravel(), np.log(variances)])

    def _step_sums(
        self, theta: np.ndarray
    ) -> tuple[float, float, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return what a step of EM needs: the log-likelihood and sums over points.

        They are the gates' log sums, r_k X X' (k, q, q), r_k X y (k, q), r_k y^2 (k,), (r_k - g_k) X (k, q)
        with the gates g, and the information of the gate (kq, kq).
        """
        if self.loops is not None:
            value, of_gates, own, _, gates_own, gates_across = self._compiled_sums(theta, exact=False)
            q = self.q
            score = own[:, 0, :q] - gates_own[:, 0]
            information = _block_diagonal(gates_own) - gates_across
            return value, of_gates, own[:, :q, :q], own[:, :q, q], own[:, q, q], score, information
        k, q = self.family.k, self.q
        gram, moment, square = np.zeros((k, q, q)), np.zeros((k, q)), np.zeros(k)
        score, information, value, of_gates = np.zeros((k, q)), np.zeros((k * q, k * q)), 0.0, 0.0
        gate, _, _ = self.parts(theta)
        for X, y, _, gates, r, total in self.blocks(theta):
            value += float(total)
            for j in range(k):
                weighted = r[j] * X
                gram[j] += weighted @ X.T
                moment[j] += weighted @ y
            square += r @ y**2
            score += (r - gates) @ X.T
            information += _gate_information(gates, X)
            of_gates += float(_softmax(gate @ X)[1].sum())
        return value, of_gates, gram, moment, square, score, information

    def _compiled_sums(
        self, theta: np.ndarray, exact: bool
    ) -> tuple[float, float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return what ``kernels.softmax_pass`` does, with its sums whole and without padding."""
        gate, experts, variances = self._guarded(theta)
        k, q = self.family.k, self.q
        size = 2 * q + 1 if exact else q + 1
        # The loops take rows two at a time and columns five at a time: tables are filled up with zeros.
        table = lambda rows, columns: np.zeros((rows + rows % 2, -(-columns // 5) * 5))
        each = lambda width: np.zeros((k, *table(width, width).shape))
        own, gates_own = each(size), each(q)
        across, gates_across = table(k * size, k * size) if exact else np.zeros((0, 5)), table(k * q, k * q)
        assert self.loops is not None
        value, of_gates = self.loops.softmax_pass(
            self.X,
            self.y,
            gate,
            np.ascontiguousarray(experts),
            -0.5 * (LOG_2PI + np.log(variances)),
            0.5 / variances,
            own,
            across,
            gates_own,
            gates_across,
        )
        symmetric = lambda upper, width: np.triu(upper[:width, :width]) + np.triu(upper[:width, :width], 1).T
        return (
            value,
            of_gates,
            own[:, :size, :size],
            symmetric(across, k * size) if exact else across,
            gates_own[:, :q, :q],
            symmetric(gates_across, k * q),
        )

    def _gate_step(
        self, theta: np.ndarray, score: np.ndarray, information: np.ndarray, labels: np.ndarray, of_gates: float
    ) -> np.ndarray:
        """Return the gate after a Newton step of multinomial logistic regression on soft labels.

        The step is halved until the likelihood of the labels rises; ``labels`` (k, q) = sum_i r_ik X_i are
        all that it needs of them. ``of_gates`` is the sum of the gate's log sums at ``theta``.
        """
        free = (self.family.k - 1) * self.q
        gate = theta[:free]
        if not free:
            return gate
        try:
            step = np.linalg.solve(information[:free, :free], score[:-1].ravel())
        except np.linalg.LinAlgError as error:
            raise CollapseError("the gate separates the data") from error
        before = float((labels[:-1].ravel() * gate).sum()) - of_gates
        for _ in range(40):
            # A gain smaller than rounding in a sum of n terms counts as none lost.
            if self._labels_likelihood(gate + step, labels) >= before - 1e-14 * self.total:
                return gate + step
            step = step / 2
        return gate

    def _labels_likelihood(self, gate: np.ndarray, labels: np.ndarray) -> float:
        """Return sum_i sum_k r_ik log gate_k(x_i)."""
        table = np.concatenate([gate.reshape(-1, self.q), np.zeros((1, self.q))])
        value = float((labels * table).sum())
        if self.loops is not None:
            return value - self.loops.softmax_log_sums(self.X, table)
        for begin in range(0, self.total, BLOCK):
            value -= float(_softmax(table @ self.X[:, begin : begin + BLOCK])[1].sum())
        return value

    def evaluate(self, theta: np.ndarray) -> tuple[float, Spectrum]:
        """Return the log-likelihood and the spectrum at theta, by one pass with exact curvature."""
        self.passes["e2"] += 1
        value, gradient, hessian, information = self.derivatives(theta)
        return value, Spectrum.of(gradient, hessian, information)

    def derivatives(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Return the log-likelihood, its gradient (p,) and Hessian (p, p), and the information (p, p).

        The information is that of the complete data, with the labels known.

        Raises ``CollapseError`` where an atom explains too few points.
        """
        value, counts, score, hessian, information = self._curvature_sums(theta)
        if not np.isfinite(value) or counts.min() < self.min_points:
            raise CollapseError(f"an atom explains {counts.min():.3g} points")
        k, size = score.shape
        q = self.q
        order = np.arange(k * size).reshape(k, size)
        free = np.concatenate([order[:-1, :q].ravel(), order[:, q : 2 * q].ravel(), order[:, -1]])
        square_form = lambda table: table.reshape(k * size, k * size)[np.ix_(free, free)]
        return float(value), score.ravel()[free], square_form(hessian), square_form(information)

    def _curvature_sums(self, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the log-likelihood and, by atom and coordinate of u, what ``derivatives`` chooses from.

        The arrays are the points that atoms explain (k,), the gradient (k, 2q + 1), and Hessian and
        information (k, 2q + 1, k, 2q + 1), those of the last gate among them.
        """
        k, q = self.family.k, self.q
        _, _, variances = self.parts(theta)
        size = 2 * q + 1  # of one atom's u: gate, expert, log variance
        if self.loops is not None:
            value, _, own, across, gates_own, gates_across = self._compiled_sums(theta, exact=True)
            counts, score = own[:, 0, 0], own[:, 0].copy()
            score[:, :q] -= gates_own[:, 0]
            hessian, information = -across.reshape(k, size, k, size), np.zeros((k, size, k, size))
            gate_information = (_block_diagonal(gates_own) - gates_across).reshape(k, q, k, q)
            hessian[:, :q, :, :q] -= gate_information
            information[:, :q, :, :q] += gate_information
            for j in range(k):
                curved, cross = own[j, :q, :q] / variances[j], own[j, 0, q : 2 * q]
                hessian[j, :, j, :] += own[j]
                hessian[j, q : 2 * q, j, q : 2 * q] -= curved
                hessian[j, q : 2 * q, j, -1] -= cross
                hessian[j, -1, j, q : 2 * q] -= cross
                # e^2 / (2 s) is the last entry of u and a half.
                hessian[j, -1, j, -1] -= own[j, 0, -1] + counts[j] / 2
                information[j, q : 2 * q, j, q : 2 * q] += curved
                information[j, -1, j, -1] += counts[j] / 2
            return value, counts, score, hessian, information
        value, counts = 0.0, np.zeros(k)
        score, hessian = np.zeros((k, size)), np.zeros((k, size, k, size))
        information = np.zeros_like(hessian)
        for X, _, residuals, gates, r, total in self.blocks(theta):
            value += float(total)
            counts += r.sum(axis=1)
            t = residuals / variances[:, None]
            square = residuals * t
            u = np.empty((k, size, X.shape[1]))
            u[:, :q] = X
            np.multiply(t[:, None, :], X, out=u[:, q : 2 * q])
            u[:, -1] = 0.5 * square - 0.5
            ru = r[:, None, :] * u
            score += ru.sum(axis=2)
            score[:, :q] -= gates @ X.T
            flat = ru.reshape(k * size, -1)
            # cov_r(u) = sum_k r_k u_k u_k' - (sum_k r_k u_k)(sum_k r_k u_k)'. The second term is one product
            # for all pairs of atoms; the first stands on the diagonal and is added atom by atom below.
            hessian -= (flat @ flat.T).reshape(k, size, k, size)
            gate_information = _gate_information(gates, X).reshape(k, q, k, q)
            hessian[:, :q, :, :q] -= gate_information
            information[:, :q, :, :q] += gate_information
            for j in range(k):
                hessian[j, :, j, :] += ru[j] @ u[j].T
                curved = ru[j, :q] @ X.T / variances[j]
                cross = ru[j, q : 2 * q].sum(axis=1)
                hessian[j, q : 2 * q, j, q : 2 * q] -= curved
                hessian[j, q : 2 * q, j, -1] -= cross
                hessian[j, -1, j, q : 2 * q] -= cross
                hessian[j, -1, j, -1] -= r[j] @ square[j] / 2
                information[j, q : 2 * q, j, q : 2 * q] += curved
                information[j, -1, j, -1] += r[j].sum() / 2
        return float(value), counts, score, hessian, information

    # The gate's own certificate -----------------------------------------------------------------------------

    def logit_step(self, theta: np.ndarray) -> float:
        """Return the largest change of the difference of two logits between neighbouring points.

        Neighbours are taken on average over the data, and also at the step from the last point below 0 to the
        first one above, where one atom takes over from the other. Only pairs of atoms whose gates share less
        than one point count, those with sum_i pi_ik pi_ij < 1; the points that they share hold the others.
        """
        gate, _, _ = self.parts(theta)
        logits, steps = gate @ self.X, [0.0]
        gates, _ = _softmax(logits)
        for i in range(self.family.k):
            for j in range(i):
                if gates[i] @ gates[j] >= 1:
                    continue
                difference = logits[i] - logits[j]
                steps.append(float(np.ptp(difference)) / max(self.total - 1, 1))
                below, above = difference[difference < 0], difference[difference >= 0]
                if len(below) and len(above):
                    steps.append(float(above.min() - below.max()))
        return max(steps)


def _softmax(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the softmax over atoms (rows) and its log-sum-exp."""
    top = logits.max(axis=0)
    weights = np.exp(logits - top)
    total = weights.sum(axis=0)
    weights /= total
    return weights, top + np.log(total)


def _block_diagonal(blocks: np.ndarray) -> np.ndarray:
    """Return (k, q, q) as the blocks of a matrix (kq, kq)."""
    k, q, _ = blocks.shape
    out = np.zeros((k, q, k, q))
    out[np.arange(k), :, np.arange(k), :] = blocks
    return out.reshape(k * q, k * q)


def _gate_information(gates: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Return sum_i (diag(pi_i) - pi_i pi_i') kron X_i X_i' (kq, kq)."""
    k, q = len(gates), len(X)
    weighted = (gates[:, None, :] * X).reshape(k * q, -1)
    information = -(weighted @ weighted.T)
    for j in range(k):
        information[j * q : (j + 1) * q, j * q : (j + 1) * q] += weighted[j * q : (j + 1) * q] @ X.T
    return information


def softmax_newton(
    family: SoftmaxGatedFamily, sample: Sample, start: SoftmaxGatedMoE, options: SoftmaxOptions | None = None
) -> FitResult:
    """Fit softmax-gated experts by maximum likelihood from ``start``, and certify the point reached.

    family   dimensions and number of atoms of the model
    sample   pairs x (n, d), y (n, 1)
    start    where the climb begins, in the units of the data
    options  how it climbs; ``SoftmaxOptions()`` by default

    Returns the fit. CERTIFIED needs the certificate of every maximum, a relative curvature of at least 1e-8,
    and a gate whose logits change by at most ``max_logit_step`` from point to point; SEPARATED says that the
    last fails, FLAT that the second does. The history holds ``log_likelihood``, ``gap_nats`` and
    ``relative_lmin`` at each accepted point.

    Raises ``InputError`` where the sample or the start does not fit the family, or where a column is
    constant.

    >>> import moe_prompts as mp
    >>> truth = mp.softmax_truth("sgame")
    >>> sample = mp.softmax_sample("sgame", n=1000, seed=0)
    >>> fit = mp.softmax_newton(truth.family(k=2), sample, start=truth.params)
    >>> fit.certified
    True
    """
    options = given(options, SoftmaxOptions, "softmax_newton: options")
    return softmax_climb(SoftmaxLikelihood(family, sample, options.min_points, options.min_noise_sd), start, options)


def softmax_climb(likelihood: SoftmaxLikelihood, start: SoftmaxGatedMoE, options: SoftmaxOptions) -> FitResult:
    """Climb as ``softmax_newton`` does, on data already laid out, so that several starts share the layout.

    The guards are those of ``likelihood``.
    """
    family, sample = likelihood.family, likelihood.sample
    before = dict(likelihood.passes)
    theta = likelihood.theta_of(family.check(start))
    if sample.n < family.n_parameters:
        found = Ascent(theta, np.nan, FitStatus.TOO_FEW_POINTS, NO_CERTIFICATE, 0, no_history())
    else:
        found = ascend(likelihood, theta, options)
    fit = _result(likelihood, found, options.max_logit_step)
    return replace(fit, passes={name: count - before[name] for name, count in fit.passes.items()})


def softmax_em(
    family: SoftmaxGatedFamily, sample: Sample, start: SoftmaxGatedMoE, options: EMOptions | None = None
) -> FitResult:
    """Fit softmax-gated experts by EM from ``start``, with a Newton step for the gate.

    This is the textbook loop, slow where atoms overlap. Arguments, result and errors are those of
    ``softmax_newton``, but for the options, and the history holds ``log_likelihood`` only: before each step
    and at the end, never decreasing beyond rounding.

    sample  the data, n pairs in memory

    >>> import moe_prompts as mp
    >>> truth = mp.softmax_truth("sgame")
    >>> family = mp.SoftmaxGatedFamily(1, truth.params.k)
    >>> fit = mp.softmax_em(family, mp.softmax_sample("sgame", 500, seed=0), truth.params)
    >>> bool(fit.history["log_likelihood"][-1] > fit.history["log_likelihood"][0])
    True
    """
    options = given(options, EMOptions, "softmax_em: options")
    likelihood = SoftmaxLikelihood(family, sample)
    theta = likelihood.theta_of(family.check(start))
    history: list[float] = []
    certificate, status, value, detail = NO_CERTIFICATE, FitStatus.TOO_FEW_POINTS, np.nan, ""
    iteration, next_check, limit = 0, 10, options.max_iterations
    # The loop of ``gaussian.em``: checks of the certificate grow apart, and it is made once more at the point
    # where the rule of published runs stops.
    while sample.n >= family.n_parameters:
        try:
            if iteration == limit or (options.certify and iteration == next_check):
                value, spectrum = likelihood.evaluate(theta)
                certificate = spectrum.certificate
                next_check = max(next_check + 1, int(1.15 * next_check))
                done = certificate.holds(options.gap_tolerance)
                if done or iteration == limit:
                    status = FitStatus.CERTIFIED if done else FitStatus.NOT_CERTIFIED
                    detail = "" if done else "EM is linear: softmax_newton(...) gets there in tens of steps"
                    history.append(value)
                    break
            value, theta = likelihood.em_step(theta)
            history.append(value)
            if options.small_gain(history, likelihood.total * np.log(likelihood.scale_y)):
                limit = iteration + 1
        except CollapseError as error:
            status, certificate, detail = FitStatus.COLLAPSED, NO_CERTIFICATE, str(error)
            break
        iteration += 1
    found = Ascent(theta, value, status, certificate, iteration, {"log_likelihood": history}, detail)
    return _result(likelihood, found, MAX_LOGIT_STEP)


def _result(likelihood: SoftmaxLikelihood, found: Ascent, max_logit_step: float) -> FitResult:
    """Return a fit in the units of the data, after the gate's own certificate."""
    volume = likelihood.total * np.log(likelihood.scale_y)
    status, detail = found.status, found.detail
    step = likelihood.logit_step(found.theta)
    ended = (FitStatus.CERTIFIED, FitStatus.NOT_CERTIFIED, FitStatus.STALLED)
    if status in ended and step > max_logit_step:
        status, detail = FitStatus.SEPARATED, f"gate logits change by {step:.3g} from point to point"
    elif status is FitStatus.CERTIFIED and found.certificate.relative_lmin < MIN_RELATIVE_LMIN:
        status = FitStatus.FLAT
        detail = f"relative curvature {found.certificate.relative_lmin:.1g}"
    return FitResult(
        value=likelihood.params_of(found.theta),
        status=status,
        certificate=found.certificate,
        log_likelihood=found.value - volume,
        iterations=found.iterations,
        passes=dict(likelihood.passes),
        history=found.history | {"log_likelihood": [v - volume for v in found.history["log_likelihood"]]},
        detail=detail,
    )
