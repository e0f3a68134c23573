"""Tables of rates: what is looked up, written and refused."""

import json

import pandas as pd
import pytest

from moe_prompts.errors import InputError
from moe_prompts.vision.data_efficiency.rates import Table, Tune, as_json, best, nearest, read_rates
from moe_prompts.vision.training.sgd import Score, Setting
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED

CASE = {"tasks": {"backbone": "small"}}
ROWS = pd.DataFrame(
    [
        {"task": "a", "method": "vapt", "n": 50, "lr": 0.1, "weight_decay": 0.0, "excess": 1.0},
        {"task": "a", "method": "vapt", "n": 50, "lr": 0.1, "weight_decay": 0.0, "excess": 2.0},
        {"task": "a", "method": "vapt", "n": 1000, "lr": 0.4, "weight_decay": 0.0, "excess": 3.0},
        {"task": "a", "method": "full", "n": 50, "lr": float("nan"), "weight_decay": float("nan"), "excess": 4.0},
    ]
)


@pytest.mark.parametrize(
    ("n", "sizes", "expected"),
    [(50, [50, 1000], 50), (220, [50, 1000], 50), (230, [50, 1000], 1000), (0, [50, 1000], 1000), (0, [0, 50], 0),
     (7, [0], 0), (7, [0, 50], 50)],
)  # fmt: skip
def test_the_nearest_size_on_the_log_scale_counts(n, sizes, expected):
    """The middle of 50 and 1000 is 223.6; fresh images are the largest n, and stand alone only for themselves."""
    assert nearest(n, sizes) == expected


def test_what_is_written_is_read(tmp_path):
    file = tmp_path / "rates.json"
    file.write_text(as_json(ROWS, CASE | {"planted": {}}, ["data_efficiency.py"]))
    table = read_rates(str(file), CASE)
    assert table.of("a", "vapt", 50) == (Setting(0.1, 0.0),)
    assert table.of("a", "vapt", 0) == (Setting(0.4, 0.0),)
    with pytest.raises(InputError, match=r"no tuned rate for full on a in --rates .*it has a.*--tune"):
        table.of("a", "full", 50)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{}", "not written by a run"),
        ("oak", "not written by a run"),
        ("\udcff", "not written by a run"),  # a byte that is no text
        (json.dumps({"case": {"tasks": {"backbone": "vit"}}, "rates": []}), "tuned for another case"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    file = tmp_path / "rates.json"
    if content is not None:
        file.write_text(content, errors="surrogateescape")
    with pytest.raises(InputError, match=message):
        read_rates(str(file), CASE)


def test_the_best_has_the_least_cross_entropy_then_the_smaller_rate():
    settings = [Setting(lr, 0.0) for lr in (1.0, 0.5, 2.0, 0.1)]
    scores = [Score(0.5, nats) for nats in (1.0, 1.0, 0.1, 2.0)]
    assert best(settings, [TRAINED, TRAINED, DIVERGED, TRAINED], scores) == settings[1]
    assert best(settings, [DIVERGED] * 4, scores) is None


def test_the_best_by_accuracy_has_the_highest_then_the_least_cross_entropy():
    settings = [Setting(lr, 0.0) for lr in (1.0, 0.5, 2.0, 0.1)]
    scores = [Score(0.6, 9.0), Score(0.6, 3.0), Score(0.9, 0.1), Score(0.5, 0.2)]
    assert best(settings, [TRAINED, TRAINED, DIVERGED, TRAINED], scores, by="accuracy") == settings[1]
    assert best(settings, [TRAINED, TRAINED, DIVERGED, TRAINED], scores) == settings[3]
    assert best(settings, [DIVERGED] * 4, scores, by="accuracy") is None


def test_another_word_than_a_judge_is_refused():
    settings = (Setting(0.1, 0.0),)
    for word in ("acuracy", "cross-entropy"):
        for ask in (
            lambda word=word: Tune(settings, word),
            lambda word=word: best(settings, [TRAINED], [Score(0.5, 1.0)], by=word),
            lambda word=word: as_json(ROWS, CASE, [], word),
        ):
            with pytest.raises(InputError, match=f"by = '{word}'; expected one of cross_entropy, accuracy"):
                ask()


def test_the_file_says_what_judged_the_rates(tmp_path):
    file = tmp_path / "rates.json"
    file.write_text(as_json(ROWS, CASE, [], "accuracy"))
    assert json.loads(file.read_text())["judged_by"] == "accuracy"
    assert read_rates(str(file), CASE).of("a", "vapt", 50) == (Setting(0.1, 0.0),)
    assert "judged_by" not in json.loads(as_json(ROWS, CASE, []))


def test_a_table_says_what_it_lacks():
    with pytest.raises(InputError, match="no tuned rate for vapt on b"):
        Table({}, "a table").of("b", "vapt", 50)
