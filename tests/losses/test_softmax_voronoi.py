import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from moe_prompts import InputError
from moe_prompts.losses.softmax_voronoi import _AlongSlopes, _errors_at, softmax_errors, softmax_loss
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE
from moe_prompts.models.softmax_truths import softmax_truth

FIELDS = ("gate_intercepts", "gate_slopes", "slopes", "intercepts", "noise_vars")
VARIANTS = ("published", "intrinsic")
PUBLISHED = softmax_truth("sgame").params
ROUNDING = 1e-13  # of sums of some tens of numbers of order 1


def moe(masses, gate_slopes, slopes, intercepts, noise_vars) -> SoftmaxGatedMoE:
    """d = 1, the masses e^{beta0} in place of their logarithms."""
    return SoftmaxGatedMoE(np.log(masses), np.c_[gate_slopes], np.c_[slopes], intercepts, noise_vars)


def random_params(rng: np.random.Generator, k: int, d: int) -> SoftmaxGatedMoE:
    return SoftmaxGatedMoE(
        rng.standard_normal(k),
        2 * rng.standard_normal((k, d)),
        2 * rng.standard_normal((k, d)),
        rng.standard_normal(k),
        rng.uniform(0.5, 2, k),
    )


def beside(truth: SoftmaxGatedMoE, labels, size: float, rng: np.random.Generator) -> SoftmaxGatedMoE:
    """Atoms of the given labels, the mass of each cell shared, all moved by about ``size``."""
    at = truth.atoms(labels)
    moved = {name: getattr(at, name) + size * rng.standard_normal(getattr(at, name).shape) for name in FIELDS}
    moved["gate_intercepts"] -= np.log(np.bincount(labels)[labels])
    moved["noise_vars"] = at.noise_vars * np.exp(size * rng.standard_normal(at.k))
    return SoftmaxGatedMoE(**moved)


def random_case(seed: int, k: int, d: int, size: float) -> tuple[SoftmaxGatedMoE, SoftmaxGatedMoE]:
    """k atoms around two true ones, each of which has one, and the truth."""
    rng = np.random.default_rng([seed, k, d])
    truth = random_params(rng, 2, d)
    labels = np.append([0, 1], rng.integers(2, size=k - 2))
    return beside(truth, labels, size, rng), truth


def enumerated(fitted: SoftmaxGatedMoE, truth: SoftmaxGatedMoE, variant: str, t0: float, t1) -> float:
    """D at the translation (t0, t1), atom by atom as theory writes it."""
    norm = lambda v: float(np.sqrt(np.sum(np.square(v))))
    lengths = [
        [
            (
                norm(fitted.gate_slopes[i] + t1 - truth.gate_slopes[j]),
                norm(fitted.slopes[i] - truth.slopes[j]),
                abs(fitted.intercepts[i] - truth.intercepts[j]),
                abs(fitted.noise_vars[i] - truth.noise_vars[j]),
            )
            for j in range(truth.k)
        ]
        for i in range(fitted.k)
    ]
    owner = [min(range(truth.k), key=lambda j, row=row: sum(row[j])) for row in lengths]
    mass = np.exp(fitted.gate_intercepts + t0)
    total = 0.0
    for j in range(truth.k):
        cell = [i for i in range(fitted.k) if owner[i] == j]
        m = len(cell)
        total += abs(sum(mass[i] for i in cell) - np.exp(truth.gate_intercepts[j]))
        powers = (1, 1, 1, 1) if m == 1 else (2 * m, m, 2 * m, m) if variant == "published" else (2, 2, 2 * m, m)
        total += sum(mass[i] * sum(v**p for v, p in zip(lengths[i][j], powers, strict=True)) for i in cell)
    return float(total)


