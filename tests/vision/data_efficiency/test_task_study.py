"""Methods on tasks against n: rows, whose images, pools; the command and its wrong inputs."""

import importlib
import json
import re
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from data_roots import make_fgvc_root, make_plain_folder

from moe_prompts.engine.runner import run_study
from moe_prompts.engine.store import gather
from moe_prompts.errors import InputError
from moe_prompts.vision.comparison import plan as protocol
from moe_prompts.vision.data_efficiency import sources
from moe_prompts.vision.data_efficiency.curves import FRESH
from moe_prompts.vision.data_efficiency.rates import JUDGES, Tune
from moe_prompts.vision.data_efficiency.sources import TaskImages, halves
from moe_prompts.vision.data_efficiency.study import efficiency_study
from moe_prompts.vision.tasks.named import TaskSpec
from moe_prompts.vision.training import packed, runs, states
from moe_prompts.vision.training.methods import COMPARED, Sizes
from moe_prompts.vision.training.runs import Setup
from moe_prompts.vision.training.sgd import Recipe, Setting
from moe_prompts.vision.training.statuses import TRAINED

COUNT, DIGITS = TaskSpec("stand-in:count", size=32), TaskSpec("stand-in:digits", size=32)
SETUP = Setup("small", None, 8, Sizes(2, 4, 2), Recipe(steps=3, batch=16, normalisation="half"))
ONE = Tune((Setting(0.5, 0.0),))


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    from moe_prompts.vision.tasks import procedural

    monkeypatch.setattr(procedural, "TEST", 80)
    monkeypatch.setattr(sources, "VALIDATION_IMAGES", 32)
    monkeypatch.setattr(sources, "TEST_IMAGES", 64)
    protocol.opened.cache_clear()
    yield
    protocol.opened.cache_clear()


@pytest.fixture
def drawn_nowhere(monkeypatch):
    """Figures are made and not written, which takes as long as all else: a test of the command looks at its files."""
    undrawn(monkeypatch)


def undrawn(monkeypatch):
    monkeypatch.setattr("moe_prompts.figures.style.save", lambda figure, out, name: plt.close(figure) or [])


def study(tasks, methods, sizes, rates=ONE, fresh_replicates=1, entropy=0):
    by_task = {task.name: sizes for task in tasks}
    own = [TaskImages(task) for task in tasks]
    return efficiency_study(own, methods, by_task, 2, SETUP, 2, entropy, rates, fresh_replicates)


def images_of(task, n, replicate, entropy):
    return TaskImages(task).images(n, replicate, SETUP, entropy)


def test_every_method_has_its_rows_and_none_depends_on_the_others(tmp_path):
    table = run_study(study([COUNT], COMPARED, [16, 32]), tmp_path / "all", progress=False)
    assert len(table) == len(COMPARED) * (2 * 2 + 1)
    assert (table["status"] == TRAINED).all()
    assert set(table["n"]) == {16, 32, FRESH}
    assert table.groupby(["method", "n"])["replicate"].nunique().unstack()[[16, 32]].eq(2).all(axis=None)
    alone = run_study(study([COUNT], ["vapt_constant"], [32], fresh_replicates=0), tmp_path / "one", progress=False)
    same = table[(table["method"] == "vapt_constant") & (table["n"] == 32)].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, same)


def test_replicates_of_drawn_tasks_share_no_image_and_sizes_are_nested():
    first, second = (images_of(COUNT, 40, replicate, 0) for replicate in (0, 1))
    flat = [{image.tobytes() for image in one.batch(np.arange(40))} for one in (first, second)]
    assert not flat[0] & flat[1]
    smaller = images_of(COUNT, 10, 0, 0)
    assert (smaller.batch(np.arange(10)) == first.batch(np.arange(10))).all()


def test_replicates_of_a_pool_are_its_stratified_subsets():
    pool = protocol.opened(DIGITS).split("train800val200")
    small, large = images_of(DIGITS, 30, 0, 0), images_of(DIGITS, 100, 0, 0)
    assert set(small.indices) < set(large.indices)
    assert set(small.indices) != set(images_of(DIGITS, 30, 1, 0).indices)
    share = np.bincount(pool.labels[large.indices], minlength=10) / 100
    assert np.abs(share - np.bincount(pool.labels) / len(pool.labels)).max() < 0.02


