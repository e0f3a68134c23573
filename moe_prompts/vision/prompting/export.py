"""Take a prompted model out of this package: as a program of torch, as ONNX, or merged into a plain model.

    exported(model)        torch.export, any batch size
    export_onnx(model, f)  ONNX, any batch size, checked by onnxruntime
    merge(model)           timm's model in which fixed prompts are constants

A fixed prompt P of block i is used there by its keys and values alone, since its own row is thrown away after
the block. With the block's norm LN they are constants,

    k(P) = W_K LN(P) + b_K,   v(P) = W_V LN(P) + b_V,

so ``merge`` keeps them in place of P: deep prompts are then a prefix of keys and values, and cost no MLP.
Prompts of VPT-shallow live on from block to block, as register tokens do, and become such. Adaptive prompts
are functions of the image: there is no constant to merge, and the exported programs hold what computes them.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from moe_prompts.engine.files import write_atomically
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.config import VAPT
from moe_prompts.vision.prompting.layouts import TimmLayout, layout_of
from moe_prompts.vision.prompting.prompted import check_prompted, unprompt
from moe_prompts.vision.prompting.prompted_model import Prompted, PromptedBlock

#: Largest difference of logits, relative to the largest logit, between torch and onnxruntime in float32.
TOLERANCE = 1e-5
#: Numbers of images on which a file is checked; the first is not that of the example.
CHECKED = (1, 3)


class Logits(nn.Module):
    """Return the logits alone, also of a model of ``transformers``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, C) of images (B, C, H, W)."""
        found = self.model(images)
        return found if isinstance(found, Tensor) else found.logits


def exported(model: Prompted) -> torch.export.ExportedProgram:
    """Return a prompted model in evaluation mode as a program of ``torch.export``, for any number of images.

    ``torch.export.save(program, "model.pt2")`` writes it; torch alone reads and runs it.

    Raises ``InputError`` for a model that ``prompt`` did not return.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, exported, prompt
    >>> program = exported(prompt(timm.create_model("test_vit"), VPT(num_tokens=4), num_classes=10))
    >>> program.module()(torch.zeros(3, 3, 160, 160)).shape
    torch.Size([3, 10])
    """
    check_prompted(model, "exported")
    training = model.training
    try:
        wrapped = Logits(model.eval()).eval()
        return torch.export.export(wrapped, (_images(model, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    finally:
        model.train(training)


def export_onnx(model: Prompted, path: str | Path) -> float:
    """Write a prompted model in evaluation mode as ONNX, for any number of images; return how well it agrees.

    Its input is ``images``, its output ``logits``. The number returned is the largest difference of logits
    from torch's on random images, relative to the largest logit, as onnxruntime computes them, for 1 and for
    3 images.

    model  what ``prompt`` returned
    path   the file to write

    Raises ``InputError`` without onnx, onnxscript and onnxruntime (extra ``export``), for a model that
    ``prompt`` did not return, and, before the file is written, where the difference is more than 1e-5 or
    where all logits are 0, so that there is nothing to compare.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, export_onnx, prompt
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VPT(num_tokens=2), num_classes=3)
    >>> torch.nn.init.normal_(model.head.weight).shape
    torch.Size([3, 192])
    >>> export_onnx(model, "model.onnx") < 1e-5
    True
    """
    check_prompted(model, "export_onnx")
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ModuleNotFoundError as error:
        raise InputError(
            f'export_onnx needs {error.name}; try: pip install -e ".[export]" -c requirements.lock'
        ) from error
    training = model.training
    try:
        images = [_images(model, number) for number in CHECKED]
        with torch.no_grad():
            expected = [Logits(model.eval())(batch).cpu().double() for batch in images]
    finally:
        model.train(training)
    sizes = [float(logits.abs().max()) for logits in expected]
    if 0 in sizes:
        raise InputError(
            "export_onnx: all logits are 0, as of an untrained head, so that nothing can be compared; "
            "expected a trained model, or prompt(..., head='published')"
        )
    program = torch.onnx.export(
        exported(model), (), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
    )
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    apart = 0.0
    for batch, logits, size in zip(images, expected, sizes, strict=True):
        [found] = session.run(None, {session.get_inputs()[0].name: batch.cpu().numpy()})
        apart = max(apart, float((torch.from_numpy(found).double() - logits).abs().max()) / size)
    if not apart <= TOLERANCE:
        raise InputError(
            f"export_onnx: onnxruntime's logits differ from torch's by {apart:.1e} of the largest; expected at most "
            f"{TOLERANCE:g}: export the model in float32"
        )
    write_atomically(Path(path), content)
    return apart


def _images(model: Prompted, number: int) -> Tensor:
    """Return random images of the model's own size, on its device and in its type."""
    layout = layout_of(model)
    like = next(layout.blocks.parameters())
    drawn = torch.randn(number, layout.channels, *layout.image_size, generator=torch.Generator().manual_seed(number))
    return drawn.to(like)


