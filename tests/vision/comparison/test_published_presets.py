"""The published protocol as presets: the papers' table of 19 tasks, FGVC by shares of the images, and trackers."""

import importlib.util
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from data_roots import make_fgvc_root, make_vtab_root

from moe_prompts.commands import vtab as command
from moe_prompts.errors import InputError
from moe_prompts.tables import body_of
from moe_prompts.vision.comparison import plan as protocol
from moe_prompts.vision.comparison import tracking
from moe_prompts.vision.comparison.paper_table import as_latex, as_markdown, paper_table
from moe_prompts.vision.comparison.report import published_fgvc
from moe_prompts.vision.comparison.tokens import published_tokens, read_tokens
from moe_prompts.vision.tasks import fgvc, vtab
from moe_prompts.vision.training.runs import Setup

TINY = (
    "--backbone",
    "small-random",
    "--size",
    "32",
    "--batch",
    "8",
    "--lr",
    "1",
    "--weight-decay",
    "0",
    "--workers",
    "1",
)


@pytest.fixture(autouse=True)
def fresh_tasks(monkeypatch):
    """Tasks are opened anew, and no figures are saved, which other tests look at."""
    monkeypatch.setattr("moe_prompts.figures.style.save", lambda figure, out, name: plt.close(figure) or [])
    protocol.opened.cache_clear()
    yield
    protocol.opened.cache_clear()


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["vtab.py", *map(str, arguments)])
    command.main()


def rows(accuracies, seeds=(1, 2, 3)):
    """Final rows of {(task, method): accuracies over seeds}, in shares."""
    return pd.DataFrame(
        [
            {
                "task": task,
                "group": vtab.TASKS[task].group,
                "method": method,
                "seed": seed,
                "accuracy": value,
                "cross_entropy": 1.0,
                "train_loss": 1.0,
                "lr": 1.0,
                "weight_decay": 0.0,
                "parameters": 1,
            }
            for (task, method), values in accuracies.items()
            for seed, value in zip(seeds, values, strict=True)
        ]
    )


def all_tasks(shift):
    """Both methods on all 19 tasks; ``shift`` (task number) -> VAPT minus linear, in shares."""
    found, noise = {}, np.random.default_rng(0).uniform(0, 0.001, (19, 3))
    for place, task in enumerate(vtab.TASKS):
        found[task, "linear"] = [0.5, 0.52, 0.51]
        found[task, "vapt"] = [
            one + shift(place) + own for one, own in zip((0.5, 0.52, 0.51), noise[place], strict=True)
        ]
    return rows(found)


def test_the_papers_table_has_their_columns_means_and_published_rows():
    table = paper_table(all_tasks(lambda place: 0.1))
    assert len(table.columns) == 19 + 3 + 2
    assert table.columns[7] == "mean natural"
    assert table.columns[-2:] == ("mean of tasks", "mean of groups")
    own = table.ours.loc["linear"]
    assert np.allclose(own, 51.0)
    # Means that the papers print, from numbers rounded to .1 for each task.
    assert table.theirs.loc["linear", "mean of tasks"] == pytest.approx(52.94, abs=0.06)
    assert table.theirs.loc["linear", "mean natural"] == pytest.approx(68.93, abs=0.06)
    assert table.theirs.loc["vapt", "mean of tasks"] == 72.91
    assert np.isnan(table.theirs.loc["vapt", "dtd"])


def test_bold_is_what_the_interval_allows():
    table = paper_table(all_tasks(lambda place: 0.1))
    assert table.bold == {("vapt", column) for column in table.columns}
    mixed = paper_table(all_tasks(lambda place: 0.1 if place % 2 else -0.1))
    first, second = list(vtab.TASKS)[:2]
    assert ("linear", first) in mixed.bold
    assert ("vapt", second) in mixed.bold
    assert not {column for _, column in mixed.bold} & {"mean of tasks", "mean of groups"}
    one_seed = paper_table(rows({("dtd", "linear"): [0.5], ("dtd", "vapt"): [0.9]}, seeds=(1,)))
    assert not one_seed.bold, "one seed has no interval"
    lost = all_tasks(lambda place: 0.1)
    lost.loc[(lost["task"] == "dtd") & (lost["seed"] == 2) & (lost["method"] == "vapt"), "accuracy"] = np.nan
    assert ("vapt", "dtd") not in paper_table(lost).bold


