"""The study of gated experts: rows of fits, gaps and profiles, and how claims read them."""

import numpy as np
import pandas as pd
import pytest

from moe_prompts.claims import experts, sigmoid
from moe_prompts.engine.executors import InProcess
from moe_prompts.engine.runner import run_study
from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.least_squares import SAME_MINIMUM
from moe_prompts.intervals import Verdict
from moe_prompts.models.expert_truths import expert_truth
from moe_prompts.study.experts import (
    ExpertCell,
    ExpertGapCell,
    ExpertProfileCell,
    best_of_more,
    experts_study,
    near_starts,
)

TANH = "experts-softmax-tanh"


def test_a_fit_is_the_better_of_both_searches_and_is_certified():
    rows = ExpertCell(TANH, 3, 100_000).run((0, 1), 7)
    assert [row["status"] for row in rows] == ["CERTIFIED"] * 2
    for row in rows:
        assert min(row["near_misses"], row["data_misses"]) <= SAME_MINIMUM
        assert row["fit_class"] == "over"
        # Seven times what its own profile predicts of a split at this n, .075, and D is of the order of its square.
        assert 0 < row["split_rms"] < 0.5
        assert 0 < row["loss"] < 0.1
    again = ExpertCell(TANH, 3, 100_000).run((1,), 7)
    assert again[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-6)


def test_replicates_have_starts_of_their_own():
    one, two = (near_starts(ExpertCell(TANH, 3, 1000), replicate, 7) for replicate in (0, 1))
    assert one.shape == two.shape == (2, 18)
    assert not np.allclose(one, two)


def test_fits_do_not_depend_on_the_block_of_a_replicate():
    together, alone = (ExpertCell(TANH, 3, 10_000).run(block, 7) for block in ((0, 1), (1,)))
    np.testing.assert_equal(together[1], alone[0])


def test_a_split_of_a_unit_costs_nats():
    """At n = 1e4 a split of .4 costs (profile / s)^2 n / 2, about 30 nats; data move it by a few."""
    (row,) = ExpertGapCell(TANH, 10_000).run((0,), 7)
    assert 10 < row["gap"] < 100


def test_an_exact_study_runs_through_the_engine(tmp_path):
    made = experts_study(sizes=[1000, 10_000, 100_000], replicates=8, entropy=7, ks={TANH: (2,)})
    fits = made.cells[:3]
    assert [cell.data_size for cell in fits] == [1000, 10_000, 100_000]
    rows = run_study(type(made)(**vars(made) | {"cells": fits}), tmp_path / "run", executor=InProcess(), progress=False)
    assert (rows["status"] == "CERTIFIED").all()
    medians = rows.groupby("n")["loss"].median()
    assert medians.is_monotonic_decreasing


def test_too_few_pairs_are_refused():
    with pytest.raises(InputError, match="below the 9 parameters of 2 experts"):
        experts_study(sizes=[5], replicates=8, entropy=7, ks={TANH: (2,)})


def rows_of(exponent: float, gap: float, profile_power: float | None) -> pd.DataFrame:
    """Rows as a run of all truths would give them, with known slopes, gaps and profiles."""
    rng, rows = np.random.default_rng(0), []
    for name in (experts.TANH, experts.GELU, experts.LINEAR):
        kind = name.removeprefix("experts-").replace("-", ":")
        common = {"truth": name, "truth_kind": kind, "kind": kind, "k_true": 2}
        for k, word in ((2, "exact"), (3, "over")):
            rows += [
                common
                | {"study": "attention", "k": k, "fit_class": word, "n": n, "replicate": r, "status": "CERTIFIED"}
                | {"start": "near_truth and data", "loss": n**exponent * np.exp(0.1 * rng.standard_normal())}
                | {"split_rms": n ** (exponent / 2) * np.exp(0.1 * rng.standard_normal())}
                | {"near_misses": 0.0, "data_misses": float(r % 2)}
                for n in (10_000, 100_000, 1_000_000)
                for r in range(16)
            ]
            values = [
                (eps, 0.0 if profile_power is None else 0.01 * eps**profile_power) for eps in (0.0125, 0.025, 0.05)
            ]
            rows += [
                common
                | {"study": "attention-profile", "k": k, "n": 0, "replicate": 0, "kappa1": 0.03, "kappa2": 0.006}
                | {"noise": 0.01, "eps": eps, "profile": value, "profile_certified": True}
                for eps, value in values
            ]
        rows += [
            common | {"study": "attention-gap", "k": 3, "n": n, "replicate": r, "gap": gap, "spread": 0.4}
            for n in (10_000, 1_000_000)
            for r in range(8)
        ]
    return pd.DataFrame(rows)


