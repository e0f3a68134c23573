"""What commands print: help in groups with examples, findings, a table and a legend, and no line over 80 columns."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from committed import DATA, committed, report, report_of_replication

from moe_prompts import cli
from moe_prompts.commands import console
from moe_prompts.shown import COLUMNS, Ending, fitted

ROOT = Path(__file__).parents[1]

#: Commands with parts of their own.
PARTS = {
    "vtab": ("run", "report", "check", "fetch-help"),
    "tasks": ("sheet", "probe", "emoji"),
    "backbone": ("fetch", "probe"),
    "pretrain": ("train", "check"),
}
HELPS = [(name,) for name in console.COMMANDS] + [(name, part) for name, parts in PARTS.items() for part in parts]


def too_wide(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) > COLUMNS]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_has_groups_and_examples_in_80_columns(words, monkeypatch, capsys):
    """Also in a wide terminal, and as a script."""
    monkeypatch.setenv("COLUMNS", "200")
    for argv0 in (f"moe-prompts {words[0]}", f"{console.COMMANDS[words[0]]}.py"):
        monkeypatch.setattr(sys, "argv", [argv0, *words[1:], "--help"])
        module = import_module(f"moe_prompts.commands.{console.COMMANDS[words[0]]}")
        with pytest.raises(SystemExit) as ended:
            module.main()
        shown = capsys.readouterr().out
        assert ended.value.code == 0
        assert not too_wide(shown)
        assert "shows the way" not in shown
        assert not re.search(r"\w-\n", shown), "a word is broken at its hyphen"
        own = " ".join([argv0 if " " in argv0 else f"python experiments/{argv0}", *words[1:]])
        assert f"\n  {own}" in shown.partition("\nexamples:")[2]


@pytest.mark.parametrize("name", ["sample-efficiency", "data-efficiency", "planted-head"])
def test_long_help_is_in_groups(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"moe-prompts {name}", "--help"])
    with pytest.raises(SystemExit):
        import_module(f"moe_prompts.commands.{console.COMMANDS[name]}").main()
    shown = capsys.readouterr().out
    titles = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert {"who computes:", "which run, and where it is kept:"} <= set(titles)
    assert len(titles) >= 6


def of_study(name: str) -> Ending:
    from moe_prompts.study.report import ending_of

    return ending_of(committed(name)[0], report(name)[1])


def of_replication(name: str) -> Ending:
    from moe_prompts.study.replication_report import replication_ending

    return replication_ending(report_of_replication(name)[1])


def of_head(name: str) -> Ending:
    from moe_prompts.vision.planted_head.report import ending_of

    return ending_of(committed(name)[0], pd.read_parquet(DATA / name / "noise_free.parquet"), 0)


def of_curves(name: str) -> Ending:
    from moe_prompts.vision.data_efficiency.report import ending_of

    return ending_of(committed(name)[0], 0)


def of_excess(name: str) -> Ending:
    from moe_prompts.vision.data_efficiency import link

    curves = pd.concat([committed(part)[0] for part in ("pretrained_count", "pretrained_dsprites_loc")])
    table = link.excess_table(committed(name)[0], curves)
    return link.ending_of(table, [link.excess_verdict(table), link.floor_verdict(curves)])


@pytest.mark.parametrize(
    ("ending", "name", "said"),
    [
        (of_study, "sample_efficiency", "adaptive prompts win"),
        (of_replication, "replicate_gmoe", "One step has slopes"),
        (of_head, "planted_head", "4 holds"),
        (of_curves, "planted_vit", "planted-adaptive"),
        (of_curves, "pretrained_count", "V-gain"),
        (of_excess, "predicted_excess", "V-excess"),
    ],
)
def test_endings_of_committed_runs_have_findings_a_table_and_a_legend(ending, name, said):
    found = ending(name)
    assert not too_wide(str(found))
    assert said in " ".join(found.findings)
    assert found.body
    assert all(len(row) == len(found.header) for row in found.body)
    assert found.legend
    assert all(cell in " ".join(str(found).split()) for row in found.body for cell in row[:2])


def of_floors() -> Ending:
    """The rows that claims read: every truth, kind, k and box of the page."""
    from moe_prompts.commands.floors import ending_of

    return ending_of(pd.read_json(ROOT / "moe_prompts/claims/floors.json", orient="records", precise_float=True))


def of_identifiability() -> Ending:
    """The committed profiles and gaps; a truth with the longest name that the command takes."""
    from moe_prompts.commands.identifiability import ending_of
    from moe_prompts.study.attention_report import identifiability

    rows = committed("sample_efficiency")[0]
    lines = identifiability(rows[rows["truth"].str.startswith("attention-")])
    longest = lines.iloc[:1].assign(truth="attention-random-123456-decoupled-heads2")
    return ending_of(pd.concat([lines, longest], ignore_index=True))


def of_starts() -> Ending:
    from moe_prompts.vision.data_efficiency.screening import ending_of

    return ending_of(committed("starts")[0])


def of_probe() -> Ending:
    """Made rows: the longest name of a task, and a folder's."""
    from moe_prompts.commands.tasks import ending_of
    from moe_prompts.vision.tasks.named import task_names

    names = [max(task_names("all"), key=len), "folder:photographs-of-a-long-summer"]
    numbers = {"classes": 102, "chance": 1 / 102, "pixels": [0.25, 0.5], "linear probe": [0.75, 0.375]}
    return ending_of(
        pd.DataFrame({"task": names} | numbers | {"training images": 100_000, "test images": 25_000}),
        "vit_base_patch16_224.orig_in21k",
    )