def test_a_pool_has_no_floor_and_an_end(tmp_path):
    table = run_study(study([DIGITS], ["linear"], [20], fresh_replicates=2), tmp_path, progress=False)
    assert set(table["n"]) == {20}
    with pytest.raises(InputError, match=r"task stand-in:digits, n = 2000: a subset of 2000 images.* the 1000 of"):
        study([DIGITS], ["linear"], [2000])


def test_held_out_images_are_the_rest():
    images = images_of(DIGITS, 50, 0, 0)
    fit, judge = halves(images, 0)
    assert (len(fit.labels), len(judge.labels)) == (40, 10)
    every = {image.tobytes() for one in (fit, judge) for image in one.batch(np.arange(len(one.labels)))}
    assert every == {image.tobytes() for image in images.batch(np.arange(50))}


@pytest.mark.parametrize("task", [COUNT, DIGITS])
def test_tuning_gives_the_rows_of_what_it_chose(tmp_path, task):
    rates = Tune((Setting(0.5, 0.0), Setting(1e30, 0.0)))
    table = run_study(study([task], ["vapt"], [20], rates, 0), tmp_path / "tuned", progress=False)
    given = run_study(study([task], ["vapt"], [20], ONE, 0), tmp_path / "given", progress=False)
    pd.testing.assert_frame_equal(table, given)


def test_tuning_by_accuracy_takes_the_rate_of_the_highest(tmp_path, monkeypatch):
    """Of these two rates the larger one has the higher accuracy and the larger cross-entropy on validation images."""
    monkeypatch.setattr(sources, "VALIDATION_IMAGES", 1000)  # .244 against .195 of 1000, which few would not tell
    settings = (Setting(3.0, 0.0), Setting(10.0, 0.0))
    chosen = {
        by: run_study(study([COUNT], ["linear"], [20], Tune(settings, by), 0), tmp_path / by, progress=False)
        for by in JUDGES
    }
    assert set(chosen["cross_entropy"]["lr"]) == {3.0}
    assert set(chosen["accuracy"]["lr"]) == {10.0}
    with pytest.raises(InputError, match="another study"):
        run_study(
            study([COUNT], ["linear"], [20], Tune(settings), 0), tmp_path / "accuracy", resume=True, progress=False
        )


def test_a_study_that_remembers_states_has_the_same_rows_from_fewer_frozen_blocks(tmp_path, monkeypatch):
    """Sets of test, validation and training images are each computed once, for all sizes and methods."""
    monkeypatch.setattr(states, "_MEMORY", states._Memory())
    counts = []

    def counted(model, first, images):
        counts.append(len(images))
        return entering_states(model, first, images)

    entering_states = packed.entering_states
    monkeypatch.setattr(packed, "entering_states", counted)
    monkeypatch.setattr(states, "entering_states", counted)
    rates = Tune((Setting(0.5, 0.0), Setting(0.1, 0.0)))
    tables, computed = [], []
    for name, memory in (("plain", 0), ("remembers", 2**24)):
        setup = replace(SETUP, sizes=Sizes(2, 4, 2, blocks=2), memory=memory)
        counts.clear()
        own = [TaskImages(COUNT)]
        made = efficiency_study(own, ["vpt_deep", "vapt"], {COUNT.name: [16, 32]}, 2, setup, 2, 0, rates, 0)
        tables.append(run_study(made, tmp_path / name, progress=False))
        computed.append(sorted(counts))
    pd.testing.assert_frame_equal(*tables)
    # At each n one set tunes and two replicates train.
    assert computed[1] == [16] * 3 + [32] * 3 + [32, 80]
    assert sum(computed[0]) > 3 * sum(computed[1])


def test_the_command_remembers_states_where_no_folder_is_given():
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    for more, folder in (((), None), (("--states", "here"), "here")):
        arguments = script.parser().parse_args(["--quick", "--task", "count", *more])
        script.fill_in(arguments)
        setup = script.setup_of(arguments)
        assert (setup.states, setup.memory) == (folder, states.MEMORY)


def test_minutes_are_those_of_steps_that_read_states_only_where_they_fit(monkeypatch, tmp_path):
    """Two replicates of 16 images and 80 test images fit, two of 32 do not; a pool's test set is not known."""
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    monkeypatch.setattr(runs, "seconds_per_step", lambda setup: 1.0 if setup.memory else 100.0)
    setup = replace(SETUP, sizes=Sizes(2, 4, 2, blocks=2))
    fits = replace(setup, memory=states.states_bytes(runs.backbone(setup), 2 * 16 + 80))
    for own, kept in ((fits, {16}), (setup, set()), (replace(setup, states="here", memory=1), {16, 32})):
        made = efficiency_study([TaskImages(COUNT)], ["vapt"], {COUNT.name: [16, 32]}, 2, own, 2, 0, ONE, 0)
        seconds = sum(block.cost * (1 if block.cell.n in kept else 100) for block in made.blocks)
        assert script.expected_minutes(made.blocks, 2, 2) == pytest.approx(seconds / 2 / 60)
    make_fgvc_root(tmp_path, "flowers", per_class=(1, 1, 1))
    pool = TaskImages(TaskSpec("fgvc:flowers", 32, root=str(tmp_path)))
    assert not pool.reads_states(1, fits)