class TestZero:
    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 10_000), k=st.integers(1, 4), d=st.integers(1, 2))
    def test_at_the_truth_up_to_translation_and_order(self, seed, k, d):
        rng = np.random.default_rng([seed, k, d])
        truth = random_params(rng, k, d)
        moved = truth.atoms(rng.permutation(k)).translated(5 * rng.standard_normal(), 5 * rng.standard_normal(d))
        for variant in VARIANTS:
            assert softmax_loss(moved, truth, variant) < ROUNDING * (1 + truth.masses.sum())

    def test_of_the_published_truth(self):
        for variant in VARIANTS:
            assert softmax_loss(PUBLISHED, PUBLISHED, variant) == 0
            assert softmax_loss(PUBLISHED, PUBLISHED, variant, translate=False) == 0
            assert softmax_loss(PUBLISHED.atoms([1, 0]).translated(300.0, [-70.0]), PUBLISHED, variant) < ROUNDING

    def test_where_an_atom_is_split_into_equal_parts(self):
        halves = PUBLISHED.atoms([0, 1, 1])
        halves = moe([np.exp(-8), 0.3, 0.7], *(getattr(halves, name) for name in FIELDS[1:]))
        for variant in VARIANTS:
            assert softmax_loss(halves.translated(2.0, [3.0]), PUBLISHED, variant) < ROUNDING

    def test_nowhere_else(self):
        """A change of .1 in any one number costs at least its cell's mass times .1^6."""
        for name in FIELDS:
            for atom in range(3):
                values = {n: getattr(PUBLISHED.atoms([0, 1, 1]), n).copy() for n in FIELDS}
                values["gate_intercepts"] -= np.log([1, 2, 2])
                values[name][atom] += 0.1
                for variant in VARIANTS:
                    assert softmax_loss(SoftmaxGatedMoE(**values), PUBLISHED, variant) > 0.99e-6 * np.exp(-8)

    def test_not_where_only_the_gate_is_known(self):
        """Translations undo a common change of gates, not one of experts."""
        wrong = moe(PUBLISHED.masses, [25, 0], [-20, 20], [15.5, -4.5], PUBLISHED.noise_vars)
        assert softmax_loss(wrong, PUBLISHED) > 0.4