def test_markdown_and_latex_hold_the_same_rows():
    table = paper_table(all_tasks(lambda place: 0.1))
    written = body_of(as_markdown(table), ["method", *table.columns])
    assert [row[0] for row in written] == [
        "linear",
        "*linear, published [1]*",
        "vapt",
        "*vapt, published [2]*",
    ]
    place = 1 + table.columns.index("cifar")
    assert written[2][place] in ("**61.0**", "**61.1**")
    assert written[1][place] == "63.4"
    latex = as_latex(table).splitlines()
    body = [line for line in latex if line.endswith("\\\\") and not line.startswith("&")]
    assert all(line.count("&") == len(table.columns) for line in body)
    spans = next(line for line in latex if "multicolumn" in line)
    assert spans.count("multicolumn{8}") == 1, "seven natural tasks and their mean"
    assert "arXiv 2203.12119" in latex[-2] or "arXiv 2203.12119" in latex[-1]
    assert "diabetic\\_retinopathy" in as_latex(table)


def test_the_preset_runs_all_19_tasks(tmp_path, monkeypatch, capsys):
    """On tiny images: hours first, then the table with its means."""
    monkeypatch.chdir(tmp_path)
    for task in vtab.TASKS:
        make_vtab_root(tmp_path / "data", task, pixels=2, test=4, counts=(8, 4))
    options = ("--preset", "vtab-1k", "--data", tmp_path / "data", "--cache", "none", *TINY)
    call(monkeypatch, "run", *options, "--estimate")
    shown = capsys.readouterr().out
    assert shown.startswith("about ")
    assert len(shown.splitlines()) == 1
    short = ("--method", "linear", "--steps", 1, "--seeds", "1,2")
    call(monkeypatch, "run", *options, *short, "--out", tmp_path / "run")
    assert capsys.readouterr().out.startswith("about ")
    table = (tmp_path / "run" / "table.md").read_text()
    header = table.splitlines()[0]
    assert all(task in header for task in vtab.TASKS)
    assert "[1] Published, arXiv 2203.12119" in table
    assert (tmp_path / "run" / "table.tex").read_text().startswith("% needs")
    final = pd.read_parquet(tmp_path / "run" / "final" / "results.parquet")
    assert len(final) == 19 * 2


def test_the_preset_is_the_published_protocol(tmp_path):
    arguments = command.parser().parse_args(["run", "--preset", "vtab-1k", "--data", str(tmp_path)])
    command.fill_in(arguments)
    plan = command.plan_of(arguments)
    recipe = plan.setup.recipe
    assert [task.name for task in plan.tasks] == list(vtab.TASKS)
    assert (recipe.epochs, recipe.batch, recipe.schedule, recipe.normalisation) == (100, 64, "official", "imagenet")
    assert plan.setup.backbone == "vit_base_patch16_224.orig_in21k"
    assert plan.seeds == (42, 44, 82, 100, 800)
    assert {task.resample for task in plan.tasks} == {"bilinear-no-antialias"}
    assert [cell.replicates for cell in plan.tune_cells()[:5]] == [40, 16, 40, 40, 40]
    by_method = {cell.method: cell.setup.recipe.optimiser for cell in plan.tune_cells()}
    assert by_method == dict.fromkeys(by_method, "sgd") | {"full": "adamw"}


