"""Claims on the pretrained backbone: odds against simulation, lines against the committed tables."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm, t

from moe_prompts import intervals
from moe_prompts.claims import planted, pretrained
from moe_prompts.claims.claim import judged
from moe_prompts.commands import console
from moe_prompts.engine.store import read_table
from moe_prompts.errors import InputError
from moe_prompts.intervals import mean_interval, standard_error
from moe_prompts.vision.data_efficiency import claim_lines
from moe_prompts.vision.data_efficiency.claim_lines import (
    PUBLISHED_GAIN,
    chance_to_hold,
    claim_records,
    coin_odds,
    difference_lines,
    excess_odds,
    file_of_records,
    replicates_needed,
    search_line,
)
from moe_prompts.vision.data_efficiency.curves import differences, lead_changes, mean_differences
from moe_prompts.vision.data_efficiency.report import CLAIMS
from moe_prompts.vision.training.statuses import TRAINED

ROOT = Path(__file__).parents[3]
DATA = ROOT / "paper_figures" / "data"
PRETRAINED = "docs/pretrained_study.md"


@pytest.mark.parametrize(("difference", "count"), [(0.0348, 3), (0.0348, 8), (0.0, 3)])
def test_odds_are_those_of_simulated_runs(difference, count):
    """4000 runs of normal values, judged by the interval itself; four standard errors of a share."""
    rng, runs = np.random.default_rng(0), 4000
    values = rng.normal(difference, 0.03, size=(runs, count))
    held = np.mean([intervals.mean_interval(own).low > 0 for own in values])
    expected = chance_to_hold(difference, 0.03, count)
    assert abs(held - expected) < 4 * np.sqrt(expected * (1 - expected) / runs)


def test_odds_of_the_excess_are_those_of_its_cells():
    """Nine cells of ratios 1/3, 1 and 3, a third each: seven of nine must be 1; twice as large, none is near."""
    ratio = np.repeat([1 / 3, 1.0, 3.0], 3) * 1.9
    right, wrong = excess_odds(ratio, np.full(9, 2.5), np.random.default_rng(0))
    expected = binom.sf(6, 9, 1 / 3)  # 7 of 9 are three quarters or more
    assert abs(right - expected) < 4 * np.sqrt(expected / 10_000)
    # Ratios are then .83, 2.5 and 7.5: near are those that were 1/3.
    assert abs(wrong - expected) < 4 * np.sqrt(expected / 10_000)
    assert excess_odds(ratio, np.full(9, 50.0), np.random.default_rng(0))[1] == 0


def test_a_coin_needs_four_tasks():
    """Four of four have probability 1/16, three of four 5/16; of seven tasks six are enough."""
    assert [coin_odds(tasks) for tasks in (0, 2, 3)] == [(0.0, 0.0)] * 3
    assert coin_odds(4) == (1.0, 1 / 16)
    assert coin_odds(7) == (1.0, 8 / 128)
    # Cells of three tasks decide nothing, however many they are; eight cells of four tasks need six.
    assert coin_odds(8, tasks=3) == (0.0, 0.0)
    assert coin_odds(8, tasks=4) == (1.0, binom.sf(6, 8, 0.5))


def test_replicates_needed_are_the_first_that_do():
    needed = replicates_needed(PUBLISHED_GAIN, 0.03)
    assert chance_to_hold(PUBLISHED_GAIN, 0.03, needed) >= 0.8 > chance_to_hold(PUBLISHED_GAIN, 0.03, needed - 1)
    assert replicates_needed(1e-4, 0.03) == 0


def rows_of(task, **accuracies):
    return [
        {"task": task, "n": 200, "status": TRAINED, "method": method, "replicate": i, "accuracy": value}
        for method, values in accuracies.items()
        for i, value in enumerate(values)
    ]


def test_a_mean_over_tasks_is_judged_replicate_by_replicate():
    """Differences of 2, 4, 6 and of 4, 4, 4 points: means of 3, 4 and 5, so 4 +- 2.920 / sqrt(3)."""
    one = rows_of("a", vapt=(0.42, 0.45, 0.48), vpt_deep=(0.40, 0.41, 0.42), linear=(0.1, 0.1, 0.1))
    two = rows_of("b", vapt=(0.64, 0.84, 0.24), vpt_deep=(0.60, 0.80, 0.20))
    pairs = {"V-small": ("vapt", "vpt_deep"), "V-prompts": ("vpt_deep", "linear"), "V-blind": ("vapt", "vapt_constant")}
    (row,) = mean_differences(pd.DataFrame([*one, *two]), pairs).itertuples()  # task b lacks linear
    assert (row.claim, row.task, row.count, row.verdict) == ("V-small", "mean of 2 tasks", 3, "holds")
    assert row.difference == pytest.approx(0.04)
    assert row.high - row.difference == pytest.approx(0.01 * 2.9199856 / np.sqrt(3))
    # A replicate that one task lacks does not count, and two replicates decide nothing.
    (short,) = mean_differences(pd.DataFrame([*one, *two[:-1]]), {"V-small": pairs["V-small"]}).itertuples()
    assert (short.count, short.verdict) == (2, "not decidable here")


def test_a_change_of_a_lead_is_judged_replicate_by_replicate():
    """Leads of 2, 4, 6 points at n = 200 and of 1, 2, 0 at n = 900: 1, 2 and 6 more, so 3 +- 2.920 sqrt(7 / 3)."""
    few = pd.DataFrame(rows_of("a", vapt=(0.42, 0.45, 0.48), vpt_deep=(0.40, 0.41, 0.42)))
    many = pd.DataFrame(rows_of("a", vapt=(0.81, 0.92, 0.70), vpt_deep=(0.80, 0.90, 0.70))).assign(n=900)
    pairs = {"V-fewer-lamb": ("vapt", "vpt_deep"), "V-bias": ("vapt", "bias")}
    (row,) = lead_changes(pd.concat([many, few]), pairs).itertuples()
    assert (row.claim, row.n, row.count, row.verdict) == (
        "V-fewer-lamb",
        "200 less that at 900",
        3,
        "not decidable here",
    )
    assert row.difference == pytest.approx(0.03)
    assert row.high - row.difference == pytest.approx(0.01 * 2.9199856 * np.sqrt(7 / 3))
    # A task that lacks one of the two at one n leaves nothing to judge.
    assert lead_changes(pd.concat([many, few, few.assign(task="b")]), pairs).empty


def test_a_difference_becomes_a_line_in_points():
    rows = [
        {"task": "stand-in:count", "n": 800, "status": TRAINED, "method": method, "replicate": i, "accuracy": value}
        for method, values in {"vapt": (0.5, 0.52, 0.54), "vpt_deep": (0.4, 0.41, 0.42)}.items()
        for i, value in enumerate(values)
    ]
    (line,) = difference_lines("V-gain", "100 steps", pd.DataFrame(rows))
    # Differences 10, 11 and 12 points: 11 +- 2.920 / sqrt(3).
    assert line["found"] == "+11.0 [+9.3, +12.7] points, 3 replicates"
    assert line["verdict"] == "holds"
    assert line["right"] == pytest.approx(chance_to_hold(PUBLISHED_GAIN, 0.01, 3), abs=1e-6)


def test_a_later_run_has_the_same_images(monkeypatch):
    """What was trained again counts once, and has to end where it ended before."""
    row = {"task": "count", "n": 800, "replicate": 0, "status": TRAINED}
    runs = {
        "pretrained_second_count": [row | {"method": "linear", "accuracy": 0.4}],
        "pretrained_fourth_count": [row | {"method": name, "accuracy": 0.4} for name in ("linear", "vapt_gain")],
    }
    empty = pd.DataFrame(columns=[*row, "method", "accuracy"])
    read = lambda folder: pd.DataFrame(runs[folder.name]) if folder.name in runs else empty
    monkeypatch.setattr(claim_lines, "read_table", read)
    assert list(claim_lines.table_of(DATA, "200 steps")["method"]) == ["linear", "vapt_gain"]
    runs["pretrained_fourth_count"][0]["accuracy"] = 0.41
    with pytest.raises(
        InputError, match=r"linear on count, replicate 0, has the accuracy 0\.41 in a run of .* and 0\.4 "
    ):
        claim_lines.table_of(DATA, "200 steps")


@pytest.mark.parametrize(
    ("excess", "status", "verdict", "said"),
    [
        (0.5, "CERTIFIED", "holds", "landscape: 0 of 24 certified fits reach 0.05 nats, share [0.00, 0.09]; 24 fits"),
        (0.01, "CERTIFIED", "fails", "algorithm: 24 of 24 certified fits"),
        (0.5, "NOT_CERTIFIED", "not decidable here", "not decidable here: 0 of 0 certified fits"),
    ],
)
def test_searches_become_a_line(excess, status, verdict, said):
    """With 24 fits and no success the upper end is 1 - .1^(1/24) = .091; odds are sums of binomial probabilities."""
    rows = pd.DataFrame({"teacher": np.arange(24) % 3}).assign(
        truth="planted-adaptive", n=1000, targets="law", start="official", excess=excess, status=status
    )
    rows["train_excess"] = 0.004
    fresh = pd.DataFrame({"task": ["planted-adaptive"], "n": 0, "method": "vapt", "excess": 0.28, "status": TRAINED})
    line = search_line(rows, fresh)
    assert line["verdict"] == verdict
    assert line["found"].startswith(said)
    said = f"excess {excess:.2f} to {excess:.2f} nats on new images, 0.004 to 0.004 on their own"
    assert line["found"].endswith(f"{said}; SGD on fresh images: 0% of vapt")
    assert line["name"].startswith("n = 1000, 3 teachers")
    if status == "CERTIFIED":
        most = max(k for k in range(25) if intervals.share_interval(k, 24, (0.1, 0.9)).high < 0.25)
        assert line["wrong"] == pytest.approx(binom.cdf(most, 24, 0.25), abs=1e-6)
        assert line["right"] == pytest.approx(binom.cdf(most, 24, 0.05), abs=1e-6)


def test_the_committed_lines_are_what_the_committed_tables_say():
    kept = Path(pretrained.__file__).with_name(pretrained.FILE).read_text(encoding="utf-8")
    records, again = json.loads(kept), claim_records(DATA)
    assert [record["name"] for record in records] == [record["name"] for record in again]
    for record, other in zip(records, again, strict=True):
        close = {key: pytest.approx(value) for key, value in other.items() if isinstance(value, (float, list))}
        assert record == other | close


def test_claims_on_means_say_their_tasks_and_gain():
    """Character for character as the records of the page have them, and each names its own number of tasks."""
    records = {one["id"]: one for one in json.loads((ROOT / "docs" / "claims.json").read_text("utf-8"))}
    own = [claim for claim in pretrained.CLAIMS if "in the mean of" in claim.statement]
    assert len(own) >= 7
    for claim in own:
        tasks = claim.statement.split("in the mean of ")[1].split()[0]
        assert claim.rule == records[claim.id]["rule"]
        assert f"over {tasks} tasks" in claim.rule
        assert f"{tasks} tasks, five" in claim.basis
    assert pretrained.mean_rule("six", "of LoRA", 2.0).endswith("published gain of LoRA for the truth, 2 points")
    assert "over six tasks" in pretrained.mean_rule("six")
    assert "six tasks, five" in pretrained.mean_basis("six")


def test_every_claim_on_the_backbone_has_lines_and_says_what_was_not_measured():
    verdicts = {claim.id: judged(claim, {}, 0) for claim in (*pretrained.CLAIMS, *planted.CLAIMS)}
    assert {record["claim"] for record in pretrained.committed_lines()} == set(verdicts)
    assert all(found.lines for found in verdicts.values())
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    for name, found in verdicts.items():
        assert f"## {name}: {found.verdict.value}" in page
        for line in found.lines:
            assert line.found in page


def test_the_command_writes_the_lines(monkeypatch, tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "moe_prompts" / "claims").mkdir(parents=True)
    monkeypatch.setattr("moe_prompts.cli.checkout", lambda name: tmp_path / name)
    monkeypatch.setattr(sys, "argv", ["moe-prompts", "claims", "--pretrained", str(DATA)])
    console.main()
    assert (tmp_path / "moe_prompts" / "claims" / pretrained.FILE).read_text() == file_of_records(DATA)
    monkeypatch.setattr(sys, "argv", ["moe-prompts", "claims", "--pretrained", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as end:
        console.main()
    assert end.value.code == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.fixture(scope="module")
def at_200():
    """Rows of the sixth, seventh and eleventh part."""
    return claim_lines.joined(DATA, claim_lines.SIXTH, (*claim_lines.SEVENTH, *claim_lines.ELEVENTH))


def test_pages_say_what_was_found_at_200_images(at_200):
    """Differences in the mean of the four tasks."""
    found = {row.claim: row for row in mean_differences(at_200, claim_lines.MEANS).itertuples()}
    assert set(found) == set(claim_lines.MEANS)
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split())
    shown = {name: [f"{100 * end:+.1f}" for end in (row.difference, row.low, row.high)] for name, row in found.items()}
    for name, row in found.items():
        value, low, high = shown[name]
        line = f"{name}: vapt above {row.other} | 200 | {value} | [{low}, {high}] | {row.count} | {row.verdict} |"
        assert f"| {line}" in page


#: Claims in the README's table of answers, with the methods that are compared.
ANSWERS = {
    "V-thousand": "`vapt` | `vpt_deep`",
    "V-thousand-lamb": "`vapt` | `vpt_deep`, by LAMB",
    "V-hundred-lamb": "`vapt` | `vpt_deep`, by LAMB",
    "V-steps-six": "`vapt` | `vpt_deep`, by LAMB, 600 steps",
    "V-four-hundred": "`vapt` | `vpt_deep`, by LAMB",
    "V-most": "`vapt` | `vpt_deep`, by LAMB, 600 steps",
    "V-ten-blocks": "`vapt` | `vpt_deep`, by LAMB, in all ten blocks",
    "V-real-gain": "`vapt` | `vpt_deep`, by LAMB, digits and emoji",
    "V-real-prompts": "`vpt_deep` | `linear`, by LAMB, digits and emoji",
    "V-blind": "`vapt` | prompts that do not see the image",
    "V-another": "`vapt` | its prompts from another image",
    "V-lora-lamb": "`vapt` | `lora`, by LAMB",
    "V-bias-lamb": "`vapt` | `bias_blocks`, by LAMB",
    "V-full": "`vapt` | all weights, tuned by AdamW",
    "V-full-lamb": "`vapt`, by LAMB | all weights, tuned by AdamW",
    "V-full-fixed": "`vpt_deep`, by LAMB | all weights, tuned by AdamW",
    "V-lamb-again": "`vapt`, by LAMB | `vapt`, by SGD",
}


def test_readme_answers_as_the_rules_do(at_200):
    """Every row of the table but the first, which another test holds: images, tasks, points and verdict."""
    readme = (ROOT / "README.md").read_text("utf-8")
    others = (
        mean_differences(claim_lines.table_of_runs(DATA, runs), pairs) for runs, pairs, _ in claim_lines.OTHER_MEANS
    )
    found = pd.concat([mean_differences(at_200, claim_lines.MEANS), *others]).set_index("claim").loc[[*ANSWERS]]
    for row in found.itertuples():
        points = 100 * row.difference
        said = {
            "holds": f"yes, by {points:.1f}",
            "fails": f"no, {-points:.1f} behind",
            "not decidable here": f"open: {points:+.1f}",
        }[row.verdict]
        tasks = row.task.removeprefix("mean of ").removesuffix(" tasks")
        assert f"| {ANSWERS[row.Index]} | {row.n} | {tasks} | {said} ({row.Index} {row.verdict}) |\n" in readme


def error_of_other_images(table, row, sizes=None):
    """The most that other test images could move a difference by, as a standard error: the formula of the page."""
    own = table[table["status"] == TRAINED]
    total = 0.0
    for n in sizes or (row.n,):
        share = own[own["n"] == n].groupby(["task", "method"])["accuracy"].mean()
        tasks = [row.task] if row.task in set(own["task"]) else list(share.index.levels[0])
        images = [{"stand-in:digits": 797, "folder:emoji": 953}.get(task, 2000) for task in tasks]
        total += (
            sum(
                share[task, method] * (1 - share[task, method]) / m
                for task, m in zip(tasks, images, strict=True)
                for method in (row.better, row.other)
            )
            / len(tasks) ** 2
        )
    return total**0.5


def test_the_page_says_what_other_test_images_could_change(at_200):
    """Every decided difference of a claim, its half width and that of the error above added by their squares."""
    found = [(at_200, row, None) for row in mean_differences(at_200, claim_lines.MEANS).itertuples()]
    for part in claim_lines.PARTS:
        table = claim_lines.table_of(DATA, part)
        shown = {name: CLAIMS[name] for names in claim_lines.SHOWN.values() for name in names}
        found += [(table, row, None) for row in differences(table, shown).itertuples()]
    for runs, pairs, _ in claim_lines.OTHER_MEANS:
        table = claim_lines.table_of_runs(DATA, runs)
        found += [(table, row, None) for row in mean_differences(table, pairs).itertuples()]
    for runs, pairs in claim_lines.AT_TWO_N:
        table = claim_lines.table_of_runs(DATA, runs)
        found += [(table, row, sorted({*table["n"]})) for row in lead_changes(table, pairs).itertuples()]
    decided, errors, lost = 0, {}, []
    for table, row, sizes in found:
        if row.verdict == "not decidable here":
            continue
        decided += 1
        error = error_of_other_images(table, row, sizes)
        half = np.hypot(row.high - row.difference, norm.ppf(0.95) * error)
        kind = (
            "change" if sizes else "not drawn" if row.claim.startswith("V-real") else row.task.removeprefix("mean of ")
        )
        errors.setdefault(kind if kind[0] in "246cn" else "one", []).append(round(100 * error, 1))
        if row.difference - half < 0 < row.difference + half:
            lost.append(
                (row, [f"{100 * end:+.1f}" for end in (row.difference, row.difference - half, row.difference + half)])
            )
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split())
    ends = {kind: (min(some), max(some)) for kind, some in errors.items()}
    assert ends == {"one": (1.4, 1.6), "2 tasks": (1.0, 1.1), "4 tasks": (0.7, 0.7), "6 tasks": (0.5, 0.6),
                    "not drawn": (1.3, 1.3), "change": (0.8, 0.8)}  # fmt: skip
    said = (
        "1.4 to 1.6 points on one task, 1.0 to 1.1 in the mean of two, .7 in that of four and .5 to .6 in that of six"
    )
    assert f"{said} (1.3 in the mean of digits and emoji, .8 for the change of a lead with n)" in page
    assert f"Then {decided - len(lost)} of the {decided} differences that a rule decided are still decided" in page
    [(row, (value, low, high))] = lost
    old = [f"{100 * end:+.1f}" for end in (row.low, row.high)]
    assert (row.claim, row.task) == ("V-gain", "stand-in:distance")
    assert f"V-gain on distance: {value} [{low}, {high}] points instead of [{', '.join(old)}]" in page


def test_the_page_says_what_prompts_in_ten_blocks_gave():
    """Rows, leads by task and their scatter, gains over six blocks, and losses on the images trained on."""
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split()).split("### Results of the twenty-fourth part")[1]
    parts = (*claim_lines.TWELFTH, *claim_lines.TWENTY_THIRD, *claim_lines.TWENTY_FOURTH)
    rows = claim_lines.table_of_runs(DATA, parts)
    ten = {name: f"{name}_all_lamb_bfloat16" for name in ("vpt_deep", "vapt")}
    check_rows(page, rows, (*ten.values(), "vpt_deep_lamb", "vapt_lamb", "full"))
    lead = {"lead": (ten["vapt"], ten["vpt_deep"])}
    said = [
        f"{row.task.removeprefix('stand-in:')} {100 * row.difference:+.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        for row in differences(rows, lead).itertuples()
    ]
    assert len(said) == 6
    assert all(one in page for one in said)
    [row] = mean_differences(rows, lead).itertuples()
    half = 100 * (row.high - row.difference)
    assert f"scattered by {half * 5**0.5 / t.ppf(0.95, 4):.1f} points over replicates" in page
    pairs = {name: (called, f"{name}_lamb") for name, called in ten.items()}
    fixed, adaptive = mean_differences(rows, pairs).itertuples()
    value, low, high = (f"{-100 * end:.1f}" for end in (fixed.difference, fixed.high, fixed.low))
    assert f"fixed ones are {value} points [{low}, {high}] worse in the mean" in page
    value, low, high = (f"{100 * end:.1f}" for end in (adaptive.difference, adaptive.low, adaptive.high))
    assert f"for adaptive ones nothing is decided ({value} [{low}, {high}])" in page
    by_task = differences(rows, pairs).set_index(["task", "claim"])

    def change(task, method):
        row = by_task.loc[f"stand-in:{task}", method]
        sign = np.sign(row["difference"])
        low, high = sorted((sign * row["low"], sign * row["high"]))
        assert low > 0
        return f"{100 * sign * row['difference']:.1f} [{100 * low:.1f}, {100 * high:.1f}]".removeprefix("0")

    for task, words in (("distance", "lose on distance"), ("dsprites_loc", "gain on dsprites_loc")):
        assert f"{words} (fixed {change(task, 'vpt_deep')}, adaptive {change(task, 'vapt')})" in page
    one, two = change("count", "vpt_deep"), change("letters", "vpt_deep")
    assert f"Fixed ones lose {one} on count and gain {two} on letters" in page
    one, two = change("letters", "vapt"), change("dsprites_ori", "vapt")
    assert f"adaptive ones lose {one} on letters and gain {two} on dsprites_ori" in page
    own = rows[rows["method"].isin(ten.values())]
    losses = own.groupby("task")["train_loss"].agg(["min", "max"]).map(lambda nats: f"{nats:.2f}".removeprefix("0"))
    for task, words in (("distance", "they end at {min} to {max} nats"), ("count", "both end at {min} to {max} nats")):
        assert words.format(**losses.loc[f"stand-in:{task}"]) in page
    assert "guessing costs 1.79" in page  # log 6
    rates = own.drop_duplicates(["task", "method"])["lr"].value_counts()
    assert rates.to_dict() == {0.512: 8, 0.128: 4}
    assert "took .512 in eight of twelve cells and .128 in the other four" in page


def test_the_page_of_tasks_quotes_full_tuning():
    page = (ROOT / "docs" / "tasks.md").read_text("utf-8")
    rows = claim_lines.table_of_runs(DATA, claim_lines.TWENTY_THIRD)
    assert set(rows["n"]) == {1000}
    means = rows[rows["method"] == "full"].groupby("task")["accuracy"].mean()
    assert len(means) == 6
    for task, mean in means.items():
        [line] = [line for line in page.splitlines() if line.startswith(f"| `{task.removeprefix('stand-in:')}` | .")]
        assert line.endswith(f"| {mean:.3f} |".replace("0.", "."))


def test_pages_say_what_was_found_on_two_tasks(at_200):
    """Full tuning against adaptive prompts, and biases against prompts, which no rule judges."""
    page, theory, training = (
        " ".join((ROOT / name).read_text("utf-8").split())
        for name in (PRETRAINED, "docs/theory_meets_accuracy.md", "docs/training.md")
    )
    for runs, pairs, _ in claim_lines.OTHER_MEANS:
        for row in mean_differences(claim_lines.table_of_runs(DATA, runs), pairs).itertuples():
            value, low, high = (f"{100 * end:+.1f}" for end in (row.difference, row.low, row.high))
            line = f"{row.claim}: {row.better} above {row.other} | {row.n} | {value} | [{low}, {high}] | {row.count} | "
            assert f"| {line}{row.verdict} |" in page
            said = f"{value.lstrip('+')} points [{low.lstrip('+')}, {high.lstrip('+')}]"
            behind = value.lstrip("-")
            if row.claim == "V-lamb":
                assert f"{said} above SGD" in training
            if row.claim == "V-lamb-again":
                assert f"LAMB is {said} above SGD for adaptive prompts" in training
            if row.claim == "V-lamb-fixed":
                assert f"and {said} for fixed ones" in training
            if row.claim == "V-steps-six":
                ends = f"{behind} points [{high.lstrip('-')}, {low.lstrip('-')}] behind"
                for text in (page, theory, training):
                    assert ends in text
            if row.claim == "V-hundred-lamb":
                assert f"{value} [{low}, {high}]; V-hundred-lamb)" in theory
                assert row.verdict == "not decidable here"
            if row.claim == "V-bias-lamb":
                ends = f"{behind} points [{high.lstrip('-')}, {low.lstrip('-')}]"
                assert f"they are {ends} above adaptive prompts (V-bias-lamb {row.verdict})" in training
                assert f"{ends} above adaptive prompts (V-bias-lamb {row.verdict})" in theory
            if row.claim in ("V-lora-lamb", "V-lora-fixed"):
                ends = f"{behind} points [{high.lstrip('-')}, {low.lstrip('-')}]"
                assert row.verdict == "fails"
                for text in (page, theory, training):
                    if row.claim == "V-lora-lamb":
                        assert f"{ends} above adaptive" in text
                    else:
                        assert f"{ends.replace(' points', '')} above fixed" in text
            if row.claim in ("V-full-lamb", "V-full-fixed"):
                ends = f"{behind} [{high.lstrip('-')}, {low.lstrip('-')}]"
                kind = "adaptive" if row.claim == "V-full-lamb" else "fixed"
                assert row.verdict == "fails"
                assert f"{ends} above {kind}" in theory
                assert f"{ends.replace(' [', ' points [') if kind == 'adaptive' else ends} above {kind}" in training
                assert f"{ends.replace(' [', ' points [')} above {kind} prompts" in page
            if row.claim == "V-ten-blocks":
                assert row.verdict == "not decidable here"
                assert f"{value} [{low}, {high}] (V-ten-blocks)" in theory
                assert f"{value} [{low}, {high}] in the mean of six tasks (V-ten-blocks)" in page
            if row.claim in ("V-ten-full", "V-ten-full-fixed"):
                ends = f"{behind} [{high.lstrip('-')}, {low.lstrip('-')}]"
                assert row.verdict == "fails"
                for text in (page, theory, training):
                    assert ends in text
            if row.claim == "V-most":
                ends = f"{behind} [{high.lstrip('-')}, {low.lstrip('-')}]"
                assert f"{ends} (V-most {row.verdict})" in theory
                for text in (page, training):
                    assert f"{ends.replace(' [', ' points [')} behind" in text
            if row.claim == "V-full":
                ends = f"{value.lstrip('-')} [{high.lstrip('-')}, {low.lstrip('-')}]"
                over = ends.replace(" [", " points [")
                assert f"in the mean of two tasks, tuning all weights by AdamW is {over} above them" in theory
                assert f"above them (V-full {row.verdict})" in theory
    for runs, pairs in claim_lines.AT_TWO_N:
        [row] = lead_changes(claim_lines.table_of_runs(DATA, runs), pairs).itertuples()
        value, low, high = (f"{100 * end:+.1f}" for end in (row.difference, row.low, row.high))
        line = f"{row.claim}: {row.better} above {row.other} | {row.n} | {value} | [{low}, {high}] | {row.count} | "
        assert f"| {line}{row.verdict} |" in page
    pairs = {"fixed": ("bias", "vpt_deep"), "adaptive": ("bias", "vapt")}
    fixed, adaptive = (
        [f"{100 * end:.1f}" for end in (row.difference, row.low, row.high)]
        for row in mean_differences(at_200, pairs).itertuples()
    )
    own = [f"{value} [{low}, {high}]" for value, low, high in (fixed, adaptive)]
    assert f"{fixed[0]} points [{fixed[1]}, {fixed[2]}] over `vpt_deep` and {own[1]} over `vapt` in the mean" in page
    assert f"{fixed[0]} points above fixed prompts and {adaptive[0]} above adaptive ones" in training


def rows_by_task(table):
    """For each method its parameters and cells: accuracy by task, and the mean over tasks with its own error."""
    tasks = list(dict.fromkeys(table["task"]))
    shown = lambda values: f"{100 * values.mean():.1f} +- {100 * standard_error(values):.1f}"
    for method, own in table.groupby("method"):
        wide = own.pivot(index="replicate", columns="task", values="accuracy").reindex(columns=tasks)
        cells = [shown(wide[task].to_numpy()) if wide[task].notna().all() else "not run" for task in tasks]
        cells.append(shown(wide.mean(axis="columns").to_numpy()) if "not run" not in cells else "not run")
        yield method, f"| {method} | {own['parameters'].iloc[0]} |", cells


def check_rows(page, table, only=None):
    """Look for the row of each method on the page; ``only`` names some methods."""
    for method, named, cells in rows_by_task(table):
        if only is None or method in only:
            assert f"{named} {' | '.join(cells)} |" in page


def test_tables_at_200_images_are_what_was_trained(at_200):
    """A row for each method: accuracy by task, and the mean over tasks with the error of its five replicates."""
    page, readme = ((ROOT / name).read_text("utf-8") for name in (PRETRAINED, "README.md"))
    for method, named, cells in rows_by_task(at_200):
        assert f"{named} {' | '.join(cells)} |\n" in page
        if method in ("linear", "vpt_deep", "vapt", "lora", "bias", "bias_blocks"):
            assert f"{named} {' | '.join(cell.split()[0] for cell in cells)} |\n" in readme


def test_tables_at_1000_images_are_what_was_trained():
    """The same for both kinds of prompt by both optimisers; the page on training shows the means."""
    page, training = ((ROOT / name).read_text("utf-8") for name in (PRETRAINED, "docs/training.md"))
    means = {}
    runs = (*claim_lines.TWELFTH, *claim_lines.FOURTEENTH)
    for method, named, cells in rows_by_task(claim_lines.table_of_runs(DATA, runs)):
        assert f"{named} {' | '.join(cells)} |\n" in page
        means[method] = cells[-1]
    assert set(means) == {"linear", "vpt_deep", "vapt", "vpt_deep_lamb", "vapt_lamb", "bias_blocks_lamb"}
    for name, method in (("VPT-deep", "vpt_deep"), ("VAPT", "vapt")):
        assert f"| {name} | {means[method]} | {means[f'{method}_lamb']} | " in training


def test_the_table_at_100_images_is_what_was_trained():
    page = (ROOT / PRETRAINED).read_text("utf-8")
    table = claim_lines.table_of_runs(DATA, tuple(claim_lines.FIFTEENTH))
    for method, named, cells in rows_by_task(table):
        assert method in ("vpt_deep_lamb", "vapt_lamb")
        assert f"{named} {' | '.join(cells)} |\n" in page
    found = differences(table, {"V-hundred-lamb": ("vapt_lamb", "vpt_deep_lamb")})
    ahead = found[found["low"] > 0]
    assert set(ahead["task"]) == {"stand-in:letters", "stand-in:dsprites_ori"}
    assert not (found["high"] < 0).any()
    shown = {
        row.task.removeprefix("stand-in:"): [f"{100 * end:.1f}" for end in (row.difference, row.low, row.high)]
        for row in ahead.itertuples()
    }
    value, low, high = shown["letters"]
    assert f"on letters by {value} points [{low}, {high}]" in page
    value, low, high = (end.removeprefix("0") for end in shown["dsprites_ori"])
    assert f"on dsprites_ori by {value} [{low}, 1.3]" in page
    assert high == "1.3"


def test_the_page_says_where_lora_is_ahead():
    """LoRA by LAMB less each kind of prompt and biases, by task and in the mean, and losses on their own images."""
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split())
    runs = (*claim_lines.TWELFTH, *claim_lines.FOURTEENTH, *claim_lines.EIGHTEENTH)
    table = claim_lines.table_of_runs(DATA, runs)
    for method, named, cells in rows_by_task(table):
        if method == "lora_lamb":
            assert f"{named} {' | '.join(cells)} |" in page
    kinds = {name: ("lora_lamb", called) for name, called in claim_lines.BY_LAMB.items()}
    found = differences(table, kinds)
    assert (len(found), (found["low"] > 0).all()) == (12, True)
    ends = [f"{100 * end:.0f}" for end in (found["difference"].min(), found["difference"].max())]
    assert f"on each of the six tasks, by {ends[0]} to {ends[1]} points" in page
    biases = {"ahead": ("lora_lamb", "bias_blocks_lamb"), "behind": ("bias_blocks_lamb", "lora_lamb")}
    shown = {
        (row.claim, row.task): (f"{100 * end:.1f}" for end in (row.difference, row.low, row.high))
        for row in pd.concat([differences(table, biases), mean_differences(table, biases)]).itertuples()
    }
    value, low, high = shown["ahead", "mean of 6 tasks"]
    assert f"also {value} points [{low}, {high}] above the biases" in page
    value, low, high = shown["behind", "stand-in:count"]
    assert f"though {value} [{low}, {high}] behind them on count" in page
    losses = table.groupby(["method", "task"])["train_loss"].mean()
    own, prompts = losses["lora_lamb"], losses["vapt_lamb"]
    assert (own < prompts).all()
    shown = [f"{losses.min():.2f} to {losses.max():.2f}".replace("0.", ".") for losses in (own, prompts)]
    assert f"({shown[0]} nats; they have {shown[1]})" in page


def test_the_page_says_what_more_steps_gave():
    """Rows with 600 and 200 steps, what each kind gains, and how the lead changes, by task and in the mean."""
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split())
    before = [f"{run.replace('sixteenth', 'twelfth')}_lamb" for run in claim_lines.SIXTEENTH]
    table = claim_lines.table_of_runs(DATA, (*claim_lines.SIXTEENTH, *before))
    check_rows(page, table)
    pairs = {name: (f"{called}_600", called) for name, called in claim_lines.BY_LAMB.items()}
    shown = {
        row.claim: f"{100 * row.difference:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        for row in mean_differences(table, pairs).itertuples()
    }
    fixed = shown["vpt_deep"].replace(" [", " points [")
    assert f"fixed prompts {fixed} in the mean, adaptive ones {shown['vapt']}." in page
    table = table.assign(task=table["task"].str.removeprefix("stand-in:"))
    values = 100 * table.pivot(index=["task", "replicate"], columns="method", values="accuracy")
    leads = [values[f"vapt_lamb{steps}"] - values[f"vpt_deep_lamb{steps}"] for steps in ("", "_600")]
    by_task = {task: own.to_numpy() for task, own in (leads[1] - leads[0]).groupby("task")}
    changes = {
        name: f"{found.value:+.1f} [{found.low:.1f}, {found.high:.1f}]"
        for name, found in ((name, mean_interval(own)) for name, own in by_task.items())
    }
    mean = mean_interval(np.mean([*by_task.values()], axis=0))
    said = f"(mean: {mean.value:+.1f} [{mean.low:.1f}, {mean.high:.1f}])"
    loc = changes["dsprites_loc"].replace(" [", " points [")
    assert f"on dsprites_loc alone**, by {loc}, and on count by {changes['count']} {said}" in page
    assert {task: len(own) for task, own in by_task.items()} == {"count": 5, "dsprites_loc": 5}


def test_the_page_says_what_600_steps_gave_on_six_tasks():
    """Rows in bfloat16, what each kind gains over 200 steps, how the lead changes, and what bfloat16 costs."""
    page, training = (" ".join((ROOT / name).read_text("utf-8").split()) for name in (PRETRAINED, "docs/training.md"))
    before = [f"{run.replace('nineteenth', 'twelfth')}_lamb" for run in claim_lines.NINETEENTH]
    table = claim_lines.table_of_runs(DATA, (*claim_lines.NINETEENTH, *before))
    check_rows(page, table)
    said = lambda row: f"{100 * row.difference:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    pairs = {name: (f"{called}_600_bfloat16", called) for name, called in claim_lines.BY_LAMB.items()}
    shown = {row.claim: said(row) for row in mean_differences(table, pairs).itertuples()}
    fixed = shown["vpt_deep"].replace(" [", " points [")
    assert f"fixed prompts gain {fixed} in the mean, adaptive ones {shown['vapt']}" in page
    assert f"gain {fixed} for fixed prompts and {shown['vapt']} for adaptive ones" in training
    every = differences(table, pairs)
    undecided = every[every["low"] <= 0]
    assert [*zip(undecided["claim"], undecided["task"], strict=True)] == [("vpt_deep", "stand-in:dsprites_ori")]
    ends = [f"{100 * end:.0f}" for end in (every["difference"].min(), every["difference"].max())]
    assert f"on every task, by {ends[0]} to {ends[1]} points" in page
    values = 100 * table.pivot(index=["replicate", "task"], columns="method", values="accuracy")
    leads = [values[f"vapt_lamb{steps}"] - values[f"vpt_deep_lamb{steps}"] for steps in ("", "_600_bfloat16")]
    mean = mean_interval((leads[1] - leads[0]).groupby("replicate").mean().to_numpy())
    assert f"by {mean.value:+.1f} points [{mean.low:.1f}, {mean.high:.1f}] in the mean" in page
    others = (leads[1] - leads[0]).drop("stand-in:distance", level="task").groupby("replicate").mean()
    five = mean_interval(others.to_numpy())
    assert f"without distance it grows, by {five.value:+.1f} [{five.low:.1f}, {five.high:.1f}]" in page
    losses = table[table["task"] == "stand-in:distance"].groupby("method")[["train_loss", "cross_entropy"]].mean()
    for kind in ("vapt", "vpt_deep"):
        own = [f"{losses.loc[f'{kind}_lamb{steps}', 'train_loss']:.2f}" for steps in ("", "_600_bfloat16")]
        assert f"from {own[0]} to {own[1].lstrip('0')}" in page
    losses = table[table["task"] == "stand-in:dsprites_ori"].groupby("method")[["train_loss", "cross_entropy"]].mean()
    own, new = losses.loc["vapt_lamb_600_bfloat16"]
    assert f"end at {own:.2f} nats on their own images and {new:.2f} on new ones".replace("0.", ".") in page
    own, new = losses.loc["vpt_deep_lamb_600_bfloat16"]
    assert f"fixed ones at {own:.2f} and {new:.2f}." in page
    ahead = {"fixed": ("vpt_deep_lamb_600_bfloat16", "vapt_lamb_600_bfloat16")}
    behind = differences(table, ahead).set_index("task")
    assert f"they are {said(behind.loc['stand-in:distance']).replace(' [', ' points [')} behind" in page
    assert set(behind.index[behind["low"] > 0]) == {"stand-in:letters", "stand-in:count", "stand-in:distance"}
    away = table[table["task"] != "stand-in:distance"]
    [row] = mean_differences(away, ahead).itertuples()
    assert f"of the five other tasks they are {said(row).replace(' [', ' points [')} behind" in page
    same = [run.replace("sixteenth", "nineteenth") for run in claim_lines.SIXTEENTH]
    both = claim_lines.table_of_runs(DATA, (*claim_lines.SIXTEENTH, *same))
    costs = {name: (f"{called}_600_bfloat16", f"{called}_600") for name, called in claim_lines.BY_LAMB.items()}
    shown = {row.claim: said(row) for row in mean_differences(both, costs).itertuples()}
    assert f"fixed prompts differ by {shown['vpt_deep']} and adaptive ones by {shown['vapt']}" in page


def test_the_page_says_what_was_found_on_digits_and_emoji():
    """Rows by task and in the mean, differences that no rule asked for, and losses."""
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split())
    table = claim_lines.table_of_runs(DATA, tuple(claim_lines.TWENTIETH))
    check_rows(page, table)
    pairs = {
        "gain": ("vapt_lamb", "vpt_deep_lamb"),
        "prompts": ("vpt_deep_lamb", "linear_lamb"),
        "lora": ("vpt_deep_lamb", "lora_lamb"),
        "above": ("lora_lamb", "vpt_deep_lamb"),
        "adaptive": ("vapt_lamb", "lora_lamb"),
    }
    found = {(row.claim, row.task): row for row in differences(table, pairs).itertuples()}
    said = lambda row: f"{100 * row.difference:.1f} points [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    assert f"On digits they are {said(found['gain', 'stand-in:digits'])} above fixed" in page
    assert found["gain", "folder:emoji"].verdict == "not decidable here"
    assert f"and {said(found['lora', 'folder:emoji'])} behind them on emoji" in page
    assert f"LoRA is {said(found['above', 'stand-in:digits'])} above fixed prompts on digits" in page
    assert {found["adaptive", task].verdict for task in table["task"].unique()} == {"not decidable here"}
    by = [found["prompts", task] for task in ("folder:emoji", "stand-in:digits")]
    shown = [f"{100 * row.difference:.1f}" for row in by]
    assert f"by {shown[0]} on emoji and {shown[1]} on digits, decidedly on both" in page
    assert all(row.low > 0 for row in by)
    losses = table[table["task"] == "folder:emoji"].groupby("method")[["train_loss", "cross_entropy"]].mean()
    own, new = (
        [f"{end:.{digits}f}" for end in (losses[name].min(), losses[name].max())]
        for name, digits in (("train_loss", 2), ("cross_entropy", 1))
    )
    assert (
        f"({own[0].lstrip('0')} to {own[1].lstrip('0')} nats), LoRA best, and end at {new[0]} to {new[1]} nats" in page
    )
    assert (losses["train_loss"].idxmin(), losses["cross_entropy"].idxmax()) == ("lora_lamb", "lora_lamb")


def test_the_page_says_what_3200_images_gave():
    """Rows at both n, what each kind gains from the images, and how the lead changes, by task and in the mean."""
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split())
    few, many = (
        claim_lines.table_of_runs(DATA, tuple(part)) for part in (claim_lines.NINETEENTH, claim_lines.TWENTY_FIRST)
    )
    for table in (few, many):
        for method, named, cells in rows_by_task(table):
            shown = named.replace(method, f"{method}, n = {table['n'].iloc[0]}")
            assert f"{shown} {' | '.join(cells)} |" in page
    values = 100 * pd.concat([few, many]).pivot(index=["replicate", "task"], columns=["n", "method"], values="accuracy")
    gains = values[3200] - values[1000]
    said = lambda own: "{0.value:+.1f} [{0.low:.1f}, {0.high:.1f}]".format(mean_interval(own.to_numpy()))
    mean = gains.groupby("replicate").mean()
    adaptive, fixed = claim_lines.LONG
    assert f"fixed prompts gain {said(mean[fixed])} in the mean, adaptive ones {said(mean[adaptive])}" in page
    changes = gains[adaptive] - gains[fixed]
    for task, own in changes.groupby("task"):
        assert f"{task.removeprefix('stand-in:')} {said(own)}" in page
    others = changes[changes.index.get_level_values("task") != "stand-in:distance"].groupby("replicate").mean()
    assert f"without distance nothing is decided: {said(others)}" in page
    on_distance = gains.xs("stand-in:distance", level="task")
    shown = f"fixed prompts gain {said(on_distance[fixed])}, which is not decided, and adaptive ones "
    assert shown + said(on_distance[adaptive]) in page
    lows = {key: mean_interval(own.to_numpy()).low for key, own in gains.stack().groupby(["method", "task"])}
    assert [key for key, low in lows.items() if low <= 0] == [(fixed, "stand-in:distance")]
    behind = differences(many, {"behind": (fixed, adaptive)}).set_index("task")
    assert set(behind.index[behind["low"] > 0]) == {"stand-in:count", "stand-in:azimuth", "stand-in:distance"}
    assert (behind["high"] > 0).all()
    shown = {task.removeprefix("stand-in:"): f"{100 * row.difference:.1f}" for task, row in behind.iterrows()}
    said_of = f"count ({shown['count']} points), azimuth ({shown['azimuth']}) and distance ({shown['distance']})"
    assert f"decidedly behind on {said_of}, and decidedly ahead on none" in page
    [row] = mean_differences(many[many["task"] != "stand-in:distance"], {"behind": (fixed, adaptive)}).itertuples()
    five = f"{100 * row.difference:.1f} points [{100 * row.low:.1f}, {100 * row.high:.1f}] behind"
    assert f"of the five tasks without distance they are {five}" in page
    losses = pd.concat([few, many])
    losses = losses[losses["task"] == "stand-in:distance"].groupby(["method", "n"])[["train_loss", "cross_entropy"]]
    own = losses.mean().map(lambda nats: f"{nats:.2f}".removeprefix("0"))
    for method, begins in ((adaptive, "images falls from "), (fixed, "That of fixed prompts falls from ")):
        start, end = own.loc[method, 1000], own.loc[method, 3200]
        assert f"{begins}{start['cross_entropy']}" in page
        assert f"from {start['train_loss']} to {end['train_loss']}" in page
        assert f"to {end['cross_entropy']}" in page


def test_the_page_says_what_400_images_gave():
    """Rows, and what adaptive prompts are ahead by, task by task."""
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split())
    table = claim_lines.table_of_runs(DATA, tuple(claim_lines.TWENTY_SECOND))
    check_rows(page, table)
    pair = {"V-four-hundred": ("vapt_lamb_bfloat16", "vpt_deep_lamb_bfloat16")}
    found = differences(table, pair)
    behind = found.loc[found["high"] < 0, "task"].str.removeprefix("stand-in:")
    assert set(behind) == {"count", "distance", "dsprites_ori"}
    assert (found["low"] < 0).all()
    for row in found.itertuples():
        shown = f"{100 * row.difference:+.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        assert f"{row.task.removeprefix('stand-in:')} {shown}" in page, row
    [row] = mean_differences(table[table["task"] != "stand-in:count"], pair).itertuples()
    shown = f"{100 * row.difference:+.1f} points [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    assert f"in the mean of the five other tasks the difference is {shown}" in page


def test_the_page_says_what_full_tuning_gave_at_1000_images():
    """The row of full tuning, what it is ahead of either kind of prompt by, task by task, and losses."""
    page = " ".join((ROOT / PRETRAINED).read_text("utf-8").split())
    table = claim_lines.table_of_runs(DATA, (*claim_lines.TWELFTH, *claim_lines.TWENTY_THIRD))
    check_rows(page, table, ("full", "vpt_deep_lamb", "vapt_lamb"))
    pairs = {"adaptive": ("full", "vapt_lamb"), "fixed": ("full", "vpt_deep_lamb")}
    for row in differences(table, pairs).itertuples():
        shown = f"{100 * row.difference:+.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        assert f"{row.task.removeprefix('stand-in:')} {shown}" in page, row
    losses = table[table["method"] == "full"].groupby("task")["train_loss"].mean()
    ends = [f"{end:.2f}".removeprefix("0") for end in (losses.min(), losses.max())]
    assert f"ends at {ends[0]} to {ends[1]} nats on its own images" in page
    table = claim_lines.table_of_runs(DATA, (*claim_lines.TWENTY_THIRD, *claim_lines.EIGHTEENTH))
    pair = {"LoRA": ("lora_lamb", "full")}
    [row] = mean_differences(table, pair).itertuples()
    shown = f"{100 * row.difference:+.1f} points [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    assert f"LoRA less full tuning is {shown}" in page
    found = differences(table, pair).set_index("task").rename(index=lambda task: task.removeprefix("stand-in:"))
    assert set(found.index[found["low"] > 0]) == {"letters", "azimuth", "dsprites_ori"}
    assert set(found.index[found["high"] < 0]) == {"count", "dsprites_loc"}


def test_pages_say_where_biases_by_lamb_are_ahead():
    """Biases less either kind of prompt, task by task: what the sentences beside the table say."""
    table = claim_lines.table_of_runs(DATA, (*claim_lines.TWELFTH, *claim_lines.FOURTEENTH))
    table = table.assign(task=table["task"].str.removeprefix("stand-in:"))
    found = differences(table, {name: ("bias_blocks_lamb", f"{name}_lamb") for name in ("vapt", "vpt_deep")})
    found = found.set_index(["task", "claim"])
    ahead = found[found["low"] > 0].index.get_level_values("task")
    both = {task for task in ahead if list(ahead).count(task) == 2}
    assert both == {"dsprites_loc", "count"}
    points = 100 * found.loc[sorted(both), "difference"]
    page, training = (" ".join((ROOT / name).read_text("utf-8").split()) for name in (PRETRAINED, "docs/training.md"))
    said = f"{points.min():.0f} to {points.max():.0f} points"
    assert f"above both kinds, by {said}" in page
    assert f"biases are {said} above both kinds on two tasks, and 6 points below both on letters" in training
    assert (found.loc["letters", "high"] < 0).all()
    assert set((-100 * found.loc["letters", "difference"]).round()) == {6}
    row = 100 * found.loc[("azimuth", "vpt_deep"), ["difference", "low", "high"]]
    assert f"on azimuth {-row['difference']:.1f} [{-row['high']:.1f}, {-row['low']:.1f}] behind fixed prompts" in page
    assert found.loc[("azimuth", "vapt"), "low"] < 0 < found.loc[("azimuth", "vapt"), "high"]


def test_pages_say_what_tokens_and_weight_decay_gave():
    """Accuracy and test cross-entropy at each setting, and what they differ from the usual one by, in pairs."""
    page, training = ((ROOT / name).read_text("utf-8") for name in (PRETRAINED, "docs/training.md"))
    settings = {
        "10 | .0001": "twelfth_count_lamb",
        "2 | .0001": "thirteenth_tokens_2",
        "40 | .0001": "thirteenth_tokens_40",
        "10 | .01": "thirteenth_decay_0.01",
        "10 | .1": "thirteenth_decay_0.1",
    }
    tables = {said: read_table(DATA / f"pretrained_{run}") for said, run in settings.items()}
    usual = next(iter(tables.values()))
    for said, table in tables.items():
        for column, scale, digits, pages in (("accuracy", 100, 1, (page, training)), ("cross_entropy", 1, 2, (page,))):
            cells = []
            for method in ("vpt_deep", "vapt"):
                own, known = (
                    scale * one[one["method"] == method].sort_values("replicate")[column].to_numpy()
                    for one in (table, usual)
                )
                cells.append(f"{own.mean():.{digits}f} +- {standard_error(own):.{digits}f}")
                found = mean_interval(own - known)
                ends = f"{found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"
                cells.append("" if table is usual else ends)
            for text in pages:
                assert f"| {said} | {' | '.join(cells)} |\n".replace("|  |", "| |") in text