def of_trainings() -> Ending:
    """Made accuracies of every method on every task of VTAB and FGVC, with seeds that diverged and rates at an end."""
    from moe_prompts.vision.comparison.report import ending_of
    from moe_prompts.vision.figures import MARKS
    from moe_prompts.vision.tasks import fgvc, vtab
    from moe_prompts.vision.tasks.named import FGVC

    rng = np.random.default_rng(0)
    keys = [
        (task, method, seed)
        for task in [*vtab.TASKS, *(FGVC + name for name in fgvc.TASKS)]
        for method in MARKS
        for seed in (42, 44, 82)
    ]
    final = pd.DataFrame(keys, columns=["task", "method", "seed"])
    final["accuracy"] = np.where(rng.random(len(final)) < 0.05, np.nan, rng.random(len(final)))
    for name in ("cross_entropy", "lr", "weight_decay", "parameters"):
        final[name] = 1.0
    setup = "Backbone vit_base_patch16_224.orig_in21k, N by task, 100 epochs of 64 images, schedule cosine"
    return ending_of(final.assign(group="natural"), setup, ["rates of vapt_orthogonal at an end of the grid " * 4])


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (of_floors, "prompts come down to"),
        (of_identifiability, "random-123456-decoupled-heads2"),
        (of_starts, "less excess than official"),
        (of_probe, "beats pixels on 1 of 2 tasks, and not on folder:photographs"),
        (of_trainings, "is above vpt_deep on"),
    ],
)
def test_endings_of_other_commands_lose_no_cell_in_80_columns(ending, said):
    if ending in (of_starts, of_probe, of_trainings):
        pytest.importorskip("timm", reason="needs the extra vision")
    found = ending()
    shown = " ".join(str(found).split())
    assert not too_wide(str(found))
    assert said in " ".join(found.findings)
    assert found.body
    assert found.legend
    assert all(str(cell) in shown for row in found.body for cell in row[: found.keys])


@pytest.mark.parametrize(
    "arguments",
    [
        *(["rates", "--model", "fixed"], ["power"], ["claims", "--list"]),
        pytest.param(["rates"], marks=pytest.mark.slow),  # derives every table
    ],
)
def test_quick_commands_keep_to_80_columns(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["moe-prompts", *arguments])
    console.main()
    assert not too_wide(capsys.readouterr().out)


#: Refused, with lines that are longer than a terminal.
REFUSED = [
    ["sample-efficency"],
    ["sample-efficiency", "--reps", "0"],
    ["sample-efficiency", "--n", "1e6..1e3"],
    ["sample-efficiency", "--workers", "-1"],
    ["replicate", "--paper", "x"],
    ["power", "--nonsense"],
    ["vtab", "run", "--preset", "nonsense"],
    ["vtab", "nonsense"],
    ["data-efficiency", "--task", "x"],
    ["data-efficiency", "--task", ""],
    ["data-efficiency", "--methods", ","],
    ["search", "--starts", ""],
    ["data-efficiency", "--backbone", "x"],
    ["starts", "--backbone", "x"],
    ["tasks", "nonsense"],
    ["backbone", "fetch", "nonsense"],
    ["pretrain", "check", "/nowhere"],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_what_is_refused_fits_a_terminal_and_is_one_line_elsewhere(arguments, monkeypatch, capsys):
    told = []
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal, raising=False)
        monkeypatch.setattr(sys, "argv", ["moe-prompts", *arguments])  # the command renames itself in it
        with pytest.raises(SystemExit) as ended:
            console.main()
        assert ended.value.code == cli.BAD_INPUT
        told.append(capsys.readouterr().err)
    assert not too_wide(told[0])
    assert told[1].count("\n") == 1
    assert told[0].split() == told[1].split()  # not a word is lost


def test_an_unknown_backbone_is_refused_before_anything_is_trained(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("starts", "data-efficiency"):
        monkeypatch.setattr(sys, "argv", ["moe-prompts", name, "--backbone", "x"])
        with pytest.raises(SystemExit):
            console.main()
        assert "no backbone 'x'; expected " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_names_its_files_after_the_table(tmp_path, capsys):
    ending = Ending(["It holds."], ["n", "risk"], [["100", "0.1"]], "risk: of f")
    drawn = [tmp_path / "one.pdf", tmp_path / "one.png"]
    cli.finish(tmp_path, "all tables", ending, {"summary.json": "[]"}, lambda: drawn, 3)
    shown = capsys.readouterr().out
    assert shown.startswith("It holds.\n\nn    risk\n---------\n100  0.1\n\nrisk: of f\n\nfiles in ")
    assert all(name in shown for name in ("summary.md", "summary.json", "results.parquet", "one.pdf", "one.png"))
    assert (tmp_path / "summary.md").read_text() == "all tables\n"


def test_a_wide_table_loses_no_cell():
    header = ["task", *(f"accuracy at n = {n}" for n in range(12))]
    body = [["dsprites", *(f"{n}{n}.5 +- 0.123456" for n in range(12))], ["count", *map(str, range(12))]]
    shown = fitted(header, body)
    assert not too_wide(shown)
    assert all(cell in shown for row in body for cell in row)
    assert shown.count("dsprites") == shown.count("\n\n") + 1
