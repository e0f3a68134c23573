"""List the models that take prompts: each is built without memory, prompted, and run on one image.

Those of timm are its names; those of ``transformers`` (extra ``hf``) its classes, each with its default
settings.

Models are built on torch's device ``meta``, where arrays have shapes but no numbers.

python -m moe_prompts.vision.prompting.supported > docs/vision_models.md

With ``--rows FILE`` each row is kept there as soon as it is made, and the same command goes on where it was
stopped; rows of other versions of the libraries are refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from moe_prompts import cli
from moe_prompts.checks import listed, shown
from moe_prompts.engine.files import write_atomically
from moe_prompts.errors import InputError
from moe_prompts.tables import markdown
from moe_prompts.vision.prompting.config import VAPT, VPT
from moe_prompts.vision.prompting.layouts import FAMILIES, REFUSED, layout_of
from moe_prompts.vision.prompting.prompted import prompt, refusal, trainable_summary, unprompt

#: One of each kind that the table asks about.
CONFIGS: dict[str, VPT | VAPT] = {
    "VPT-shallow": VPT(deep=False),
    "VPT-deep": VPT(),
    "VAPT": VAPT(),
}
#: What the columns of the page say.
COLUMNS = {
    "grid": "rows and columns of patches at the model's own image size",
    "blocks, width": "number of attention blocks, and features of a token",
    "prefix": "tokens before the patches: class token, distillation token, registers",
    "pooling": "what the head reads: `token` the class token, `avg` the mean of patches, `map` an attention pooling, "
    "`token+avg` the class token and the mean of patches, one after the other",
    "VPT-shallow, VPT-deep, VAPT": "whether `moe_prompts.vision.prompt` takes the model",
    "why not": "what it says otherwise",
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

    A model of another class than timm's ``VisionTransformer`` has a row of ``no``.

    Raises ``InputError`` for a name that timm does not know.

    >>> from moe_prompts.vision import supported_models
    >>> supported_models(["vit_tiny_patch16_224"])["why not"].tolist()  # none: it takes all kinds
    ['']
    """
    rows, known = [], vision_transformers()
    for name in known if names is None else listed(names, "supported_models: names"):
        if not isinstance(name, str) or not timm.is_model(name.split(".")[0]):
            raise InputError(f"supported_models: {shown(name)}; expected names from timm.list_models()")
        with torch.device("meta"):
            # Other classes have no such option.
            options: dict[str, Any] = {"weight_init": "skip"} if name.split(".")[0] in known else {}
            model: Any = timm.create_model(name, **options)
        against = {kind: _against(model, kind) for kind in CONFIGS}
        verdicts = {kind: "no" if reason else "yes" for kind, reason in against.items()}
        reasons = dict.fromkeys(reason for reason in against.values() if reason)
        rows.append({"model": name} | _sizes(model) | verdicts | {"why not": "; ".join(reasons)})
    return pd.DataFrame(rows)


def supported_transformers(names: Iterable[str] | None = None) -> pd.DataFrame:
    """Return one row for each class of ``transformers``, as ``supported_models`` does for timm's names.

    Each is built with the default settings of its config, MAE without masking, with eager attention, which
    the device of no numbers knows.

    names  of classes; None: all of ``layouts.FAMILIES`` and ``layouts.REFUSED``

    Raises ``InputError`` without the library ``transformers``.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(
            'supported_transformers needs the library transformers; try: pip install -e ".[hf]" -c requirements.lock'
        ) from error
    rows = []
    for name in (*FAMILIES, *REFUSED) if names is None else names:
        kind = getattr(transformers, name)
        if name.startswith("TimmWrapper"):
            continue  # built of a timm model, which has a row of its own
        settings = kind.config_class()
        for changed, value in (("mask_ratio", 0.0), ("drop_path_rate", 0.0)):
            if hasattr(settings, changed) and name in FAMILIES:
                setattr(settings, changed, value)
        with torch.device("meta"):
            model: Any = kind._from_config(settings, attn_implementation="eager")
        against = {prompts: _against(model, prompts) for prompts in CONFIGS}
        verdicts = {prompts: "no" if reason else "yes" for prompts, reason in against.items()}
        # The error names all classes that are taken, which stand above; the page needs the last words.
        reasons = dict.fromkeys(reason.rpartition("Classification: ")[2] for reason in against.values() if reason)
        rows.append({"class": name} | _sizes(model) | verdicts | {"why not": "; ".join(reasons)})
    return pd.DataFrame(rows)


def page(table: pd.DataFrame, others: pd.DataFrame) -> str:
    """Return the tables of timm's names and of the classes of ``transformers`` as a page of Markdown."""
    import transformers

    lines = [
        "# Vision Transformers that take prompts",
        "",
        f"Written by `python -m moe_prompts.vision.prompting.supported` with timm {timm.__version__} and transformers",
        f"{transformers.__version__}: each model is built without memory, prompted and run on one image.",
        "",
        "Which models take fixed (VPT) and adaptive prompts (VAPT), and why others do not.",
        "",
        markdown(["column", "says"], list(COLUMNS.items())),
        "",
        "## Classes of Hugging Face's transformers",
        "",
        "Each with the default settings of its config; MAE with `mask_ratio=0`. Not listed: `TimmWrapperModel`, whose",
        "`.timm_model` is a model of timm.",
        "",
        _as_markdown(others),
        "",
        "## Names of timm",
        "",
        "Every name of the modules that build timm's `VisionTransformer`.",
        "Other classes are refused in one line: Swin, NaFlex, EVA (rotary positions), distilled DeiT.",
        "",
        _as_markdown(table),
    ]
    return "\n".join(lines) + "\n"


