"""README and docs against the code: every block runs, or is a command that parses, or says why it does not run.

    <!-- not run: reason -->

stands on the line before such a block, or on the line of a command within text. `pytest -n 0 -s -k not_run` lists them.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from test_package import ROOT, run_examples

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
INLINE = re.compile(r"`((?:python experiments/|make |pip install )[^`]+)`")
#: Pages that a command writes and tests of their own hold to its data: their commands are parsed only.
WRITTEN = re.compile(r"Written by\s+`?python ")


@dataclass(frozen=True)
class Block:
    """Fenced with a ``language``, or indented; ``reason`` why it does not run, if it says so."""

    page: str
    line: int
    language: str
    text: str
    reason: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """What follows `python ` or `make `, in a block or within text."""

    page: str
    line: int
    text: str
    reason: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def script(self) -> Path:
        return ROOT / shlex.split(self.text)[1]

    @property
    def arguments(self) -> list[str]:
        return shlex.split(self.text)[2:]


@cache
def read(page: str) -> tuple[tuple[Block, ...], tuple[tuple[int, str], ...]]:
    """Blocks of a page, and its other lines with their numbers."""
    blocks: list[Block] = []
    prose: list[tuple[int, str]] = []
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        before = next((line for _, line in reversed(prose) if line.strip()), "")
        reason = (found := NOT_RUN.fullmatch(before.strip())) and found[1]
        begin = at
        if lines[at].startswith("```"):
            language = lines[at].removeprefix("```").strip()
            at = lines.index("```", at + 1) + 1
            inside = lines[begin + 1 : at - 1]
        elif lines[at].startswith("    ") and (at == 0 or not lines[at - 1].strip()):
            language = ""
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                at += 1
            inside = [line[4:] for line in lines[begin:at] if line.strip()]
        else:
            prose.append((at + 1, lines[at]))
            at += 1
            continue
        blocks.append(Block(page, begin + 1, language, "\n".join(inside), reason or ""))
        prose.append((begin + 1, ""))
    return tuple(blocks), tuple(prose)


BLOCKS = [block for page in PAGES for block in read(page)[0]]


def commands(block: Block) -> list[Command]:
    """Return the commands on the lines of a block; those that `&&` joins are several."""
    parts = [part.strip() for line in block.text.splitlines() for part in line.split("&&")]
    known = [part for part in parts if part.startswith(("python experiments/", "make "))]
    return [Command(block.page, block.line, part, block.reason) for part in known]


def within_text(page: str) -> list[Command]:
    return [
        Command(page, number, text, (NOT_RUN.search(line) or ["", ""])[1])
        for number, line in read(page)[1]
        for text in INLINE.findall(line)
    ]


def python_pages(vision: bool) -> list[str]:
    """With blocks on vision, or with others."""
    python = [block for block in BLOCKS if block.language == "python" and not block.reason]
    mine = {block.page for block in python if ("moe_prompts.vision" in block.text) == vision}
    return [page for page in PAGES if page in mine]


COMMANDS = [
    *(command for block in BLOCKS if block.language != "python" for command in commands(block)),
    *(command for page in PAGES for command in within_text(page)),
]
EXPERIMENTS = [command for command in COMMANDS if command.text.startswith("python ")]


@pytest.mark.parametrize("page", python_pages(vision=False))
def test_examples_run(page, tmp_path):
    """In this process, which has loaded what they load."""
    run_examples([page], tmp_path, vision=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", python_pages(vision=False))
def test_examples_need_nothing_that_another_one_loaded(page, tmp_path):
    """As a reader runs them: in a process of their own."""
    run_examples([page], tmp_path, vision=False, own_process=True)


def test_every_block_is_run_or_parsed_or_says_why_not():
    """Python runs (above and in ``vision/test_examples``); lines of others are commands."""
    for block in BLOCKS:
        if block.language != "python" and not block.reason:
            every = len(block.text.splitlines())
            assert len(commands(block)) == every, f"{block.place}: neither commands nor <!-- not run: reason -->"


def test_what_is_not_run_has_a_reason(capsys):
    """Prints the list: a reader of the log sees what nobody ran."""
    marked = {thing.place: thing.reason for thing in [*COMMANDS, *BLOCKS] if thing.reason}
    markers = sum(len(NOT_RUN.findall((ROOT / page).read_text(encoding="utf-8"))) for page in PAGES)
    mentions = sum("`<!-- not run" in (ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    with capsys.disabled():
        print("\nnot run:", *(f"  {place}  {reason}" for place, reason in sorted(marked.items())), sep="\n")
    assert len(marked) == markers - mentions, "a marker stands before nothing: put it on the line before its block"


class ParsedError(Exception):
    """The command line was accepted."""


@pytest.mark.parametrize("script", sorted({command.script for command in EXPERIMENTS}), ids=lambda path: path.stem)
def test_command_lines_parse(script, monkeypatch):
    """Each reaches the end of ``parse_args`` of its script; --help ends before, with 0."""
    accept = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, *given, **named):
        accept(self, *given, **named)
        raise ParsedError

    assert script.is_file(), f"no {script.name}: {[c.place for c in EXPERIMENTS if c.script == script]}"
    main = runpy.run_path(str(script))["main"]
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    for command in EXPERIMENTS:
        if command.script == script:
            monkeypatch.setattr(sys, "argv", [str(script), *command.arguments])
            wanted = "exit 0" if "--help" in command.arguments else "parsed"
            assert end_of(main) == wanted, f"{command.place}: {command.text} is refused"


def end_of(main: Callable[[], None]) -> str:
    try:
        main()
    except ParsedError:
        return "parsed"
    except SystemExit as end:
        return f"exit {end.code}"
    return "ran"


def test_make_targets_exist():
    made = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for command in COMMANDS:
        if command.text.startswith("make "):
            assert command.text.split()[1] in made, command.place


#: Stands for Python on a machine with a GPU: it notes what it is called with, and takes long where SLOW says so.
STUB = """#!/bin/sh
echo "$*" >> "$NOTES"
case "$*" in *"$SLOW"*) exec sleep 60 ;; esac
echo done
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_one_call_of_make_gpu_ends_in_its_minutes_whatever_part_takes_long(tmp_path):
    """A part that was cut off begins again in the next call, one that ended does not."""
    stub = tmp_path / "python"
    stub.write_text(STUB, encoding="utf-8")
    stub.chmod(0o755)
    notes = tmp_path / "notes"

    def call(slow: str) -> tuple[str, list[str]]:
        notes.write_text("", encoding="utf-8")
        here = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(notes), "SLOW": slow}
        asked = ["make", "--silent", "gpu", "MINUTES=0.05", f"GPU_RUN={tmp_path / 'run'}"]
        done = subprocess.run(asked, cwd=ROOT, env=os.environ | here, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        scripts = re.findall(r"experiments/(\w+)\.py", notes.read_text(encoding="utf-8"))
        return done.stdout, scripts

    for slow, parts in (
        ("benchmark_vision", ["benchmark_vision"]),
        ("benchmark_bfloat16", ["benchmark_vision", "benchmark_bfloat16"]),
        ("data_efficiency", ["benchmark_bfloat16", "data_efficiency"]),
        ("data_efficiency", ["data_efficiency"]),
    ):
        shown, called = call(slow)
        assert called == parts
        assert "stopped after 0.05 minutes: make gpu goes on" in shown
    shown, called = call("nothing")
    assert called == ["data_efficiency"]
    assert "stopped after" not in shown


def is_run(command: Command) -> bool:
    return not command.reason and not WRITTEN.search((ROOT / command.page).read_text(encoding="utf-8"))


def test_commands_that_write_a_page_of_the_repository_are_not_run():
    """A test that runs one would write over what is committed."""
    written = {"docs/claims.md", "docs/official_benchmark.md", "docs/packed_benchmark.md", "docs/vision_benchmark.md"}
    assert not written & {command.page for command in EXPERIMENTS if is_run(command)}
    assert written <= {command.page for command in EXPERIMENTS}


def bare(text: str) -> str:
    """The command without what changes neither its grid nor its time: the seed, and where it writes."""
    return re.sub(r" --(out|states|seed) \S+", "", text)


#: Commands that figures are made again with, in ``test_paper_figures``.
REGENERATED = {
    bare(text) for text in INLINE.findall((ROOT / "paper_figures" / "README.md").read_text(encoding="utf-8"))
}


def test_commands_of_figures_are_told_from_others():
    assert {"python experiments/claims.py", "python experiments/sample_efficiency.py --n 1e3..1e6"} <= REGENERATED
    assert not any("--out" in text or "--seed" in text for text in REGENERATED)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    sorted({command.text for command in EXPERIMENTS if is_run(command) and bare(command.text) not in REGENERATED}),
)
def test_commands_run(text, tmp_path):
    """With --quick, where the script has it and fits something; those without are quick. Committed runs are there."""
    script, *arguments = shlex.split(text)[1:]
    module = ROOT / "moe_prompts" / "commands" / Path(script).name
    source = module if module.is_file() else ROOT / script
    has_quick = '"--quick"' in source.read_text(encoding="utf-8")
    quick = ["--quick"] if has_quick and not {"--quick", "--help", "--judge", "fetch"} & set(arguments) else []
    if "--rounds" in arguments:  # of a benchmark: one shows that it runs
        arguments[arguments.index("--rounds") + 1] = "1"
    (tmp_path / "paper_figures").symlink_to(ROOT / "paper_figures")
    command = [sys.executable, str(ROOT / script), *arguments, *quick]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