def test_full_tuning_by_adamw_is_another_run(tmp_path, monkeypatch, capsys):
    """Rows, the report's line and the settings that are kept say so; settings of one do not serve the other."""
    monkeypatch.chdir(tmp_path)
    make_vtab_root(tmp_path / "data", "dtd", pixels=2, test=4, counts=(8, 4))
    grid = ("--lr", "0.001", "--weight-decay", "0.0001", "--steps", 2, "--seeds", "1")
    options = ("run", "--data", "data", "--cache", "none", *TINY, *grid, "--task", "dtd", "--method", "linear,full")
    for name in ("sgd", "adamw"):
        call(monkeypatch, *options, "--full-optimiser", name, "--out", name)
    capsys.readouterr()
    losses = {}
    for name in ("sgd", "adamw"):
        final = pd.read_parquet(f"{name}/final/results.parquet")
        losses[name] = final.set_index("method")["train_loss"]
        assert ("full by adamw" in Path(f"{name}/report.md").read_text()) == (name == "adamw")
    assert losses["sgd"]["linear"] == losses["adamw"]["linear"]
    assert losses["sgd"]["full"] != losses["adamw"]["full"]
    for name, other in (("sgd", "adamw"), ("adamw", "sgd")):
        given = ("--full-optimiser", name, "--settings", f"{other}/settings.json", "--out", "again")
        with pytest.raises(InputError, match=r"tuned for another case \(full optimiser"):
            call(monkeypatch, *options, *given)


def test_an_optimiser_of_full_tuning_needs_full_tuning(tmp_path, monkeypatch):
    """Given for nothing it is refused; from a preset it stands where the method was left out."""
    monkeypatch.chdir(tmp_path)
    make_vtab_root(tmp_path / "data", "dtd", pixels=2, test=4, counts=(8, 4))
    options = ("run", "--data", "data", "--task", "dtd", "--method", "linear,vapt")
    with pytest.raises(InputError, match="--full-optimiser adamw without the method full; expected it in --method"):
        call(monkeypatch, *options, "--full-optimiser", "adamw")
    arguments = command.parser().parse_args([*options, "--preset", "vtab-1k"])
    command.fill_in(arguments)
    assert "full optimiser" not in command.plan_of(arguments).place


def test_the_presets_have_the_published_tokens(tmp_path):
    """The numbers of the published table, which are not the same for all tasks."""
    arguments = command.parser().parse_args(["run", "--preset", "vtab-1k", "--data", str(tmp_path)])
    command.fill_in(arguments)
    plan = command.plan_of(arguments)
    tokens = {cell.task.name: cell.setup.sizes.tokens for cell in plan.tune_cells()}
    assert (tokens["sun397"], tokens["svhn"], tokens["clevr_dist"], tokens["dtd"]) == (5, 50, 200, 10)
    assert set(tokens.values()) == {1, 5, 10, 50, 100, 200}
    assert published_tokens() == plan.tokens
    assert {task: published_tokens()[task] for task in published_fgvc().index} == {
        "fgvc:cub": 10,
        "fgvc:nabirds": 50,
        "fgvc:flowers": 5,
        "fgvc:dogs": 100,
        "fgvc:cars": 200,
    }
    one = command.parser().parse_args(["run", "--preset", "vtab-1k", "--data", str(tmp_path), "--tokens", "7"])
    command.fill_in(one)
    assert command.plan_of(one).tokens is None
    assert command.plan_of(one).setup.sizes.tokens == 7


def test_each_task_may_have_its_own_tokens(tmp_path, monkeypatch, capsys):
    """A file of numbers reaches the prompts, the description of the run and its report."""
    monkeypatch.chdir(tmp_path)
    for task in ("dtd", "svhn", "eurosat"):
        make_vtab_root(tmp_path / "data", task, pixels=2, test=4, counts=(8, 4))
    (tmp_path / "tokens.json").write_text('{"dtd": 2, "svhn": 3, "eurosat": 3}')
    common = ("run", "--data", "data", "--cache", "none", *TINY, "--steps", 1, "--seeds", "1,2")
    options = (*common, "--tokens", "tokens.json", "--method", "linear,vpt_deep")
    call(monkeypatch, *options, "--task", "dtd,svhn", "--out", "run")
    capsys.readouterr()
    final = pd.read_parquet("run/final/results.parquet")
    prompts = final[final["method"] == "vpt_deep"].set_index("task")["parameters"]
    assert prompts["dtd"].unique() == 2 * 4 * 64
    assert prompts["svhn"].unique() == 3 * 4 * 64
    assert "N by task: dtd 2, svhn 3." in Path("run/report.md").read_text()
    call(monkeypatch, *options, "--task", "eurosat", "--out", "other")
    call(monkeypatch, "report", "run", "other", "--out", "both")
    assert "N by task: dtd 2, svhn 3, eurosat 3." in Path("both/report.md").read_text()
    given = (*common, "--task", "dtd,svhn", "--method", "linear", "--settings", "run/settings.json", "--out", "again")
    with pytest.raises(InputError, match="tuned for another case"):
        call(monkeypatch, *given, "--tokens", "2")
    call(monkeypatch, *given, "--tokens", "tokens.json")
    assert not Path("again/tune").exists()
    call(monkeypatch, *common, "--task", "dtd", "--method", "linear", "--tokens", 2, "--out", "one")
    with pytest.raises(InputError, match="made in another way"):
        call(monkeypatch, "report", "run", "one", "--out", "mixed")
    capsys.readouterr()


