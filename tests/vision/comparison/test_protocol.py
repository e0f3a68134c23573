"""The protocol end to end on small images: what is tuned, what is chosen, what is read, and what a kill leaves."""

import importlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from data_roots import make_fgvc_root, make_vtab_root
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.engine.executors import InProcess
from moe_prompts.errors import InputError
from moe_prompts.tables import body_of
from moe_prompts.vision.comparison import plan as protocol
from moe_prompts.vision.comparison import report
from moe_prompts.vision.comparison.plan import Plan, choose, run_plan
from moe_prompts.vision.comparison.settings import as_json, read_settings
from moe_prompts.vision.tasks import procedural
from moe_prompts.vision.tasks.named import TaskSpec
from moe_prompts.vision.tasks.vtab import VtabTask
from moe_prompts.vision.training.methods import COMPARED, Sizes, config, distinct_methods, matched_tokens, settings
from moe_prompts.vision.training.runs import Setup, trained_parameters
from moe_prompts.vision.training.sgd import Recipe, Setting
from moe_prompts.vision.training.statuses import DIVERGED, TRAINED, UNTUNED

COUNT = TaskSpec("stand-in:count", size=32, n_train=60)


def small_setup(**recipe) -> Setup:
    return Setup("small-random", None, 8, Sizes(2, 4, 2), Recipe(**({"steps": 4, "batch": 16} | recipe)))


def small_plan(**changes) -> Plan:
    plan = Plan((COUNT,), ("linear", "vapt"), small_setup(), lrs=(0.5, 2.0), weight_decays=(0.0,), seeds=(42, 44))
    return replace(plan, **changes)


FEW = 80


@pytest.fixture(autouse=True)
def few_test_images(monkeypatch):
    monkeypatch.setattr(procedural, "TEST", FEW)
    protocol.opened.cache_clear()
    yield
    protocol.opened.cache_clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The small plan run once: its folder and the tables of both stages, which a test does not change."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(procedural, "TEST", FEW)
        protocol.opened.cache_clear()
        tables = run_plan(small_plan(), folder, progress=False)
        protocol.opened.cache_clear()
    return folder, tables


def drawn_nowhere(monkeypatch):
    """No figures are written: the first run of a VTAB root writes one, at which its test looks."""
    monkeypatch.setattr("moe_prompts.figures.style.save", lambda figure, out, name: plt.close(figure) or [])


def test_both_stages_have_a_row_for_every_trial(tmp_path):
    plan = small_plan(methods=COMPARED)
    tuned, final = run_plan(plan, tmp_path, progress=False)
    assert len(tuned) == len(COMPARED) * 2
    assert set(tuned["n"]) == {48}
    assert len(final) == len(COMPARED) * 2
    assert set(final["n"]) == {60}
    assert set(final["seed"]) == {42, 44}
    assert (final["status"] == TRAINED).all()
    best = choose(tuned)
    for (task, method), rows in final.groupby(["task", "method"]):
        assert set(rows["lr"]) == {best[task, method].lr}
    assert len(report.scores(final)) == len(COMPARED)


def test_the_final_model_is_scored_on_test_as_a_loop_by_hand_scores_it(tmp_path):
    """A head on frozen features, by torch's own optimiser and counting."""
    import torch

    from moe_prompts.vision.backbones.normalisation import normalised
    from moe_prompts.vision.prompting.prompted import new_head
    from moe_prompts.vision.training.sgd import batches, factors, init_generator

    plan = small_plan(methods=("linear",), given={(COUNT.name, "linear"): Setting(2.0, 0.01)}, seeds=(42,))
    _, final = run_plan(plan, tmp_path, progress=False)
    model, task, recipe = protocol.backbone(plan.setup), COUNT.open(), plan.setup.recipe
    head = new_head(model, task.classes, init_generator(42))
    groups = [{"params": [head.weight], "weight_decay": 0.01}, {"params": [head.bias], "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
    train, test = task.split("train800val200"), task.split("test")
    for indices, factor in zip(batches(60, recipe, 42), factors(recipe, 60), strict=True):
        images = normalised(train.batch(indices), "imagenet", head.weight)
        with torch.no_grad():
            features = model.forward_features(images)[:, 0]
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(features), torch.from_numpy(train.labels[indices])).backward()
        for group in optimiser.param_groups:
            group["lr"] = 2.0 * 16 / 256 * factor
        optimiser.step()
    with torch.no_grad():
        logits = head(model.forward_features(normalised(test.batch(np.arange(80)), "imagenet", head.weight))[:, 0])
    loss = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(test.labels.copy())))
    assert final["cross_entropy"].item() == pytest.approx(loss, rel=1e-5)
    assert final["accuracy"].item() == float((logits.argmax(dim=1).numpy() == test.labels).mean())


