"""Certified searches for planted prompts: their starts, their rows, and the rule of T-search on made-up tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import call
from scipy.stats import binom

from moe_prompts.engine.store import read_table
from moe_prompts.errors import InputError
from moe_prompts.intervals import share_interval
from moe_prompts.vision.data_efficiency import search
from moe_prompts.vision.data_efficiency import search_verdict as rule
from moe_prompts.vision.data_efficiency.figures import search_figure
from moe_prompts.vision.data_efficiency.search import (
    DRAWN,
    FIXED,
    FROM_FIXED,
    OFFICIAL,
    TEACHER,
    SearchCell,
    first_student,
    from_fixed,
    search_study,
    states_of,
)
from moe_prompts.vision.data_efficiency.sources import teacher_of
from moe_prompts.vision.training.cross_entropy import CrossEntropy
from moe_prompts.vision.training.methods import Sizes
from moe_prompts.vision.training.runs import Setup
from moe_prompts.vision.training.statuses import TRAINED

SETUP = Setup("small-gain", sizes=Sizes(4))
DATA = Path(__file__).parents[3] / "paper_figures" / "data"


def cell(start: str, number: int = 0) -> SearchCell:
    return SearchCell("planted-adaptive", 0, 6, "law", start, number, SETUP, 2)


@pytest.fixture(scope="module")
def truth():
    return teacher_of("planted-adaptive", SETUP, 0)


@pytest.fixture(scope="module")
def pixels(truth):
    return truth.draw(6, 0).pixels


def logits(student, truth, pixels) -> torch.Tensor:
    states = states_of(student, truth, pixels)
    targets = torch.full((len(states), 10), 0.1, dtype=torch.float64)
    Q = CrossEntropy(student, states, targets, steering=torch.float64)
    return Q.logits(Q.start(), states)


def test_the_student_at_the_teacher_has_the_teachers_law(truth, pixels):
    """To the rounding of float32, in which the teacher draws."""
    ours = logits(first_student(cell(TEACHER), truth, 0), truth, pixels).log_softmax(dim=-1)
    assert torch.allclose(ours, truth.log_probabilities(pixels).double(), atol=1e-4)


def test_adaptive_prompts_from_fixed_ones_compute_the_fixed_model(truth, pixels):
    """The same logits at first, and a gradient for the part without effect."""
    fixed = first_student(cell(FIXED), truth, 0)
    made = from_fixed(first_student(cell(FROM_FIXED), truth, 0), fixed)
    assert torch.allclose(logits(made, truth, pixels), logits(fixed, truth, pixels), atol=1e-11)
    law = truth.log_probabilities(pixels).double().softmax(dim=-1)
    Q = CrossEntropy(made, states_of(made, truth, pixels), law, steering=torch.float64)
    slopes = dict(zip(dict(made.named_parts()), Q.value_and_gradient(Q.start())[1].split(Q.sizes), strict=True))
    assert all(float(slopes[f"{block}.weight"].abs().max()) > 1e-6 for block in (1, 2, 3))


def test_every_data_set_with_drawn_labels_has_a_fit_from_every_start():
    """Fixed and adaptive fits are compared on one data set; with the law as targets one of the teacher is enough."""
    design = ("planted-adaptive", [0], [20, 40], ["law", "drawn"], [OFFICIAL, TEACHER, FIXED], 3)
    cells = search_study(*design, entropy=0).cells
    found = {(one.targets, one.start): 0 for one in cells}
    for one in cells:
        found[one.targets, one.start] += 1
    assert {start: found["drawn", start] for start in (OFFICIAL, TEACHER, FIXED)} == dict.fromkeys(
        (OFFICIAL, TEACHER, FIXED), 6
    )
    assert {start: found["law", start] for start in (OFFICIAL, TEACHER, FIXED)} == {OFFICIAL: 6, TEACHER: 2, FIXED: 2}


def test_starts_differ_by_number_and_know_nothing_of_the_teacher(truth):
    own = dict(truth.teacher.named_parts())
    for start in (OFFICIAL, DRAWN):
        first, second = (dict(first_student(cell(start, number), truth, 0).named_parts()) for number in (0, 1))
        assert not torch.equal(first["0.tokens"], second["0.tokens"])
        assert not torch.allclose(first["0.tokens"].float(), own["0.tokens"])
    assert all(float(first_student(cell(OFFICIAL), truth, 0).trial(0)[f"{b}.weight"].abs().max()) == 0 for b in (1, 2))


def test_the_first_part_is_a_part_of_the_whole_design():
    from moe_prompts.commands.search import PRESETS, whole_numbers

    def labels(preset: str) -> set[str]:
        own = PRESETS[preset]
        numbers = whole_numbers(own["teachers"])
        study = search_study(
            "planted-adaptive",
            numbers,
            [int(own["n"])],
            own["targets"],
            own["starts"],
            own["count"],
            entropy=0,
            iterations=own["iterations"],
        )
        study.check_labels()
        return {one.label for one in study.cells}

    assert len(labels("first")) == 5
    assert labels("first") < labels("whole")
    ordinary = [name for name in labels("whole") if "_official_" in name or "_teachers-law_" in name]
    assert len(ordinary) == 24


def test_a_run_says_the_backbone_that_its_fits_stand_on(tmp_path, monkeypatch):
    """Weights, size and device are named where they are not the usual ones, so that committed runs still agree."""
    monkeypatch.setattr(Setup, "loaded", lambda setup: {})  # no such weights exist, and perhaps no GPU

    def facts(**more):
        setup = Setup("small-gain", sizes=Sizes(4), **more)
        return search_study("planted-adaptive", [0], [20], ["law"], [TEACHER], 1, entropy=0, setup=setup).identity[
            "search"
        ]

    for run in ("search", "search_crossing"):
        committed = json.loads((DATA / run / "meta.json").read_text(encoding="utf-8"))["identity"]["search"]
        assert facts() == committed
    assert facts(size=56, device="cuda") == facts() | {"size": 56, "device": "cuda"}
    (tmp_path / "weights").write_bytes(b"of a backbone")
    assert len(facts(weights=str(tmp_path / "weights"))["weights"]) == 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"starts": ["nowhere"]}, "start 'nowhere'; expected some of official"),
        ({"targets": ["hard"]}, "targets 'hard'; expected some of law, drawn"),
        ({"truth": "planted"}, "truth 'planted'"),
    ],
)
def test_unknown_names_are_said(change, said):
    given = {"truth": "planted-adaptive", "targets": ["law"], "starts": [OFFICIAL]} | change
    with pytest.raises(InputError, match=said):
        search_study(given["truth"], [0], [20], given["targets"], given["starts"], 1, entropy=0)


# The rule ------------------------------------------------------------------------------------------------------------


def table(excess, status="CERTIFIED", **changes) -> pd.DataFrame:
    rows = pd.DataFrame({"excess": excess})
    start = [(OFFICIAL, DRAWN)[number % 2] for number in range(len(rows))]
    common = {
        "truth": "planted-adaptive",
        "teacher": 0,
        "n": 1000,
        "targets": "law",
        "number": range(len(rows)),
        "parameters": 1796,
        "train_excess": rows["excess"],
        "gap_nats": 1e-4,
        "status": status,
    }
    return rows.assign(start=start).assign(**(common | changes))


def sgd(*excess: float, method: str = "vapt") -> pd.DataFrame:
    return pd.DataFrame({"excess": excess}).assign(task="planted-adaptive", method=method, n=0, status=TRAINED)


def test_each_outcome_comes_from_a_table_that_says_so():
    low, high = [0.01] * 20, [0.3] * 20
    assert rule.search_verdict(table(high)).outcome == rule.LANDSCAPE
    assert rule.search_verdict(table(low), sgd(0.28)).outcome == rule.ALGORITHM
    assert rule.search_verdict(table(low), sgd(0.28, 0.02, 0.01)).outcome == rule.START
    assert rule.search_verdict(table(low)).outcome == rule.OPEN  # SGD was not run
    assert rule.search_verdict(table(high[:8])).outcome == rule.OPEN  # too few
    assert rule.search_verdict(table(low[:5] + high[:15]), sgd(0.28)).outcome == rule.OPEN  # a quarter
    mixed = ["CERTIFIED"] * 15 + ["NOT_CERTIFIED"] * 5
    assert rule.search_verdict(table(high, status=mixed)).outcome == rule.OPEN


def test_a_run_without_ordinary_starts_is_not_judged():
    """No share of no fits is told."""
    said = str(rule.search_verdict(table([0.3] * 3, start=FIXED)))
    assert said.startswith("T-search: not judged. Its rule takes fits to an adaptive teacher's law from 'official' ")


@pytest.mark.parametrize(
    "name", ["search", "search_crossing", "search_crossing_second", "search_rivals", "search_fixed_first"]
)
def test_committed_searches_are_what_their_rows_say(name):
    sgd_rows = read_table(DATA / "planted_vit") if name == "search" else None
    assert (DATA / name / "summary.md").read_text(encoding="utf-8") == rule.text(
        read_table(DATA / name), sgd_rows
    ) + "\n"


def test_the_page_has_the_rows_of_the_crossing():
    """Loss on the images at hand, excess and status of every fit, and what the regular theory makes of them."""
    page, planted = (
        " ".join((DATA.parents[1] / "docs" / name).read_text(encoding="utf-8").split())
        for name in ("search_for_prompts.md", "planted_vit.md")
    )
    called = {OFFICIAL: "adaptive, official start", TEACHER: "adaptive, from the teacher", FIXED: "fixed alone"}
    rows = read_table(DATA / "search_crossing_second").set_index("start")
    for start, row in rows.iterrows():
        said = f"{row['train_excess']:.3f} | {row['excess']:.3f} | {row['status'].lower().replace('_', ' ')} |"
        assert f"| {row['n']} | {called[start]} | {said.replace('0.', '.')}" in page
    assert f"{rows.loc[TEACHER, 'excess'] - rows.loc[FIXED, 'excess']:.2f}".lstrip("0") + " nats behind fixed" in page
    priced = {name: row["parameters"] / (2 * row["n"]) for name, row in rows.iterrows()}
    floor = 0.266  # of fixed prompts on this teacher, by SGD on fresh images
    assert f".266 + {priced[FIXED]:.3f} = {floor + priced[FIXED]:.3f} nats for fixed".replace("0.", ".") in page
    for text in (page, planted):
        assert f"P / (2 n) is {priced[TEACHER]:.2f}".replace("0.", ".") in text
    assert f"excess of {rows.loc[TEACHER, 'excess']:.2f} nats".replace("0.", ".") in planted
    assert f"have {rows.loc[FIXED, 'excess']:.2f} ([search]".replace("0.", ".") in planted


def test_only_ordinary_starts_on_the_law_are_judged():
    others = pd.concat([table([0.0] * 20, start=TEACHER), table([0.0] * 20, targets="drawn")])
    verdict = rule.search_verdict(pd.concat([table([0.3] * 20), others]), sgd(0.28))
    assert (verdict.outcome, verdict.counted, verdict.reached) == (rule.LANDSCAPE, 20, 0)


def test_ends_are_those_of_the_binomial_law():
    """At the lower end so many or more have probability .1, at the upper end so many or fewer."""
    for k, m in ((3, 24), (0, 9), (12, 12)):
        share = share_interval(k, m, rule.ENDS)
        low, high = share.low, share.high
        assert low == 0 if k == 0 else binom.sf(k - 1, m, low) == pytest.approx(0.1)
        assert high == 1 if k == m else binom.cdf(k, m, high) == pytest.approx(0.1)


def test_the_page_says_the_power_of_the_design():
    page = (call.__globals__["EXPERIMENTS"].parent / "docs" / "search_for_prompts.md").read_text(encoding="utf-8")
    wrong = rule.power(0.25, 24, True) + rule.power(0.25, 24, False)
    for share in (rule.power(0.05, 24, False), rule.power(0.5, 24, True), wrong):
        assert f"{share:.2f}".lstrip("0") in page


def test_the_crossing_is_where_the_better_one_changes():
    """The best searchable fit is that of the least loss on its own images, and not that of the least risk."""
    rows = []
    for n, fixed, seen, hidden in ((500, 0.3, 0.5, 0.1), (2000, 0.3, 0.1, 0.05)):
        for start, risk, loss, parameters in (
            (FIXED, fixed, 0.2, 1024),
            (OFFICIAL, seen, 0.1, 1796),
            (DRAWN, hidden, 0.15, 1796),
            (TEACHER, 0.0, 0.0, 1796),
        ):
            rows.append(table([risk], start=start, n=n, targets="drawn", train_excess=loss, parameters=parameters))
    predicted, observed = rule.crossing_of_search(pd.concat(rows), 0.266)
    assert predicted == pytest.approx((1796 - 1024) / (2 * 0.266))
    assert observed == pytest.approx(1000)  # halfway on a logarithmic scale
    assert np.isnan(rule.crossing_of_search(table([0.1]), 0.266)).all()
    assert rule.crossing_of_search(pd.concat(rows[:4]), 0.266)[1] != rule.crossing_of_search(pd.concat(rows), 0.266)[1]


def test_a_lead_that_is_lost_is_no_crossing():
    """Ahead at 500 and behind at 2000: the lead at the largest n counts, as in curves over n."""
    rows = [
        table([risk], start=start, n=n, targets="drawn", parameters=parameters)
        for n, fixed, adaptive in ((500, 0.5, 0.3), (2000, 0.1, 0.3))
        for start, risk, parameters in ((FIXED, fixed, 1024), (OFFICIAL, adaptive, 1796))
    ]
    assert rule.crossing_of_search(pd.concat(rows), 0.266)[1] == np.inf
    assert "predicted n = 1451; adaptive prompts are not ahead at the largest n" in rule.text(pd.concat(rows))


def test_a_run_says_what_became_of_every_fit_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "TEST_IMAGES", 200)
    options = ("--quick", "--n", "10", "--workers", "1", "--executor", "in-process", "--out", tmp_path / "run")
    done = call("search.py", *options, "--starts", "teacher")
    assert done.returncode == 0, done.stderr
    done = call("search.py", *options, "--starts", "teacher,official", "--resume")
    assert done.returncode == 0, done.stderr
    rows = read_table(tmp_path / "run").set_index("start")
    assert set(rows.index) == {TEACHER, OFFICIAL}
    assert rows.loc[TEACHER, "status"] == "CERTIFIED"
    assert abs(rows.loc[TEACHER, "excess"]) < 1e-6  # rounding of float32, in which the teacher's law is computed
    assert rows.loc[OFFICIAL, "status"] == "NOT_CERTIFIED"
    assert rows.loc[OFFICIAL, "excess"] > 0.1
    said = (tmp_path / "run" / "summary.md").read_text(encoding="utf-8")
    assert "T-search at n = 10: not decidable here" in said
    assert json.loads((tmp_path / "run" / "meta.json").read_text())["identity"]["search"]["iterations"] == 2
    again = call("search.py", "--judge", tmp_path / "run", "--out", tmp_path / "judged")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "judged" / "summary.md").read_text(encoding="utf-8") == said
    assert {path.name for path in (tmp_path / "judged").iterdir()} == {"summary.md", "search.pdf", "search.png"}


def test_a_search_with_drawn_labels_says_its_crossing():
    rows = [
        table([risk], start=start, n=n, targets="drawn", parameters=parameters)
        for n, fixed, adaptive in ((500, 0.3, 0.5), (2000, 0.3, 0.1))
        for start, risk, parameters in ((FIXED, fixed, 1024), (OFFICIAL, adaptive, 1796))
    ]
    assert "predicted n = 1451; seen at n = 1000" in rule.text(pd.concat(rows))
    assert "crossing" not in rule.text(table([0.1]))


def test_the_figure_tells_certified_fits_from_others():
    rows = pd.concat([table([0.3, 0.2]), table([0.4], status="NOT_CERTIFIED"), table([-1e-9], start=TEACHER)])
    (ax,) = search_figure(rows, rule.REACHED, rule.FIXED_FLOOR).axes
    full = [line for line in ax.lines if line.get_marker() in ("o", "s", "*") and line.get_markerfacecolor() != "none"]
    assert sum(len(line.get_xdata()) for line in full) == 3  # two ordinary ones and the teacher
    open_ones = [line for line in ax.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    assert sum(len(line.get_xdata()) for line in open_ones) == 1
    assert min(y for line in ax.lines if line.get_marker() == "*" for y in line.get_ydata()) > 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--teachers", "one"),
        ("--teachers", "0,1,0"),
        ("--n", "0"),
        ("--starts", "nowhere"),
        ("--count", "0"),
        ("--judge", "nowhere"),
        ("--threads", "0"),
        ("--sgd", DATA / "search"),  # no run of SGD: said before any fit
        ("--sgd", DATA / "pretrained_count"),  # no excess risk
        ("--sgd", DATA / "planted_pretrained"),  # another backbone
    ],
)
def test_wrong_options_are_one_line(option, value):
    done = call("search.py", "--quick", option, value)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    if value == "0,1,0":
        assert "--teachers 0,1,0; named twice: 0; expected each once" in done.stderr
    if option == "--n":
        assert "--n 0; 0 is not a whole number of images from 10 to 16777216" in done.stderr
    if value == DATA / "planted_pretrained":
        assert "planted with backbone dinov2-small-focus, tokens 1, hidden 2, blocks 3" in done.stderr
    elif option == "--sgd":
        assert "expected a run of experiments/data_efficiency.py on planted truths" in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--starts", "official"),
        ("--n", "1000"),
        ("--quick",),
        ("--seed", "1"),
        ("--preset", "judged"),
        ("--threads", "2"),
    ],
)
def test_judging_takes_no_option_that_it_would_not_heed(options, tmp_path):
    done = call("search.py", "--judge", DATA / "search", "--out", tmp_path, *options)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(f"judges all rows of a run; expected no {options[0]} beside it")
    assert not list(tmp_path.iterdir())


def test_the_page_says_what_the_committed_searches_gave():
    root = call.__globals__["EXPERIMENTS"].parent
    page = (root / "docs" / "search_for_prompts.md").read_text(encoding="utf-8")
    rows = read_table(root / "paper_figures" / "data" / "search")
    sgd_rows = read_table(root / "paper_figures" / "data" / "planted_vit")
    verdict = rule.search_verdict(rows, sgd_rows)
    assert str(verdict).startswith("T-search at n = 1000: landscape. 0 of 24 certified fits")
    left, nats = (rows["train_excess"].agg([min, max]) * scale for scale in (1, 1000))
    own_images = f"{left['min']:.3f} to {left['max']:.3f} nats an image".replace("0.", ".")
    assert page.count(own_images) >= 1
    assert f"{nats['min']:.0f} to {nats['max']:.0f} nats of the total above the teacher" in page
    training = " ".join((root / "docs" / "training.md").read_text(encoding="utf-8").split())
    assert f"{own_images} above the teacher" in training
    assert (root / "paper_figures/data/search/summary.md").read_text(encoding="utf-8") == rule.text(
        rows, sgd_rows
    ) + "\n"
    assert f"The outcome is *{verdict.outcome}***" in page
    assert f"at most {verdict.high:.2f} ".replace("0.", ".") in page
    for start, own in rows.groupby("start"):
        certified, floor = (own["status"] == "CERTIFIED").sum(), (own["excess"] <= rule.REACHED).sum()
        left, risk = (
            f"{own[name].min():.{digits}f} to {own[name].max():.{digits}f}".replace("0.", ".")
            for name, digits in (("train_excess", 3), ("excess", 2))
        )
        assert f"| {start} | {certified} of {len(own)} | {floor} | {left} | {risk} |" in page
    best = rows.loc[rows.groupby("teacher")["train_excess"].idxmin(), "excess"]
    first, second, third = (f"{value:.2f}".lstrip("0") for value in best)
    assert f"{first}, {second} and {third} nats on the three" in page