def test_a_method_without_a_rate_is_rows(tmp_path):
    table = run_study(
        study([COUNT], ["vapt"], [20], Tune((Setting(1e30, 0), Setting(1e31, 0))), 0), tmp_path, progress=False
    )
    assert list(table["status"]) == ["UNTUNED"] * 2


def test_images_that_the_backbone_does_not_take():
    with pytest.raises(InputError, match="images of 64 x 64 pixels; small takes 32 x 32"):
        study([TaskSpec("stand-in:count", size=64)], ["linear"], [20])


def call(monkeypatch, *arguments):
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    monkeypatch.setattr(sys, "argv", ["data_efficiency.py", *map(str, arguments)])
    script.main()
    return script


def test_the_command_on_planted_truths_and_tasks(tmp_path, monkeypatch, capsys):
    call(monkeypatch, "--quick", "--workers", 1, "--out", tmp_path / "run")
    shown = re.sub(" +", " ", capsys.readouterr().out)
    assert "minutes of training with 1 processes" in shown
    assert "| task | method | parameters | n = 20 | n = 40 | fresh images |" in re.sub(
        " +", " ", (tmp_path / "run" / "summary.md").read_text()
    )
    assert "\ntask method parameters n = 20 " in shown
    assert re.search(
        r"planted-adaptive: vapt (has|does not have) less excess than vpt_deep (from|at) ", " ".join(shown.split())
    )
    assert "\ncount linear 0 " in shown
    for name in ("planted.png", "tasks.png", "rates.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    undrawn(monkeypatch)
    own = ("--rates", tmp_path / "run" / "rates.json", "--task", "count", "--workers", 1)
    call(monkeypatch, "--quick", *own, "--out", tmp_path / "again")
    first, second = (pd.read_parquet(tmp_path / name / "results.parquet") for name in ("run", "again"))
    columns = ["task", "method", "n", "replicate", "lr", "cross_entropy"]
    first = first[first["task"] == "stand-in:count"].reset_index(drop=True)
    pd.testing.assert_frame_equal(first[columns], second[columns])


@pytest.mark.usefixtures("drawn_nowhere")
def test_a_real_task_by_fractions(tmp_path, monkeypatch, capsys):
    make_fgvc_root(tmp_path / "data", "dogs")
    call(
        monkeypatch,
        "--task",
        "fgvc:dogs",
        "--data",
        tmp_path / "data",
        "--fraction",
        "0.5,1",
        "--size",
        32,
        "--methods",
        "linear",
        "--tune",
        "--lr",
        "0.5,1",
        "--steps",
        2,
        "--reps",
        2,
        "--workers",
        1,
        "--cache",
        "none",
        "--out",
        tmp_path / "run",
    )
    assert "\nfgvc:dogs linear 0 " in re.sub(" +", " ", capsys.readouterr().out)


@pytest.mark.usefixtures("drawn_nowhere")
@pytest.mark.parametrize("names", ["letters,azimuth,distance", "folder:paint,letters"], ids=["drawn", "mixed"])
def test_drawn_tasks_have_their_short_names_beside_folders(names, tmp_path, monkeypatch):
    """With --data, too; the images of all tasks of a run have one size."""
    from moe_prompts.commands import data_efficiency

    make_plain_folder(tmp_path / "data", "paint")
    options = ["--task", names, "--data", tmp_path / "data", "--backbone", "small", "--size", "32", "--n", "10"]
    options += ["--methods", "linear", "--tune", "--lr", "0.5,1", "--steps", "2", "--reps", "1", "--fresh-reps", "0"]
    options += ["--cache", "none", "--workers", "1", "--executor", "in-process", "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, options)])
    data_efficiency.main()
    table = pd.read_parquet(tmp_path / "run" / "results.parquet")
    expected = [name if ":" in name else f"stand-in:{name}" for name in names.split(",")]
    assert list(table["task"].unique()) == expected
    assert (table["status"] == TRAINED).all()


@pytest.mark.parametrize(("more", "size"), [((), 224), (("--size", "32"), 32)])
def test_a_drawn_task_beside_a_folder_has_images_of_the_same_size(more, size, tmp_path):
    from moe_prompts.commands import data_efficiency as command

    make_plain_folder(tmp_path, "paint")
    given = ["--task", "letters,folder:paint", "--data", str(tmp_path), *more]
    assert [one.size for one in command.specs(command.parser().parse_args([*given, "--seed", "3"]))] == [size, size]
    [alone] = command.specs(command.parser().parse_args(["--task", "letters", "--data", str(tmp_path), "--seed", "3"]))
    assert alone.size == 32


@pytest.mark.usefixtures("drawn_nowhere")
def test_another_optimiser_takes_the_steps_and_has_rates_of_its_own(tmp_path, monkeypatch):
    """Rows differ from those of SGD, the run says so, and its rates are refused for SGD."""
    from moe_prompts.commands import data_efficiency, predicted_excess

    def call(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        command.main()

    options = ("--task", "count", "--methods", "linear,vapt", "--n", "20", "--reps", "2", "--steps", "3")
    more = ("--fresh-reps", "0", "--workers", "1", "--executor", "in-process")
    losses = {}
    for name in ("sgd", "lamb"):
        tuned = ("--tune", "--lr", "0.05", "--optimiser", name, "--out", tmp_path / name)
        call(data_efficiency, *options, *more, *tuned)
        losses[name] = pd.read_parquet(tmp_path / name / "results.parquet")["cross_entropy"]
        assert ('"optimiser": "lamb"' in (tmp_path / name / "meta.json").read_text()) == (name == "lamb")
    assert (losses["sgd"] != losses["lamb"]).all()
    with pytest.raises(InputError, match="tuned for another case"):
        call(data_efficiency, *options, *more, "--rates", tmp_path / "lamb" / "rates.json", "--out", tmp_path / "no")
    with pytest.raises(InputError, match="trained with lamb; expected a run with SGD"):
        call(predicted_excess, "--run", tmp_path / "lamb", "--out", tmp_path / "neither")


@pytest.mark.usefixtures("drawn_nowhere")
def test_bfloat16_is_taken_where_it_is_multiplied_and_has_rates_of_its_own(tmp_path, monkeypatch):
    """Losses are those of float32 up to what 8 bits leave, the run says so, and another processor refuses."""
    from moe_prompts.commands import data_efficiency, predicted_excess

    def call(*arguments, command=data_efficiency):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        command.main()

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    options = ("--task", "count", "--methods", "linear,vapt", "--n", "20", "--reps", "2", "--steps", "3")
    more = ("--fresh-reps", "0", "--workers", "1", "--executor", "in-process")
    losses = {}
    for name in ("float32", "bfloat16"):
        call(*options, *more, "--tune", "--lr", "0.05", "--precision", name, "--out", tmp_path / name)
        losses[name] = pd.read_parquet(tmp_path / name / "results.parquet")["cross_entropy"]
        assert f'"precision": "{name}"' in (tmp_path / name / "meta.json").read_text()
    assert (losses["bfloat16"] != losses["float32"]).all()
    # bfloat16 keeps 8 bits, so a logit is off by about 2^-8 = .004 of itself, in each of three steps.
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.02)
    with pytest.raises(InputError, match="tuned for another case"):
        call(*options, *more, "--rates", tmp_path / "bfloat16" / "rates.json", "--out", tmp_path / "no")
    with pytest.raises(InputError, match=r'another study \(place.recipe.precision: "bfloat16" there, "float32" here\)'):
        call(*options, *more, "--tune", "--lr", "0.05", "--out", tmp_path / "bfloat16", "--resume")
    with pytest.raises(InputError, match=r"no parts of one study \(they differ in place.recipe.precision\)"):
        gather(tmp_path / "whole", [tmp_path / "bfloat16", tmp_path / "float32"])
    count = ("--quick", "--workers", "1", "--executor", "in-process", "--out")
    call("--run", tmp_path / "bfloat16", *count, tmp_path / "count", command=predicted_excess)
    counted = pd.read_parquet(tmp_path / "count" / "results.parquet")
    # A fit is made again as the run made it, so its loss is nearer to that of the run than to the one in float32.
    away = {name: np.abs(counted["cross_entropy"].to_numpy() - losses[name][::2]) for name in losses}
    assert (away["bfloat16"] < away["float32"]).all()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    with pytest.raises(InputError, match="trained in bfloat16, for which this processor has no instructions"):
        call("--run", tmp_path / "bfloat16", *count, tmp_path / "no", command=predicted_excess)
    with pytest.raises(InputError, match="this processor has no instructions for it"):
        call(*options, *more, "--tune", "--lr", "0.05", "--precision", "bfloat16", "--out", tmp_path / "no")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "planted-fixed", "--precision", "bfloat16"), "--precision is of methods on tasks; expected a task"),
        (("--task", "planted-fixed,counts"), "--task planted-fixed,counts; expected some of planted-fixed, planted-"),
        (("--task", "dtd"), "task dtd needs images: give their folder with --data"),
        (("--task", "letters,lettres", "--data", "."), "--task letters,lettres; expected some of planted-fixed, "),
        (
            ("--task", "dsprites_loc", "--data", ".", "--size", "32", "--tune"),
            "no folder dsprites_loc; expected <root>",
        ),
        (("--students", "vpt_deep,dora"), "student 'dora'; expected one of vpt_deep"),
        (("--methods", "dora"), "method 'dora'; expected one of linear"),
        (("--n", "5"), "--n 5; 5 is not a whole number of images from 10 to 16777216"),
        (("--task", "count", "--n", "100000000", "--estimate"), "not a whole number of images from 10 to 16777216"),
        (("--n", "50,100,50"), "--n 50,100,50; named twice: 50; expected each once"),
        (("--task", "count,stand-in:count"), "--task count,stand-in:count; named twice: stand-in:count"),
        (("--tune", "--lr", "0.1,0.2,0.1"), "--lr 0.1,0.2,0.1; named twice: 0.1"),
        (("--tune", "--lr", "0"), "--lr 0; expected positive numbers"),
        (("--tune", "--lr=0.1,-1"), "--lr 0.1,-1; expected positive numbers"),
        (("--tune", "--weight-decay", "0,0.0"), "--weight-decay 0,0.0; named twice: 0"),
        (("--task", "digits", "--n", "2000", "--tune"), "the 1000 of the pool"),
        (("--backbone", "none", "--tune"), "no backbone 'none'; expected "),
        (("--resume",), "--resume needs --out"),
        (("--tune", "--rates", "shipped"), "--tune with --rates"),
        (("--lr", "0.1"), "--lr 0.1 without --tune"),
        (("--tune-by", "accuracy"), "--tune-by accuracy without --tune"),
        (("--task", "count", "--optimiser", "lamb"), "tuned for another case (tasks {"),
        (("--task", "planted-fixed", "--optimiser", "adamw"), "tuned for another case (planted {"),
        (("--weight-decay", "0.1"), "--weight-decay 0.1 without --tune"),
        (("--task", "planted-fixed", "--tune", "--weight-decay", "0.1"), "--weight-decay is of methods on tasks"),
        (
            ("--task", "planted-fixed", "--tokens", "3"),
            "--tokens is of methods on tasks; expected a task beside",
        ),
        (("--task", "planted-fixed", "--data", "."), "--data is of methods on tasks; expected a task beside"),
        (
            ("--task", "planted-fixed", "--preset", "real"),
            "--preset real is of methods on tasks; expected a task beside",
        ),
        (("--task", "count", "--anywhere"), "--anywhere without --data"),
        (("--task", "count", "--cache", "images"), "--cache images without --data, whose images it keeps"),
        (
            ("--task", "count", "--fresh-steps", "3", "--fresh-reps", "0"),
            "--fresh-steps 3 with no start on fresh images; expected --fresh-reps of at least 1",
        ),
        (("--preset", "real-first", "--fresh-steps", "3"), "--fresh-steps 3 with no start on fresh images"),
        (("--task", "count", "--points", "3"), "--points 3 without a range; expected --n with one"),
        (("--task", "planted-fixed", "--last-blocks", "2"), "tuned for another case (planted {"),
        (("--task", "planted-fixed", "--methods", "vapt"), "--methods is of methods on tasks; expected a task beside"),
        (("--task", "count", "--students", "vapt"), "--students is of planted truths; expected planted-fixed or"),
        (("--preset", "real", "--teacher-tokens", "3"), "--teacher-tokens is of planted truths; expected"),
        (("--tune", "--weight-decay", "0.1,x"), "--weight-decay 0.1,x; expected numbers"),
        (("--tune", "--weight-decay", "inf"), "--weight-decay inf; expected numbers"),
        (("--tune", "--weight-decay", "nan"), "--weight-decay nan; expected numbers"),
        (("--tune", "--weight-decay=-1"), "--weight-decay -1; expected numbers of at least 0"),
        (("--tokens", "3"), "tuned for another case (tasks {"),
        (("--fraction", "0..1", "--task", "count"), "expected shares in (0, 1]"),
        (("--fraction", "0.5"), "--fraction 0.5 with planted-fixed; expected FGVC tasks alone"),
        (("--data", "nowhere"), "--data nowhere: no such folder"),
        (("--fraction", "0.5,0.5", "--task", "count", "--tune"), "--fraction 0.5,0.5; named twice: 0.5"),
        (("--device", "cuda"), "--device cuda; torch sees no GPU here"),
        (("--task", "count", "--last-blocks", "99"), "--last-blocks 99; expected at most 4, the blocks of small"),
        (
            ("--task", "count", "--last-blocks", "1", "--methods", "linear,vapt", "--tune", "--estimate"),
            "--last-blocks 1 with the method vapt, whose first block has fixed prompts; expected at least 2",
        ),
        (("--workers", "100000", "--estimate"), "workers = 100000; expected at most "),
        (("--reps", "10001"), "--reps 10001; expected at most 10000"),
        (("--fresh-steps", "300000", "--estimate"), "--fresh-steps 300000; expected at most 262144, as 64 images"),
        (
            ("--states", "/proc/x", "--estimate"),
            "--states /proc/x: No such file or directory; expected a folder you may",
        ),
        (("--device", "tpu", "--estimate"), "--device tpu; expected cpu, cuda or cuda:N"),
        (("--device", "cuda:", "--estimate"), "--device cuda:; expected cpu, cuda or cuda:N"),
    ],
)
def test_wrong_input_is_one_clear_error(monkeypatch, arguments, message):
    with pytest.raises(InputError) as raised:
        call(monkeypatch, *arguments)
    assert message in str(raised.value)