# API and site --------------------------------------------------------------------------------------------------------


def test_the_api_shows_every_public_name():
    """Pages name the parts of the package whose public names they show; no part is left out."""
    import moe_prompts

    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES if page.startswith("docs/api/"))
    shown = {
        part for parts in re.findall(r"^\[\[public names: (.+)\]\]$", text, flags=re.M) for part in parts.split(", ")
    }
    assert shown == {module.split(".")[0] for module in moe_prompts._PUBLIC.values()} | {"studies", "vision"}


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": (\S+\.md)$", text, flags=re.M)
    assert sorted(f"docs/{page}" for page in listed) == sorted(page for page in PAGES if page != "README.md")


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """And docstrings keep their columns: those of ``Head`` stand below each other as in the source."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = re.findall(r'src="([^"]+\.png)"', (tmp_path / "theory_meets_accuracy.html").read_text(encoding="utf-8"))
    assert len(shown) >= 3
    assert all((tmp_path / name).exists() for name in shown)
    assert "\neta  (N, l, d + 1)  frozen expert" in (tmp_path / "api" / "models.html").read_text(encoding="utf-8")
    import moe_prompts
    from moe_prompts import vision

    pages = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "api").glob("*.html"))
    named = {f"{module}.{name}" for name, module in moe_prompts._PUBLIC.items()}
    named |= {f"vision.{module}.{name}" for name, module in vision._PUBLIC.items()} | {"studies.study"}
    assert [name for name in sorted(named) if f'id="moe_prompts.{name}"' not in pages] == []


# Links ---------------------------------------------------------------------------------------------------------------

LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors of headings, as GitHub and MkDocs make them."""
    name = page.relative_to(ROOT).as_posix()
    titles = [line.lstrip("#").strip() for _, line in read(name)[1] if re.match(r"#+ ", line)]
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", [*PAGES, "paper_figures/README.md"])
def test_links_lead_somewhere(page):
    """Relative ones, with their anchors; those to other sites are not fetched."""
    for number, line in read(page)[1]:
        for link in LINK.findall(line):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (ROOT / page).parent / path if path else ROOT / page
            assert target.exists(), f"{page}:{number}: no {link}"
            assert not anchor or anchor in anchors(target.resolve()), f"{page}:{number}: no heading #{anchor}"


def test_anchors_are_read_off_headings():
    assert "a-rate-in-principle-algebra" in anchors(ROOT / "docs" / "how_to_choose.md")