def test_wrong_tokens_are_one_line(tmp_path):
    files = {
        "list.json": "[10]",
        "text.json": "tokens",
        "lacks.json": '{"cifar": 10}',
        "name.json": '{"dtd": 10, "dtdd": 5}',
        "group.json": '{"all": 10}',
        "zero.json": '{"dtd": 0}',
        "half.json": '{"dtd": 2.5}',
        "true.json": '{"dtd": true}',
        "none.json": "{}",
        "twice.json": '{"dtd": 10, "dtd": 5}',
    }
    messages = {
        "list.json": "expected an object such as",
        "text.json": "no JSON; expected an object such as",
        "lacks.json": "no number for dtd; expected one for each task of the run",
        "name.json": "'dtdd' is no task; expected names such as dtd or fgvc:cub",
        "group.json": "'all' is no task",
        "zero.json": "dtd has 0 tokens; expected a whole number from 1",
        "half.json": "dtd has 2.5 tokens",
        "true.json": "dtd has True tokens",
        "none.json": "expected an object such as",
        "twice.json": "'dtd' stands there twice; expected one number for each task",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    cases = {str(tmp_path / name): message for name, message in messages.items()}
    cases |= {"0": "--tokens 0 has 0 tokens", "-3": "has -3 tokens", "1e1": "--tokens 1e1: No such file"}
    cases |= {"1" * 20: "expected a whole number from 1 to 1000000", "1" * 5000: "File name too long"}
    for text, message in cases.items():
        with pytest.raises(InputError) as raised:
            read_tokens(text, ["dtd"])
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="--tokens published: no number for stand-in:count"):
        read_tokens("published", ["dtd", "stand-in:count"])
    with pytest.raises(InputError, match="tokens of b: none; expected a number for each task"):
        protocol.Plan((SimpleNamespace(name="a"), SimpleNamespace(name="b")), ("vapt",), Setup(), tokens={"a": 1})


def test_published_rows_of_fgvc_stand_beside_all_training_images_only():
    final = pd.DataFrame(
        [
            {
                **{"task": task, "group": "fgvc", "method": method, "seed": seed, "accuracy": 0.5 + seed / 100},
                **{"cross_entropy": 1.0, "lr": 1.0, "weight_decay": 0.0, "parameters": 1},
            }
            for task in published_fgvc().index
            for method in ("full", "vpt_deep", "vapt", "linear")
            for seed in (1, 2)
        ]
    )
    table = paper_table(final)
    assert table.theirs.loc["vpt_deep", "fgvc:cars"] == 83.6
    # The means that the quoting text prints.
    assert table.theirs.loc["full", "mean of tasks"] == pytest.approx(88.5, abs=0.05)
    assert table.theirs.loc["vpt_deep", "mean of tasks"] == pytest.approx(89.1, abs=0.05)
    assert table.theirs.loc["vapt", "mean of tasks"] == pytest.approx(88.54 + 1.04)
    assert table.theirs.loc["vapt"].notna().sum() == 1
    assert "linear" not in table.theirs.index
    assert table.sources == {"full": 3, "vpt_deep": 3, "vapt": 2}
    assert "as notes on arXiv 2507.13260 quote it" in as_markdown(table)
    assert paper_table(final, cut=True).theirs.empty
    assert "no published row" in as_latex(paper_table(final, cut=True))


