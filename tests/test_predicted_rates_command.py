"""experiments/predicted_rates.py as a user types it."""

import json
import re

import pytest
from commands import EXPERIMENTS, call

from moe_prompts.commands import predicted_rates
from moe_prompts.theory.atoms import KINDS


@pytest.fixture
def called(tmp_path):
    """The command in this process: (exit code, standard output, standard error)."""

    def of(*arguments):
        done = call("predicted_rates.py", *arguments, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return of


def rows_of(out):
    """Cells of the first table, header first."""
    lines = out.split("\n\n")[1].splitlines()
    rule = next(number for number, line in enumerate(lines) if set(line) == {"-"})
    return [re.split(r" {2,}", line) for line in [lines[0], *lines[rule + 1 :]]]


def test_a_table_and_its_certificates(tmp_path):
    done = call("predicted_rates.py", "--model", "fixed", "--cells", "1,2", "--verify", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("fixed d=2, cells 1,2, 1 frozen\n")
    header, *rows = rows_of(done.stdout)
    assert header[:6] == ["group", "cell", "size", "theta", "rate", "status"]
    assert [row[:6] for row in rows] == [
        ["p", "1", "1", "1", "n^(-1/2)", "proved"],
        ["p", "2", "2", "2", "n^(-1/4)", "proved"],
    ]
    (told,) = done.stderr.splitlines()
    assert re.fullmatch(r"fixed d=2, cells 1,2, 1 frozen: [1-9]\d* certificates and every row verified", told)
    assert not list(tmp_path.iterdir())


def test_the_neighbour_is_part_of_the_question(called):
    """The second cell of two, beside a cell of one and beside a cell of two: its keys have a rate and none."""
    thetas = {}
    for sizes in ("1,2", "2,2"):
        code, out, err = called("--model", "decoupled", "--cells", sizes, "--frozen", "0")
        assert (code, err) == (0, "")
        rows = rows_of(out)[1:]
        thetas[sizes] = {row[0]: row[3] for row in rows if row[1] == "2"}
    assert thetas == {"1,2": {"k": "2", "v": "infinite"}, "2,2": {"k": "infinite", "v": "infinite"}}


def test_one_cell_after_another(called):
    """Groups of a softmax-gated Gaussian in cells of one and of two, with what is published beside them."""
    code, out, err = called("--model", "softmax-gaussian", "--cells", "1,2")
    assert (code, err) == (0, "")
    rows = rows_of(out)[1:]
    assert [row[:4] for row in rows[4:]] == [
        ["beta", "2", "2", "2"],
        ["a", "2", "2", "2"],
        ["b", "2", "2", "4"],
        ["s", "2", "2", "2"],
    ]
    assert re.search(r"^beta +2 +2 +n\^\(-1/8\) +published is looser$", out, re.M)
    assert "beta: up to one translation common to all cells." in out


def test_json_is_the_table(called):
    code, out, err = called("--model", "location-scale", "--cells", "1,3", "--json")
    assert (code, err) == (0, "")
    read = json.loads(out)
    assert {"rates", "certificates", "notes"} <= set(read)
    assert [(row["group"], row["cell"], row["theta"], row["slope"]) for row in read["rates"]] == [
        ("b", 1, "1", "-1/2"),
        ("s", 1, "1", "-1/2"),
        ("b", 2, "6", "-1/12"),
        ("s", 2, "3", "-1/6"),
    ]


def test_options_reach_the_model(called):
    """rank and d of a prompt; a stratum as a fraction; frozen experts."""
    code, out, _ = called("--model", "fixed", "--d", "3", "--rank", "2", "--cells", "2", "--frozen", "2")
    assert code == 0
    assert out.startswith("fixed d=3 rank=2, cells 2, 2 frozen")
    assert "p unseen by keys" in out
    code, out, _ = called("--model", "covariate-free", "--cells", "2", "--stratum", "a=0, b=-1/3", "--json")
    assert code == 0
    text = json.dumps(json.loads(out)["certificates"])
    assert '"a": "0"' in text
    assert '"b": "-1/3"' in text


def test_dependences(called):
    code, out, err = called("--model", "softmax-gaussian", "--dependences", "2")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "softmax-gaussian, order 2: rank 12 of 15 columns"
    assert {line.strip() for line in out.splitlines()[1:] if line.strip()} == {
        "u_(beta b) = u_a",
        "u_ab = 2 u_(beta s)",
        "u_bb = 2 u_s",
    }
    code, out, err = called("--model", "location-scale", "--dependences", "1", "--json")
    assert (code, err) == (0, "")
    (minor,) = json.loads(out)
    assert minor["kind"] == "minor"
    assert len(minor["columns"]) == 3


def test_models_are_named(called):
    assert called("--models") == (0, "\n".join(KINDS) + "\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model moon", "unknown model 'moon'; expected one of location-scale"),
        ("--model fixed --cells 0", "'0' is not a number of fitted atoms"),
        ("--model fixed --cells 1,x", "'x' is not a number of fitted atoms"),
        ("--model fixed --cells 1,9", "cells 1,9; expected at most 6 whole numbers from 1 to 8"),
        ("--model gaussian-gated --stratum c", "--stratum c; expected name=number"),
        ("--model gaussian-gated --stratum c=1/0", "--stratum c=1/0; expected name=number"),
        ("--model gaussian-gated --stratum z=0", "stratum 'z': gaussian-gated has the parameters c, Gamma"),
        ("--model gaussian-gated --stratum nu=-1", "expected a positive number, it is a variance"),
        ("--model fixed --hidden 2", "hidden = 2 for fixed; only adaptive prompts have it"),
        ("--model fixed --frozen -1", "frozen = -1; expected a whole number of at least 0"),
        ("--model fixed --frozen one", "invalid int value: 'one'"),
        ("--model location-scale --frozen 1", "1 frozen experts in location-scale, a joint density"),
        ("--model fixed --dependences 0", "'0' is not a number of orders"),
        ("--moon", "unrecognized arguments: --moon"),
        ("--cells 1,2,3", "--cells without --model; expected the model that it is of"),
        ("--dependences 2", "--dependences without --model"),
        ("--model fixed --dependences 2 --cells 1,2", "--dependences with --cells; expected one of them"),
        ("--write --model fixed", "--write with --model; expected one of them"),
        ("--models --d 2", "--models with --d; expected one of them"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, message, called):
    code, out, err = called(*arguments.split())
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert err.startswith("predicted_rates.py: ")


@pytest.mark.slow
def test_the_committed_page_is_what_the_command_writes():
    page = (EXPERIMENTS.parent / "docs" / "predicted_rates.md").read_text(encoding="utf-8")
    assert page == predicted_rates.page_of(predicted_rates.parser().parse_args(["--write"]))
