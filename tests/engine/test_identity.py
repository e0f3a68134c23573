"""No row of another study, seed, version or code stands in a table: nothing is wrong without a word."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from fault_cases import toys

from moe_prompts import InputError, run_study
from moe_prompts.engine import code, shards, store
from moe_prompts.engine.grid import Part, Study
from moe_prompts.engine.runner import run_part
from moe_prompts.engine.store import RunFolder, gather, read_table

HERE = Path(__file__).parent


def study(entropy=1, cells=2, **changes):
    return replace(toys(*[""] * cells), entropy=entropy, **changes)


def values(entropy, cells=2):
    return [(r + entropy) / 3 for r in range(10)] * cells


@pytest.fixture
def other(tmp_path):
    """A finished run of another seed."""
    run_study(study(7), tmp_path / "other", progress=False)
    return tmp_path / "other"


# Blocks --------------------------------------------------------------------------------------------------------------


def test_a_block_of_another_seed_is_not_counted(other, tmp_path, capsys):
    """As a worker that outlives its run leaves it, and as a user copies it over the right one."""
    run = tmp_path / "run"
    run_study(study(), run, progress=False)
    late = sorted((other / "blocks").glob("*.arrow"))
    own = sorted((run / "blocks").glob("*.arrow"))
    shutil.copy(late[0], run / "blocks" / late[0].name)
    shutil.copy(late[1], own[1])
    rows = run_study(study(), run, resume=True, progress=False)
    assert rows["value"].tolist() == values(1)
    assert capsys.readouterr().err.count(".foreign: of another study and set aside; its blocks are run again\n") == 2
    assert len(list((run / "blocks").glob("*.foreign"))) == 2
    assert run_study(study(), run, resume=True, progress=False)["value"].tolist() == values(1)
    assert capsys.readouterr().err == ""


def test_a_block_of_another_seed_that_is_written_while_a_run_works_takes_no_place(other, tmp_path):
    late = sorted((other / "blocks").glob("*.arrow"))

    class Beside:
        """An executor under which the late writer ends after every block."""

        def map(self, run_block, blocks):
            for block in blocks:
                yield run_block(block)
                for path in late:
                    shutil.copy(path, tmp_path / "run" / "blocks")

    rows = run_study(study(), tmp_path / "run", executor=Beside(), progress=False)
    assert rows["value"].tolist() == values(1)


@pytest.mark.parametrize("lost", ["blocks", "segments"])
def test_blocks_without_meta_json_are_refused_or_cleared(lost, other, tmp_path, monkeypatch):
    if lost == "segments":
        monkeypatch.setattr("moe_prompts.engine.runner.SEGMENT", 2)
        run_study(study(8), tmp_path / "segments", progress=False)
        other = tmp_path / "segments"
        assert list(other.glob("segments/*.arrow"))
    (other / "meta.json").unlink()
    run_study(study(), tmp_path / "part", progress=False)
    for begin in (
        lambda **allow: run_study(study(), other, progress=False, **allow),
        lambda **allow: gather(other, [tmp_path / "part"], **allow),
    ):
        with pytest.raises(
            InputError, match=r"finished blocks but no meta\.json .* choose another --out, or .* --clear"
        ):
            begin()
    assert run_study(study(), other, progress=False, allow=["clear"])["value"].tolist() == values(1)


def test_a_killed_gather_leaves_nothing_that_counts(other, tmp_path, monkeypatch):
    """A kill after the segments, before meta.json."""
    monkeypatch.setattr(store, "write_atomically", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        gather(tmp_path / "whole", [other])
    monkeypatch.undo()
    assert list((tmp_path / "whole" / "segments").glob("*.arrow"))
    run_study(study(), tmp_path / "part", progress=False)
    with pytest.raises(InputError, match="--clear"):
        gather(tmp_path / "whole", [tmp_path / "part"])
    assert gather(tmp_path / "whole", [tmp_path / "part"], allow=["clear"]) == 4
    assert run_study(study(), tmp_path / "whole", resume=True, progress=False)["value"].tolist() == values(1)


def test_gather_refuses_parts_of_other_grids_and_leaves_parts_as_they_are(tmp_path, capsys):
    run_study(study(), tmp_path / "one", progress=False)
    run_study(study(cells=3), tmp_path / "more", progress=False)
    run_study(study(replicates=12), tmp_path / "longer", progress=False)
    for name, what in {"more": "cells", "longer": "replicates"}.items():
        with pytest.raises(InputError, match=f"no parts of one study .they differ in {what}"):
            gather(tmp_path / "out", [tmp_path / "one", tmp_path / name])
    path = sorted((tmp_path / "one" / "blocks").glob("*.arrow"))[0]
    path.write_bytes(path.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in (tmp_path / "one").rglob("*.arrow")}
    assert gather(tmp_path / "out", [tmp_path / "one"]) == 3
    assert f"{path}: damaged or of another study; its blocks are missing" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "one").rglob("*.arrow")} == before


# Weights -------------------------------------------------------------------------------------------------------------


def forget_weights(run):
    """Leave a folder as an earlier version would have: without the hashes of what was loaded."""
    meta = json.loads((run / "meta.json").read_text())
    for entry in (meta["identity"], *meta["commands"]):
        del entry["loaded weights"]
    (run / "meta.json").write_text(json.dumps(meta))


def weights_of(run):
    meta = json.loads((run / "meta.json").read_text())
    return meta["identity"].get("loaded weights"), [one.get("loaded weights") for one in meta["commands"]]


def test_a_run_is_not_completed_with_other_weights_of_the_same_name(tmp_path):
    own, others = {"vit": "0a", "small": "1b"}, {"vit": "0a", "small": "2c"}
    run_study(study(weights=own), tmp_path, progress=False)
    with pytest.raises(InputError, match=r'another study \(loaded weights\.small: "1b" there, "2c" here\)'):
        run_study(study(weights=others), tmp_path, resume=True, progress=False)
    with pytest.raises(InputError, match=r"loaded weights: .* there, nothing here"):
        run_study(study(), tmp_path, resume=True, progress=False)
    assert run_study(study(weights=own), tmp_path, resume=True, progress=False)["value"].tolist() == values(1)
    assert weights_of(tmp_path) == (own, [own, own])


def test_a_run_of_an_earlier_version_is_completed_and_has_its_weights_from_then_on(tmp_path):
    """Its entry for every command tells which of them knew the weights."""
    own = {"vit": "0a"}
    run_study(study(weights=own), tmp_path, progress=False)
    forget_weights(tmp_path)
    path = sorted((tmp_path / "blocks").glob("*.arrow"))[0]
    path.unlink()
    assert run_study(study(weights=own), tmp_path, resume=True, progress=False)["value"].tolist() == values(1)
    assert weights_of(tmp_path) == (own, [None, own])
    with pytest.raises(InputError, match=r'loaded weights\.vit: "0a" there, "2c" here'):
        run_study(study(weights={"vit": "2c"}), tmp_path, resume=True, progress=False)


def test_parts_with_other_weights_are_not_gathered(tmp_path):
    """One of an earlier version goes with any, and the whole has the weights of a part that knows them."""
    own, others = {"vit": "0a"}, {"vit": "2c"}
    for name, weights in {"old": own, "new": own, "other": others}.items():
        run_study(study(weights=weights), tmp_path / name, progress=False)
    forget_weights(tmp_path / "old")
    for number, names in enumerate([("new", "other"), ("old", "new", "other"), ("other", "old", "new")]):
        with pytest.raises(InputError, match=r"no parts of one study \(they differ in loaded weights\.vit\)"):
            gather(tmp_path / f"out{number}", [tmp_path / name for name in names])
    for number, names in enumerate([("old", "new"), ("new", "old")]):
        assert gather(tmp_path / f"whole{number}", [tmp_path / name for name in names]) == 4
        assert weights_of(tmp_path / f"whole{number}")[0] == own
    assert gather(tmp_path / "whole", [tmp_path / "old"]) == 4
    assert weights_of(tmp_path / "whole") == (None, [None])
    rows = run_study(study(weights=own), tmp_path / "whole", resume=True, progress=False)
    assert rows["value"].tolist() == values(1)


COMMITTED = sorted(
    path.parent
    for path in HERE.parents[1].glob("paper_figures/data/*/meta.json")
    if json.loads(path.read_text(encoding="utf-8")).get("layout") == store.LAYOUT
)


@pytest.mark.parametrize("run", COMMITTED, ids=[run.name for run in COMMITTED])
def test_committed_runs_are_gathered_and_resumed(run, tmp_path, monkeypatch):
    """Older ones do not know their weights, and go with any; their packages and code are those of their day."""
    meta = json.loads((run / "meta.json").read_text(encoding="utf-8"))
    for part in ("1", "2"):  # copies, as a gather leaves a lock beside what it reads
        (tmp_path / part).mkdir()
        shutil.copy(run / "meta.json", tmp_path / part)
    assert gather(tmp_path / "whole", [tmp_path / "1", tmp_path / "2"]) == 0
    identity = {key: value for key, value in meta["identity"].items() if key not in ("study", "entropy", "code")}
    known = identity.pop("loaded weights", None)
    monkeypatch.setattr(store, "versions", lambda: identity["versions"])
    cells = [SimpleNamespace(label=label, cost=1.0, data_size=1) for label in meta["cells"]]
    again = Study(meta["identity"]["study"], cells, 1, meta["identity"]["entropy"], print, identity)
    own = replace(again, weights=known or {"vit": "0a"})
    for made in (own, own) if known else (again, own, own):
        with RunFolder(tmp_path / "whole").opened(made, resume=True, allow=["code change"]) as (_, finished):
            assert not finished
    name, others = next(iter(own.weights)), replace(again, weights=dict.fromkeys(own.weights, "2c"))
    said = rf'loaded weights\.{re.escape(name)}: "{own.weights[name][:2]}.* there, "2c" here'
    with (
        pytest.raises(InputError, match=said),
        RunFolder(tmp_path / "whole").opened(others, resume=True, allow=["code change"]),
    ):
        pass


def test_gather_says_what_is_wrong_with_a_part(tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in {
        "nowhere": "is no folder; expected the folders of parts",
        "empty": "has no meta.json",
    }.items():
        with pytest.raises(InputError, match=message):
            gather(tmp_path / "out", [tmp_path / name])
    assert not (tmp_path / "out").exists()


def test_gather_holds_one_file_at_a_time(tmp_path, monkeypatch):
    """Segments are copied as they are; none is unpacked, whatever their number."""
    monkeypatch.setattr("moe_prompts.engine.runner.SEGMENT", 2)
    run_study(study(cells=4), tmp_path / "part", progress=False)
    monkeypatch.setattr(store, "piece_of", lambda found: pytest.fail("a segment was unpacked"))
    assert gather(tmp_path / "whole", [tmp_path / "part"]) == 8
    names = [sorted(path.name for path in (tmp_path / one / "segments").iterdir()) for one in ("part", "whole")]
    assert names[0] == names[1]


def test_gather_takes_no_more_memory_for_more_segments(tmp_path):
    """A part of 48 MB: the peak stays below a third of it."""
    run_study(study(), tmp_path / "part", progress=False)
    part = store.RunFolder(tmp_path / "part").shards
    noise = np.random.default_rng(0)
    for number in range(12):
        table = pa.table({"value": noise.random(500_000)})
        said = shards.record_of(f"large{number}", part.seals[-1], len(table), 0.1, "host")
        part.write_segment(shards.sealed(shards.Piece(table, [said])))
    assert sum(path.stat().st_size for path in part.files()) > 4.8e7
    before = pa.total_allocated_bytes()
    with peak_of_memory() as peak:
        assert gather(tmp_path / "whole", [tmp_path / "part"]) == 16
    assert peak() < 1.6e7
    assert pa.total_allocated_bytes() == before


@contextmanager
def peak_of_memory():
    """Give what this process took at most within, beside what it had before; the kernel keeps it."""
    high = lambda: 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = high()
    yield lambda: high() - before


def no_fits(cell, replicates, entropy):
    return [{"replicate": replicate} for replicate in replicates]


def test_gather_refuses_parts_that_start_their_fits_elsewhere(tmp_path):
    """As parts with another --start: their rows would stand in one table as if they were of one grid."""
    from moe_prompts.study.gaussian import gaussian_study

    grid = {"sizes": [300], "replicates": 1, "entropy": 3, "truths": ["prompts-fixed"], "kinds": ["fixed"], "ks": [2]}
    for number, start in enumerate(("near_truth", "data"), start=1):
        made = replace(gaussian_study(**grid, start=start), run=no_fits)
        run_part(made, tmp_path / start, Part(number, 2), progress=False)
    with pytest.raises(InputError, match=r"no parts of one study .they differ in cells"):
        gather(tmp_path / "whole", [tmp_path / "near_truth", tmp_path / "data"])
    assert not (tmp_path / "whole").exists()


# Code ----------------------------------------------------------------------------------------------------------------


def package(folder):
    """A copy of the package, as a checkout or an installation has it."""
    shutil.copytree(code.PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    return folder


def test_the_fingerprint_sees_what_computes_and_nothing_else(tmp_path):
    copy = package(tmp_path / "moe_prompts")
    first = code.package_code.__wrapped__(copy)

    def after(path, change):
        text = (copy / path).read_text()
        changed = change(text)
        assert changed != text
        (copy / path).write_text(changed)
        found = code.package_code.__wrapped__(copy)
        (copy / path).write_text(text)
        return found

    em = "estimators/gaussian/em.py"
    assert after(em, lambda text: text + "\n\n# said later\n") == first
    assert after(em, lambda text: text.replace('"""', '"""More. ', 1)) == first
    assert after("figures/style.py", lambda text: text + "X = 1\n") == first
    assert after("study/report.py", lambda text: text + "X = 1\n") == first
    assert after(em, lambda text: text + "X = 1\n") != first
    assert after("theory/predictions.json", lambda text: text + "\n") != first
    (copy / em).rename(copy / "estimators" / "gaussian" / "climb.py")
    assert code.package_code.__wrapped__(copy) != first


def bare(source):
    """The syntax without docstrings and without bodies that hold nothing else."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            said = lambda one: isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
            node.body = [one for one in node.body if not said(one)]
    return ast.dump(tree)


