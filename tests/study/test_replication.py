"""The published procedures by hand, rows that stay as the grid grows, and findings that are the table's."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import component_densities

from moe_prompts import EMOptions, FitStatus, InputError, em, run_study, sample, starts, truth, voronoi_loss
from moe_prompts.estimators.softmax.likelihood import softmax_em
from moe_prompts.estimators.softmax.starts import published_start
from moe_prompts.figures.replication import median_bars, panels, ratio_title, replication_figure
from moe_prompts.losses.softmax_voronoi import UNIDENTIFIED, softmax_loss
from moe_prompts.models.softmax_truths import softmax_sample, softmax_truth
from moe_prompts.seeds import start_rng
from moe_prompts.slopes import slope
from moe_prompts.study import replication
from moe_prompts.study.gaussian import gaussian_study
from moe_prompts.study.replication import (
    PROCEDURES,
    ReplicationCell,
    published_sizes,
    replication_study,
    run_cell,
    sgame_errors,
    sgame_fits,
    thinned_sizes,
)
from moe_prompts.study.replication_report import (
    FILE,
    findings,
    published_lines,
    read_published,
    replication_report,
    summarise_replication,
)

#: Enough for intervals of which no digit is read; those of a report have more.
FEW = 200
KEY = ["truth", "k", "n", "replicate", "procedure"]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    few = lambda losses, rng, statistic, resamples: slope(losses, rng, statistic, min(resamples, FEW))
    monkeypatch.setattr("moe_prompts.study.replication_report.slope", few)


def small(paper, **changes):
    options = {"sizes": [200, 400], "replicates": 1, "entropy": 3}
    options |= {"models": [2], "ks": [4]} if paper == "gmoe" else {"ks": [2]}
    return replication_study(paper, **(options | changes))


@pytest.fixture(scope="module", params=["gmoe", "sgame"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, run_study(small(request.param), folder, progress=False), folder


def row(rows, procedure, **where):
    chosen = rows[rows["procedure"] == procedure]
    for name, value in where.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


# Rows ----------------------------------------------------------------------------------------------------------------


def test_rows_are_tidy(run):
    _, rows, _ = run
    assert len(rows) == 2 * len(PROCEDURES)
    assert not rows.duplicated(KEY).any()
    assert rows["procedure"].tolist() == list(PROCEDURES) * (len(rows) // 4)
    assert not {"seconds", "time"} & set(rows.columns)
    assert (rows.loc[rows["procedure"] == "start", "iterations"] == 0).all()
    certified = rows[rows["status"] == "CERTIFIED"]
    assert (certified["gap_nats"] <= 1e-6).all()


def test_published_gaussian_row_is_one_em_step_by_hand():
    """Responsibilities point by point, then weighted means and regressions."""
    rows = pd.DataFrame(run_cell(ReplicationCell("gmoe", "gmoe-2", 4, 200), (1,), 3))
    known, data = truth("gmoe-2").params, sample("gmoe-2", 200, 3, 1)
    start = starts.near_truth(known).draw(
        truth("gmoe-2").family_with(4, "affine"), data, start_rng(3, "gmoe-2", 200, 1, "adaptive", 4, 0)
    )
    assert_allclose(row(rows, "start")["loss_published"], voronoi_loss(start, known, "type2"), rtol=1e-9)
    terms = component_densities(start, data.x, data.y)
    assert_allclose(row(rows, "start")["log_likelihood"], np.log(terms.sum(axis=1)).sum(), rtol=1e-10)
    r = terms / terms.sum(axis=1, keepdims=True)
    X = np.column_stack([np.ones(200), data.x])
    centres = [np.average(data.x[:, 0], weights=w) for w in r.T]
    widths = [np.average((data.x[:, 0] - c) ** 2, weights=w) for c, w in zip(centres, r.T, strict=True)]
    lines = [np.linalg.lstsq(np.sqrt(w)[:, None] * X, np.sqrt(w) * data.y[:, 0])[0] for w in r.T]
    noise = [np.average((data.y[:, 0] - X @ line) ** 2, weights=w) for line, w in zip(lines, r.T, strict=True)]
    step = known.univariate(r.mean(axis=0), centres, widths, [b for _, b in lines], [a for a, _ in lines], noise)
    published = row(rows, "published")
    assert_allclose(published["loss_published"], voronoi_loss(step, known, "type2"), rtol=1e-9)
    assert published["iterations"] == 1
    assert published["status"] == FitStatus.NOT_CERTIFIED.name


def test_certified_gaussian_rows_are_those_of_the_gaussian_study(tmp_path):
    """The same data, starts and options by another road."""
    ours = run_study(small("gmoe", sizes=[300], replicates=2), tmp_path / "a", progress=False)
    for procedure, start in (("certified", "near_truth"), ("certified-data", "data")):
        study = gaussian_study(
            sizes=[300], replicates=2, entropy=3, truths=["gmoe-2"], kinds=["adaptive"], ks=[4], start=start
        )
        theirs = run_study(study, tmp_path / start, progress=False)
        mine = ours[ours["procedure"] == procedure]
        assert_array_equal(mine["loss_published"], theirs["loss_type2"])
        assert_array_equal(mine["log_likelihood"], theirs["log_likelihood"])


def test_published_softmax_row_is_the_likeliest_of_five_tries():
    known, n = softmax_truth("sgame"), 300
    data = softmax_sample("sgame", n, 3, 0)
    ended = []
    for number in range(5):
        start = published_start(known.params, 3, n, start_rng(3, "sgame", n, 0, "published", 3, number))
        before, steps, value = -np.inf, 0, start
        while True:  # the loop as published: one EM step, then the change of the log-likelihood
            now = value.log_density(data).sum()
            if abs(now - before) < 1e-6 * abs(before):
                break
            before, steps = now, steps + 1
            value = softmax_em(known.family(3), data, value, EMOptions(max_iterations=1, certify=False)).value
        value = softmax_em(known.family(3), data, value, EMOptions(max_iterations=1, certify=False)).value
        ended.append((value.log_density(data).sum(), steps + 1, value, start))
    best = max(ended, key=lambda end: end[0])
    rows = pd.DataFrame(run_cell(ReplicationCell("sgame", "sgame", 3, n), (0,), 3))
    published, started = row(rows, "published"), row(rows, "start")
    assert_allclose(published["log_likelihood"], best[0], rtol=1e-9)
    assert published["iterations"] == best[1]
    as_published = lambda params: softmax_loss(params.pinned(), known.params, "published", translate=False)
    assert_allclose(published["loss_published"], as_published(best[2]), rtol=1e-6)
    assert_allclose(started["loss_published"], as_published(best[3]), rtol=1e-9)
    assert published["loss_translated"] <= published["loss_published"]
    assert row(rows, "certified")["log_likelihood"] >= best[0] - 1e-6


def test_a_small_relative_change_is_in_the_units_of_the_data():
    """The log-likelihood of y in other units is another number, and so is a share of it."""
    data = sample("gmoe-1", 500, 0)
    family = truth("gmoe-1").family_with(4, "affine")
    start = starts.near_truth(truth("gmoe-1").params).draw(family, data, np.random.default_rng(0))
    fit = em(family, data, start, EMOptions(certify=False, relative_change=1e-3))
    values = np.array(fit.history["log_likelihood"])
    change = np.abs(np.diff(values)) / np.abs(values[:-1])
    assert fit.status is FitStatus.NOT_CERTIFIED
    assert (change[:-2] >= 1e-3).all()  # the last step follows the small change
    assert change[-2] < 1e-3
    with pytest.raises(InputError, match="relative_change = -1"):
        EMOptions(relative_change=-1)


def test_all_over_fitted_rows_say_so():
    """Four atoms, two in each cell: the gate slopes are not identified, and the row has a notice."""
    cell, sizes = ReplicationCell("sgame", "sgame", 4, 300), set()
    for replicate in range(12):
        fit = sgame_fits(cell, replicate, 3)["start"]().best
        errors = sgame_errors(cell, "start", fit)
        nearest = np.abs(fit.value.slopes - softmax_truth("sgame").params.slopes.T).argmin(axis=1)
        both = sorted(np.bincount(nearest)) == [2, 2]
        assert errors["gate_identified"] == (not both)
        assert errors["notice"] == (UNIDENTIFIED if both else "")
        sizes.add(both)
    assert sizes == {True, False}


def test_starts_from_data_have_no_loss_as_published(run):
    paper, rows, _ = run
    data = rows[rows["procedure"] == "certified-data"]
    assert data["loss_published"].isna().all() == (paper == "sgame")
    assert data["loss_intrinsic"].notna().all()


def test_resume_completes_to_the_identical_table(run, tmp_path):
    paper, _, folder = run
    run_study(small(paper), tmp_path, progress=False)
    sorted((tmp_path / "blocks").glob("*.arrow"))[1].unlink()
    run_study(small(paper), tmp_path, resume=True, progress=False)
    assert (tmp_path / "results.parquet").read_bytes() == (folder / "results.parquet").read_bytes()


def test_more_sizes_and_replicates_change_no_row(run, tmp_path):
    paper, before, _ = run
    rows = run_study(small(paper, sizes=[200, 300], replicates=2), tmp_path, progress=False)
    kept, old = (table.sort_values(KEY, ignore_index=True) for table in (rows, before))
    shared = kept.merge(old[KEY], on=KEY)
    assert len(shared) == len(PROCEDURES)
    pd.testing.assert_frame_equal(shared, old.merge(kept[KEY], on=KEY))


def test_a_fit_that_cannot_be_made_is_a_row(monkeypatch):
    def singular(*_):
        raise np.linalg.LinAlgError("singular matrix")

    monkeypatch.setattr(replication, "best_of", singular)
    rows = run_cell(ReplicationCell("gmoe", "gmoe-1", 4, 200), (0,), 0)
    assert [r["status"] for r in rows] == ["NOT_CERTIFIED", "NOT_CERTIFIED", "FAILED", "FAILED"]
    assert rows[2]["message"] == "singular matrix"
    assert rows[2].keys() == rows[1].keys()
    summary = summarise_replication(pd.DataFrame(rows), 0)
    assert set(summary["source"]) == {"start", "published"}


def test_sizes_are_the_published_ones():
    assert len(published_sizes("gmoe", 4)) == 99  # 500 stands twice in the paper's own list
    assert len(published_sizes("sgame", 2)) == len(published_sizes("sgame", 3)) == 200
    for paper, k in (("gmoe", 5), ("sgame", 2), ("sgame", 4)):
        few, every = thinned_sizes(paper, k), published_sizes(paper, k)
        assert set(few) < set(every)
        assert (few[0], few[-1]) == (every[0], every[-1])


def test_sizes_are_those_of_the_published_file(reference):
    for paper, k in (("gmoe", 4), ("sgame", 2), ("sgame", 3)):
        arrays = read_published(paper, reference / f"{paper}_published_losses.npz")
        n = arrays["n" if paper == "gmoe" else f"n_k{k}"]
        assert sorted(set(n.astype(int))) == published_sizes(paper, k)


@pytest.mark.parametrize(
    ("paper", "changes", "message"),
    [
        ("moon", {}, "unknown paper 'moon'; expected one of gmoe, sgame"),
        ("sgame", {"models": [1]}, "the paper sgame has one model"),
        ("gmoe", {"models": [5]}, r"models \[5\]; expected some of 1, 2, 3, 4"),
        ("gmoe", {"ks": [2]}, "k = 2; the published start of gmoe needs at least 3 atoms"),
        ("sgame", {"ks": [1]}, "needs at least 2 atoms"),
        ("gmoe", {"sizes": [50]}, "n = 50; expected at least 100 pairs"),
        ("gmoe", {"procedures": ["em"]}, "procedures = em; expected some of start, published, certified"),
    ],
)
def test_bad_studies_get_one_clear_error(paper, changes, message):
    with pytest.raises(InputError, match=message):
        replication_study(paper, **changes)


# The published file --------------------------------------------------------------------------------------------------


def faultless(paper):
    if paper == "gmoe":
        names = [f"model{model}_k{k}" for model in (1, 2, 3, 4) for k in (4, 5)]
        n = np.concatenate([np.linspace(100, 500, 5), np.linspace(500, 1e5, 95)])
        arrays = {"n": n}
        arrays |= {f"loss_{name}": np.tile(3 / np.sqrt(n)[:, None], (1, 20)) for name in names}
        return arrays | {f"iterations_{name}": np.zeros((100, 20), dtype=int) for name in names}
    n = np.linspace(1e4, 1e5, 200)
    arrays = {f"n_k{k}": n for k in (2, 3, 4)}
    return arrays | {f"loss_k{k}": np.tile(3 / np.sqrt(n)[:, None], (1, 40)) for k in (2, 3, 4)}


@pytest.mark.parametrize("paper", ["gmoe", "sgame"])
def test_published_losses_are_lines_of_the_table(paper, tmp_path):
    np.savez(tmp_path / "losses.npz", **faultless(paper))
    lines = published_lines(paper, tmp_path / "losses.npz")
    assert len(lines) == (8 if paper == "gmoe" else 3)
    assert (lines["source"] == FILE).all()
    assert_allclose(lines["slope"], -0.5, atol=1e-3)  # sizes are cut to whole numbers
    assert_allclose(lines["median"], 3 / np.sqrt(1e5))
    assert (lines["runaway"] == 0).all()


def fault(arrays, name):
    arrays = dict(arrays)
    if name == "lacks":
        del arrays["loss_k3"]
    elif name == "shape":
        arrays["loss_k3"] = arrays["loss_k3"][:7]
    elif name == "text":
        arrays["loss_k3"] = np.full((200, 40), "x")
    elif name == "negative":
        arrays["loss_k3"] = -arrays["loss_k3"]
    elif name == "pickled":
        arrays["loss_k3"] = np.full((200, 40), None)
    return arrays


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lacks", "lacks loss_k3; expected the published losses of sgame"),
        ("shape", r"loss_k3 has shape \(7, 40\) of float64; expected numbers \(200, 40\)"),
        ("text", "loss_k3 has shape .* expected numbers"),
        ("negative", "loss_k3 has values that are not finite and positive"),
        ("pickled", r"loss_k3 has shape \(200, 40\) of object; expected numbers"),
    ],
)
def test_faults_of_the_file_get_one_clear_error(name, message, tmp_path):
    np.savez(tmp_path / "losses.npz", **fault(faultless("sgame"), name))
    with pytest.raises(InputError, match=message):
        published_lines("sgame", tmp_path / "losses.npz")


def test_what_is_no_file_of_arrays_gets_one_clear_error(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("text.npz", "missing.npz", "one.npy"):
        with pytest.raises(InputError, match=r"cannot read .* as published losses"):
            read_published("gmoe", tmp_path / name)


# What the table says -------------------------------------------------------------------------------------------------


def made(paper, levels, slopes=None, replicates=12):
    """Rows whose losses follow level * n^slope, times log-normal noise; all procedures, certified where they should."""
    rng, rows = np.random.default_rng(0), []
    for n in (1_000, 10_000, 100_000):
        for replicate in range(replicates):
            noise = np.exp(0.1 * rng.standard_normal())  # of the data, common to all procedures
            for procedure, level in levels.items():
                loss = level * (n / 1e5) ** (slopes or {}).get(procedure, -0.5) * noise
                rows.append(
                    {
                        "paper": paper,
                        "truth": f"{paper}-1" if paper == "gmoe" else paper,
                        "k": 4,
                        "n": n,
                        "replicate": replicate,
                        "procedure": procedure,
                        "loss_published": loss,
                        "loss_translated": loss / 10 if paper == "sgame" else np.nan,
                        "loss_intrinsic": loss,
                        "log_likelihood": -float(procedure != "certified"),
                        "iterations": 1,
                        "notice": "",
                        "status": "CERTIFIED" if procedure.startswith("certified") else "NOT_CERTIFIED",
                    }
                )
    return pd.DataFrame(rows)


LEVELS = {"start": 0.002, "published": 0.01, "certified": 0.02, "certified-data": 0.02}


def say(rows):
    return " ".join(findings(summarise_replication(rows, 0)))


def test_findings_follow_the_levels():
    text = say(made("gmoe", LEVELS))
    assert "The level tells them apart: the median loss of the certified maximum is 2 times that of one step" in text
    assert "the start is closer to the truth than one step, whose median loss is 5" in text
    assert "overlap in 1 of 1 lines: the slope cannot tell them apart" in text
    swapped = say(made("gmoe", LEVELS | {"certified": 0.005, "start": 0.1}))
    assert "is 0.5 times that of one step" in swapped
    assert "The level does not either" in say(made("gmoe", LEVELS | {"certified": 0.011}))
    assert "the start is no closer to the truth than one step" in swapped
    steep = say(made("gmoe", LEVELS, {"certified": -1.0}))
    assert "overlap in 0 of 1 lines: the slope tells them apart" in steep


def test_findings_follow_the_published_lines(tmp_path):
    np.savez(tmp_path / "losses.npz", **faultless("gmoe"))
    ours = summarise_replication(made("gmoe", LEVELS | {"published": 3 / np.sqrt(1e5)}), 0)
    lines = published_lines("gmoe", tmp_path / "losses.npz")
    assert set(ours["sizes"].iloc[0]) & set(lines["sizes"].iloc[0]) == {100_000}
    text = " ".join(findings(pd.concat([ours, lines], ignore_index=True)))
    assert "every published run counts 0 iterations" in text
    assert "One EM step on our data reproduces the published level" in text
    changed = lines.assign(most_iterations=7, medians=[[1.0] * len(n) for n in lines["sizes"]])
    text = " ".join(findings(pd.concat([ours, changed], ignore_index=True)))
    assert "the published runs count up to 7 iterations" in text
    assert "does not reproduce" in text
    assert "Published losses" not in say(made("gmoe", LEVELS))


def test_softmax_findings_follow_the_table():
    rows = made("sgame", LEVELS)
    text = say(rows)
    assert "is 10 times the smallest over translations (k = 4: 0.01 against 0.001)" in text
    assert "1 nats below the certified maximum" in text
    assert "larger than where EM was stopped for k = 4" in text
    assert "Every cell" not in text
    rows["loss_translated"] = rows["loss_published"]
    rows["log_likelihood"] = 0.0
    rows.loc[rows["procedure"] == "certified", "loss_translated"] /= 4
    rows["notice"] = UNIDENTIFIED
    text = say(rows)
    assert "changes the medians by less than half" in text
    assert "0 nats below" in text
    assert "not larger than where EM stopped" in text
    assert "in 100% of the fits published with k = 4" in text


def test_runaways_and_missing_certificates_show():
    rows = made("gmoe", LEVELS)
    rows.loc[(rows["procedure"] == "published") & (rows["replicate"] == 0), "loss_published"] *= 1e6
    rows.loc[(rows["procedure"] == "start") & (rows["replicate"] == 0), "loss_published"] = np.inf
    rows.loc[(rows["procedure"] == "certified-data") & (rows["replicate"] < 6), "status"] = "COLLAPSED"
    summary = summarise_replication(rows, 0).set_index(["loss", "source"])
    assert summary.loc[("published", "published"), "runaway"] == pytest.approx(1 / 12)
    assert summary.loc[("published", "start"), "runaway"] == pytest.approx(1 / 12)
    assert summary.loc[("published", "certified-data"), "certified"] == 0.5
    assert summary.loc[("published", "certified-data"), "statuses"] == {"COLLAPSED": 18, "CERTIFIED": 18}
    text, _ = replication_report(rows, None, 0)
    assert "certified-data: 18 " in text
    assert FitStatus.COLLAPSED.advice in text
    assert "Without --published" in text


@pytest.mark.parametrize("paper", ["gmoe", "sgame"])
def test_some_procedures_are_a_table_too(paper):
    rows = made(paper, {"published": 0.01})
    text, summary = replication_report(rows, None, 0)
    assert set(summary["source"]) == {"published"}
    assert summary["nats_below"].isna().all()
    assert "nan" not in text


def test_some_procedures_are_the_rows_that_all_would_give():
    every = run_cell(ReplicationCell("gmoe", "gmoe-1", 4, 200), (0,), 0)
    one = run_cell(ReplicationCell("gmoe", "gmoe-1", 4, 200, ("published",)), (0,), 0)
    pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(every[1:2]))


def test_no_certified_fit_at_all_is_a_line_without_a_slope():
    rows = made("gmoe", LEVELS)
    rows.loc[rows["procedure"] == "certified", "status"] = "COLLAPSED"
    text, summary = replication_report(rows, None, 0)
    line = summary[(summary["source"] == "certified") & (summary["loss"] == "published")].iloc[0]
    assert np.isnan(line["slope"])
    assert line["certified"] == 0
    assert "| -" in text


def test_intervals_of_medians_are_those_of_certified_fits():
    """Of two losses 1 and 3 a resample has the median 1, 2 or 3, with probabilities 1/4, 1/2, 1/4."""
    status = ["CERTIFIED", "CERTIFIED", "COLLAPSED"]
    rows = pd.DataFrame({"procedure": "certified", "status": status, "n": 10, "loss_published": [1.0, 3.0, 99.0]})
    one_step = rows.assign(procedure="published", status="NOT_CERTIFIED", loss_published=5.0)
    both = pd.concat([rows, one_step])
    assert median_bars(both, "certified", "published") == {10: (1.0, 3.0)}
    assert median_bars(both, "published", "published") == {10: (5.0, 5.0)}
    assert median_bars(both, "start", "published") == {}


def test_the_title_of_ratios_passes_over_truths_that_only_the_file_has():
    summary = summarise_replication(made("gmoe", LEVELS), 0)
    in_file = summary[summary["source"] == "published"].assign(source=FILE, truth="gmoe-2")
    title = ratio_title(pd.concat([summary, in_file]))
    assert title == ratio_title(summary)
    assert re.match(r"certified maxima have [\d.]+ times the loss", title)


def test_the_figure_of_softmax_gates_has_intervals():
    rows = made("sgame", LEVELS)
    summary = summarise_replication(rows, 0)
    figure = replication_figure(summary, rows)
    assert all(ax.collections for ax in figure.axes)
    assert "bars: 90\xa0% bootstrap intervals" in figure.legends[0].get_title().get_text()
    plt.close(figure)


@pytest.mark.parametrize(("paper", "shape"), [("gmoe", (1, 1)), ("sgame", (1, 2))])
def test_figure_has_a_panel_for_each_k_and_loss(paper, shape):
    summary = summarise_replication(made(paper, LEVELS), 0)
    assert np.array(panels(summary)).shape[:2] == shape
    figure = replication_figure(summary)
    assert len(figure.axes) == shape[0] * shape[1]
    drawn = figure.axes[0].get_lines()[0]
    first = (summary["loss"] == "published") & (summary["truth"] == summary["truth"][0])
    line = summary[first & (summary["source"] == "start")].iloc[0]
    if paper == "gmoe":  # the first line is at 1, the others are ratios to the published procedure
        below = summary[first & (summary["source"] == "published")].iloc[0]
        assert_array_equal(drawn.get_ydata(), [1, 1])
        both = [place for place, n in enumerate(line["sizes"]) if n in below["sizes"]]
        drawn = figure.axes[0].get_lines()[1]
        expected = np.array(line["medians"])[both] / np.array(below["medians"])
    else:
        both, expected = slice(None), line["medians"]
    assert_array_equal(drawn.get_xdata(), np.array(line["sizes"])[both])
    assert_array_equal(drawn.get_ydata(), expected)
    plt.close(figure)