class TestAsItStands:
    """translate=False, by hand."""

    truth = moe([2, 1, 0.5], [5, 0, -5], [1, 0, 0], [0, 10, 20], [1, 1, 1])

    def test_one_atom_in_each_cell(self):
        fitted = moe([2.5, 0.25, 1], [5.5, 0, -4], [1, 0.2, 0], [0.1, 10, 20], [1, 1.3, 0.6])
        singles = 2.5 * (0.5 + 0.1) + 0.25 * (0.2 + 0.3) + 1 * (1 + 0.4)
        for variant in VARIANTS:
            assert_allclose(softmax_loss(fitted, self.truth, variant, translate=False), 0.5 + 0.75 + 0.5 + singles)
        errors = softmax_errors(fitted, self.truth, translate=False)
        assert_allclose(errors.mass, [0.5, -0.75, 0.5])
        assert_allclose(errors.masses, [2.5, 0.25, 1])
        assert_allclose(errors.distances, [[0.5, 0, 1], [0, 0.2, 0], [0.1, 0, 0], [0, 0.3, 0.4]], atol=1e-15)
        assert_allclose(errors.singleton_error, 1.4)
        assert np.isnan(errors.split_rms)
        assert errors.translation[0] == 0
        assert errors.translation[1].tolist() == [0]

    def test_powers_of_a_cell_of_two_and_of_three(self):
        """Published beta, b: rbar = 4 and 6, a, s: 2 and 3; intrinsic beta, a: 2 in every cell."""
        two = moe([1, 0.5, 1, 0.5], [5.5, 4.8, 0, -5], [1.4, 1, 0, 0], [0.3, -0.2, 10, 20], [1.6, 0.9, 1, 1])
        published = 1 * (0.5**4 + 0.4**2 + 0.3**4 + 0.6**2) + 0.5 * (0.2**4 + 0.2**4 + 0.1**2)
        intrinsic = 1 * (0.5**2 + 0.4**2 + 0.3**4 + 0.6**2) + 0.5 * (0.2**2 + 0.2**4 + 0.1**2)
        three = moe([1, 0.5, 1, 1, 0.5], [5.5, 5, 5, 0, -5], [1, 1.4, 1, 0, 0], [0.7, 0, 0, 10, 20], [1, 1, 1.6, 1, 1])
        for fitted, losses in (
            (two, (0.5 + published, 0.5 + intrinsic)),
            (three, (0.5 + 0.5**6 + 0.7**6 + 0.5 * 0.4**3 + 0.6**3, 0.5 + 0.5**2 + 0.7**6 + 0.5 * 0.4**2 + 0.6**3)),
        ):
            for variant, loss in zip(VARIANTS, losses, strict=True):
                assert_allclose(softmax_loss(fitted, self.truth, variant, translate=False), loss, rtol=1e-13)

    def test_all_atoms_in_one_cell(self):
        fitted = moe([0.2, 0.3], [4.9, 5], [1, 1.2], [0, 0], [1, 1])
        errors = softmax_errors(fitted, self.truth, translate=False)
        assert errors.labels.tolist() == [0, 0]
        assert errors.cell_sizes.tolist() == [2, 0, 0]
        assert_allclose(errors.mass, [-1.5, -1, -0.5])
        assert_allclose(errors.loss("published"), 3 + 0.2 * 0.1**4 + 0.3 * 0.2**2)
        assert_allclose(errors.loss("intrinsic"), 3 + 0.2 * 0.1**2 + 0.3 * 0.2**2)
        assert np.isnan(errors.singleton_error)
        assert_allclose(errors.split_rms, np.sqrt((0.2 * 0.1**2 + 0.3 * 0.2**2) / 0.5))

    def test_an_empty_cell_costs_its_mass(self):
        fitted = self.truth.atoms([0, 2])
        errors = softmax_errors(fitted, self.truth, translate=False)
        assert errors.cell_sizes.tolist() == [1, 0, 1]
        assert_allclose(errors.loss(), 1, rtol=1e-14)
        assert_allclose(softmax_loss(fitted.translated(1.0, [2.0]), self.truth), 1, rtol=1e-9)

    def test_the_cell_is_that_of_the_smallest_sum_of_distances_and_ties_go_to_the_first(self):
        truth = moe([1, 1], [0, 2], [0, 2], [0, 2], [1, 3])
        labels = lambda *atom: softmax_errors(moe([1], *([v] for v in atom)), truth, translate=False).labels.tolist()
        assert labels(1, 1, 1, 2) == [0]
        assert labels(0, 0, 2, 2.9) == [0]  # 3.9 against 4.1
        assert labels(0, 0, 2, 3.1) == [0]  # 4.1 against 4.1
        assert labels(0, 0.3, 2, 3.1) == [1]

    def test_inputs_of_dimension_two_are_measured_by_their_length(self):
        truth = SoftmaxGatedMoE([0.0], [[0, 0]], [[0, 0]], [0.0], [1.0])
        fitted = SoftmaxGatedMoE([0.0], [[3, 4]], [[0.6, -0.8]], [0.0], [1.0])
        assert_allclose(softmax_loss(fitted, truth, translate=False), 5 + 1)
        assert_allclose(softmax_loss(fitted, truth), 1, rtol=1e-9)

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), k=st.integers(2, 5), d=st.integers(1, 3), size=st.sampled_from([0.01, 0.3, 3]))
    def test_agrees_with_enumeration(self, seed, k, d, size):
        fitted, truth = random_case(seed, k, d, size)
        for variant in VARIANTS:
            loss = softmax_loss(fitted, truth, variant, translate=False)
            assert loss >= 0
            assert_allclose(loss, enumerated(fitted, truth, variant, 0, np.zeros(d)), rtol=1e-11)
            order = np.random.default_rng(seed).permutation(k)
            assert_allclose(softmax_loss(fitted.atoms(order), truth, variant, translate=False), loss, rtol=1e-11)

    def test_a_mass_beyond_all_numbers_is_an_infinite_loss(self):
        """As a gate that runs off to a step leaves it: beta0 = 4600 where the last gate is 0."""
        fitted = SoftmaxGatedMoE([4600, 0], [[-14_000], [0]], self.truth.slopes[:2], [0, 10], [1, 1])
        assert softmax_loss(fitted, self.truth, translate=False) == np.inf


