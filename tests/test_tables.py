"""The one writer of Markdown tables, and the one ending of a study's command."""

import pytest

from moe_prompts import cli
from moe_prompts.shown import Ending
from moe_prompts.tables import body_of, cells, markdown

SAID = Ending(["It holds."])


def test_columns_are_as_wide_as_their_widest_cell():
    assert markdown(["a", "long"], [["wider", "x"], ["", "y"]]).splitlines() == [
        "| a     | long |",
        "|-------|------|",
        "| wider | x    |",
        "|       | y    |",
    ]


def test_a_row_of_another_length_is_no_row():
    with pytest.raises((IndexError, ValueError)):
        markdown(["a", "b"], [["x"]])


def test_what_is_written_is_read_again():
    header, body = ["a", "E|f|"], [["wider", "|x|"], ["", "y"], ["z", ""]]
    text = f"# A page\n\n{markdown(['other'], [['1']])}\n\n{markdown(header, body)}\n\nafter | it\n"
    assert body_of(text, header) == body
    assert body_of(text, ["other"]) == [["1"]]
    assert body_of(text, ["a"]) == []


def test_a_bar_in_a_cell_does_not_end_it():
    assert markdown(["a"], [["|x|"]]).splitlines()[-1] == r"| \|x\| |"
    assert cells(r"| \|x\| |  | 2 |") == ["|x|", "", "2"]


def test_files_are_there_before_anything_is_printed(tmp_path, monkeypatch):
    """A print that fails, as into a closed pipe, finds every file written."""

    def broken(*_):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    figures = [tmp_path / "one.pdf", tmp_path / "one.png"]
    with pytest.raises(BrokenPipeError):
        cli.finish(
            tmp_path, "text", SAID, {"summary.json": "[]"}, lambda: [path.touch() or path for path in figures], 3
        )
    assert {path.name for path in tmp_path.iterdir()} == {"summary.md", "summary.json", "one.pdf", "one.png"}
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == "text\n"


def test_tables_are_there_though_a_figure_fails(tmp_path):
    with pytest.raises(ZeroDivisionError):
        cli.finish(tmp_path, "text", SAID, {"summary.json": "[]"}, lambda: [1 / 0], 3)
    assert {path.name for path in tmp_path.iterdir()} == {"summary.md", "summary.json"}
