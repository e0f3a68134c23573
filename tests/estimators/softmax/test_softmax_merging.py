"""The tree of merged softmax-gated atoms: what a merge keeps, units, rates of a split cell, and the choice of k."""

import numpy as np
import pytest

from moe_prompts import InputError, SoftmaxGatedMoE, softmax_sample, softmax_truth
from moe_prompts.estimators.softmax.merging import softmax_choose_k, softmax_merge_path
from moe_prompts.losses.softmax_voronoi import softmax_errors
from moe_prompts.models.data import Sample
from moe_prompts.study import softmax_merging
from moe_prompts.study.merging import size_from
from moe_prompts.study.softmax_merging import softmax_right_from


def random_fit(seed, k=4, d=1):
    rng = np.random.default_rng(seed)
    return SoftmaxGatedMoE(
        rng.standard_normal(k),
        rng.standard_normal((k, d)),
        rng.standard_normal((k, d)),
        rng.standard_normal(k),
        rng.uniform(0.1, 0.5, k),
    )


def random_data(seed, n=400, d=1):
    rng = np.random.default_rng(seed)
    return random_fit(99, 3, d).respond(rng.standard_normal((n, d)), rng)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_merge_keeps_gate_mean_slope_and_variance_of_the_pair_where_the_pair_is(seed, d):
    """The first merge against numbers made from the density of the pair alone, by finite differences at its place."""
    fit, data = random_fit(seed, d=d), random_data(seed, d=d)
    path = softmax_merge_path(fit, data)
    i, j = path.pairs[0]
    pair, merged = fit.atoms([i, j]), path.models[1].atoms([2])
    gate = fit.gates(data.x)[:, [i, j]].sum(axis=1)
    c = (gate @ data.x) / gate.sum()
    spread = ((data.x - c) * gate[:, None]).T @ (data.x - c) / gate.sum()
    height = lambda params, x: np.logaddexp.reduce(params.gate_logits(x), axis=1)[0]
    mean = lambda params, x: params.regression(x)[0, 0]
    slope = lambda of, params: np.array([(of(params, c + e) - of(params, c - e)) / 2e-5 for e in 1e-5 * np.eye(d)])
    for of in (height, mean):
        assert of(merged, c) == pytest.approx(of(pair, c), abs=1e-12)
        np.testing.assert_allclose(slope(of, merged), slope(of, pair), atol=1e-8)
    share, away = pair.gates(c)[0], pair.slopes - merged.slopes
    levels = pair.expert_means(c)[0]
    variance = share @ (pair.noise_vars + (levels - share @ levels) ** 2 + ((away @ spread) * away).sum(axis=1))
    assert merged.noise_vars[0] == pytest.approx(variance)
    others = [at for at in range(4) if at not in (i, j)]
    np.testing.assert_allclose(path.models[1].atoms([0, 1]).slopes, fit.atoms(others).slopes)


def test_the_first_merge_is_that_of_smallest_height():
    """By hand, in the units of the data: x has variance 1, and y about its line on x."""
    fit, data = random_fit(5), random_data(5)
    z, y = (data.x - data.x.mean()) / data.x.std(), data.y[:, 0]
    line = np.polyfit(z[:, 0], y, 1)
    scale = np.sqrt(np.mean((y - np.polyval(line, z[:, 0])) ** 2))
    gates, heights = fit.gates(data.x), {}
    for i in range(4):
        for j in range(i + 1, 4):
            pi, pj = gates[:, i].mean(), gates[:, j].mean()
            c = (gates[:, [i, j]].sum(axis=1) @ data.x) / gates[:, [i, j]].sum()
            level = fit.expert_means(c[:, None])[0]
            beta = (fit.gate_slopes[i, 0] - fit.gate_slopes[j, 0]) * data.x.std()
            a = (fit.slopes[i, 0] - fit.slopes[j, 0]) * data.x.std() / scale
            s = (fit.noise_vars[i] - fit.noise_vars[j]) / scale**2
            apart = beta**2 + a**2 + ((level[i] - level[j]) / scale) ** 2 + abs(s)
            heights[i, j] = pi * pj / (pi + pj) * apart / (1 + apart)
    path = softmax_merge_path(fit, data)
    lowest = min(heights, key=heights.get)
    assert tuple(path.pairs[0]) == lowest
    assert path.heights[0] == pytest.approx(heights[lowest])