@pytest.mark.parametrize("part", sorted({path.relative_to(code.PACKAGE).parts[0] for path in code.sources()}))
def test_what_the_fingerprint_leaves_out_of_a_source_computes_nothing(part, monkeypatch):
    """The syntax of every source is that of its text, with an ellipsis where a docstring stood."""
    monkeypatch.setattr(code, "DOCSTRING", SimpleNamespace(sub=dotted))
    for path in code.sources():
        if path.suffix == ".py" and path.relative_to(code.PACKAGE).parts[0] == part:
            source = path.read_bytes()
            assert bare(source) == bare(code.computing(source)), path


def dotted(_, source, pattern=code.DOCSTRING):
    return pattern.sub(lambda found: found[0][: len(found[0]) - len(found[0].lstrip())] + b"...\n", source)


OWN = """
from types import SimpleNamespace
from moe_prompts.engine.grid import Study
FACTOR = 2
def helped(r):
    '''Docstring.'''
    return FACTOR * r
def rows_of(cell, replicates, entropy):
    return [{"cell": cell.label, "replicate": r, "value": helped(r)} for r in replicates]
def study(replicates):
    return Study("own", [SimpleNamespace(label="a", cost=1.0, data_size=1)], replicates, 0, rows_of)
"""


def own(text):
    names = {"__name__": "own_study"}
    exec(compile(text, "own_study.py", "exec"), names)
    return names


