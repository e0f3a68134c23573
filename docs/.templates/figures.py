"""A hook of MkDocs: figures of ``paper_figures/``, which pages of docs/ show, become files of the site."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

FIGURES = Path(__file__).parents[2] / "paper_figures"


def on_files(files: Files, config: Any) -> Files:
    for path in sorted(FIGURES.glob("*.png")):
        files.append(File.generated(config, f"paper_figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """As seen from the site, whose root is docs/."""
    return markdown.replace("](../paper_figures/", "](paper_figures/")
