"""The study of gated experts: rows of fits, gaps and profiles, and how claims read them."""

import numpy as np
import pandas as pd
import pytest

from moe_prompts.claims import experts
from moe_prompts.engine.executors import InProcess
from moe_prompts.engine.runner import run_study
from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.least_squares import SAME_MINIMUM
from moe_prompts.intervals import Verdict
from moe_prompts.study.experts import ExpertCell, ExpertGapCell, experts_study, near_starts

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