@pytest.mark.parametrize(
    ("old", "new"), [("FACTOR * r", "FACTOR * r + 1"), ("FACTOR = 2", "FACTOR = 3"), ('"value": helped', '"v": helped')]
)
def test_rows_of_changed_code_are_refused_or_told(old, new, tmp_path):
    run_study(own(OWN)["study"](8), tmp_path, progress=False)
    changed = own(OWN.replace(old, new))["study"]
    with pytest.raises(InputError, match=r"was made by other code .code: \w+ there, \w+ here.*--accept-code-change"):
        run_study(changed(16), tmp_path, resume=True, progress=False)
    assert len(run_study(changed(16), tmp_path, resume=True, allow=["code change"], progress=False)) == 16
    meta = json.loads((tmp_path / "meta.json").read_text())
    first, second = meta["commands"]
    assert first["code"] != second["code"] == meta["identity"]["code"]
    assert (first["replicates"], second["replicates"]) == (8, 16)
    seals = store.pd.read_parquet(tmp_path / "timings.parquet")["seal"].tolist()
    assert seals == [first["seal"], second["seal"]]  # which rows are whose


def test_a_study_whose_code_stays_the_same_grows(tmp_path):
    run_study(own(OWN)["study"](8), tmp_path, progress=False)
    same = OWN.replace("Docstring", "Another").replace("FACTOR = 2", "FACTOR = 2  # said\nUNUSED = 5\n\n")
    assert len(run_study(own(same)["study"](16), tmp_path, resume=True, progress=False)) == 16