class TestSmallestOverTranslations:
    @settings(max_examples=6, deadline=None)
    @given(seed=st.integers(0, 10_000), k=st.integers(2, 4), d=st.integers(1, 2), size=st.sampled_from([0.01, 0.1, 1]))
    @example(seed=2119, k=3, d=2, size=1)  # the infimum lies on the border of two cells
    @example(seed=2491, k=4, d=2, size=1)
    @example(seed=173, k=4, d=2, size=1)
    def test_translations_and_order_change_nothing(self, seed, k, d, size):
        fitted, truth = random_case(seed, k, d, size)
        rng = np.random.default_rng(seed)
        moved = fitted.atoms(rng.permutation(k)).translated(3 * rng.standard_normal(), 5 * rng.standard_normal(d))
        for variant in VARIANTS:
            loss = softmax_loss(fitted, truth, variant)
            assert loss >= 0
            assert_allclose(softmax_loss(moved, truth, variant), loss, rtol=1e-8, atol=1e-8)

    @pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 1), (4, 1), (3, 2)])
    def test_is_the_enumerated_loss_at_the_translation_it_names(self, k, d):
        for seed in range(2):
            fitted, truth = random_case(seed, k, d, 0.2)
            moved = fitted.translated(1.3, -0.7 * np.ones(d))
            for variant in VARIANTS:
                errors = softmax_errors(moved, truth, variant=variant)
                t0, t1 = errors.translation
                assert_allclose(errors.loss(variant), enumerated(moved, truth, variant, t0, t1), rtol=1e-10)

    @settings(max_examples=6, deadline=None)
    @given(seed=st.integers(0, 10_000), k=st.integers(2, 4), d=st.integers(1, 2))
    def test_is_at_most_the_loss_as_it_stands(self, seed, k, d):
        """For fits near the truth: a mass that costs less than it gains is never better left out."""
        fitted, truth = random_case(seed, k, d, 0.03)
        for variant in VARIANTS:
            assert softmax_loss(fitted, truth, variant) <= softmax_loss(fitted, truth, variant, translate=False) + 1e-9

    @settings(max_examples=6, deadline=None)
    @given(seed=st.integers(0, 10_000), k=st.integers(1, 4), size=st.sampled_from([0.1, 1, 10]))
    def test_some_cell_that_is_not_empty_has_its_true_mass(self, seed, k, size):
        rng = np.random.default_rng([seed, k])
        truth = random_params(rng, 2, 1)
        fitted = beside(truth, rng.integers(2, size=k), size, rng)
        errors = softmax_errors(fitted, truth)
        filled = errors.cell_sizes > 0
        assert np.abs(errors.mass[filled] / truth.masses[filled]).min() < 1e-12

    def test_a_far_atom_is_not_forgiven_for_its_small_mass(self):
        """As it stands 1 - e^-5 + 100 e^-5 = 1.67; at the translation that gives the atom the true mass 1, 100."""
        truth, far = moe([1], [0], [0], [0], [1]), moe([np.exp(-5)], [0], [100], [0], [1])
        assert_allclose(softmax_loss(far, truth, translate=False), 1 + 99 * np.exp(-5))
        assert_allclose(softmax_loss(far, truth), 100)

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("labels", [[0, 1], [0, 1, 1], [0, 0, 1, 1]])
    def test_no_point_of_a_grid_of_translations_is_better(self, labels, variant):
        """A coarse grid of (t0, t1) over all that could help, and fine ones around the minimum."""
        rng = np.random.default_rng([len(labels), 5])
        truth = moe([0.6, 1.5], [2, -1], [1, -1], [0, 1], [0.5, 1])
        fitted = beside(truth, labels, 0.15, rng).translated(-0.8, [1.1])
        errors = softmax_errors(fitted, truth, variant=variant)
        loss, (t0, t1) = errors.loss(variant), errors.translation
        for width in (2, 0.1):
            for a in t0 + width * np.linspace(-1, 1, 25):
                for b in t1[0] + width * np.linspace(-1, 1, 25):
                    assert enumerated(fitted, truth, variant, a, np.array([b])) > loss - 1e-6

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_no_random_translation_is_better_in_the_plane(self, variant):
        fitted, truth = random_case(1, 3, 2, 0.2)
        errors = softmax_errors(fitted, truth, variant=variant)
        loss, (t0, t1) = errors.loss(variant), errors.translation
        rng = np.random.default_rng(0)
        for width in (1, 0.1, 1e-2, 1e-4):
            for step in width * rng.standard_normal((500, 3)):
                assert enumerated(fitted, truth, variant, t0 + step[0], t1 + step[1:]) > loss - 1e-6

    def test_by_hand(self):
        """Both gates moved alike cost nothing; one singleton's gate off by .3 costs .3 of the smaller mass."""
        truth = moe([2, 1], [0, 4], [0, 5], [0, 5], [1, 1])
        fitted = moe([2, 1], [0.3, 4], [0, 5], [0, 5], [1, 1]).translated(0.7, [9.0])
        errors = softmax_errors(fitted, truth)
        assert_allclose(errors.loss(), 0.3, rtol=1e-8)  # t1 keeps the heavier gate and pays at the lighter
        assert_allclose(errors.translation[0], -0.7, atol=1e-8)
        assert_allclose(errors.translation[1], [-9.3], atol=1e-7)
        # masses 1 and 1 for 2 and 1: whatever the factor, 1 is the least that is lost
        assert_allclose(softmax_loss(moe([1, 1], [0, 4], [0, 5], [0, 5], [1, 1]), truth), 1, rtol=1e-8)

    def test_gates_far_away_do_not_overflow(self):
        fitted = beside(PUBLISHED, [0, 1, 1], 0.01, np.random.default_rng(0))
        assert_allclose(softmax_loss(fitted.translated(2000, [0.0]), PUBLISHED), softmax_loss(fitted, PUBLISHED))


