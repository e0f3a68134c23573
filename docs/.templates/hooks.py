"""A hook of MkDocs: what pages of docs/ show and do not hold becomes part of the site.

Figures of ``paper_figures/`` become files. ``[[public names: PART, ...]]`` becomes the reference of the public names
that live in these parts of the package. Common formulas that pages write as plain text, in tables that commands write
too, are set as mathematics.
"""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import moe_prompts

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "paper_figures"
NAMES = re.compile(r"^\[\[public names: (.+)\]\]$", re.M)

#: Formulas as text, and as LaTeX. They are looked for outside code only.
FORMULAS = [
    (r"n\^\(-1/\((\d*m)\)\)", r"n^{-1/(\1)}"),
    (r"n\^\(-1/(\d+)\)", r"n^{-1/\1}"),
    (r"n\^-1/(\d)", r"n^{-1/\1}"),
    (r"n\^-1\b(?!/)", r"n^{-1}"),
    (r"n\^-0\.5\b", r"n^{-1/2}"),
    (r"s\^2 P / n\b", r"s^2 P / n"),
    (r"s\^2 rank / n\b", r"s^2 \\operatorname{rank} / n"),
    (r"E ?\\?\|f - f\\?\*\\?\|\^2 / E ?\\?\|f\\?\*\\?\|\^2", r"E\\lvert f - f^* \\rvert^2 / E\\lvert f^* \\rvert^2"),
    (r"E ?\\?\|f_hat - f\\?\*\\?\|\^2", r"E\\lvert \\hat f - f^* \\rvert^2"),
    (r"E ?\\?\|f\\?\*\\?\|\^2", r"E\\lvert f^* \\rvert^2"),
]
#: Code, mathematics and links, which stay as they are.
KEPT = re.compile(
    r"(```.*?```|^(?: {4}[^\n]*\n)+|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]+\$|\]\([^)]*\)|<!--.*?-->)", re.S | re.M
)


def on_files(files: Files, config: Any) -> Files:
    for path in sorted(FIGURES.glob("*.png")):
        files.append(File.generated(config, f"paper_figures/{path.name}", abs_src_path=str(path)))
    sys.path.insert(0, str(Path(__file__).parent))
    from explorer import page

    files.append(File.generated(config, "explore.html", content=page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """As seen from the site, whose root is docs/."""
    markdown = markdown.replace("](../paper_figures/", "](paper_figures/")
    markdown = NAMES.sub(lambda found: references(found[1].split(", ")), markdown)
    return with_formulas(markdown)


def references(parts: list[str]) -> str:
    """Return the directives for the public names of these parts, each under its shortest public name."""
    return "\n\n".join(f"::: {where}" for where in public(parts))


def public(parts: list[str]) -> list[str]:
    """Return where the public names of some parts of the package are defined, in the order of the package's list."""
    if parts == ["vision"]:
        from moe_prompts import vision

        return [f"moe_prompts.vision.{module}.{name}" for name, module in vision._PUBLIC.items()]
    named = [*moe_prompts._PUBLIC.items(), ("study", "studies")]
    return [f"moe_prompts.{module}.{name}" for name, module in named if module.split(".")[0] in parts]


def with_formulas(markdown: str) -> str:
    """Return a page with the formulas of ``FORMULAS`` set as mathematics."""
    parts = KEPT.split(markdown)
    for number in range(0, len(parts), 2):
        for plain, latex in FORMULAS:
            parts[number] = re.sub(plain, "$" + latex + "$", parts[number])
    return "".join(parts)
