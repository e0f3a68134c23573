"""What a command, and a name of the library, say where the packages of an extra are not installed."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_package import ROOT, project, requirement_name

from moe_prompts.cli import EXTRAS

#: Calls the commands given as JSON, one after the other, without the modules given, and prints how each ended.
PROGRAM = """
import contextlib, io, json, os, runpy, sys
scripts, hidden, folder = json.loads(sys.argv[1])

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
os.chdir(folder)
ends = {}
for script, *options in scripts:
    sys.argv = [script, *options]
    said, code = io.StringIO(), None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
    ends[" ".join([os.path.basename(script), *options])] = [code, said.getvalue()]
print(json.dumps(ends))
"""
#: Of the extra vision; pillow comes with matplotlib.
HIDDEN = [name for name in EXTRAS["vision"] if name != "PIL"]
COMMANDS = [
    "vtab.py run --preset small",
    "vtab.py run --task dtd --data .",
    "data_efficiency.py",
    "data_efficiency.py --quick",
    "planted_head.py",
    "planted_head.py --quick",
    "head_as_moe.py",
    "starts.py",
    "backbone.py fetch dinov2-small-focus",
    "backbone.py probe small",
    "pretrain.py train --out run",
    "benchmark_vision.py",
    "benchmark_packed.py",
]


def ends_without(hidden: list[str], commands: list[str], folder: Path) -> dict:
    """Return code and last words of each command where modules are hidden."""
    scripts = [[str(ROOT / "experiments" / script), *options] for script, *options in map(str.split, commands)]
    given = json.dumps([scripts, hidden, str(folder)])
    done = subprocess.run([sys.executable, "-c", PROGRAM, given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_torchvision_alone_is_missed_in_one_line(tmp_path):
    """It is no requirement of this project: timm brings it, and cannot be loaded without."""
    [(code, said)] = ends_without(["torchvision"], ["backbone.py probe small"], tmp_path).values()
    assert code == 2
    assert said.startswith("backbone.py: needs torchvision, which is not installed: it comes with the extra vision")
    assert said.count("\n") == 1


def test_commands_name_the_extra_they_need_in_one_line(tmp_path):
    ends = ends_without(HIDDEN, COMMANDS, tmp_path)
    assert len(ends) == len(COMMANDS)
    for command, (code, said) in ends.items():
        assert code == 2, (command, said)
        install = re.escape('which is not installed: it comes with the extra vision, pip install -e ".[vision]" -c')
        assert re.fullmatch(rf"[a-z_]+\.py: needs (\w+), {install} requirements\.lock\n", said), (command, said)
    assert not list(tmp_path.rglob("*.parquet"))


def test_names_of_the_library_name_the_extra_they_need():
    code = "import sys; sys.modules['torch'] = None\nfrom moe_prompts.vision import prompt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(
        'prompt needs torch, which is not installed; try: pip install -e ".[vision]" -c requirements.lock'
    )


def test_the_table_of_extras_names_what_pyproject_installs():
    """By the names that are imported, where they differ."""
    imported = {"pillow": "PIL", "scikit-learn": "sklearn", "dask-jobqueue": "dask_jobqueue"}
    for extra, modules in EXTRAS.items():
        listed = {requirement_name(one) for one in project()["optional-dependencies"][extra]}
        listed |= {"torchvision"} if "timm" in listed else set()  # which requires it
        assert {imported.get(name, name) for name in listed} >= set(modules), extra


@pytest.mark.parametrize("folder", ["moe_prompts", "experiments"])
def test_no_line_tells_to_install_from_an_index_that_does_not_have_the_project(folder):
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"pip install '?\"?moe-prompts", line)
    ]
    assert wrong == []


def asked_first() -> str:
    """The line of the README that asks for the version of Python."""
    (line,) = re.findall(
        r'^    (python3 -c ".+") &&$', Path(ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M
    )
    return line


def test_the_readme_says_the_version_of_python_before_its_commands():
    text, needed = (ROOT / "README.md").read_text(encoding="utf-8"), project()["requires-python"]
    version = needed.removeprefix(">=")
    assert f"Python {version} or newer" in text[: text.index("\n    git clone")]
    assert text.index(asked_first()) < text.index("pip install")
    major, minor = version.split(".")
    assert f"sys.version_info < ({major},{minor})" in asked_first()


@pytest.mark.parametrize(("version", "code"), [((3, 9), 1), ((3, 10), 1), ((3, 11), 0), ((3, 14), 0)])
def test_an_older_python_ends_in_one_line(version, code):
    program = asked_first().removeprefix('python3 -c "').removesuffix('"').replace("sys.version_info", str(version))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr == ("needs Python 3.11\n" if code else "")