class PrefixAttention(nn.Module):
    """Attend to constant keys and values beside those of the tokens.

    attn  timm's attention
    keys, values  (H, N, d_h), of the prompts
    """

    keys: Tensor
    values: Tensor

    def __init__(self, attn: Any, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.attn = attn
        self.register_buffer("keys", keys)
        self.register_buffer("values", values)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the attention's output (B, T, d) for tokens x (B, T, d); raise ``InputError`` for a mask."""
        if attn_mask is not None or is_causal:
            raise InputError("a merged model takes no attention mask: it would not cover the prompts")
        attn: Any = self.attn
        B, T, _ = x.shape
        q, k, v = attn.qkv(x).reshape(B, T, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        k = torch.cat([self.keys.expand(B, -1, -1, -1), attn.k_norm(k)], dim=2)
        v = torch.cat([self.values.expand(B, -1, -1, -1), v], dim=2)
        out = F.scaled_dot_product_attention(attn.q_norm(q), k, v, scale=attn.scale)
        return attn.proj_drop(attn.proj(out.transpose(1, 2).reshape(B, T, -1)))


def merge(model: Prompted) -> VisionTransformer:
    """Return a plain timm model that computes what a model with fixed prompts does, which is not changed.

    VPT-shallow in all blocks gives a ``VisionTransformer`` with N more register tokens: its state_dict is an
    ordinary checkpoint, which timm loads with ``reg_tokens`` and ``no_embed_class=True``. VPT-deep gives
    timm's model with ``PrefixAttention`` in its blocks: its state_dict holds 2 N d constants for each,
    ``blocks.i.attn.keys`` and ``blocks.i.attn.values``.

    Raises ``InputError`` for adaptive prompts, which depend on the image; for a model of ``transformers``
    (``load_prompts`` puts the same file on ``as_timm(model)``); and for VPT-shallow in the last blocks only,
    or in a model that norms its tokens before the first block or pools its prefix tokens.

    >>> import timm, torch
    >>> from moe_prompts.vision import VPT, merge, prompt
    >>> model = prompt(timm.create_model("test_vit"), VPT(num_tokens=4), num_classes=10, head="published")
    >>> images = torch.rand(1, 3, 160, 160)
    >>> torch.allclose(merge(model).eval()(images), model.eval()(images), atol=1e-5)
    True
    """
    check_prompted(model, "merge")
    config = model.prompt_config
    if isinstance(config, VAPT):
        raise InputError(
            "merge: adaptive prompts are computed from each image, so they are no constants; expected fixed prompts "
            "(VPT), or exported(model), which holds what computes them"
        )
    if not isinstance(model, VisionTransformer):
        raise InputError(
            f"merge: a {type(model).__name__}; expected timm's model: load_prompts puts its file on as_timm(plain)"
        )
    if not config.deep and config.blocks not in (None, len(layout_of(model).blocks)):
        raise InputError(
            f"merge: VPT-shallow in the last {config.blocks} blocks; tokens of a plain model begin in the first one: "
            "expected blocks=None, or deep=True"
        )
    if not config.deep and (not isinstance(model.norm_pre, nn.Identity) or model.pool_include_prefix):
        raise InputError(
            "merge: VPT-shallow in a model that norms its tokens before the first block, or pools its prefix tokens, "
            "where registers are no prompts; expected deep=True"
        )
    copy: Any = deepcopy(model)
    prompts = {i: block.prompts.tokens for i, block in enumerate(copy.blocks) if _has_prompts(block)}
    head, classes, training = copy.head, copy.num_classes, copy.training
    plain: Any = unprompt(copy)
    plain.head, plain.num_classes = head, classes
    with torch.no_grad():
        if config.deep:
            for index, tokens in prompts.items():
                _take_prefix(plain.blocks[index], tokens, index)
        else:
            _take_registers(plain, prompts[0])
    return plain.train(training)


def _has_prompts(block: nn.Module) -> bool:
    return isinstance(block, PromptedBlock) and block.prompts is not None


def _take_prefix(block: Any, tokens: Tensor, index: int) -> None:
    """Put keys and values of tokens (N, d) in place of the tokens."""
    parts = TimmLayout(None).attention(block, f"merge: block {index}")
    _, k, v = parts.project(block.norm1(tokens[None])).unbind(dim=2)
    keys = parts.k_norm(k[0].transpose(0, 1))
    block.attn = PrefixAttention(block.attn, keys.clone(), v[0].transpose(0, 1).clone())


def _take_registers(plain: Any, tokens: Tensor) -> None:
    """Make prompts (N, d) register tokens, which get no positions; those of prefix tokens go into the tokens."""
    prefix = plain.num_prefix_tokens
    own = [token for token in (plain.cls_token, plain.reg_token) if token is not None]
    held = torch.cat(own, dim=1) if own else tokens[None, :0]
    if not plain.no_embed_class and prefix and plain.pos_embed is not None:
        held = held + plain.pos_embed[:, :prefix]
        plain.pos_embed = nn.Parameter(plain.pos_embed[:, prefix:].clone())
    start = 1 if plain.cls_token is not None else 0
    if start:
        plain.cls_token = nn.Parameter(held[:, :1].clone())
    plain.reg_token = nn.Parameter(torch.cat([held[:, start:], tokens[None].to(held.dtype)], dim=1))
    plain.num_reg_tokens = plain.reg_token.shape[1]
    plain.num_prefix_tokens = prefix + tokens.shape[0]
    plain.no_embed_class = True
