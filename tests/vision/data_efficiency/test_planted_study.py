"""Students of planted prompts: rows of a small study, tuning, names."""

import numpy as np
import pandas as pd
import pytest

from moe_prompts.engine.runner import run_study
from moe_prompts.errors import InputError
from moe_prompts.vision.data_efficiency import sources as module
from moe_prompts.vision.data_efficiency.curves import FRESH
from moe_prompts.vision.data_efficiency.rates import Tune
from moe_prompts.vision.data_efficiency.sources import STUDENTS, PlantedImages
from moe_prompts.vision.data_efficiency.study import efficiency_study
from moe_prompts.vision.training.methods import Sizes
from moe_prompts.vision.training.runs import Setup
from moe_prompts.vision.training.sgd import Recipe, Setting


def tiny(steps=2):
    return Setup("small", sizes=Sizes(2), recipe=Recipe(steps=steps, normalisation="half"))


TINY = tiny()
ONE = Tune((Setting(0.2, 0.0),))


def planted_study(truths, students, sizes, replicates, setup, entropy, rates, fresh_replicates=1):
    sources = [PlantedImages(truth) for truth in truths]
    return efficiency_study(sources, students, sizes, replicates, setup, 2, entropy, rates, fresh_replicates)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(module, "TEST_IMAGES", 64)
    monkeypatch.setattr(module, "VALIDATION_IMAGES", 64)


def test_a_study_has_a_row_for_every_student_and_does_not_depend_on_the_others(tmp_path):
    study = planted_study(["planted-fixed"], STUDENTS, [16], 2, TINY, 0, ONE)
    table = run_study(study, tmp_path / "all", progress=False)
    assert len(table) == len(STUDENTS) * (2 + 1)
    assert (table["excess"] > 0).all()
    assert set(table["n"]) == {16, FRESH}
    parameters = table.groupby("method")["parameters"].first()
    assert parameters["vpt_matched"] >= parameters["vapt"] > parameters["vpt_deep"]
    assert parameters["vapt_offset"] == parameters["vapt"] + 3 * 2 * 64
    alone = planted_study(["planted-fixed"], ["vapt"], [16], 2, TINY, 0, ONE, fresh_replicates=0)
    same = table[(table["method"] == "vapt") & (table["n"] == 16)].reset_index(drop=True)
    pd.testing.assert_frame_equal(run_study(alone, tmp_path / "one", progress=False), same)


def test_tuning_chooses_for_all_replicates_and_leaves_what_the_choice_gives(tmp_path):
    """A rate of 1e30 diverges, one of 1e-9 learns nothing: the one between is chosen, and its rows are as if given."""
    several = Tune(tuple(Setting(lr, 0.0) for lr in (1e-9, 0.2, 1e30)))
    study = planted_study(["planted-fixed"], ["vpt_deep"], [64], 2, tiny(10), 0, several, 0)
    table = run_study(study, tmp_path / "tuned", progress=False)
    assert (table["lr"] == 0.2).all()
    given = planted_study(["planted-fixed"], ["vpt_deep"], [64], 2, tiny(10), 0, ONE, 0)
    pd.testing.assert_frame_equal(run_study(given, tmp_path / "given", progress=False), table)


def test_students_whose_every_rate_diverges_are_rows(tmp_path):
    study = planted_study(["planted-fixed"], ["vapt"], [16], 2, TINY, 0, Tune((Setting(1e30, 0), Setting(1e31, 0))), 0)
    table = run_study(study, tmp_path, progress=False)
    assert list(table["status"]) == ["UNTUNED"] * 2
    assert np.isnan(table["excess"]).all()


@pytest.mark.parametrize("truth", ["planted-fixed", "planted-adaptive"])
def test_a_student_at_the_teacher_starts_there(tmp_path, truth):
    """Steps of a rate of 1e-12 move nothing: the excess risk is 0 up to rounding of float32."""
    still = Tune((Setting(1e-12, 0.0),))
    table = run_study(planted_study([truth], ["at_teacher"], [32], 2, TINY, 0, still, 0), tmp_path, progress=False)
    assert np.abs(table["excess"]).max() < 1e-6


def test_a_run_is_not_completed_with_other_rates(tmp_path):
    of = lambda sizes, rates: planted_study(["planted-fixed"], ["vpt_deep"], sizes, 1, TINY, 0, rates, 0)
    run_study(of([16], ONE), tmp_path, progress=False)
    with pytest.raises(InputError, match=r"holds another study .*planted rates"):
        run_study(of([16, 32], Tune((Setting(0.4, 0.0),))), tmp_path, resume=True, progress=False)
    assert len(run_study(of([16, 32], ONE), tmp_path, resume=True, progress=False)) == 2


def test_unknown_names():
    with pytest.raises(InputError, match="student 'lora'; expected one of vpt_deep"):
        planted_study(["planted-fixed"], ["lora"], [16], 2, TINY, 0, ONE)
    with pytest.raises(InputError, match="planted truth 'count'; expected one of planted-fixed, planted-adaptive"):
        planted_study(["count"], ["vapt"], [16], 2, TINY, 0, ONE)