def test_an_estimate_needs_no_adaptive_prompts_and_leaves_no_folder(tmp_path, monkeypatch, capsys):
    """In one block alone no prompt can be adaptive; more workers than blocks take as long as a worker for each."""
    options = ("--task", "count", "--last-blocks", "1", "--methods", "linear,vpt_deep", "--tune", "--n", "20")
    more = ("--steps", "9000", "--fresh-reps", "0", "--states", tmp_path / "new" / "states", "--estimate")
    call(monkeypatch, *options, *more, "--workers", "100000", "--insist")
    shown = capsys.readouterr().out
    assert "with 2 processes" in shown
    assert float(re.search(r"about ([0-9.]+) minutes", shown)[1]) > 0
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("option", "given", "twice"),
    [
        ("--task", "count,count", "count"),
        ("--methods", "vapt,linear,vapt", "vapt"),
        ("--students", "vapt, vapt", "vapt"),
    ],
)
def test_a_name_is_given_once(monkeypatch, capsys, option, given, twice):
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, option, given, "--estimate")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"argument {option}: '{given}'; named twice: {twice}; expected each once" in said
    assert said.count("\n") == 1


def test_weight_decays_are_tried_with_every_rate():
    script = importlib.import_module("moe_prompts.commands.data_efficiency")

    def tried(*more: str) -> list[tuple[float, float]]:
        arguments = script.parser().parse_args(["--quick", "--task", "count", "--tune", "--lr", "0.5,1", *more])
        script.fill_in(arguments)
        (study,) = script.studies_of(arguments, script.setup_of(arguments))
        return [(setting.lr, setting.weight_decay) for setting in study.cells[0].settings]

    assert tried() == [(0.5, 1e-4), (1.0, 1e-4)]
    assert tried("--weight-decay", "0,0.01") == [(0.5, 0.0), (0.5, 0.01), (1.0, 0.0), (1.0, 0.01)]


