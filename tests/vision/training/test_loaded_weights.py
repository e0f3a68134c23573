"""What identifies a run holds the hash of the weights that were loaded, whatever backbone they are of."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import timm
import torch
from commands import call
from safetensors.torch import save_file

from moe_prompts import InputError, run_study
from moe_prompts.engine.grid import joined
from moe_prompts.vision import backbone_hash, create_backbone
from moe_prompts.vision.backbones import fetched
from moe_prompts.vision.comparison.plan import Plan
from moe_prompts.vision.data_efficiency.effective import effective_study
from moe_prompts.vision.data_efficiency.rates import Tune
from moe_prompts.vision.data_efficiency.screening import screening
from moe_prompts.vision.data_efficiency.search import TEACHER, search_study
from moe_prompts.vision.data_efficiency.sources import PlantedImages, TaskImages
from moe_prompts.vision.data_efficiency.study import efficiency_study
from moe_prompts.vision.planted_head.head import HeadChoice, planted_head
from moe_prompts.vision.planted_head.study import noise_free_study
from moe_prompts.vision.tasks.named import TaskSpec
from moe_prompts.vision.training import runs
from moe_prompts.vision.training.methods import Sizes
from moe_prompts.vision.training.runs import Setup
from moe_prompts.vision.training.sgd import Recipe, Setting

NAME, SIZE = "vit_tiny_patch16_224", 32
COUNT = TaskSpec("stand-in:count", size=SIZE)
RECIPE = Recipe(steps=2, batch=8, normalisation="half")


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """No figures are saved, which other tests look at."""
    monkeypatch.setattr("moe_prompts.figures.style.save", lambda figure, out, name: plt.close(figure) or [])


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Make the hub give a small model with weights of a seed, which the returned list holds."""
    seed, create = [7], timm.create_model

    def published(model, pretrained=False, **options):
        made = create(model, depth=2, embed_dim=48, **options)
        if pretrained:
            rng = torch.Generator().manual_seed(seed[0])
            for parameter in made.parameters():
                torch.nn.init.normal_(parameter, 0, 0.02, generator=rng)
        return made

    monkeypatch.setattr(timm, "create_model", published)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs._backbone.cache_clear()
    yield seed
    runs._backbone.cache_clear()


def another_day(hub):
    """The hub has other weights under the same name, and a new command loads them."""
    hub[0] += 1
    runs._backbone.cache_clear()


def tiny_fetched(monkeypatch):
    """A backbone in the user's cache, as ``backbone.py fetch`` leaves it."""
    model = timm.create_model(NAME, num_classes=0, img_size=SIZE, init_values=1.0)
    source = replace(fetched.SOURCES["dinov2-small-focus"], heads=3, blocks=2, size=SIZE, patch=16)
    monkeypatch.setitem(fetched.SOURCES, "fetched", source)
    fetched.store("fetched", model.state_dict(), {}, "kept\n")


@pytest.mark.parametrize("kind", ["small", "small-random", "small-gain", "hub", "fetched", "cached", "file"])
def test_every_backbone_has_the_hash_of_what_was_loaded(kind, hub, monkeypatch, tmp_path):
    model, given = kind, {}
    if kind == "fetched":
        tiny_fetched(monkeypatch)
    elif kind in ("hub", "cached", "file"):
        model, given["size"] = NAME, SIZE
    if kind == "cached":
        fetched.store(NAME, timm.create_model(NAME, num_classes=0, img_size=SIZE).state_dict(), {}, "kept\n")
    if kind == "file":
        given["weights"] = str(tmp_path / "own.safetensors")
        save_file(timm.create_model(NAME, num_classes=0, img_size=SIZE).state_dict(), given["weights"])
    loaded = create_backbone(model, file=given.get("weights"), size=given.get("size"))
    name = f"{model}, {SIZE} pixels" if given else model
    assert Setup(model, **given).loaded() == {name: backbone_hash(loaded)}


def test_other_weights_of_the_hub_have_another_hash(hub):
    setup = Setup(NAME, size=SIZE)
    before = setup.loaded()
    assert setup.loaded() == before
    another_day(hub)
    assert setup.loaded().keys() == before.keys()
    assert setup.loaded() != before


def setup_of(backbone, **more):
    return Setup(backbone, None, 2, Sizes(2, 4, 2), RECIPE, **more)


def curves(setup):
    rates = Tune((Setting(0.5, 0.0),))
    return efficiency_study([TaskImages(COUNT)], ["linear"], {COUNT.name: [16]}, 1, setup, 2, 0, rates, 0)


def planted(setup):
    return efficiency_study([PlantedImages("planted-fixed")], ["vpt_deep"], [16], 1, setup, 2, 0, Tune(()), 0)


def effective(setup):
    row = {"task": COUNT.name, "method": "linear", "n": 16, "replicate": 0, "status": "TRAINED"}
    table = pd.DataFrame([row | {"lr": 0.5, "weight_decay": 1e-4}])
    return effective_study(table, [TaskImages(COUNT)], setup, 20, 1, 0)


def searched(setup):
    return search_study("planted-fixed", [0], [20], ["law"], [TEACHER], 1, entropy=0, setup=setup)