def test_the_test_split_is_read_by_final_runs_alone(tmp_path, monkeypatch):
    """Tuning goes through where reading the test split is an error, and the final runs then meet that error."""
    make_vtab_root(tmp_path, "dtd", counts=(47, 47))
    task = TaskSpec("dtd", size=32, root=str(tmp_path))
    split = VtabTask.split

    def guarded(self, name):
        if name == "test":
            raise AssertionError("the test split was read")
        return split(self, name)

    monkeypatch.setattr(VtabTask, "split", guarded)
    plan = small_plan(tasks=(task,))
    with pytest.raises(InputError, match="the first AssertionError: the test split was read"):
        run_plan(plan, tmp_path / "run", progress=False)
    assert len(pd.read_parquet(tmp_path / "run" / "tune" / "results.parquet")) == 4
    assert not list((tmp_path / "run" / "final" / "blocks").iterdir())


class Killed(Exception):
    pass


class KilledAfter:
    """Runs some blocks, then ends as a kill would: nothing after them is written."""

    def __init__(self, blocks):
        self.left = blocks

    def map(self, run_block, blocks):
        for block in blocks:
            if not self.left:
                raise Killed
            self.left -= 1
            yield run_block(block)


@pytest.mark.parametrize("blocks", [0, 1, 2, 3])
def test_a_run_that_was_killed_ends_with_the_same_tables(whole, tmp_path, blocks):
    plan, (folder, tables) = small_plan(), whole
    with pytest.raises(Killed):
        run_plan(plan, tmp_path / "killed", executor=KilledAfter(blocks), progress=False)
    resumed = run_plan(plan, tmp_path / "killed", resume=True, progress=False)
    for one, other in zip(tables, resumed, strict=True):
        pd.testing.assert_frame_equal(one, other)
    for stage in ("tune", "final"):
        table = Path(stage) / "results.parquet"
        assert (folder / table).read_bytes() == (tmp_path / "killed" / table).read_bytes()


def test_finished_folders_are_not_overwritten(tmp_path):
    plan = small_plan(methods=("linear",))
    run_plan(plan, tmp_path, progress=False)
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        run_plan(plan, tmp_path, progress=False)
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        run_plan(replace(plan, given={(COUNT.name, "linear"): Setting(1.0, 0.0)}), tmp_path, progress=False)
    given = replace(plan, given={(COUNT.name, "linear"): Setting(1.0, 0.0)})
    with pytest.raises(InputError, match="no run to resume"):
        run_plan(given, tmp_path / "other", resume=True, progress=False)


def row(accuracy, lr, decay, status=TRAINED):
    return {"task": "t", "method": "m", "accuracy": accuracy, "lr": lr, "weight_decay": decay, "status": status}


def test_the_best_setting_wins_and_ties_go_to_smaller_lr_then_larger_decay():
    rows = [
        row(0.5, 1.0, 0.1),
        row(0.7, 5.0, 0.1),
        row(0.7, 2.5, 0.0),
        row(0.7, 2.5, 0.01),
        row(0.9, 50.0, 0.0, DIVERGED),
    ]
    assert choose(pd.DataFrame(rows)) == {("t", "m"): Setting(2.5, 0.01)}
    assert choose(pd.DataFrame([row(np.nan, 1.0, 0.1, DIVERGED)])) == {("t", "m"): None}


def test_where_every_setting_diverges_nothing_is_trained_and_the_report_says_so(tmp_path):
    plan = small_plan(methods=("linear", "vpt_deep"), lrs=(1e40,))
    tuned, final = run_plan(plan, tmp_path, progress=False)
    assert set(tuned["status"]) == {DIVERGED}
    assert set(final["status"]) == {UNTUNED}
    assert final[["lr", "weight_decay"]].isna().all(axis=None)
    assert set(plan.chosen(final).values()) == {None}
    text = report.text(final)
    assert "none trained" in text
    assert "2 of 2 seeds diverged or had no sound setting" in text