def test_the_table_covers_every_pair_of_the_presets():
    """With it the default run tunes nothing."""
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    table = shipped_rates()
    for preset in ("small", "night"):
        for task in script.PRESETS[preset]["task"]:
            planted = task in script.PLANTED
            for method in sources.STUDENTS if planted else COMPARED:
                [setting] = table.of(
                    task if planted or task.startswith("stand-in:") else f"stand-in:{task}", method, 200
                )
                assert setting.lr > 0


def shipped_rates():
    from moe_prompts.vision.data_efficiency.rates import read_rates
    from moe_prompts.vision.training.tuned import SHIPPED

    return read_rates(SHIPPED, {})


def test_the_real_preset_asks_for_more_images_where_they_can_be_drawn():
    from moe_prompts.commands import data_efficiency as command

    def sizes(*more):
        arguments = command.parser().parse_args(["--preset", "real", *more])
        command.fill_in(arguments)
        return command.sizes_of(arguments, command.specs(arguments))

    by_task = sizes()
    assert len(by_task) == 7
    assert {max(own) for name, own in by_task.items() if name != "stand-in:digits"} == {3200}
    assert max(by_task["stand-in:digits"]) == 800
    assert {tuple(own) for own in sizes("--n", "60,90").values()} == {(60, 90)}


