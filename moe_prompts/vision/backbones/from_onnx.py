"""Read the weights of a plain Vision Transformer out of an ONNX file, under the names that timm gives them.

An exporter keeps the names of biases and norms, but stores the matrix of a linear layer transposed under a
number, and the position table likewise. Which matrix belongs to which bias is read off the graph, where one
is added to the other's product, so nothing depends on the order of the numbers.

The position table of the file belongs to one size of images. For another size it is resampled by bicubic
interpolation (a = -3/4) between the centres of cells, without antialiasing and without offset, because the
graphs themselves do that.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moe_prompts.errors import InputError

#: Names in the file, of the embeddings and of layer i, and timm's for them; layers of timm are ``blocks.i``.
EMBEDDINGS = {
    "embeddings.cls_token": "cls_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
LAYER = {
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "attention.output.dense.weight": "attn.proj.weight",
    "attention.output.dense.bias": "attn.proj.bias",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
    "layer_scale2.lambda1": "ls2.gamma",
}
PREFIX, LAYERS, FINAL_BIAS = "backbone.", "backbone.encoder.layer.", "backbone.layernorm.bias"


def vit_state(content: bytes, source: str) -> dict[str, Tensor]:
    """Return the weights of the ONNX file ``content`` under timm's names, as float32.

    The position table is (1, 1 + P, d), with the class token's row first and P a square. ``source`` names the
    file in errors. Raises ``InputError`` if ``onnx`` is missing or the file holds another network.
    """
    graph = _graph(content, source)
    try:
        arrays = _arrays(graph)
        state = {name: arrays[PREFIX + key] for key, name in EMBEDDINGS.items()}
        state["pos_embed"] = _positions(arrays)
        depth = 1 + max(int(name.removeprefix(LAYERS).split(".")[0]) for name in arrays if name.startswith(LAYERS))
        for layer in range(depth):
            own, timms = f"{LAYERS}{layer}.", f"blocks.{layer}."
            state |= {timms + name: arrays[own + key] for key, name in LAYER.items()}
            for kind in ("weight", "bias"):
                parts = [arrays[f"{own}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
                state[f"{timms}attn.qkv.{kind}"] = np.concatenate(parts)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{source}: no Vision Transformer of the expected form ({error}); expected layers called {LAYERS}i with "
            "query, key, value, output, fc1, fc2, two norms and two scales"
        ) from error
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in state.items()}


def final_tokens(content: bytes, images: np.ndarray) -> np.ndarray:
    """Return the tokens that onnxruntime gives at the file's final norm, (B, 1 + patches, d).

    content  of the ONNX file
    images   (B, 3, H, W), normalised

    A conversion is checked against them; this needs ``onnx`` and ``onnxruntime``. Raises ``InputError`` where
    one of these is missing.
    """
    onnx, onnxruntime = _onnx(), _onnxruntime()
    model = onnx.load_model_from_string(content)
    graph = model.graph
    # The exporter wrote one size into the signature; the graph itself reads sizes from its input.
    for number, dimension in enumerate(graph.input[0].type.tensor_type.shape.dim):
        if number != 1:
            dimension.dim_param = f"axis{number}"
    last = next(node.output[0] for node in graph.node if node.op_type == "Add" and FINAL_BIAS in node.input)
    graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # sizes other than the declared one are warned about at every output
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([last], {graph.input[0].name: np.ascontiguousarray(images, np.float32)})[0]


def resampled_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the position table (1, 1 + P, d) of a square grid for another grid: (1, 1 + Gh Gw, d)."""
    prefix, places = table[:, :1], table[:, 1:]
    side = isqrt(places.shape[1])
    if (side, side) == grid:
        return table
    maps = places.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    maps = F.interpolate(maps, size=grid, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([prefix.float(), maps.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def check_onnx() -> None:
    """Raise ``InputError`` if the package ``onnx`` is missing."""
    _onnx()


def check_onnxruntime() -> None:
    """Raise ``InputError`` if the package ``onnxruntime`` is missing; the check of a conversion needs it."""
    _onnxruntime()


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise InputError("the check of a conversion needs onnxruntime; try: pip install onnxruntime") from error
    return onnxruntime


def _onnx() -> Any:
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise InputError("reading an ONNX file needs onnx; try: pip install -e '.[pretrained]'") from error
    return onnx


def _graph(content: bytes, source: str) -> Any:
    onnx = _onnx()
    try:
        return onnx.load_model_from_string(content).graph
    except Exception as error:  # protobuf's decoder raises a class of its own, which depends on its backend
        raise InputError(f"{source}: no ONNX file ({' '.join(str(error).split())[:80]})") from error


def _arrays(graph: Any) -> dict[str, np.ndarray]:
    """Return all arrays of the file by name.

    Matrices of linear layers are ``X.weight`` (out, in), where a bias ``X.bias`` is added to their product.
    """
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    matrix_of = {
        node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in arrays
    }
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (node.input, reversed(node.input)):
            if bias in arrays and bias.endswith(".bias") and product in matrix_of:
                arrays[bias.removesuffix("bias") + "weight"] = arrays[matrix_of[product]].T
    return arrays


def _positions(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the class token's row, then the table: the two arrays (1, rows, d) with names of no layer."""
    unnamed = [value for name, value in arrays.items() if not name.startswith(PREFIX) and value.ndim == 3]
    unnamed.sort(key=lambda value: value.shape[1])
    shapes = [value.shape for value in unnamed]
    if len(unnamed) != 2 or shapes[0][1] != 1 or isqrt(shapes[1][1]) ** 2 != shapes[1][1]:
        raise ValueError(f"position tables of shapes {shapes}, not (1, 1, d) and (1, a square, d)")
    return np.concatenate(unnamed, axis=1)