def test_changed_sources_of_the_package_are_refused(tmp_path, monkeypatch):
    run_study(study(), tmp_path, progress=False)
    monkeypatch.setattr(code, "package_code", lambda: "0123456789abcdef")
    with pytest.raises(InputError, match="was made by other code"):
        run_study(study(), tmp_path, resume=True, progress=False)


def test_a_run_says_on_which_processor_and_with_which_blas_its_rows_were_made(tmp_path):
    """Rows are bit-identical on one kind of processor: names of processors alone do not tell kinds apart."""
    run_study(study(), tmp_path, progress=False)
    (command,) = json.loads((tmp_path / "meta.json").read_text())["commands"]
    assert command["blas"] == store.blas()
    assert any("blas" in name or "mkl" in name for name in command["blas"])
    assert all(any(mark.isdigit() for mark in name) for name in command["blas"])  # the version
    assert command["processor"] == store.processor() != ""
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Xeon\nstepping\t: 7\nmodel\t: 1\n")
    assert store.processor(told) == "Xeon, family 6, model 85, stepping 7"
    assert store.processor(tmp_path / "none") != ""


def test_every_command_has_an_entry_in_meta_json(tmp_path):
    run_study(study(), tmp_path, progress=False)
    run_study(study(replicates=12), tmp_path, resume=True, progress=False)
    commands = json.loads((tmp_path / "meta.json").read_text())["commands"]
    assert [one["replicates"] for one in commands] == [10, 12]
    told = {"command", "began", "seal", "code", "git_commit", "host", "platform", "processor", "blas"}
    assert all(one.keys() >= told for one in commands)
    assert commands[0]["seal"] == commands[1]["seal"]