#: The real backbone is fetched by the user: a small one stands in for it.
REAL = ("--preset", "real", "--backbone", "small-random", "--size", "32", "--task", "count", "--last-blocks", "2")


def studies_of(*more):
    from moe_prompts.commands import data_efficiency as command

    arguments = command.parser().parse_args([*REAL, *more])
    command.fill_in(arguments)
    return command.studies_of(arguments, command.setup_of(arguments))


def test_the_real_preset_compares_lora_too(monkeypatch):
    """LoRA in the same blocks; without peft one line says what to install."""
    from moe_prompts.vision.training import methods

    study, _ = studies_of()
    assert {"lora", "bias", "vpt_matched", "vapt_constant", "vapt_shuffled"} < {cell.method for cell in study.cells}
    assert {cell.n for cell in study.cells} == {0, 50, 100, 200, 400, 800, 3200}
    assert {cell.by for cell in study.cells} == {"accuracy"}
    monkeypatch.setattr(methods, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="method lora needs the library peft"):
        studies_of()


@pytest.mark.parametrize(
    ("more", "sizes"),
    [((), [200, 800]), (("--n", "50,100"), [50, 100])],
    ids=["of the preset", "given"],
)
def test_the_real_preset_tunes_all_weights_by_adamw_at_its_own_sizes(more, sizes):
    """Full tuning has the papers' optimiser and rates; all other methods have SGD and the common grid."""
    from moe_prompts.engine.grid import joined

    others, full = studies_of(*more)
    assert "full" not in {cell.method for cell in others.cells}
    assert {cell.setup.recipe.optimiser for cell in others.cells} == {"sgd"}
    assert [cell.n for cell in full.cells] == sizes
    for cell in full.cells:
        assert (cell.method, cell.setup.recipe.optimiser) == ("full", "adamw")
        assert [setting.lr for setting in cell.settings] == [0.0001, 0.0005, 0.001, 0.005]
    both = joined("data-efficiency", [others, full])
    assert both.identity["place"] == others.identity["place"] != both.identity["full"]["place"]


