"""Floors against a brute-force grid, against the committed claims, and what their boxes do."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import call

from moe_prompts import InputError, prompt_truth
from moe_prompts.commands.floors import page_of
from moe_prompts.study.floors import BOXES, floors, floors_table


@pytest.fixture(scope="module")
def fixed():
    return floors("attention-gelu", "fixed", [2, 4], ["study", "wide"], starts=16)


def test_a_wider_box_has_no_higher_floor_and_more_prompts_neither(fixed):
    by = fixed.set_index(["k", "box"])["floor"]
    for k in (2, 4):
        assert by[k, "wide"] <= by[k, "study"] + 1e-12
    for box in ("study", "wide"):
        assert by[4, box] <= by[2, box] + 1e-12


def test_bounds_that_are_stood_on_have_a_price_and_others_none(fixed):
    held = fixed["b_on_bound"] + fixed["theta_on_bound"]
    assert held[fixed["box"] == "study"].min() > 0  # in the box of the studies every one of these floors is the box's
    assert (fixed.loc[held > 0, "price"] > 1e-6).all()
    assert (fixed.loc[held == 0, "price"] == 0).all()


def test_known_values(fixed):
    """What independent code found: 27.85 and 21.10 % in the box of the studies, 27.39 and 17.47 % without bounds."""
    by = fixed.set_index(["k", "box"])["floor"]
    assert by[2, "study"] == pytest.approx(0.2785, abs=5e-5)
    assert by[4, "study"] == pytest.approx(0.2110, abs=5e-5)
    assert by[2, "wide"] == pytest.approx(0.2739, abs=5e-5)
    assert by[4, "wide"] == pytest.approx(0.1747, abs=5e-5)


def test_no_random_vector_is_below_the_floor(fixed):
    known, box = prompt_truth("attention-gelu"), BOXES["study"]
    rng, signal = np.random.default_rng(0), (known.params.regression(known.x) ** 2).sum(axis=1).mean()
    from moe_prompts.models.prompt_attention import PromptKind

    family = known.family(PromptKind("fixed"), 2)
    lower, upper = box.bounds(family)
    least = min(
        ((family.unpack(one).regression(known.x) - known.params.regression(known.x)) ** 2).sum(axis=1).mean()
        for one in rng.uniform(lower, upper, (2000, family.size))
    )
    assert fixed.set_index(["k", "box"])["floor"][2, "study"] < least / signal


def test_a_class_that_contains_the_truth_has_floor_zero():
    table = floors("attention-gelu", "adaptive:gelu", [2], ["wide"], starts=12)
    assert table["floor"][0] < 1e-9
    assert "0.00 %" in floors_table(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("attention-gelu", "fixed", [2], ["narrow"]), "box 'narrow'; expected some of study"),
        (("attention-gelu", "loose", [2]), "unknown prompt kind 'loose'"),
        (("attention-moon", "fixed", [2]), "unknown truth 'attention-moon'"),
        (("attention-gelu", "fixed", [0]), "k = 0; expected a whole number of at least 1"),
    ],
)
def test_wrong_input_is_one_clear_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        floors(*arguments)
    assert "\n" not in str(caught.value)


def test_the_page_is_what_the_records_of_the_claims_say():
    root = Path(__file__).parents[2]
    records = pd.read_json(root / "moe_prompts" / "claims" / "floors.json")
    assert page_of(records) == (root / "docs" / "floors.md").read_text(encoding="utf-8")


def test_the_readme_quotes_the_page():
    """Every floor that docs/results.md gives for a wider box stands on docs/floors.md."""
    root = Path(__file__).parents[2]
    readme = " ".join((root / "docs" / "results.md").read_text(encoding="utf-8").split())
    quoted = re.search(
        r"adaptive gelu on the decoupled truth: ([\d.]+ %) with more starts, ([\d.]+ %) in the widest", readme
    )
    page = (root / "docs" / "floors.md").read_text(encoding="utf-8")
    line = next(row for row in page.splitlines() if row.startswith("| attention-decoupled   | adaptive:gelu"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3].startswith(quoted[1])
    assert cells[5].startswith(quoted[2])


@pytest.mark.parametrize("option", [("--k", "2"), ("--truth", "attention-gelu"), ("--quick",)])
def test_the_whole_page_takes_no_option_that_it_would_not_heed(option, tmp_path):
    done = call("floors.py", "--write", *option, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"floors.py: --write writes the whole page; expected no {option[0]}\n"


def test_what_is_given_stays_under_quick(tmp_path):
    done = call("floors.py", "--quick", "--k", "3", "--starts", "1", "--boxes", "study", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"attention-gelu +fixed +3 +study", done.stdout)