# Tables --------------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_of_a_table_is_noticed_wherever_it_is(tmp_path):
    rows = run_study(study(), tmp_path, progress=False)
    assert read_table(tmp_path).equals(rows)
    path = tmp_path / "results.parquet"
    whole = path.read_bytes()
    for bit in np.random.default_rng(0).choice(8 * len(whole), 300, replace=False):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=r"its sha256 differs from that in meta\.json"):
            read_table(tmp_path)


def test_pages_of_tables_have_checksums_that_are_verified(tmp_path):
    """Without the sha256: a bit of a page is seen by whoever reads with checksums."""
    run_study(study(), tmp_path, progress=False)
    path = tmp_path / "results.parquet"
    written = store.pq.ParquetFile(path).metadata.row_group(0).column(2)
    content = bytearray(path.read_bytes())
    content[(written.dictionary_page_offset or written.data_page_offset) + written.total_compressed_size - 3] ^= 1
    path.write_bytes(content)
    store.keep_sums(tmp_path, "results.parquet")
    with pytest.raises(InputError, match=r"cannot be read .*(checksum|CRC)"):
        read_table(tmp_path)


def test_tables_without_a_sum_are_refused(tmp_path):
    run_study(study(), tmp_path, progress=False)
    meta = json.loads((tmp_path / "meta.json").read_text())
    for content in ("[]", "{}", json.dumps(meta | {"sha256": {}}), "{", "\udcff"):
        (tmp_path / "meta.json").write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(InputError, match=r"has no sha256 of results\.parquet|was not written by a study"):
            read_table(tmp_path)