def test_full_tuning_is_a_method_like_others_where_methods_are_named():
    [study] = studies_of("--methods", "linear,full", "--n", "20")
    assert {(cell.method, cell.setup.recipe.optimiser) for cell in study.cells} == {("linear", "sgd"), ("full", "sgd")}


def test_a_table_of_rates_serves_the_preset_without_full_tuning(tmp_path):
    """Rates of full tuning are of another optimiser and stand in no table; so do not ask a table for them."""
    study, _ = studies_of()
    names = sorted({cell.method for cell in study.cells})
    setup = study.cells[0].setup.identity()
    keys = ("backbone", "weights", "sizes", "size", "standardised", "head")
    rates = [{"task": "stand-in:count", "method": name, "n": 200, "lr": 0.25, "weight_decay": 1e-4} for name in names]
    table = {"case": {"tasks": {key: setup[key] for key in keys if key in setup}}, "rates": rates}
    (tmp_path / "rates.json").write_text(json.dumps(table), encoding="utf-8")
    [again] = studies_of("--rates", str(tmp_path / "rates.json"))
    assert {cell.method for cell in again.cells} == set(names)
    assert {len(cell.settings) for cell in again.cells} == {1}


def test_an_estimate_trains_nothing(tmp_path, monkeypatch, capsys):
    from moe_prompts.commands import data_efficiency as command

    options = [*REAL, "--methods", "linear", "--n", "20", "--reps", "1", "--steps", "2", "--estimate"]
    monkeypatch.setattr(sys, "argv", ["data_efficiency.py", *options, "--out", str(tmp_path / "run")])
    command.main()
    assert re.fullmatch(r"about [\d.]+ (minutes|hours) of training with \d+ processes, .*\n", capsys.readouterr().out)
    assert not (tmp_path / "run").exists()


