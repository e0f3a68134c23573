"""Pretraining: its loss against constant answers, resumption, the command, and the checkpoint that is shipped."""

import importlib
import json
import re
import runpy
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from moe_prompts.errors import InputError
from moe_prompts.vision.backbones.create import _data, create_backbone, provenance
from moe_prompts.vision.backbones.formulas import HEADS, NONE
from moe_prompts.vision.backbones.pretraining import (
    Pretraining,
    Pupil,
    Run,
    batch_of,
    export,
    load_export,
    losses,
    pretrain,
    thumbnails,
    total,
)
from moe_prompts.vision.backbones.probe import counts_as_pretrained, features, judge, probe
from moe_prompts.vision.prompting.checkpoint import backbone_hash
from moe_prompts.vision.tasks.procedural import procedural_task

SCRIPT = Path(__file__).parents[3] / "experiments" / "pretrain.py"
TINY = Pretraining(steps=4, batch=64)


def test_constant_answers_lose_exactly_one():
    """Heads of zeros: cross-entropy log(answers) and squared error the thumbnails' mean square, each over itself."""
    pupil = Pupil(TINY)
    for head in (pupil.questions, pupil.thumbnail):
        torch.nn.init.zeros_(head.weight)
    parts = losses(pupil, *batch_of(TINY, 0))
    assert set(parts) == {*HEADS, "thumbnail"}
    for value in parts.values():
        assert value.item() == pytest.approx(1, abs=1e-5)
    assert total(parts).item() == pytest.approx(2, abs=1e-5)


def test_unanswered_questions_give_no_gradient():
    pupil = Pupil(TINY)
    images, answers = batch_of(TINY, 0)
    silent = {name: torch.full_like(values, NONE) for name, values in answers.items()} | {"x": answers["x"]}
    losses(pupil, images, silent)["x"].backward()
    gradient = pupil.questions.weight.grad.split(list(HEADS.values()))
    assert gradient[0].abs().max() > 0
    assert all(part.abs().max() == 0 for part in gradient[1:])


def test_a_thumbnail_is_the_mean_over_4_by_4_pixels():
    images, _ = batch_of(TINY, 0)
    bright = images.mean(dim=1).reshape(64, 8, 4, 8, 4).mean(dim=(2, 4)).flatten(1)
    bright = bright - bright.mean(dim=1, keepdim=True)
    expected = bright / (bright.std(dim=1, keepdim=True) + 0.05)
    assert (thumbnails(images)[:, :64] - expected).abs().max() < 1e-5


def test_a_few_steps_on_one_batch_learn_it():
    """From 2 (constant answers) to below 1.7 within 25 steps: what a silent failure of the gradient would not do."""
    pupil = Pupil(TINY)
    images, answers = batch_of(TINY, 0)
    optimiser = torch.optim.AdamW(pupil.parameters(), lr=3e-3)
    for _ in range(25):
        loss = total(losses(pupil, images, answers))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert total(losses(pupil, images, answers)).item() < 1.7


def test_a_killed_run_ends_with_the_same_weights(tmp_path):
    whole = finished(pretrain(TINY, tmp_path / "whole"))
    for run in pretrain(TINY, tmp_path / "killed", every=2):
        if run.done == 3:
            break
    resumed = pretrain(TINY, tmp_path / "killed", every=2)
    assert next(resumed).done == 2
    again = finished(resumed)
    for a, b in zip(whole.pupil.parameters(), again.pupil.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.recent == again.recent
    assert finished(pretrain(TINY, tmp_path / "whole")).done == 4


def finished(runs):
    for run in runs:
        last = run
    return last


def test_rates_rise_then_fall():
    rates = [Pretraining(steps=100).rate(step) for step in range(100)]
    assert rates[0] > 0
    assert max(rates) == Pretraining().learning_rate
    assert np.argmax(rates) in (4, 5)
    assert rates[-1] < 0.01 * max(rates)


@pytest.mark.slow
def test_the_larger_recipe_takes_a_step():
    run = next(pretrain(Pretraining("vit_tiny", size=64, steps=1, batch=64), Path("unused")))
    before = run.pupil.backbone.blocks[0].attn.qkv.weight.clone()
    run.step()
    assert run.pupil.backbone.embed_dim == 192
    assert (run.pupil.backbone.blocks[0].attn.qkv.weight != before).any()


def test_what_is_exported_is_read_back(tmp_path):
    run = Run(TINY)
    run.step()
    export(run, tmp_path)
    trained, untrained, facts = load_export(tmp_path / "backbone.safetensors")
    assert backbone_hash(trained) == backbone_hash(run.pupil.backbone) == facts["backbone hash"]
    assert backbone_hash(untrained) == backbone_hash(create_backbone("small-random"))
    assert facts["images seen"] == 64
    (tmp_path / "backbone.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match=r"is not the file that backbone.json describes"):
        load_export(tmp_path / "backbone.safetensors")


@pytest.mark.slow
def test_the_command_trains_and_judges(tmp_path, monkeypatch, capsys):
    command(monkeypatch, "train", "--steps", "1", "--batch", "64", "--out", str(tmp_path))
    command(monkeypatch, "check", str(tmp_path / "backbone.safetensors"), "--train", "60", "--test", "40")
    shown = capsys.readouterr().out
    assert "dsprites_loc" in shown
    assert "digits" in shown
    assert "does NOT count as pretrained" in shown
    facts = json.loads((tmp_path / "backbone.json").read_text())
    assert facts["counts as pretrained"] is False
    assert [row["task"] for row in facts["probes"]["rows"]][-1] == "digits"


def test_the_command_completes_its_run(tmp_path, monkeypatch, capsys):
    for _ in range(2):
        command(monkeypatch, "train", "--steps", "1", "--batch", "64", "--out", str(tmp_path))
    assert capsys.readouterr().out.count("files in ") == 2
    assert (tmp_path / "backbone.safetensors").stat().st_size < 2**20


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "large"], "model 'large'; expected one of small, vit_tiny"),
        (["train", "--size", "48"], "size 48; expected 32 or 64"),
        (["train", "--batch", "100"], "5000 steps of 100 images; expected at least 1 step of a multiple of 64"),
        (["train", "--learning-rate", "-1"], "learning rate -1.0"),
        (["train", "--device", "tpu"], "--device tpu; this machine has no such device"),
        (["check", "nowhere.safetensors"], "nowhere.safetensors: .*; expected a checkpoint that train wrote"),
    ],
)
def test_wrong_commands_are_one_line(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, *arguments)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert re.search(message, shown)


