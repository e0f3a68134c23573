"""Execute the scripts here and write them beside as notebooks with outputs: python notebooks/make_all.py [NAME ..]

The scripts are what is edited; ``pytest`` holds both together, and runs every notebook with the small numbers that its
cells name under ``nbmake``.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

from moe_prompts import cli

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("[0-9]*.py"))


def executed(script: Path) -> nbformat.NotebookNode:
    """Return the script as a notebook with outputs; cells are named by place, so that a rerun changes outputs alone."""
    notebook = jupytext.read(script)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place}"
    client = NotebookClient(notebook, timeout=1800, record_timing=False, resources={"metadata": {"path": str(HERE)}})
    client.execute()
    # The exact version of Python is no part of the story.
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    return notebook


def main() -> None:
    parser = cli.OneLineParser("make_all.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)} (default all)")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no notebook {unknown[0]!r}; expected some of {', '.join(NAMES)}")
    for name in tqdm(names, desc="notebooks"):
        nbformat.write(executed(HERE / f"{name}.py"), HERE / f"{name}.ipynb")


if __name__ == "__main__":
    cli.run(main, "make_all.py")