def _as_markdown(table: pd.DataFrame) -> str:
    return markdown(list(table.columns), [[str(cell) for cell in row] for row in table.itertuples(index=False)])


def _sizes(model: Any) -> dict[str, Any]:
    if refusal(model) and not isinstance(model, VisionTransformer):
        return dict.fromkeys(("grid", "blocks", "width", "prefix", "pooling"), "")
    layout = layout_of(model)
    return {
        "grid": "{} x {}".format(*layout.grid_size),
        "blocks": len(layout.blocks),
        "width": layout.width,
        "prefix": layout.num_prefix_tokens,
        "pooling": layout.pooling or "none",
    }


def _against(model: Any, kind: str) -> str:
    """Return why this model does not take prompts of this kind; empty if it does."""
    reason = refusal(model)
    if reason:
        return reason
    layout = layout_of(model)
    config, blocks, grid = CONFIGS[kind], len(layout.blocks), layout.grid_size
    try:
        prompted = prompt(model, config, num_classes=7)
    except InputError as error:
        return str(error)
    try:
        found = prompted(torch.empty(1, 3, *layout.image_size, device="meta"))
        logits = found if isinstance(found, torch.Tensor) else found.logits
        counted = trainable_summary(prompted).prompts
    finally:
        unprompt(prompted)
    expected = config.n_parameters(layout.width, blocks, grid)
    pooled = (1, 7) if layout.pooling else (1, logits.shape[1], 7)
    if logits.shape != pooled or counted != expected:
        return f"gives {tuple(logits.shape)}, trains {counted} numbers; expected {pooled} and {expected}"
    return ""


def kept(path: Path | None, versions: dict[str, str], make: Callable[[], pd.DataFrame], name: str) -> pd.DataFrame:
    """Return the table that ``make`` makes, or that a file of rows already has under ``name``.

    path      of the file, one JSON record a line; None: nothing is kept
    versions  of the libraries, which a row belongs to

    Raises ``InputError`` for a file of other versions, or one that holds something else.
    """
    rows = [] if path is None or not path.exists() else path.read_text(encoding="utf-8").splitlines()
    for line in rows:
        try:
            record = json.loads(line)
            told, made, body = record["versions"], record["name"], record["rows"]
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path} is no file of rows; expected one that this command wrote") from error
        if told != versions:
            raise InputError(f"{path} has rows of {told}; expected {versions}: choose another file")
        if made == name:
            return pd.DataFrame(body)
    table = make()
    if path is not None:
        record = {"versions": versions, "name": name, "rows": table.to_dict(orient="records")}
        write_atomically(path, "".join(f"{line}\n" for line in [*rows, json.dumps(record)]).encode())
    return table


def main() -> None:
    """Write the page to standard output."""
    parser = cli.OneLineParser("supported", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=Path, default=None, metavar="FILE", help="keeps rows, so that a run goes on")
    rows = parser.parse_args().rows
    import transformers

    versions = {"timm": timm.__version__, "transformers": transformers.__version__}
    ours = [kept(rows, versions, partial(supported_models, [name]), name) for name in vision_transformers()]
    others = kept(rows, versions, supported_transformers, "transformers")
    sys.stdout.write(page(pd.concat(ours, ignore_index=True), others))


if __name__ == "__main__":
    cli.run(main, "supported")