def test_heights_and_choice_do_not_depend_on_units_origin_gauge_or_a_line():
    fit, data = random_fit(7, d=2), random_data(7, d=2)
    turn, shift = np.array([[30.0, 2.0], [0.5, 1e-3]]), np.array([4.0, -7.0])
    scale, level, line = 40.0, -3.0, np.array([100.0, -5.0])
    x = data.x @ turn.T + shift
    back = np.linalg.inv(turn)
    slopes = scale * fit.slopes @ back + line
    moved = SoftmaxGatedMoE(
        fit.gate_intercepts - fit.gate_slopes @ back @ shift,
        fit.gate_slopes @ back,
        slopes,
        scale * fit.intercepts + level - scale * fit.slopes @ back @ shift,
        scale**2 * fit.noise_vars,
    ).translated(2.0, [3.0, -1.0])
    other = Sample(x, scale * data.y + level + x @ line[:, None])
    ours, theirs = softmax_choose_k(fit, data), softmax_choose_k(moved, other)
    np.testing.assert_allclose(theirs.path.heights, ours.path.heights, rtol=1e-8)
    np.testing.assert_allclose(theirs.criterion, ours.criterion, rtol=1e-8)
    np.testing.assert_array_equal(theirs.path.pairs, ours.path.pairs)
    assert theirs.k == ours.k


def test_equal_halves_become_the_atom_again():
    known = softmax_truth("softmax-three-1").params
    data = softmax_sample("softmax-three-1", 2_000, seed=0)
    split = known.atoms([0, 1, 2, 2])
    halves = SoftmaxGatedMoE(
        split.gate_intercepts + np.log([1, 1, 0.3, 0.7]),
        split.gate_slopes,
        split.slopes,
        split.intercepts,
        split.noise_vars,
    )
    path = softmax_merge_path(halves, data)
    assert path.height(4) == pytest.approx(0, abs=1e-12)
    assert softmax_errors(path.model(3), known).loss("intrinsic") < 1e-10


@pytest.mark.parametrize("eps", [0.1, 0.01])
def test_a_split_whose_density_moves_by_eps_squared_merges_to_that(eps):
    """Atoms eps apart in gate and slope, levels sqrt(eps) apart with the noise that hides them to second order."""
    known = softmax_truth("softmax-three-1").params
    data = softmax_sample("softmax-three-1", 5_000, seed=0)
    split, side = known.atoms([0, 1, 2, 2]), np.array([0, 0, 1.0, -1.0])
    apart = SoftmaxGatedMoE(
        split.gate_intercepts + np.log([1, 1, 0.5, 0.5]),
        split.gate_slopes + eps * side[:, None],
        # Its covariance with the gate makes up for the slope that the two add to the mean.
        split.slopes - eps**1.5 * side[:, None] ** 2 + eps * np.array([[0], [0], [1], [-1]]),
        split.intercepts + np.sqrt(eps) * side,
        split.noise_vars - eps * side**2,
    )
    path = softmax_merge_path(apart, data)
    assert {int(at) for at in path.pairs[0]} == {2, 3}
    # Without the covariance it would be off by eps^1.5, and without that of the levels by eps.
    assert softmax_errors(path.model(3), known).loss("intrinsic") < 12 * eps**2
    assert softmax_errors(apart, known).loss("published") > eps**2 / 4


def test_the_truth_itself_chooses_its_number_from_the_size_said():
    name = "softmax-three-5"
    begin = softmax_right_from(name)
    known = softmax_truth(name)
    law = known.sample(200_000, np.random.default_rng([0, 3]))
    path = softmax_merge_path(known.params, law)
    gain = (known.params.log_density(law) - path.model(2).log_density(law)).mean()
    right = lambda n: path.height(2) - np.log(n) * gain < path.height(3)
    assert 1 < begin < 100
    assert right(1.01 * begin)
    assert not right(0.99 * begin)
    assert size_from(path, lambda model: model.log_density(law)) == pytest.approx(begin)


def test_rows_say_what_was_chosen_or_why_nothing_was(monkeypatch):
    cell = softmax_merging.SoftmaxMergeCell("softmax-random-1", 500)
    (row,) = softmax_merging.run_cell(cell, (3,), 0)
    assert (row["k"], row["k_true"], row["status"]) == (3, 2, "CERTIFIED")
    assert row["chosen"] in (2, 3)
    assert 0 < row["merged_loss"] < 1
    assert row["height_surplus"] < row["height_true"]

    def broken(*_):
        raise InputError("no fit")

    monkeypatch.setattr(softmax_merging, "softmax_grown", broken)
    (failed,) = softmax_merging.run_cell(cell, (3,), 0)
    assert (failed["status"], failed["chosen"]) == ("FAILED", 0)
    assert set(failed) == set(row)


def test_what_cannot_be_merged_is_refused():
    fit, data = random_fit(1), random_data(1)
    for wrong, on in (
        (fit.atoms([0]), data),
        (random_fit(1, d=2), data),
        (fit, Sample(np.full((9, 1), 0.1), np.arange(9.0)[:, None])),
        (fit, Sample(data.x, 3 * data.x + 1)),
        (random_fit(1, d=2), Sample(np.repeat(data.x, 2, axis=1), data.y)),
    ):
        with pytest.raises(InputError, match="softmax_merge_path"):
            softmax_merge_path(wrong, on)
    with pytest.raises(InputError, match="omega"):
        softmax_choose_k(fit, data, omega=0)