def test_another_task_of_one_run_changes_nothing(whole, tmp_path):
    task = TaskSpec("stand-in:digits", size=32, n_train=60)
    both = run_plan(small_plan(tasks=(task, COUNT)), tmp_path / "both", progress=False)[1]
    pd.testing.assert_frame_equal(both[both["task"] == COUNT.name].reset_index(drop=True), whole[1][1])


def test_matched_tokens_are_the_fewest_that_do():
    for blocks, width, tokens in ((3, 24, 5), (4, 64, 10), (2, 48, 1)):
        model = VisionTransformer(
            img_size=32, patch_size=8, embed_dim=width, depth=blocks, num_heads=4, num_classes=0, device="meta"
        )
        wanted = config("vapt", Sizes(tokens), model).n_parameters(width, blocks, (4, 4))
        found = matched_tokens(config("vapt", Sizes(tokens), model), model)
        assert found * blocks * width >= wanted > (found - 1) * blocks * width


def test_methods_that_are_the_same_are_compared_once():
    """With ten tokens, VAPT's parameters make ten tokens per block in the small backbone; with four, more."""
    model = protocol.backbone(Setup("small"))
    assert set(COMPARED) - set(distinct_methods(Sizes(10), model)) == {"vpt_matched"}
    assert distinct_methods(Sizes(4), model) == COMPARED


def test_parameters_are_those_that_train():
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=4, num_classes=5)
    body = sum(value.numel() for name, value in model.named_parameters() if not name.startswith("head"))
    assert trained_parameters("full", Sizes(), model) == body
    # Biases: patch embedding, two norms, qkv, proj, fc1 and fc2 of each block, final norm.
    assert trained_parameters("bias", Sizes(), model) == 24 + 2 * (24 + 24 + 72 + 24 + 96 + 24) + 24
    # Those inside one block of the two.
    assert trained_parameters("bias_blocks", Sizes(blocks=1), model) == 24 + 24 + 72 + 24 + 96 + 24
    assert trained_parameters("linear", Sizes(), model) == 0
    assert trained_parameters("vpt_deep", Sizes(7), model) == 2 * 7 * 24


def test_published_grids():
    assert len(settings("vapt")) == 40
    assert len(settings("full")) == 16
    assert settings("linear", (1.0,), (0.1, 0.0)) == (Setting(1.0, 0.1), Setting(1.0, 0.0))


def table_of(accuracies):
    """Final rows of tasks and methods, three seeds."""
    return pd.DataFrame(
        {
            "task": task,
            "group": group,
            "method": method,
            "seed": seed,
            "accuracy": accuracy / 100,
            "cross_entropy": 1.0,
            "lr": 1.0,
            "weight_decay": 0.0,
            "parameters": 5,
            "status": TRAINED,
            "judged": 100,
        }
        for (task, group, method), row in accuracies.items()
        for seed, accuracy in zip((42, 44, 82), row, strict=True)
    )


def test_means_and_differences_by_hand():
    final = table_of(
        {
            ("dtd", "natural", "vpt_deep"): (60, 62, 64),
            ("dtd", "natural", "vapt"): (63, 64, 68),
            ("cifar", "natural", "vpt_deep"): (70, 70, 70),
            ("cifar", "natural", "vapt"): (71, 71, 71),
            ("kitti", "structured", "vpt_deep"): (50, 50, 50),
            ("kitti", "structured", "vapt"): (56, 56, 56),
        }
    )
    means = report.means(report.scores(final)).set_index("method")
    assert means.loc["vpt_deep", "over tasks"] == pytest.approx((62 + 70 + 50) / 3)
    assert means.loc["vpt_deep", "over groups"] == pytest.approx(((62 + 70) / 2 + 50) / 2)
    found = report.differences(final, "vpt_deep").set_index("task")
    # Differences 3, 2, 4: mean 3, standard error 1 / sqrt(3), Student's 95 % point with 2 degrees 2.91999.
    assert found.loc["dtd", "difference"] == pytest.approx(3)
    assert found.loc["dtd", "high"] - 3 == pytest.approx(2.91999 / np.sqrt(3), rel=1e-5)
    # Tasks' means 3, 1, 6: standard deviation sqrt(19 / 3).
    assert found.loc["all", "difference"] == pytest.approx(10 / 3)
    assert found.loc["all", "high"] - 10 / 3 == pytest.approx(2.91999 * np.sqrt(19 / 9), rel=1e-5)
    text = report.text(final)
    assert body_of(text, ["task", "vpt_deep", "vapt"])[:2] == [
        ["dtd", "62.0 ± 2.0", "65.0 ± 2.6"],
        ["published", "65.8", ""],
    ]
    assert "in brackets 90 % intervals" in text
    assert body_of(text, ["task", "vapt"])[-1] == ["all", "+3.3 [-0.9, +7.6] / 3"]


