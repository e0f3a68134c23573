"""The attention study: rows, lines, statuses, tables."""

import numpy as np
import pytest

from moe_prompts import InputError, run_study
from moe_prompts.engine.executors import Joblib
from moe_prompts.engine.grid import joined
from moe_prompts.models.prompt_attention import PromptKind
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.study import attention
from moe_prompts.study.attention import (
    LINES,
    RANDOM_TRUTHS,
    AttentionCell,
    GapCell,
    ProfileCell,
    attention_study,
    fit_class,
    identifiability_study,
    run_cell,
)
from moe_prompts.study.attention_report import (
    cross_table,
    identifiability,
    identifiability_table,
    profile_table,
    rates_table,
    summarise_attention,
)
from moe_prompts.study.gaussian import gaussian_study
from moe_prompts.study.report import of_study, report_of
from moe_prompts.theory import predict

SMALL = {"attention-fixed": (("fixed", (2, 3)), ("adaptive:tanh", (2,)), ("decoupled", (2,)))}


def small(**changes):
    options = {"sizes": [500, 5_000], "replicates": 9, "entropy": 3, "lines": SMALL}
    return attention_study(**{**options, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    return run_study(small(), folder, progress=False), (folder / "results.parquet").read_bytes()


@pytest.mark.slow
def test_two_workers_write_the_identical_table(run, tmp_path):
    run_study(small(), tmp_path, executor=Joblib(2), progress=False)
    assert (tmp_path / "results.parquet").read_bytes() == run[1]


def test_rows_are_tidy(run):
    rows = run[0]
    fits = rows[rows["study"] == "attention"]
    assert len(fits) == 4 * 2 * 9
    assert (rows["study"] == "attention-gap").sum() == 2 * 9
    assert (rows["study"] == "attention-profile").sum() == 2 * 6
    assert not fits.duplicated(["truth", "kind", "k", "n", "replicate", "start"]).any()
    certified = fits[fits["status"] == "CERTIFIED"]
    assert len(certified) >= 0.9 * len(fits)
    assert (certified["gap_nats"] <= 1e-6).all()
    own = certified[certified["fit_class"].isin(["exact", "over"])]
    assert (own["loss"] > 0).all()
    assert (own["gain"] > 0).all()
    assert own.loc[own["k"] == 3, "split_rms"].notna().any()
    other = fits[fits["kind"] != "fixed"]
    assert other["loss"].isna().all()
    assert (other["start"] == "projection").all()
    assert (fits.loc[fits["fit_class"] == "misspecified", "population_relative_risk"] > 0.2).all()
    # Where the class contains the truth the risk without noise is 0 up to the certificate: 1e-6 nats of 1e4 pairs.
    assert (fits.loc[fits["fit_class"] != "misspecified", "population_relative_risk"] < 1e-11).all()


def test_prediction_risk_is_what_the_number_of_parameters_says(run):
    """n risk / s^2 is chi-squared with P degrees of freedom for exact fits: four standard errors of 9 data sets."""
    fits = run[0][(run[0]["study"] == "attention") & (run[0]["k"] == 2) & (run[0]["n"] == 5_000)]
    for kind, p in (("fixed", 6), ("decoupled", 10)):
        scaled = fits.loc[fits["kind"] == kind, "risk"] * 5_000 / 0.1**2
        assert abs(scaled.mean() - p) < 4 * np.sqrt(2 * p / 9)


def test_every_kind_sees_the_same_data(monkeypatch):
    seen = []
    original = attention.prompt_data

    def spy(*address):
        seen.append(address)
        return original(*address)

    monkeypatch.setattr(attention, "prompt_data", spy)
    attention._data.cache_clear()
    for kind in ("fixed", "decoupled"):
        run_cell(AttentionCell("attention-fixed", kind, 2, 300, "random"), (5,), 1)
    run_cell(GapCell("attention-fixed", 300), (5,), 1)
    assert seen == [("attention-fixed", 300, 1, 5)]


@pytest.mark.parametrize(("name", "k", "beside_others"), [("fixed-zeroinit", 3, 4), ("fixed-zeroinit3", 4, 0)])
def test_fits_start_beside_all_parameters_that_are_known_to_have_the_same_f(name, k, beside_others):
    """Three prompts hold the halved factor of two; four do not hold that of three, which takes six."""
    known = prompt_truth(f"attention-{name}")
    cell = AttentionCell(known.name, "fixed", k, 1000, "near_truth")
    starts = attention._starts(cell, known.params.family.with_k(k), known, 0, 1)
    near = 2 * known.k_true
    assert len(starts) == near + beside_others + 2
    halved = np.arctanh(np.tanh(known.params.factor[0]) / 2)
    # Noise of near starts has standard deviation .1; the two values of alpha are .455 apart.
    assert np.abs(starts[:near, -1].mean() - known.params.factor[0]) < 0.2
    if beside_others:
        assert np.abs(starts[near : near + beside_others, -1].mean() - halved) < 0.2


def test_a_block_that_cannot_be_fitted_is_rows(monkeypatch, tmp_path):
    original = attention.least_squares

    def sometimes(family, *more):
        if family.k == 3:
            raise np.linalg.LinAlgError("eigenvalues did not converge")
        return original(family, *more)

    monkeypatch.setattr(attention, "least_squares", sometimes)
    lines = {"attention-fixed": (("fixed", (2, 3)),)}
    rows = run_study(small(replicates=2, sizes=[500], lines=lines), tmp_path, progress=False)
    failed = rows[(rows["study"] == "attention") & (rows["k"] == 3)]
    assert (failed["status"] == "FAILED").all()
    assert len(failed) == 2
    assert (failed["message"] == "eigenvalues did not converge").all()
    assert "FAILED" in report_of(rows, 3)[0]


@pytest.mark.parametrize(
    ("name", "kind", "k", "word"),
    [
        ("fixed", "fixed", 2, "exact"), ("fixed", "fixed", 4, "over"), ("fixed", "fixed", 1, "misspecified"),
        ("fixed", "decoupled", 2, "contained"), ("fixed", "adaptive:gelu", 8, "misspecified"),
        ("fixed", "adaptive:gelu:bias", 2, "contained"), ("decoupled", "fixed", 8, "misspecified"),
        ("gelu", "adaptive:gelu:bias", 3, "contained"), ("gelu", "adaptive:tanh:bias", 3, "misspecified"),
        ("prefix_tanh_gelu", "prefix:tanh:gelu", 3, "over"), ("prefix_tanh_gelu", "decoupled", 2, "contained"),
        ("prefix_tanh_gelu", "prefix:tanh:tanh", 4, "misspecified"),
        ("gelu", "decoupled", 6, "misspecified"), ("gelu-rank1", "adaptive:gelu", 3, "over"),
    ],
)  # fmt: skip
def test_which_family_contains_which_truth(name, kind, k, word):
    assert fit_class(prompt_truth(f"attention-{name}"), PromptKind.parse(kind), k) == word


@pytest.mark.parametrize(
    ("truth_kind", "kind", "word", "group", "exponent"),
    [
        ("fixed", "fixed", "over", "split", -0.25), ("fixed", "fixed", "over", "D", -0.5),
        ("adaptive:gelu, singular B", "adaptive:gelu", "over", "split", -0.25),
        ("decoupled", "decoupled", "exact", "D", -0.5),
        ("adaptive:tanh", "fixed", "misspecified", "L2", 0), ("fixed", "decoupled", "contained", "L2", -0.5),
    ],
)  # fmt: skip
def test_predictions_of_the_model(truth_kind, kind, word, group, exponent):
    assert float(predict("prompt-attention", truth_kind, kind, word, group).exponent) == exponent


@pytest.mark.parametrize("kind", ["decoupled", "adaptive:identity"])
def test_no_rate_is_predicted_where_splits_are_invisible(kind):
    assert predict("prompt-attention", kind, kind, "over", "D") is None
    assert predict("prompt-attention", "fixed, singular B", "fixed", "over", "split") is None


def test_tables_of_a_run(run):
    rows, summary = run[0], summarise_attention(run[0], 3)
    assert set(summary["measure"]) == {"L2", "D", "singleton", "split"}
    rates = rates_table(rows, summary)
    assert rates.count("\n") == 3  # header, rule, two lines of the truth's own kind
    assert "decoupled" not in rates
    cross = cross_table(rows)
    assert cross.count("\n") == 5
    assert "floor 2" in cross  # tanh on a fixed truth: about 27 %
    lines = identifiability(rows)
    assert lines["verdict"].tolist() == ["n^-1/4"]
    assert "0.857" in identifiability_table(lines)
    assert "(1.94)" in profile_table(rows)


def test_the_report_of_two_studies_in_one_table(run, tmp_path):
    both = joined(
        "all",
        [
            small(replicates=2),
            gaussian_study(
                sizes=[500, 5_000], replicates=2, entropy=3, truths=["prompts-fixed"], ks=[2], data_starts=1
            ),
        ],
    )
    rows = run_study(both, tmp_path, progress=False)
    text, summary = report_of(rows, 3)
    assert set(summary["study"]) == {"attention", "gaussian"}
    assert text.count("## ") == 4
    alone = run[0][run[0]["replicate"] < 2]  # blocks differ, so floating-point results may, in the last digits
    again = of_study(rows, "attention")
    key = ["study", "truth", "kind", "k", "n", "replicate"]
    merged = again[again["study"] == "attention"].merge(alone, on=key, suffixes=("", "_alone"))
    assert len(merged) == 4 * 2 * 2
    np.testing.assert_allclose(merged["risk"], merged["risk_alone"], rtol=1e-3)
    assert of_study(rows, "gaussian")["hellinger"].notna().all()


def test_identifiability_alone(tmp_path):
    study = identifiability_study(truths=["attention-decoupled"], sizes=[10_000, 100_000], replicates=8, entropy=0)
    rows = run_study(study, tmp_path, progress=False)
    lines = identifiability(rows)
    assert lines["verdict"].tolist() == ["no rate"]
    assert identifiability(rows[rows["n"] < 100_000])["verdict"].tolist() == ["not decidable here"]  # one size is none
    assert lines["split_observed_over_predicted"].tolist() == [[]]


def test_profiles_are_one_block_whatever_the_replicates():
    blocks = [block for block in small().blocks if isinstance(block.cell, ProfileCell)]
    assert [block.replicates for block in blocks] == [(0,)]


def test_default_lines_and_random_truths_exist():
    for name in (*LINES, *RANDOM_TRUTHS):
        assert prompt_truth(name).name == name
    study = attention_study(sizes=[1_000], replicates=1, entropy=0, truths=RANDOM_TRUTHS)
    fitted = {(cell.truth, cell.kind, cell.k) for cell in study.cells if isinstance(cell, AttentionCell)}
    assert ("attention-random-2-tanh", "adaptive:tanh", 3) in fitted
    assert len(fitted) == 2 * len(RANDOM_TRUTHS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ["shared"]}, r"unknown prompt kind 'shared'; expected fixed, decoupled, adaptive"),
        ({"kinds": ["adaptive:swish"]}, "with SIGMA one of tanh, gelu, relu, sigmoid, identity"),
        ({"kinds": ["fixed:bias"]}, "unknown prompt kind 'fixed:bias'"),
        ({"ks": [0]}, "k = 0; expected at least 1 prompt"),
        ({"start": "data"}, "start of prompts in attention = 'data'; expected one of near_truth, random"),
        ({"sizes": [5]}, "n = 5 is below the 6 parameters of 2 fixed prompts; raise --n"),
        ({"truths": ["attention-moon"]}, "unknown truth 'attention-moon'"),
    ],
)
def test_wrong_input(changes, message):
    with pytest.raises(InputError, match=message):
        small(**changes)