class TestAllOverfitted:
    @pytest.mark.parametrize("delta", [0.01, 0.5, 3.0])
    def test_gates_split_all_alike_are_reported_as_not_identified(self, delta):
        """The density does not change (cosh); D is masses times delta^2, published delta^4."""
        both = PUBLISHED.atoms([0, 0, 1, 1])
        slopes = both.gate_slopes + delta * np.array([[1], [-1], [1], [-1]])
        split = SoftmaxGatedMoE(both.gate_intercepts - np.log(2), slopes, both.slopes, both.intercepts, both.noise_vars)
        for errors in (softmax_errors(split, PUBLISHED), softmax_errors(split, PUBLISHED, translate=False)):
            assert errors.cell_sizes.tolist() == [2, 2]
            assert not errors.gate_identified
            assert_allclose(errors.split_rms, delta, rtol=1e-6)
        assert_allclose(softmax_loss(split, PUBLISHED, translate=False), delta**2 * PUBLISHED.masses.sum(), rtol=1e-12)
        for variant, power in (("intrinsic", 2), ("published", 4)):
            expected = delta**power * PUBLISHED.masses.sum()
            if expected < 1:  # beyond, a true atom is cheaper moved than split
                assert_allclose(softmax_loss(split, PUBLISHED, variant), expected, rtol=1e-8)

    @pytest.mark.parametrize(
        ("labels", "identified"),
        [
            ([0, 1], True),
            ([0, 0, 1], True),
            ([0, 1, 1], True),
            ([0, 1, 1, 1], True),
            ([0, 0, 1, 1], False),
            ([0, 0, 0, 1, 1], False),
        ],
    )
    def test_one_cell_with_a_single_atom_identifies_the_gate(self, labels, identified):
        fitted = beside(PUBLISHED, labels, 0.01, np.random.default_rng(0))
        errors = softmax_errors(fitted.translated(1.0, [2.0]), PUBLISHED)
        assert errors.labels.tolist() == labels
        assert errors.gate_identified is identified