def test_claims_hold_where_the_rates_are_the_predicted_ones_and_fail_where_not():
    verdicts = lambda lines: {line.verdict for line in lines if line.verdict is not None}
    held = experts.strong({experts.SOFTMAX: rows_of(-0.5, 50.0, 2.0)}, 0)
    assert verdicts(held) == {Verdict.HOLDS}
    assert "50% and 0%" in held[-1].found
    assert Verdict.FAILS in verdicts(experts.strong({experts.SOFTMAX: rows_of(-0.2, 50.0, 2.0)}, 0))
    assert verdicts(experts.linear({experts.SOFTMAX: rows_of(-0.5, 1.0, None)}, 0)) == {Verdict.HOLDS}
    assert Verdict.FAILS in verdicts(experts.linear({experts.SOFTMAX: rows_of(-0.5, 50.0, 2.0)}, 0))


def test_gates_that_all_have_a_slope_cannot_be_split():
    """With one expert more the error of f is that of the best fit without noise, to which parameters go."""
    name = sigmoid.SLOPED
    (row,) = ExpertCell(name, 3, 1_000_000).run((0,), 7)
    known, best = expert_truth(name), best_of_more(name, 3)
    assert best.certified
    floor = np.sqrt(((best.value.regression(known.x) - known.params.regression(known.x)) ** 2).mean())
    assert row["fit_class"] == "misspecified"
    assert row["status"] == "CERTIFIED"
    # The noise adds (P s^2 / n)^(1/2) = 4e-5 to a floor of 1.6e-3.
    assert row["l2"] == pytest.approx(floor, rel=0.05)
    assert 0 < row["loss"] < 0.1
    assert {cell_row["k"] for cell_row in ExpertProfileCell(name).run((0,), 7)} == {2}
    made = experts_study(sizes=[1000], replicates=8, entropy=7, ks={name: (3,)}, gap_sizes=[1000])
    assert not [cell for cell in made.cells if isinstance(cell, ExpertGapCell)]


def test_truths_with_both_kinds_of_gates_are_refused():
    with pytest.raises(InputError, match="expected one kind of gate"):
        experts_study(sizes=[1000], replicates=8, entropy=7, ks={TANH: (2,), sigmoid.FLAT: (2,)})


def sigmoid_rows(exponent: float, l2: float) -> pd.DataFrame:
    """Rows as a run of both regimes would give them."""
    rows = rows_of(exponent, 50.0, 2.0)
    tanh = rows[rows["truth"] == TANH]
    flat = tanh.assign(truth=sigmoid.FLAT, kind="sigmoid:tanh", truth_kind="sigmoid:tanh")
    fits = flat[flat["study"] == "attention"].assign(truth=sigmoid.SLOPED, split_rms=np.nan, l2=l2)
    fits["fit_class"] = fits["fit_class"].replace("over", "misspecified")
    spread = 1e-6 * np.random.default_rng(0).standard_normal(len(fits))
    return pd.concat([flat, fits.assign(l2=fits["l2"] + spread)], ignore_index=True)


def test_e_sigmoid_holds_where_its_rates_and_floor_are_right():
    known, best = expert_truth(sigmoid.SLOPED), best_of_more(sigmoid.SLOPED, 3)
    floor = np.sqrt(((best.value.regression(known.x) - known.params.regression(known.x)) ** 2).mean())
    verdicts = lambda lines: {line.verdict for line in lines if line.verdict is not None}
    assert verdicts(sigmoid.gates({sigmoid.RUN: sigmoid_rows(-0.5, floor)}, 0)) == {Verdict.HOLDS}
    assert Verdict.FAILS in verdicts(sigmoid.gates({sigmoid.RUN: sigmoid_rows(-0.5, 0.5 * floor)}, 0))
    assert Verdict.FAILS in verdicts(sigmoid.gates({sigmoid.RUN: sigmoid_rows(-0.2, floor)}, 0))
