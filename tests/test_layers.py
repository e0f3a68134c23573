"""The order of the house: which part of the package may import which, read from the sources themselves."""

import ast
import json
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import moe_prompts
from moe_prompts import vision

PACKAGE = Path(moe_prompts.__file__).parent

#: From the lowest floor up. A module imports from lower floors and from its own part, never from above or beside.
FLOORS = [
    ["errors", "tables", "shown", "lazy"],
    ["checks"],
    ["seeds", "compilation"],
    ["models", "intervals", "engine"],
    ["estimators", "losses", "slopes", "cli"],
    ["identifiability", "theory", "designs"],
    ["study"],
    ["claims", "figures"],
    ["studies"],
    # vision: a library of four parts, then the studies that are made with it
    ["vision.tasks", "vision.figures"],
    ["vision.prompting"],
    ["vision.backbones"],
    ["vision.training"],
    ["vision.comparison", "vision.data_efficiency", "vision.planted_head"],
    # commands call all of it
    ["commands"],
]
#: Doors that load names on first use: their tables of names are read by other tests.
DOORS = {"moe_prompts", "moe_prompts.study", "moe_prompts.vision", "moe_prompts.vision.tasks"}
#: A string that is a dotted name of the package and nothing else.
IN_A_STRING = re.compile(r"""["'](moe_prompts(?:\.\w+)+)["']""")
LEVEL = {part: number for number, floor in enumerate(FLOORS) for part in floor}


def modules(root: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name of every module of the package -> its file."""
    every = {}
    for path in root.rglob("*.py"):
        parts = ("moe_prompts", *path.relative_to(root).with_suffix("").parts)
        every[".".join(parts).removesuffix(".__init__")] = path
    return every


def imports(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, at its top or inside a function, but not for types only.

    A module that is named in a string counts, too, since it may be handed to ``import_module``. Not so in a door,
    whose names are read by other tests, nor if it is a door, which names a folder of data.
    """
    text = path.read_text(encoding="utf-8")
    door = path.name == "__init__.py"
    found = set() if door else {name for name in IN_A_STRING.findall(text) if name in known - DOORS}
    # Imports are statements: expressions, which are most of a tree, are not entered.
    statements: list[ast.AST] = [ast.parse(text)]
    while statements:
        node = statements.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            statements += node.orelse
            continue
        statements += (inner for inner in ast.iter_child_nodes(node) if not isinstance(inner, ast.expr))
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "moe_prompts"}


def part(module: str) -> str:
    """The room that a module belongs to: the folder under the package, in vision the folder under it."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if parts[0] == "vision" else parts[0]


@cache
def graph() -> dict[str, set[str]]:
    """Name of every module -> modules of the package that it imports; read once, when a test asks."""
    every = modules()
    return {name: imports(path, set(every)) for name, path in every.items()}


def test_every_module_has_a_floor():
    parts = {part(name) for name in graph() if name not in DOORS}
    assert parts == set(LEVEL)


def test_no_module_imports_from_above_or_beside():
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        if name not in DOORS
        for other in others - DOORS
        if part(other) != part(name) and LEVEL[part(other)] >= LEVEL[part(name)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_below_vision_imports_the_door_of_the_package():
    """A door loads names from every floor, so an import of it from inside is an arrow up in disguise."""
    wrong = [
        f"{name} imports {door}"
        for name, others in graph().items()
        for door in others & DOORS
        if name not in DOORS and part(name) != "commands"
    ]
    assert not wrong, "\n".join(wrong)
    for door in DOORS:
        assert graph()[door] <= {"moe_prompts.lazy"}, "a door imports nothing until a name is asked for"


def test_no_circle_of_modules():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_checks_see_an_arrow_up_and_a_circle(tmp_path):
    """The checks themselves, on a small package that breaks both rules."""
    (tmp_path / "errors.py").write_text("from moe_prompts.study import rows\n")
    (tmp_path / "study.py").write_text("def f():\n    from moe_prompts import errors\n")
    small = modules(tmp_path)
    found = {name: imports(path, set(small)) for name, path in small.items()}
    assert found == {"moe_prompts.errors": {"moe_prompts.study"}, "moe_prompts.study": {"moe_prompts.errors"}}
    assert LEVEL["study"] > LEVEL["errors"]
    with pytest.raises(CycleError):
        TopologicalSorter(found).prepare()


@pytest.mark.parametrize(
    "text",
    [
        "import moe_prompts.study.rows",
        "from moe_prompts.study import rows as lines",
        "def f():\n    try:\n        from moe_prompts.study.rows import failed\n    except ImportError:\n        pass",
        "if TYPE_CHECKING:\n    from moe_prompts.study import grid\nelse:\n    from moe_prompts.study import rows",
        "rows = importlib.import_module('moe_prompts.study.rows')",
        'match 1:\n    case 1:\n        with open("a"):\n            import moe_prompts.study.rows',
    ],
)
def test_no_way_to_import_is_overlooked(text, tmp_path):
    (tmp_path / "errors.py").write_text(text)
    known = {"moe_prompts.errors", "moe_prompts.study", "moe_prompts.study.rows"}
    assert imports(tmp_path / "errors.py", known) == {"moe_prompts.study.rows"}


#: Names at the start of a line of a list in a docstring, before what they are.
LISTED = re.compile(r"^ *([a-z_]+(?:, [a-z_]+)*)  +\S", re.MULTILINE)


def unlisted(door: Path) -> set[str]:
    """Modules and folders beside an ``__init__`` whose docstring lists some of them, but not these."""
    rooms = {path.stem for path in door.parent.glob("*.py")} - {"__init__"}
    rooms |= {path.parent.name for path in door.parent.glob("*/__init__.py")}
    text = ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) or ""
    listed = {name for names in LISTED.findall(text) for name in names.split(", ")} & rooms
    return {room for room in rooms - listed if listed and f"``{room}``" not in text}


def test_the_map_of_a_folder_names_every_room():
    found = {door.parent.relative_to(PACKAGE).as_posix(): unlisted(door) for door in PACKAGE.rglob("__init__.py")}
    # What every part rests on is no stage of the way from a model to a figure.
    assert found.pop(".") == {"checks", "cli", "compilation", "errors", "lazy", "seeds", "shown"}
    assert {folder: rooms for folder, rooms in found.items() if rooms} == {}


def test_a_room_that_the_map_forgets_is_found(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "__init__.py").write_text('"""Hold three.\n\none  the first\n"""')
    assert unlisted(tmp_path / "__init__.py") == {"two", "three"}
    (tmp_path / "__init__.py").write_text('"""Hold three.\n\none, two  the first ones\n\nAnd ``three``.\n"""')
    assert unlisted(tmp_path / "__init__.py") == set()


@pytest.mark.parametrize("door", [moe_prompts, vision], ids=lambda door: door.__name__)
def test_no_public_name_is_lost(door):
    """``public_names.json`` is what users may have imported: a name leaves it only with a note in the changes.

    A new name enters it, or nothing would keep that name.
    """
    promised = json.loads(Path(__file__).with_name("public_names.json").read_text(encoding="utf-8"))[door.__name__]
    assert sorted(promised) == sorted(door.__all__)