# Rows ----------------------------------------------------------------------------------------------------------------


def of(run):
    cells = [SimpleNamespace(label=label, cost=1.0, data_size=1) for label in ("odd", "good")]
    return Study("own", cells, 3, 0, run)


def sound(replicates):
    return [{"replicate": r, "value": 1.5} for r in replicates]


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (lambda replicates: sound(replicates[1:]), "returned 2 rows for 3 replicates"),
        (lambda replicates: [], "returned 0 rows for 3 replicates"),
        (lambda replicates: sound([0, 0, 0]), r"rows of the replicates \[0\] for those of \[0, 1, 2\]"),
        (lambda replicates: None, "no list of rows but NoneType"),
        (lambda replicates: [1, 2, 3], "no list of rows but list"),
        (lambda replicates: sys.exit(0), "SystemExit: 0"),
        (lambda replicates: [{"value": Path("x")}] * 3, "column 'value' cannot be stored .* of type PosixPath"),
        (lambda replicates: [{"value": 1j}] * 3, "column 'value' cannot be stored .* of type complex"),
        (lambda replicates: [{"value": 2**64}] * 3, "column 'value' cannot be stored"),
        (lambda replicates: [{"value": v} for v in ("a", 1, 2)], "column 'value' cannot be stored .* of type int, str"),
        (lambda replicates: [{"value": "\udcff"}] * 3, "column 'value' cannot be stored"),
        (lambda replicates: [{"value": {}}] * 3, "column 'value' cannot be stored .*Parquet"),
        (lambda replicates: [{1: 2.0}] * 3, "names of columns"),
    ],
)
def test_rows_that_are_not_those_of_the_block_are_an_error_of_it(odd, message, tmp_path):
    run = lambda cell, replicates, entropy: odd(replicates) if cell.label == "odd" else sound(replicates)
    with pytest.raises(InputError, match=f"1 of 2 blocks raised an error: odd_r0000-0002; the first .*{message}"):
        run_study(of(run), tmp_path, progress=False)
    assert RunFolder(tmp_path).shards.finished() == {"good_r0000-0002"}
    assert [path.name for path in (tmp_path / "errors").iterdir()] == ["odd_r0000-0002.txt"]