def test_a_state_of_other_settings_is_refused(tmp_path):
    Run(TINY).save(tmp_path / "state")
    with pytest.raises(InputError, match="is of other settings"):
        Run(replace(TINY, learning_rate=1e-3)).load(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"{}")
    with pytest.raises(InputError, match="expected the state of a pretraining"):
        Run(TINY).load(tmp_path / "state")


def test_the_shipped_checkpoint_is_what_its_provenance_says():
    content = (_data() / "small.safetensors").read_bytes()
    facts = provenance()
    model = create_backbone("small")
    assert len(content) < 2**20
    assert sha256(content).hexdigest() == facts["sha256"]
    assert backbone_hash(model) == facts["backbone hash"] != backbone_hash(create_backbone("small-random"))
    assert sum(value.numel() for value in model.state_dict().values()) == facts["parameters"]
    assert facts["images seen"] == facts["config"]["steps"] * facts["config"]["batch"]
    rows = facts["probes"]["rows"]
    assert facts["counts as pretrained"] == all(row["trained"] > max(row["random"], row["pixels"]) for row in rows)


def test_the_recorded_command_asks_for_the_recorded_settings():
    facts = provenance()
    _, script, *words = facts["made by"].split()
    asked = vars(importlib.import_module("moe_prompts.commands.pretrain").parser().parse_args(words))
    assert script == "experiments/pretrain.py"
    assert {name: asked[name] for name in facts["config"]} == facts["config"]


def test_the_entropy_of_a_check_is_that_of_the_tasks(tmp_path, monkeypatch, capsys):
    """Other images, other numbers; and the JSON keeps the registered verdict."""
    command(monkeypatch, "train", "--steps", "1", "--batch", "64", "--out", str(tmp_path))
    before = (tmp_path / "backbone.json").read_bytes()
    asked = []
    monkeypatch.setattr(
        "moe_prompts.vision.backbones.probe.judge",
        lambda trained, untrained, tasks: (
            asked.extend(task.entropy for task in tasks)
            or pd.DataFrame({"task": ["a"], "chance": [0.5], "trained": [0.9], "random": [0.6], "pixels": [0.7]})
        ),
    )
    command(monkeypatch, "check", str(tmp_path / "backbone.safetensors"), "--entropy", "3")
    assert asked == [3] * 5
    assert (tmp_path / "backbone.json").read_bytes() == before
    command(monkeypatch, "check", str(tmp_path / "backbone.safetensors"))
    assert json.loads((tmp_path / "backbone.json").read_text())["counts as pretrained"] is True
    assert "backbone.safetensors counts as pretrained." in capsys.readouterr().out


def test_the_shipped_checkpoint_answers_questions_it_was_not_trained_on():
    """One row of the provenance computed again: places, whose margin over the untrained one is many standard errors;
    0.02 for other versions of the solver."""
    row = next(row for row in provenance()["probes"]["rows"] if row["task"] == "dsprites_loc")
    images = {
        split: (s.batch(np.arange(len(s.labels))), s.labels)
        for split in ("train800", "val200", "train800val200", "test")
        for s in [procedural_task("dsprites_loc").split(split)]
    }
    accuracy, _ = probe(features(create_backbone("small"), images))
    assert accuracy == pytest.approx(row["trained"], abs=0.02)
    assert accuracy > row["random"] + 0.1


def test_a_probe_reads_what_is_there_and_only_that():
    """Labels that are a feature are read; labels that are a coin are not (400 coins: 5 standard errors are 0.125)."""
    rng = np.random.default_rng(0)

    def table(rule):
        sizes = {"train800": 160, "val200": 40, "train800val200": 200, "test": 400}
        rows = {name: rng.standard_normal((n, 5)) for name, n in sizes.items()}
        return {name: (x, rule(x)) for name, x in rows.items()}

    assert probe(table(lambda x: (x[:, 2] > 0).astype(int)))[0] > 0.9
    assert abs(probe(table(lambda x: rng.integers(2, size=len(x))))[0] - 0.5) < 0.125


def test_the_test_set_does_not_choose():
    rng = np.random.default_rng(1)
    sizes = {"train800": 80, "val200": 20, "train800val200": 100, "test": 50}
    rows = {name: (rng.standard_normal((n, 4)), rng.integers(3, size=n)) for name, n in sizes.items()}
    shuffled = rows | {"test": (rows["test"][0], rng.permutation(rows["test"][1]))}
    assert probe(rows)[1] == probe(shuffled)[1]


def test_the_verdict_asks_for_every_task():
    table = judge(
        create_backbone("small"), create_backbone("small-random"), [procedural_task("count", n_train=40, n_test=20)]
    )
    assert list(table["task"]) == ["count"]
    better = table.assign(trained=0.9, random=0.5, pixels=0.8)
    assert counts_as_pretrained(better)
    assert not counts_as_pretrained(better.assign(pixels=0.9))
