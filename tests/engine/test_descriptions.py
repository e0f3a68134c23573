"""meta.json of a run with one entry gone or of another kind: every reader takes it or refuses it in one line."""

import json
import math
import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from fault_cases import toys

from moe_prompts import InputError, run_study
from moe_prompts.engine import store
from moe_prompts.engine.grid import Part
from moe_prompts.engine.runner import run_part

ROOT = Path(__file__).parents[2]
#: What an entry becomes: gone, or of another kind.
GONE = object()


def deep(depth=300):
    value = []
    for _ in range(depth):
        value = [value]
    return value


OTHERS = (GONE, None, True, -1, math.nan, "x\ny", [], {"a": 1}, deep())


def paths(value, path=()):
    """Yield where the entries of a description are."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def damaged(meta, kinds):
    """Yield the description with each of its entries gone or of another kind; ``kinds`` for each, in turn."""
    for number, path in enumerate(paths(meta)):
        for other in (OTHERS * 2)[number % len(OTHERS) :][:kinds]:
            content = json.loads(json.dumps(meta))
            at = content
            for key in path[:-1]:
                at = at[key]
            if other is GONE:
                del at[path[-1]]
            elif type(other) is type(at[path[-1]]) and not isinstance(other, float):
                continue
            else:
                at[path[-1]] = other
            yield path, other, content


def refusals(meta, file, read, kinds):
    """Read every damaged description; return what was refused, as path and message."""
    refused = []
    for path, other, content in damaged(meta, kinds):
        file.write_text(json.dumps(content))
        said = None
        try:
            read()
        except InputError as error:
            said = str(error)
        except Exception as error:
            raise AssertionError(f"{path} = {other!r:.60}: {type(error).__name__}: {error}") from error
        if said is not None:
            assert len(said.splitlines()) == 1, (path, other, said)
            assert len(said) < 2000
            refused.append(path)
    file.write_text(json.dumps(meta))
    read()  # the whole one
    return refused


@pytest.fixture(params=[1, pytest.param(len(OTHERS), marks=pytest.mark.slow)])
def kinds(request):
    """Return how many other kinds each entry becomes."""
    return request.param


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(store, "_git_commit", lambda: None)  # most of the time


def test_resume_refuses_a_damaged_description_or_ends_with_the_same_table(quick, kinds, tmp_path):
    study, run = toys(""), tmp_path / "run"
    run_study(study, run, progress=False)
    whole, meta = (run / "results.parquet").read_bytes(), json.loads((run / "meta.json").read_text())

    def resume():
        run_study(study, run, resume=True, progress=False)
        assert (run / "results.parquet").read_bytes() == whole
        assert json.loads((run / "meta.json").read_text())["sha256"] == meta["sha256"]

    refused = refusals(meta, run / "meta.json", resume, kinds)
    assert {path[0] for path in refused} >= {"identity", "layout", "replicates", "cells", "commands", "sha256"}


def test_gather_refuses_a_damaged_description_of_a_part(quick, kinds, tmp_path):
    parts = [tmp_path / "1", tmp_path / "2"]
    for number, part in enumerate(parts, start=1):
        run_part(toys("", ""), part, Part(number, 2), progress=False)
    meta, count = json.loads((parts[1] / "meta.json").read_text()), iter(range(10**6))
    refused = refusals(
        meta, parts[1] / "meta.json", lambda: store.gather(tmp_path / "whole" / str(next(count)), parts), kinds
    )
    assert {path[0] for path in refused} >= {"identity", "layout", "replicates", "cells", "commands"}


def finished(run, identity, table):
    """A folder as a run leaves it."""
    run.mkdir(parents=True)
    table.to_parquet(run / "results.parquet", write_page_checksum=True)
    meta = {"identity": identity, "layout": store.LAYOUT}
    meta["sha256"] = {"results.parquet": store.sha256_of(run / "results.parquet")}
    (run / "meta.json").write_text(json.dumps(meta))
    return meta


def test_the_report_of_a_comparison_refuses_a_damaged_description(kinds, tmp_path):
    pytest.importorskip("torch", reason="needs the extra vision")
    from moe_prompts.commands import vtab
    from moe_prompts.vision.training.runs import Setup

    tasks = {"count": {"image_format": "png", "n": 5}, "x": {"format": "jpeg"}}
    identity = {"place": Setup().identity(), "entropy": 3, "tasks": tasks}
    meta = finished(tmp_path / "run" / "final", identity, pd.DataFrame({"n": [1]}))

    def read():
        vtab.results(tmp_path / "run")
        assert vtab.setup_line([tmp_path / "run"]).startswith("Backbone small, N = 10, 100 epochs of 64 images")

    refused = refusals(
        meta, tmp_path / "run" / "final" / "meta.json", lambda: vtab.setup_line([tmp_path / "run"]), max(kinds, 3)
    )
    read()
    recipe = ("identity", "place", "recipe")
    wanted = [("identity",), ("identity", "place"), recipe, (*recipe, "batch"), (*recipe, "schedule")]
    assert [path for path in [*wanted, ("identity", "tasks", "x")] if path not in refused] == []


def test_predictions_of_excess_refuse_a_damaged_description(kinds, monkeypatch, tmp_path):
    pytest.importorskip("torch", reason="needs the extra vision")
    from moe_prompts.commands import predicted_excess
    from moe_prompts.vision.training.runs import Setup

    run = tmp_path / "run"
    identity = {"place": Setup().identity() | {"fresh_steps": 3}, "entropy": 3}
    row = {"task": "stand-in:count", "method": "vapt", "n": 50, "replicate": 0, "lr": 0.05, "weight_decay": 1e-4}
    meta = finished(run, identity, pd.DataFrame([row]))
    given = ["predicted_excess.py", "--run", str(run), "--task", "another"]
    monkeypatch.setattr(sys, "argv", given)

    def read():
        with pytest.raises(InputError) as told:
            predicted_excess.main()
        if "--task stand-in:another; expected drawn tasks of the run" not in str(told.value):
            raise told.value

    refused = refusals(meta, run / "meta.json", read, max(kinds, 3))
    assert {path[:3] for path in refused} >= {("identity", "place", "recipe"), ("identity", "place", "sizes")}


def test_figures_refuse_a_damaged_description(kinds, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "paper_figures")
    import runs

    run = tmp_path / "run"
    meta = finished(run, {"entropy": 3}, pd.DataFrame({"study": ["gaussian"], "n": [1]}))
    refused = refusals(meta, run / "meta.json", lambda: runs.read(run, "gaussian"), kinds)
    assert set(refused) >= {("identity",), ("identity", "entropy"), ("sha256",), ("sha256", "results.parquet")}


@pytest.mark.parametrize("name", ["meta.json", "results.parquet"])
def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_one_line(name, tmp_path):
    """A pipe would be waited for without an end."""
    for number, make in enumerate((os.mkfifo, os.mkdir)):
        run = tmp_path / str(number)
        finished(run, {"entropy": 3}, pd.DataFrame({"n": [1]}))
        (run / name).unlink()
        make(run / name)
        with pytest.raises(InputError, match=name) as told:
            store.read_table(run)
        assert "\n" not in str(told.value)


def test_a_description_larger_than_any_of_ours_is_not_read(tmp_path):
    finished(tmp_path / "run", {"entropy": 3}, pd.DataFrame({"n": [1]}))
    os.truncate(tmp_path / "run" / "meta.json", 2**30)  # a hole, which takes no disk
    with pytest.raises(InputError, match=r"meta\.json was not written by a study"):
        store.read_table(tmp_path / "run")


def test_a_run_of_an_earlier_layout_is_not_advised_to_resume(tmp_path):
    """Nor one whose description names no layout: both would be refused."""
    run = tmp_path / "run"
    meta = finished(run, {"entropy": 3}, pd.DataFrame({"n": [1]}))
    for layout, advice in ((store.LAYOUT, "with --resume"), ("blocks", "another --out"), (None, "another --out")):
        (run / "meta.json").write_text(json.dumps(meta | {"layout": layout, "sha256": {}}))
        with pytest.raises(InputError, match=rf"has no sha256 of results\.parquet; .*{advice}"):
            store.read_table(run)
