"""A small Vision Transformer as an exporter writes one: names of biases and norms kept, matrices transposed and
numbered, the position table resampled inside the graph. Weights are random."""

from __future__ import annotations

import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, DEPTH, HEADS, PATCH, SIDE = 12, 3, 2, 14, 5
MEMBER = "tiny_vit/models/tiny.onnx"


class Graph:
    """Nodes and arrays as they are added; ``add`` returns the name of what a node gives."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.nodes, self.arrays, self.numbers = rng, [], {}, 2000

    def array(self, name: str, *shape: int, scale: float = 0.3) -> str:
        self.arrays[name] = (scale * self.rng.standard_normal(shape)).astype(np.float32)
        return name

    def constant(self, values) -> str:
        self.numbers += 1
        name = f"constant_{self.numbers}"
        self.arrays[name] = np.array(values)
        return name

    def add(self, kind: str, *inputs: str, **attributes) -> str:
        self.numbers += 1
        self.nodes.append(helper.make_node(kind, list(inputs), [f"out_{self.numbers}"], **attributes))
        return f"out_{self.numbers}"

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        self.numbers += 1
        matrix = self.array(f"onnx::MatMul_{self.numbers}", inputs, outputs)
        return self.add("Add", self.array(f"{name}.bias", outputs), self.add("MatMul", x, matrix))

    def norm(self, x: str, name: str) -> str:
        centred = self.add("Sub", x, self.add("ReduceMean", x, axes=[-1]))
        spread = self.add("ReduceMean", self.add("Mul", centred, centred), axes=[-1])
        scale = self.add("Sqrt", self.add("Add", spread, self.constant(np.float32(1e-6))))
        scaled = self.add("Mul", self.add("Div", centred, scale), self.array(f"{name}.weight", WIDTH))
        return self.add("Add", scaled, self.array(f"{name}.bias", WIDTH))

    def split(self, x: str) -> str:
        """(B, T, d) -> (B, H, T, d_h)"""
        shaped = self.add("Reshape", x, self.constant([0, 0, HEADS, WIDTH // HEADS]))
        return self.add("Transpose", shaped, perm=[0, 2, 1, 3])

    def attention(self, x: str, name: str) -> str:
        # The exporter's order: keys first, then values, then queries.
        key, value, query = (
            self.split(self.linear(x, f"{name}.attention.{part}", WIDTH, WIDTH)) for part in ("key", "value", "query")
        )
        scores = self.add("MatMul", query, self.add("Transpose", key, perm=[0, 1, 3, 2]))
        gates = self.add(
            "Softmax", self.add("Mul", scores, self.constant(np.float32((WIDTH // HEADS) ** -0.5))), axis=-1
        )
        mixed = self.add("Transpose", self.add("MatMul", gates, value), perm=[0, 2, 1, 3])
        joined = self.add("Reshape", mixed, self.constant([0, 0, WIDTH]))
        return self.linear(joined, f"{name}.output.dense", WIDTH, WIDTH)

    def mlp(self, x: str, name: str) -> str:
        hidden = self.linear(x, f"{name}.fc1", WIDTH, 4 * WIDTH)
        erf = self.add("Erf", self.add("Mul", hidden, self.constant(np.float32(0.5**0.5))))
        half = self.add("Mul", hidden, self.constant(np.float32(0.5)))
        return self.linear(
            self.add("Mul", half, self.add("Add", erf, self.constant(np.float32(1)))), f"{name}.fc2", 4 * WIDTH, WIDTH
        )

    def layer(self, x: str, name: str) -> str:
        for branch, norm, scale in (
            (self.attention, "norm1", "layer_scale1.lambda1"),
            (self.mlp, "norm2", "layer_scale2.lambda1"),
        ):
            inside = "attention" if branch == self.attention else "mlp"
            out = branch(self.norm(x, f"{name}.{norm}"), f"{name}.{inside}")
            x = self.add("Add", self.add("Mul", out, self.array(f"{name}.{scale}", WIDTH, scale=1.0)), x)
        return x


def tiny_onnx(seed: int = 0, side: int = SIDE) -> bytes:
    """The bytes of the file; the table of positions has ``side`` x ``side`` cells."""
    g = Graph(np.random.default_rng(seed))
    kernel = g.array("backbone.embeddings.patch_embeddings.projection.weight", WIDTH, 3, PATCH, PATCH, scale=0.05)
    bias = g.array("backbone.embeddings.patch_embeddings.projection.bias", WIDTH)
    maps = g.add("Conv", "input_image", kernel, bias, kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
    patches = g.add("Transpose", g.add("Reshape", maps, g.constant([0, 0, -1])), perm=[0, 2, 1])
    rows = g.add(
        "Concat", g.add("Slice", g.add("Shape", maps), g.constant([0]), g.constant([1])), g.constant([1, 1]), axis=0
    )
    token = g.add("Expand", g.array("backbone.embeddings.cls_token", 1, 1, WIDTH, scale=1.0), rows)
    tokens = g.add("Concat", token, patches, axis=1)
    table = g.array("onnx::Reshape_1962", 1, side * side, WIDTH, scale=1.0)
    square = g.add("Transpose", g.add("Reshape", table, g.constant([1, side, side, WIDTH])), perm=[0, 3, 1, 2])
    grid = g.add("Slice", g.add("Shape", maps), g.constant([2]), g.constant([4]))
    sizes = g.add("Concat", g.constant([1, WIDTH]), grid, axis=0)
    resized = g.add(
        "Resize", square, "", "", sizes, mode="cubic", coordinate_transformation_mode="half_pixel", cubic_coeff_a=-0.75
    )
    places = g.add("Reshape", g.add("Transpose", resized, perm=[0, 2, 3, 1]), g.constant([1, -1, WIDTH]))
    first = g.array("onnx::Concat_1957", 1, 1, WIDTH, scale=1.0)
    x = g.add("Add", tokens, g.add("Concat", first, places, axis=1))
    for layer in range(DEPTH):
        x = g.layer(x, f"backbone.encoder.layer.{layer}")
    x = g.norm(x, "backbone.layernorm")
    # What stands in for the decoder, which a conversion leaves out.
    decoder = g.array("decoder.final_conv.weight", WIDTH, 1)
    last = g.add("MatMul", x, decoder)
    graph = helper.make_graph(
        g.nodes,
        "tiny",
        [
            helper.make_tensor_value_info(
                "input_image", TensorProto.FLOAT, ["batch_size", 3, PATCH * side, PATCH * side]
            )
        ],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["B", "T", 1])],
        [numpy_helper.from_array(value, name) for name, value in g.arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_wheel(folder, content: bytes):
    """A wheel ``tiny-vit`` 0.1 with the file inside, which pip can download."""
    path = folder / "tiny_vit-0.1-py3-none-any.whl"
    about = "tiny_vit-0.1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(MEMBER, content)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-vit\nVersion: 0.1\nLicense: MIT\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path