def test_a_method_without_a_task_leaves_a_blank_and_no_mean():
    final = table_of(
        {
            ("dtd", "natural", "linear"): (30, 30, 30),
            ("dtd", "natural", "vpt_deep"): (60, 62, 64),
            ("dtd", "natural", "vapt"): (63, 64, 68),
            ("kitti", "structured", "linear"): (11, 11, 11),
            ("kitti", "structured", "vapt"): (31, 31, 31),
        }
    )
    text = report.text(final)
    shown = {row[0]: row[1:] for row in body_of(text, ["task", "linear", "vpt_deep", "vapt"])}
    assert shown["kitti"] == ["11.0 ± 0.0", "", "31.0 ± 0.0"]
    assert shown["*mean over tasks*"] == ["20.5", "not all tasks", "48.0"]
    assert body_of(text, ["task", "linear", "vapt"])[0] == [
        "dtd",
        "-32.0 [-35.4, -28.6] / 3",
        "+3.0 [+1.3, +4.7] / 3",
    ]
    with pytest.raises(InputError, match="dtd linear seed 42 is there twice"):
        report.text(pd.concat([final, final]))


def test_a_failed_task_leaves_no_mean():
    final = table_of({("dtd", "natural", "vapt"): (63, 64, 68), ("svhn", "natural", "vapt"): (np.nan,) * 3})
    means = report.means(report.scores(final)).set_index("method")
    assert np.isnan(means.loc["vapt", "over tasks"])
    assert np.isnan(means.loc["vapt", "over groups"])


def test_published_values_are_those_of_the_reference(reference):
    pd.testing.assert_frame_equal(
        report.published().reset_index(),
        pd.read_csv(reference / "vtab1k_reference.csv")[list(report.published().reset_index().columns)],
    )
    assert report.published()["full"].mean() == pytest.approx(65.57, abs=0.005)


def test_settings_of_a_run_are_read_again(tmp_path):
    plan, name = small_plan(), COUNT.name
    chosen = {(name, "vapt"): Setting(0.5, 0.01), (name, "linear"): None}
    file = tmp_path / "settings.json"
    file.write_text(as_json(chosen, plan, ["vtab.py", "run"]))
    assert read_settings(str(file), plan) == {(name, "vapt"): Setting(0.5, 0.01)}
    assert read_settings(str(file), replace(plan, methods=("linear",))) == {}
    given = replace(plan, given={(name, "vapt"): Setting(1.0, 0.0)})
    assert json.loads(as_json(chosen, given, []))["settings"] == []
    others = {
        "sizes": replace(plan, setup=replace(small_setup(), sizes=Sizes(3, 4, 2))),
        "recipe": replace(plan, setup=small_setup(steps=5)),
        "other data of stand-in:count": replace(plan, tasks=(replace(COUNT, n_train=61),)),
    }
    for word, other in others.items():
        with pytest.raises(InputError, match=f"another case .*{word}"):
            read_settings(str(file), other)
    file.write_text("{}")
    with pytest.raises(InputError, match="not written by a run"):
        read_settings(str(file), plan)
    with pytest.raises(InputError, match="No such file"):
        read_settings(str(tmp_path / "none.json"), plan)