def starts(setup):
    return screening(["vpt"], ["sgd"], 1, 1, setup, 0)


def head(setup):
    choice = HeadChoice(setup.backbone, images=40, coordinates=3, outputs=2)
    return noise_free_study(planted_head(choice, 0), [], 0, profiles=False)


def compared(stage):
    def made(setup):
        plan = Plan((COUNT,), ("linear",), setup)
        setting = {(COUNT.name, "linear"): Setting(0.5, 0.0)}
        return plan.study(stage, plan.tune_cells() if stage == "tune" else plan.final_cells(setting))

    return made


STUDIES = {
    "tasks": curves,
    "planted": planted,
    "effective": effective,
    "search": searched,
    "starts": starts,
    "head": head,
    "tune": compared("tune"),
    "final": compared("final"),
}


@pytest.mark.parametrize("make", STUDIES.values(), ids=STUDIES)
def test_every_study_of_a_backbone_says_what_was_loaded(make):
    made = make(setup_of("small-gain"))
    assert made.weights == {"small-gain": backbone_hash(create_backbone("small-gain"))}


def test_planted_truths_beside_tasks_have_their_own_backbone():
    made = joined("both", [planted(setup_of("small-gain")), curves(setup_of("small"))])
    assert set(made.weights) == {"small-gain", "small"}


def test_a_run_is_not_resumed_with_other_weights_of_the_hub(hub, tmp_path):
    """The same command on another day; on the same day it goes on."""
    setup = setup_of(NAME, size=SIZE)
    first = run_study(curves(setup), tmp_path, progress=False)
    runs._backbone.cache_clear()
    pd.testing.assert_frame_equal(run_study(curves(setup), tmp_path, resume=True, progress=False), first)
    another_day(hub)
    with pytest.raises(
        InputError, match=rf'another study \(loaded weights\.{NAME}, 32 pixels: "\w+\.\.\. there, "\w+\.\.\. here'
    ):
        run_study(curves(setup), tmp_path, resume=True, progress=False)


COMMON = ("--backbone", NAME, "--size", SIZE, "--workers", 1, "--executor", "in-process")


def refusal(*arguments):
    done = call(*arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


def test_predictions_are_refused_for_other_weights_than_the_run_had(hub, tmp_path):
    options = ("--task", "count", "--methods", "linear", "--n", "16", "--reps", 1, "--steps", 2, "--fresh-reps", 0)
    run = tmp_path / "run"
    done = call("data_efficiency.py", *options, *COMMON, "--tune", "--lr", "0.5", "--out", run)
    assert done.returncode == 0, done.stderr
    asked = ("predicted_excess.py", "--run", run, "--images", 20, "--workers", 1, "--executor", "in-process")
    another_day(hub)
    said = refusal(*asked, "--out", tmp_path / "out")
    assert f"--run {run}: its backbone {NAME}, 32 pixels has other weights than are loaded here" in said
    write_weights(run, ["0a"])
    assert "was not written by a study of this package, or is damaged" in refusal(*asked, "--out", tmp_path / "out")
    write_weights(run, None)
    assert call(*asked, "--out", tmp_path / "out").returncode == 0  # an earlier version did not know them


def write_weights(run, found):
    """Change what a run says of its weights; None: it says nothing, as those of earlier versions."""
    meta = json.loads((run / "meta.json").read_text(encoding="utf-8"))
    meta["identity"]["loaded weights"] = found
    if found is None:
        del meta["identity"]["loaded weights"]
    (run / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def test_comparisons_with_other_weights_are_not_reported_together(hub, monkeypatch, tmp_path):
    """One of an earlier version goes with any, but does not hide that two others differ."""
    monkeypatch.chdir(tmp_path)
    options = ("--task", "count", "--method", "linear", "--n", 20, "--steps", 2, "--lr", "0.5", "--weight-decay", "0")
    for name in ("old", "new", "other"):
        more = ("--seeds", {"old": 1, "new": 2, "other": 3}[name], "--out", name)
        done = call("vtab.py", "run", *options, *COMMON, *more)
        assert done.returncode == 0, done.stderr
        if name == "new":
            another_day(hub)
    assert "other: made in another way than new" in refusal("vtab.py", "report", "new", "other", "--out", "both")
    write_weights(Path("old", "final"), None)
    for name in ("new", "other"):
        assert "made in another way" not in call("vtab.py", "report", "old", name, "--out", f"old-{name}").stderr
    assert "made in another way" in refusal("vtab.py", "report", "old", "new", "other", "--out", "all")


@pytest.mark.parametrize(
    ("command", "file", "entry"),
    [
        (("head_as_moe.py", "--quick"), "meta.json", ("identity", "loaded weights", NAME)),
        (("tasks.py", "probe", "--task", "count", "--quick"), "probe.json", ("backbone hash",)),
    ],
    ids=["head_as_moe", "probe"],
)
def test_tables_beside_studies_name_what_was_loaded(hub, tmp_path, command, file, entry):
    done = call(*command, "--backbone", NAME, "--size", SIZE, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / file).read_text(encoding="utf-8"))
    for key in entry:
        found = found[key]
    assert found == backbone_hash(create_backbone(NAME, size=SIZE))