@pytest.mark.parametrize("value", ["text", True, [1.0], 2**62 + 1])
def test_columns_of_two_kinds_in_two_blocks_are_one_line(value, tmp_path):
    run = lambda cell, replicates, entropy: [
        {"replicate": r, "value": value if cell.label == "odd" else 1.5} for r in replicates
    ]
    with pytest.raises(InputError, match=r"kinds that do not fit one column .value: |too large for a column"):
        run_study(of(run), tmp_path, progress=False)
    assert len(RunFolder(tmp_path).shards.finished()) == 2


@pytest.mark.parametrize(
    "label", ["a/b", "../../outside", "x" * 300, "", ".hidden", "a\nb", "a\0b", 3, "\udcff", "é" * 61]
)
def test_labels_that_are_no_part_of_a_file_name_are_refused_before_anything_is_made(label, tmp_path):
    study = Study("own", [SimpleNamespace(label=label, cost=1.0, data_size=1)], 2, 0, lambda *_: [])
    with pytest.raises(InputError, match="expected a label of 1 to 120 bytes that can be part of a file's name"):
        run_study(study, tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_more_fits_than_anybody_means_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"1e.08 fits, more than 1e.07.*--insist"):
        run_study(study(cells=1, replicates=10**8), tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"allow = .'anything'.; expected some of"):
        run_study(study(), tmp_path / "run", progress=False, allow=["anything"])


# Workers -------------------------------------------------------------------------------------------------------------

ORPHANS = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from moe_prompts import run_study
from moe_prompts.engine.executors import Dask, Joblib
from moe_prompts.engine.grid import Study

def rows_of(cell, replicates, entropy):
    Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["OUT"], f"pid-{os.getpid()}").touch()
    time.sleep(300)

if __name__ == "__main__":
    cells = [SimpleNamespace(label=f"c{i}", cost=1.0, data_size=1) for i in range(2)]
    executor = {"joblib": Joblib, "dask": Dask}[sys.argv[2]](2)
    run_study(Study("own", cells, 1, 0, rows_of), Path(sys.argv[1], "run"), executor=executor, progress=False)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("executor", ["joblib", pytest.param("dask", marks=pytest.mark.slow)])
def test_workers_die_with_the_command_however_it_ends(executor, tmp_path):
    (tmp_path / "script.py").write_text(ORPHANS)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path), executor]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OUT": str(tmp_path)})
    deadline = time.monotonic() + 90
    while len(found := list(tmp_path.glob("pid-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name.removeprefix("pid-")) for path in found]
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [pid for pid in workers if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": 1.5, "b": 2, "c": "x", "d": True}, {"a": np.float64(0.5), "b": -1, "c": "", "d": False}],
        [{"a": 1.5, "b": 2, "c": "x"}, {"a": None, "b": None, "c": None}],
        [{"a": None}, {"a": None}],
        [{"a": float("nan"), "b": 2**62}, {"a": float("inf"), "b": 0}],
    ],
    ids=["plain", "gaps", "nothing", "edges"],
)
def test_rows_that_go_to_arrow_whole_are_the_columns_one_by_one(rows, monkeypatch):
    rows = [row | {"a": float(row["a"])} if isinstance(row["a"], np.float64) else row for row in rows]
    batch = shards._plain_batch(rows)
    assert batch is not None
    monkeypatch.setattr(shards, "_plain_batch", lambda rows: None)
    one_by_one = shards.table_of(rows)
    whole = pa.Table.from_batches([batch])
    assert whole.schema == one_by_one.schema
    assert whole.to_pylist() == one_by_one.to_pylist() or any(row["a"] != row["a"] for row in rows)
    assert shards.sealed(shards.Piece(whole, [])) == shards.sealed(shards.Piece(one_by_one.combine_chunks(), []))


@pytest.mark.parametrize(
    "rows", [[{"a": 1.5}, {"b": 1.5}], [{"a": 1.5}, {"a": 2}], [{"a": [1]}], [{1: 2.0}], [{}], [{"a": 2**64}]]
)
def test_other_rows_are_looked_at_column_by_column(rows):
    assert shards._plain_batch(rows) is None