def test_shipped_settings_are_those_of_the_preset(monkeypatch):
    """Every task and method of the preset, for the backbone, prompts, recipe and data of the preset."""
    script = loaded()
    arguments = script.parser().parse_args(["run", "--preset", "small", "--settings", "shipped"])
    script.fill_in(arguments)
    protocol.opened.cache_clear()
    monkeypatch.setattr("moe_prompts.vision.tasks.procedural.TEST", 2000)
    plan = script.plan_of(arguments)
    assert set(plan.given) == {(task.name, method) for task, method in plan.pairs}
    assert not plan.tune_cells()


def loaded():
    script = importlib.import_module("moe_prompts.commands.vtab")
    return script


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["vtab.py", *map(str, arguments)])
    loaded().main()


SHORT = ("--steps", 2, "--batch", 16, "--lr", "1", "--weight-decay", "0", "--seeds", "42,44", "--workers", 1)


@pytest.mark.parametrize("suffix", ["png", pytest.param("jpg", marks=pytest.mark.slow)])
def test_a_vtab_root_goes_through_check_run_and_report(tmp_path, monkeypatch, capsys, suffix):
    monkeypatch.chdir(tmp_path)
    make_vtab_root(tmp_path / "data", "cifar", suffix=suffix)
    call(monkeypatch, "check", "--data", tmp_path / "data", "--task", "cifar")
    shown = capsys.readouterr().out
    assert "0 problems" in shown
    assert ("JPEG" in shown) == (suffix == "jpg")
    options = ("--data", tmp_path / "data", "--backbone", "small-random", "--size", 32, *SHORT)
    call(monkeypatch, "run", "--task", "cifar", "--method", "linear,vpt_deep", "--out", tmp_path / "run", *options)
    shown = capsys.readouterr().out
    assert "minutes of training" in shown
    told = (tmp_path / "run" / "report.md").read_text()
    assert body_of(told, ["task", "linear", "vpt_deep"])[1] == ["published", "63.4", "78.8"]
    assert re.search(r"^cifar +vpt_deep .* 78\.8$", shown, re.M)
    assert "settings.json\n  accuracies.pdf " in shown
    shown = " ".join(shown.split())
    assert "Backbone small-random, N = 10, 2 steps of 16 images" in shown
    assert f"image format: {'PNG' if suffix == 'png' else 'JPEG'}" in shown
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert [one["method"] for one in settings["settings"]] == ["linear", "vpt_deep"]
    assert (tmp_path / "run" / "accuracies.png").stat().st_size > 0
    drawn_nowhere(monkeypatch)
    given = ("--settings", tmp_path / "run" / "settings.json", "--out", tmp_path / "again")
    call(monkeypatch, "run", "--task", "cifar", "--method", "linear,vpt_deep", *given, *options)
    assert not (tmp_path / "again" / "tune").exists()
    capsys.readouterr()
    call(monkeypatch, "report", tmp_path / "again", "--out", tmp_path / "report")
    assert (tmp_path / "report" / "report.md").read_text() == (tmp_path / "run" / "report.md").read_text()


def test_an_fgvc_task_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn_nowhere(monkeypatch)
    make_fgvc_root(tmp_path / "data", "flowers", per_class=(2, 1, 1), shape=(40, 48))
    call(
        monkeypatch,
        "run",
        "--task",
        "fgvc:flowers",
        "--method",
        "linear",
        "--data",
        tmp_path / "data",
        "--fraction",
        0.5,
        "--backbone",
        "small-random",
        "--size",
        32,
        "--out",
        tmp_path / "run",
        *SHORT,
    )
    assert "\nfgvc:flowers " in capsys.readouterr().out
    final = pd.read_parquet(tmp_path / "run" / "final" / "results.parquet")
    assert set(final["n"]) == {2 * 102}