@pytest.mark.parametrize("translate", [True, False])
def test_bad_input_is_refused(translate):
    with pytest.raises(InputError, match="variant = 'type1'; expected one of published, intrinsic, regression"):
        softmax_loss(PUBLISHED, PUBLISHED, "type1", translate=translate)
    with pytest.raises(InputError, match="fitted atoms have d = 2, the truth has d = 1"):
        softmax_loss(random_params(np.random.default_rng(0), 2, 2), PUBLISHED, translate=translate)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("unit", [1e-8, 1e-4, 1.0, 1e4, 1e8])
def test_the_best_translation_does_not_depend_on_the_unit_of_the_input(unit, d):
    """With two atoms in each cell, which differ in their gates alone, it is the mean shift, by mass."""
    rng = np.random.default_rng([7, d])
    truth = random_params(rng, 2, d)
    labels = np.array([0, 0, 1, 1])
    at = truth.atoms(labels)
    moved = at.gate_slopes + 0.1 * rng.standard_normal(at.gate_slopes.shape)
    own = {"slopes": unit, "intercepts": unit, "noise_vars": unit}  # so that cells are those of the same atoms

    def of(params, slopes, masses):
        rest = {name: factor * getattr(params, name) for name, factor in own.items()}
        return SoftmaxGatedMoE(np.log(masses), unit * slopes, **rest)

    found = softmax_errors(of(at, moved, at.masses / 2), of(truth, truth.gate_slopes, truth.masses))
    assert list(found.labels) == list(labels)
    best = np.average(at.gate_slopes - moved, axis=0, weights=at.masses)
    # A minimum that is told from values of D alone is known to the root of their rounding.
    assert_allclose(found.translation[1], unit * best, rtol=0, atol=1e-6 * unit)


@pytest.mark.parametrize("variant", ["published", "intrinsic", "regression"])
@pytest.mark.parametrize("d", [1, 2])
def test_values_along_a_search_are_those_of_the_whole_loss_to_the_last_bit(d, variant):
    """A simplex sees the loss that is reported, so that a faster way to its values moves no committed row."""
    rng = np.random.default_rng([d, 3])
    for k, k_true, size in ((1, 1, 1.0), (2, 3, 1.0), (3, 2, 10.0), (5, 3, 0.1)):
        gates = [size * rng.standard_normal((atoms, d)) for atoms in (k, k_true)]
        fitted, truth = (
            SoftmaxGatedMoE(
                rng.standard_normal(len(own)), own, rng.standard_normal((len(own), d)), rng.standard_normal(len(own)),
                rng.uniform(0.1, 1, len(own)),
            )
            for own in gates
        )  # fmt: skip
        value = _AlongSlopes(fitted, truth, variant)
        on_true = (truth.gate_slopes[None] - fitted.gate_slopes[:, None]).reshape(-1, d)
        for slope in (*on_true, *rng.normal(scale=size, size=(20, d)), on_true[0]):
            assert value(slope) == _errors_at(fitted, truth, slope, None, variant).loss(variant)
    far = SoftmaxGatedMoE(
        truth.gate_intercepts, np.full((3, d), 1e200), truth.slopes, truth.intercepts, truth.noise_vars
    )
    with np.errstate(over="ignore"):  # squares of distances
        value = _AlongSlopes(far, truth, variant)
        assert value(np.zeros(d)) == _errors_at(far, truth, np.zeros(d), None, variant).loss(variant)
