"""Execute the scripts here and write them beside as notebooks with outputs: python notebooks/make_all.py [NAME ..]

The scripts are what is edited; ``pytest`` holds both together, and runs every notebook with the small numbers that its
cells name under ``nbmake``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

HERE = Path(__file__).parent


def executed(script: Path) -> nbformat.NotebookNode:
    """The script as a notebook with outputs; cells are named by place, so that a new run changes outputs alone."""
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
    names = sys.argv[1:] or sorted(path.stem for path in HERE.glob("[0-9]*.py"))
    for name in tqdm(names, desc="notebooks"):
        nbformat.write(executed(HERE / f"{name}.py"), HERE / f"{name}.ipynb")


if __name__ == "__main__":
    main()