def test_a_seed_is_given_once(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "run", "--task", "stand-in:count", "--seeds", "42,42", "--estimate")
    assert ended.value.code == 2
    assert "argument --seeds: '42,42'; named twice: 42; expected each once" in capsys.readouterr().err
    with pytest.raises(InputError, match="seeds 42, 42; expected different ones"):
        small_plan(seeds=(42, 42))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no --task; expected names such as dtd or stand-in:count, or --preset small"),
        (("--task", "dtd"), "task dtd needs images: give their folder with --data, or use a stand-in"),
        (("--task", "dtdd"), "--task dtdd; expected some of"),
        (("--task", "dtd", "--data", "nowhere"), "--data nowhere: no such folder"),
        (("--task", "stand-in:count", "--method", "vpt"), "method 'vpt'; expected one of linear"),
        (("--task", "stand-in:count", "--lr", "1,x"), "--lr 1,x; expected positive numbers"),
        (("--task", "stand-in:count", "--lr", "0"), "--lr 0; expected positive numbers"),
        (("--task", "stand-in:count", "--lr", "1,1"), "--lr 1,1; named twice: 1"),
        (("--task", "stand-in:count", "--weight-decay=-1"), "--weight-decay -1; expected numbers of at least 0"),
        (("--task", "stand-in:count", "--method", "vapt,vapt"), "--method vapt,vapt; named twice: vapt"),
        (("--task", "stand-in:count", "--method", ""), "--method ''; expected one name"),
        (("--task", "dtd,cifar,dtd"), "--task dtd,cifar,dtd; named twice: dtd"),
        (("--task", "stand-in:count", "--resume"), "--resume needs --out"),
        (("--task", "stand-in:count", "--steps", "5", "--epochs", "2"), "--steps 5 with --epochs 2"),
        (("--task", "fgvc:cub", "--data", ".", "--fraction", "0.1"), "--fraction 0.1 without --steps"),
        (("--task", "dtd", "--data", ".", "--n", "50"), "--n 50 with dtd; only stand-ins"),
        (("--task", "stand-in:count", "--schedule", "step"), "schedule = 'step'; expected one of smooth, official"),
        (("--task", "stand-in:count", "--fraction", "0.5", "--steps", "5"), "only FGVC tasks are cut by fractions"),
        (("--task", "stand-in:count", "--size", "7"), "size 7; expected a whole number of pixels from 8 to 1024"),
        (
            ("--task", "stand-in:count", "--size", "64"),
            "images of 64 x 64 pixels; small-random takes 32 x 32: give --size 32",
        ),
        (("--task", "stand-in:count", "--settings", "none.json"), "--settings none.json: No such file"),
    ],
)
def test_wrong_input_is_one_clear_error(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        call(monkeypatch, "run", "--backbone", "small-random", *arguments)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_runs_that_do_not_compare_are_not_reported_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn_nowhere(monkeypatch)
    common = ("run", "--task", "stand-in:count", "--n", 60, "--backbone", "small-random", *SHORT)
    call(monkeypatch, *common, "--method", "linear", "--out", "one")
    call(monkeypatch, *common, "--method", "vpt_deep", "--out", "two")
    call(monkeypatch, *common, "--method", "vapt", "--schedule", "official", "--out", "three")
    with pytest.raises(InputError, match="no --out"):
        call(monkeypatch, "report", "one", "two")
    call(monkeypatch, "report", "one", "two", "--out", "both")
    with pytest.raises(InputError, match="three: made in another way than one"):
        call(monkeypatch, "report", "one", "three", "--out", "both")


def test_a_run_does_not_grow(tmp_path):
    """Refused before anything is trained, and the run stays as it was."""
    plan = small_plan(methods=("linear",))
    run_plan(plan, tmp_path, progress=False)
    with pytest.raises(InputError, match=r"holds another study .*pairs"):
        run_plan(replace(plan, methods=("linear", "vapt")), tmp_path, resume=True, progress=False)
    run_plan(plan, tmp_path, resume=True, progress=False)


def test_packs_may_be_smaller(whole, tmp_path):
    parts = run_plan(small_plan(setup=replace(small_setup(), pack=1)), tmp_path / "parts", progress=False)[1]
    # Rounding of float32.
    np.testing.assert_allclose(whole[1][1]["cross_entropy"], parts["cross_entropy"], rtol=1e-5)


def test_a_report_of_nothing(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no finished run"):
        call(monkeypatch, "report", tmp_path)


def test_the_order_of_blocks_changes_nothing(whole, tmp_path):
    class Backwards(InProcess):
        def map(self, run_block, blocks):
            return map(run_block, reversed(blocks))

    other = run_plan(small_plan(), tmp_path / "other", executor=Backwards(), progress=False)[1]
    pd.testing.assert_frame_equal(whole[1][1], other)
