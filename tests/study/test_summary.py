"""The verdict table from rows made to follow known laws."""

import numpy as np
import pandas as pd
import pytest

from moe_prompts.study.summary import as_markdown, comparison_lines, status_lines, summarise
from moe_prompts.tables import short

SIZES = (1_000, 10_000, 100_000, 1_000_000)


def rows(kind, k, fit_class, law, truth_kind="adaptive", noise=0.1, replicates=16):
    """One line of a study: ``law(n)`` times log-normal noise common to all lines, all certified."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "truth": f"prompts-{truth_kind}",
            "truth_kind": truth_kind,
            "kind": kind,
            "k": k,
            "n_frozen": 2,
            "fit_class": fit_class,
            "start": "data",
            "n": n,
            "replicate": replicate,
            "status": "CERTIFIED",
            "relative_risk": law(n) * np.exp(noise * rng.standard_normal()),
            "loss_intrinsic": np.sqrt(law(n)),
        }
        for n in SIZES
        for replicate in range(replicates)
    )


@pytest.fixture
def study():
    return pd.concat(
        [
            rows("fixed", 2, "misspecified", lambda n: 0.08),
            rows("fixed", 4, "misspecified", lambda n: 0.01),
            rows("adaptive", 2, "exact", lambda n: 2 / n),
            rows("adaptive", 3, "over", lambda n: 2 * n**-0.5),
        ],
        ignore_index=True,
    )


def line(study, kind, k, measure="risk"):
    table = summarise(study, "gaussian-gated", 0)
    return table[(table["kind"] == kind) & (table["k"] == k) & (table["measure"] == measure)].iloc[0]


def test_verdicts_follow_the_laws(study):
    assert line(study, "fixed", 4)["verdict"] == "holds"
    assert line(study, "fixed", 4)["floor"] == pytest.approx(0.01, rel=0.1)
    exact = line(study, "adaptive", 2)
    assert exact["verdict"] == "holds"
    assert exact["predicted"] == -1
    assert exact["slope"] == pytest.approx(-1, abs=0.02)
    assert exact["n_to_1e_3"] == pytest.approx(2_000, rel=0.2)
    assert len(exact["local_slopes"]) == 3
    assert exact["mean_low"] < exact["mean_value"] < exact["mean_high"]
    assert line(study, "adaptive", 3)["verdict"] == "fails"
    assert line(study, "adaptive", 2, "loss D")["verdict"] == "holds"


def test_theory_silent_on_a_loss_gives_no_line(study):
    table = summarise(study, "gaussian-gated", 0)
    assert not len(table[(table["kind"] == "fixed") & (table["measure"] == "loss D")])


def test_table_reads(study):
    text = as_markdown(summarise(study, "gaussian-gated", 0))
    assert "| floor     |" in text
    assert "floor 1.0" in text
    assert "> 1e6" in text  # adaptive, k = 3 does not reach 1e-3
    assert len({len(each) for each in text.splitlines()}) == 1


def test_comparison_is_paired_and_takes_the_exact_family(study):
    (text,) = comparison_lines(study)
    assert (
        "best fixed (k = 4) / adaptive (k = 2) = 5e+03 [5e+03, 5e+03] over 16 paired fits: adaptive prompts win" in text
    )
    study["truth_kind"], study["fit_class"] = "fixed", np.where(study["k"] == 2, "exact", "over")
    (text,) = comparison_lines(study)
    assert "all n: risk of fixed (k = 2) / adaptive (k = 2)" in text
    assert "over 64 paired fits" in text


def test_missing_certificates_do_not_break_the_report(study):
    """None of one kind at the largest n; none at all at the largest n; none at all."""
    last = study["n"] == SIZES[-1]
    for broken in (last & (study["kind"] == "fixed"), last, study["n"] > 0):
        changed = study.copy()
        changed.loc[broken, "status"] = "COLLAPSED"
        text = as_markdown(summarise(changed, "gaussian-gated", 0))
        comparison_lines(changed)
        assert any("COLLAPSED" in each for each in status_lines(changed))
    assert "too few sizes" in text
    assert "-, -" in text
    assert comparison_lines(changed) == []


def test_short_numbers():
    assert [short(1e3), short(4217), short(1e6)] == ["1e3", "4.2e3", "1e6"]