def test_fgvc_runs_by_shares_of_the_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("cub", "nabirds", "cars"):
        monkeypatch.delitem(fgvc.TASKS, name)
    for name in fgvc.TASKS:
        monkeypatch.setitem(fgvc.TASKS, name, SimpleNamespace(**vars(fgvc.TASKS[name]) | {"classes": 3}))
        make_fgvc_root(tmp_path / "data", name, per_class=(4, 2, 1), shape=(36, 40))
    options = ("--preset", "fgvc", "--data", tmp_path / "data", "--method", "linear,vpt_deep", "--epochs", 1, *TINY)
    more = ("--fraction", "0.5,1", "--seeds", "1,2", "--tokens", 2, "--cache", "none", "--out", tmp_path / "run")
    call(monkeypatch, "run", *options, *more)
    assert "minutes of training" in capsys.readouterr().out
    written = body_of((tmp_path / "run" / "fractions.md").read_text(), ["method", "50 %", "100 %"])
    assert [row[0] for row in written] == ["linear", "vpt_deep"]
    n = {
        share: set(pd.read_parquet(tmp_path / "run" / f"fraction-{share}" / "final" / "results.parquet")["n"])
        for share in ("0.5", "1")
    }
    assert n == {"0.5": {9}, "1": {18}}
    published = [(tmp_path / "run" / f"fraction-{share}" / "table.md").read_text() for share in ("0.5", "1")]
    assert ["published [3]" in text for text in published] == [False, True]
    call(monkeypatch, "run", *options, *more, "--resume")
    capsys.readouterr()
    for wrong in ("0", "0.5,0.5", "x"):
        with pytest.raises((InputError, SystemExit)):
            call(monkeypatch, "run", *options, "--fraction", wrong)
    capsys.readouterr()


def test_trackers_are_asked_for_by_name_and_must_be_installed(monkeypatch):
    tracking.check_tracker(None)
    with pytest.raises(InputError, match="--track mlflow; expected one of wandb, tensorboard"):
        tracking.check_tracker("mlflow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package wandb: pip install wandb"):
        tracking.check_tracker("wandb")


def test_wandb_is_given_the_tables_and_the_means(tmp_path, monkeypatch):
    """By a module that stands in for wandb, which wants an account."""
    seen = SimpleNamespace(logged={}, summary={}, ended=False, started=None)

    class Run:
        summary = seen.summary

        def log(self, content):
            seen.logged |= content

        def finish(self):
            seen.ended = True

    def init(**options):
        seen.started = options
        return Run()

    stand_in = SimpleNamespace(init=init, Table=lambda dataframe: len(dataframe))
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(tracking, "find_spec", lambda name: True)
    final = all_tasks(lambda place: 0.1)
    tracking.track("wandb", tmp_path, pd.DataFrame(), final, {"backbone": "small"})
    assert seen.logged == {"final": len(final)}
    assert seen.summary["linear/mean over tasks"] == pytest.approx(51.0)
    assert seen.summary["vapt/dtd"] == pytest.approx(61.05, abs=0.06)
    assert seen.started["config"] == {"backbone": "small"}
    assert seen.ended


def test_tensorboard_is_given_every_trial(tmp_path, monkeypatch):
    """TensorBoard is a package that the user installs: a stand-in writes down what it is given."""
    texts, scalars = {}, {}

    class Writer(AbstractContextManager):
        def __init__(self, folder):
            assert folder == str(tmp_path / "tensorboard")

        def __exit__(self, *error):
            texts["closed"] = "yes"

        def add_text(self, name, text):
            texts[name] = text

        def add_scalar(self, name, value, step):
            scalars[name, step] = value

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setattr(tracking, "find_spec", lambda name: True)
    final = rows({("dtd", "linear"): [0.5, 0.6, 0.7]})
    tracking.track("tensorboard", tmp_path, pd.DataFrame(), final, {"backbone": "small"})
    assert [scalars["final/dtd/linear/accuracy", step] for step in range(3)] == [0.5, 0.6, 0.7]
    assert {("summary/linear/dtd", 0), ("summary/linear/mean over tasks", 0)} <= set(scalars)
    assert "backbone" in texts["settings"]
    assert texts["closed"] == "yes"
