"""List the timm models that take prompts: each is built without memory, prompted, and run on one image.

Models are built on torch's device ``meta``, where arrays have shapes but no numbers.

python -m moe_prompts.vision.prompting.supported > docs/vision_models.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import pandas as pd
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.errors import InputError
from moe_prompts.tables import markdown
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.prompting.prompted import prompt, refusal, trainable_summary, unprompt

#: One of each kind that the table asks about.
CONFIGS: dict[str, VPT | VAPT] = {
    "VPT-shallow": VPT(deep=False),
    "VPT-deep": VPT(),
    "VAPT": VAPT(),
}


def vision_transformers() -> list[str]:
    """Return the names of timm whose module builds timm's ``VisionTransformer``, sorted."""
    modules = [
        name
        for name in timm.list_modules()
        if getattr(sys.modules.get(f"timm.models.{name}"), "VisionTransformer", None) is VisionTransformer
    ]
    return sorted(name for module in modules for name in timm.list_models(module=module))


def supported_models(names: Iterable[str] | None = None) -> pd.DataFrame:
    """Return one row for each model: its sizes, for each kind of prompts ``yes`` or ``no``, and why not.

    A ``yes`` means that the model was prompted, classified an image of its size into 7 classes, and had as
    many trained numbers as the formula says.

    names  of models; None: all of ``vision_transformers``
    """
    rows = []
    for name in vision_transformers() if names is None else names:
        with torch.device("meta"):
            model: Any = timm.create_model(name, weight_init="skip")
        against = {kind: _against(model, kind) for kind in CONFIGS}
        verdicts = {kind: "no" if reason else "yes" for kind, reason in against.items()}
        reasons = dict.fromkeys(reason for reason in against.values() if reason)
        rows.append({"model": name} | _sizes(model) | verdicts | {"why not": "; ".join(reasons)})
    return pd.DataFrame(rows)


def page(table: pd.DataFrame) -> str:
    """Return the table as a page of Markdown."""
    lines = [
        "# Vision Transformers of timm that take prompts",
        "",
        f"Written by `python -m moe_prompts.vision.prompting.supported` with timm {timm.__version__}: every name",
        "of the modules that build timm's `VisionTransformer`, built without memory, prompted and run on one image.",
        "Other classes are refused in one line: Swin, NaFlex, EVA (rotary positions), distilled DeiT.",
        "",
        markdown(list(table.columns), [[str(cell) for cell in row] for row in table.itertuples(index=False)]),
    ]
    return "\n".join(lines) + "\n"


def _sizes(model: torch.nn.Module) -> dict[str, Any]:
    if not isinstance(model, VisionTransformer):
        return dict.fromkeys(("grid", "blocks", "width", "prefix", "pooling"), "")
    grid = "{} x {}".format(*model.patch_embed.grid_size)
    return {
        "grid": grid,
        "blocks": len(model.blocks),
        "width": model.embed_dim,
        "prefix": model.num_prefix_tokens,
        "pooling": model.global_pool or "none",
    }


def _against(model: Any, kind: str) -> str:
    """Return why this model does not take prompts of this kind; empty if it does."""
    reason = refusal(model)
    if reason:
        return reason
    config, blocks, grid = CONFIGS[kind], len(model.blocks), tuple(model.patch_embed.grid_size)
    try:
        prompted = prompt(model, config, num_classes=7)
    except InputError as error:
        return str(error)
    try:
        images = torch.empty(1, 3, *model.patch_embed.img_size, device="meta")
        logits = prompted(images)
        counted = trainable_summary(prompted).prompts
    finally:
        unprompt(prompted)
    expected = config.n_parameters(model.embed_dim, blocks, grid)
    pooled = (1, 7) if model.global_pool else (1, logits.shape[1], 7)
    if logits.shape != pooled or counted != expected:
        return f"gives {tuple(logits.shape)}, trains {counted} numbers; expected {pooled} and {expected}"
    return ""


if __name__ == "__main__":
    sys.stdout.write(page(supported_models()))