def test_the_estimate_of_a_part_is_that_of_its_blocks(monkeypatch, capsys):
    """A step takes a minute here. Three parts are the whole; the fourth of four parts of three blocks has none."""
    monkeypatch.setattr(runs, "seconds_per_step", lambda setup: 60.0)
    options = ("--task", "count", "--methods", "linear", "--tune", "--lr", "0.5", "--n", "20,40,80", "--reps", "1")
    more = ("--steps", "7", "--fresh-reps", "0", "--workers", "1", "--estimate")

    def minutes(*part):
        call(monkeypatch, *options, *more, *part)
        return float(re.match(r"about ([0-9.]+) minutes of training with 1 processes", capsys.readouterr().out)[1])

    whole, parts = minutes(), [minutes("--shard", f"{number}/3") for number in (1, 2, 3)]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(whole, abs=0.2)  # shown in tenths of a minute
    assert minutes("--shard", "4/4") == 0


def test_the_printed_command_of_a_real_task_has_images_that_its_backbone_takes(tmp_path, monkeypatch):
    """The papers' backbone is a large one from the hub: a small one of the size that is asked for stands in."""
    from timm.models.vision_transformer import VisionTransformer

    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    [printed] = [line for line in script.__doc__.splitlines() if "--task fgvc:dogs" in line]
    words = printed.split()[2:]
    words[words.index("--data") + 1] = str(tmp_path)
    words[words.index("--device") + 1] = "cpu"
    words[words.index("--fraction") + 1] = "0.1..1"  # a hundredth of the real 12000 images has all 120 classes
    make_fgvc_root(tmp_path, "dogs", per_class=(10, 2, 1))
    asked = []

    def stand_in(name, file=None, size=None):
        asked.append(name)
        return VisionTransformer(img_size=size, patch_size=56, embed_dim=8, depth=3, num_heads=2, num_classes=0)

    runs._backbone.cache_clear()
    monkeypatch.setattr(runs, "create_backbone", stand_in)
    arguments = script.parser().parse_args([*words, "--cache", "none", "--methods", "linear", "--fresh-reps", "0"])
    script.fill_in(arguments)
    [made] = script.studies_of(arguments, script.setup_of(arguments))
    runs._backbone.cache_clear()
    assert set(asked) == {"vit_base_patch16_224.orig_in21k"}
    assert {cell.setup.size for cell in made.cells} == {224}


def test_each_kind_of_cell_is_timed_with_its_own_setup(monkeypatch):
    """Planted cells stand on another backbone than tasks."""
    from moe_prompts.engine.grid import joined

    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    monkeypatch.setattr(runs, "seconds_per_step", lambda setup: {"small": 1.0, "small-gain": 100.0}[setup.backbone])
    arguments = script.parser().parse_args(["--quick", "--task", "planted-fixed,count"])
    script.fill_in(arguments)
    planted, tasks = studies = script.studies_of(arguments, script.setup_of(arguments))
    costs = [sum(block.cost for block in made.blocks) for made in (planted, tasks)]
    expected = (100 * costs[0] + costs[1]) / 60
    made = joined("both", studies)
    assert script.expected_minutes(made.blocks, made.replicates, 1) == pytest.approx(expected)


def test_steps_are_timed_on_images_of_the_backbones_size(monkeypatch):
    """A backbone that takes images of one size, which is not the usual one."""
    from timm.models.vision_transformer import VisionTransformer

    def made(name, file=None, size=None):
        return VisionTransformer(img_size=48, patch_size=16, embed_dim=8, depth=3, num_heads=2, num_classes=0)

    runs._backbone.cache_clear()
    monkeypatch.setattr(runs, "create_backbone", made)
    assert runs.seconds_per_step(Setup("another", None, 1, Sizes(2, 4, 2), Recipe(steps=1, batch=2))) > 0
    runs._backbone.cache_clear()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"pack": 0}, "Setup: pack = 0; expected a whole number of at least 1"),
        ({"memory": -1}, "Setup: memory = -1; expected a whole number of at least 0"),
        ({"size": 0}, "Setup: size = 0; expected a whole number of at least 1"),
        ({"device": "tpu"}, "Setup: device = 'tpu'; expected cpu, cuda, or one GPU as cuda:0"),
    ],
)
def test_a_wrong_setup_is_one_clear_line(wrong, said):
    with pytest.raises(InputError) as raised:
        Setup(**wrong)
    assert str(raised.value) == said
    assert Setup(device="cuda:1").device == "cuda:1"
