import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import moe_prompts
from moe_prompts import Evaluation, InputError, truth
from moe_prompts.models.gaussian_truths import TRUTHS
from moe_prompts.seeds import data_rng


def test_published_truths_have_the_published_numbers():
    model = truth("gmoe-1").params
    assert_allclose(model.weights, [0.3, 0.4, 0.3])
    assert_allclose(model.slopes.ravel(), [0.017324 / 0.042824, -0.0125 / 0.0175, 0])
    assert_allclose(model.noise_covs[0], 0.0081759 + 0.1 * 0.017324**2 / 0.042824)
    assert_allclose(truth("gmoe-2").params.noise_covs[0], 0.0081759 - 0.017324**2 / 0.042824)
    for name, centred in (("gmoe-1", False), ("gmoe-2", True), ("gmoe-3", False), ("gmoe-4", True)):
        params = truth(name).params
        assert params.d == (1 if name in ("gmoe-1", "gmoe-2") else 2)
        assert (params.gate_means[0] == 0).all() == centred
        assert (params.gate_means == params.gate_means[:, :1]).all()


def test_reference_prompts_have_the_expected_signal():
    assert_allclose(_variance_of_prediction("prompts-adaptive"), 0.46, atol=0.005)  # two digits are given


def _variance_of_prediction(name):
    quadrature = Evaluation(truth(name).params)
    mean = quadrature.input_weights @ quadrature.prediction
    return float(quadrature.signal - mean @ mean)


@pytest.mark.parametrize("name", TRUTHS)
def test_every_truth_lies_in_its_family(name):
    known = truth(name)
    inside = known.family.project(known.params)
    for field in ("weights", "gate_means", "gate_covs", "slopes", "intercepts", "noise_covs"):
        assert_allclose(getattr(inside, field), getattr(known.params, field), rtol=1e-12)
    assert known.name == name
    assert known.kind == ("fixed" if not known.params.slopes[: known.k_true].any() else "adaptive")


def test_sample_is_one_line_reproducible_and_what_studies_draw():
    x, y = moe_prompts.sample("gmoe-1", 100, seed=4)
    again = truth("gmoe-1").params.sample(100, data_rng(4, "gmoe-1", 100, 0))
    assert_array_equal(x, again.x)
    assert_array_equal(y, again.y)
    assert not np.array_equal(x, moe_prompts.sample("gmoe-1", 100, seed=4, replicate=1).x)
    assert not np.array_equal(x[:50], moe_prompts.sample("gmoe-1", 50, seed=4).x)


def test_unknown_truth_and_bad_size_are_refused():
    with pytest.raises(InputError, match="unknown truth 'gmoe-9'; expected one of gmoe-1"):
        moe_prompts.sample("gmoe-9", 10, 0)
    with pytest.raises(InputError, match="n = 0"):
        moe_prompts.sample("gmoe-1", 0, 0)
