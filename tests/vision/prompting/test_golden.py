"""The published computation: numbers that the official code gave on small random models."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from moe_prompts.vision import AdaptivePrompts, from_official
from moe_prompts.vision.prompting.prompted import PromptedBlock, prompt_parameters

KINDS = ("vit_plain", "vpt_shallow", "vpt_deep", "vapt_default")
PARTS = {
    "deep_prompt_norm.{}.weight": "{}.norm.weight",
    "deep_prompt_norm.{}.bias": "{}.norm.bias",
    "deep_prompt_downsample.{}.conv.kernel": "{}.kernel",
    "deep_prompt_downsample.{}.linear.weight": "{}.weight",
    "deep_prompt_downsample.{}.linear.bias": "{}.bias",
}


@pytest.fixture(params=KINDS)
def golden(request, reference):
    with np.load(reference / "golden" / f"{request.param}.npz", allow_pickle=False) as file:
        return dict(file)


def model_of(golden):
    params = {name.removeprefix("param/"): value for name, value in golden.items() if name.startswith("param/")}
    return from_official(params, json.loads(str(golden["meta"])))


def official_gradients(model) -> dict[str, torch.Tensor]:
    """Gradients under official names and in official shapes."""
    if not hasattr(model, "config"):
        return {f"head.{name}": parameter.grad for name, parameter in model.head.named_parameters()}
    ours = {name: parameter.grad for name, parameter in prompt_parameters(model).items()}
    found = {name: grad for name, grad in ours.items() if name.startswith("head.")}
    found["transformer.prompt_embeddings"] = ours["0.tokens"][None]
    deep = [ours[name] for name in ours if name.endswith("tokens") and name != "0.tokens"]
    if deep:
        found["transformer.deep_prompt_embeddings"] = torch.stack(deep)
    if "1.projector.down" in ours:
        found["transformer.deep_prompt_embeddings_mlp.block.0.weight"] = ours["1.projector.down"]
        found["transformer.deep_prompt_embeddings_mlp.block.2.weight"] = ours["1.projector.up"]
        for index in range(1, len(model.blocks)):
            for official, name in PARTS.items():
                found["transformer." + official.format(index - 1)] = ours[name.format(index)]
    return found


def test_float64(golden):
    """Logits, features and loss to 1e-12, gradients to 1e-10 of their largest entry: rounding only."""
    model = model_of(golden).double()
    images = torch.from_numpy(golden["images"]).double()
    features = model.forward_features(images)
    logits = model.forward_head(features)
    loss = F.cross_entropy(logits, torch.from_numpy(golden["labels"]))
    loss.backward()
    np.testing.assert_allclose(logits.detach(), golden["logits_f64"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(features[:, 0].detach(), golden["encoded_cls_f64"], rtol=0, atol=1e-12)
    assert abs(loss.item() - golden["loss_f64"]) < 1e-12
    gradients = official_gradients(model)
    expected = {name.removeprefix("grad_f64/"): value for name, value in golden.items() if name.startswith("grad_f64/")}
    assert set(gradients) == set(expected)
    for name, value in expected.items():
        error = np.abs(gradients[name].numpy().reshape(value.shape) - value).max()
        assert error <= 1e-10 * np.abs(value).max(), name


def test_sequences_and_substeps(golden):
    """What enters each block, with prompts in place, and the sub-steps of adaptive prompts: float32."""
    model = model_of(golden)
    images = torch.from_numpy(golden["images"])

    def close(ours, name):
        np.testing.assert_allclose(ours, golden[name], rtol=1e-4, atol=1e-4, err_msg=name)

    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(images))
        close(x, "hidden/embeddings")
        n = golden["prompts/layer_0"].shape[1] if "prompts/layer_0" in golden else 0
        for index, block in enumerate(model.blocks):
            wrapped = isinstance(block, PromptedBlock)
            sequence = block.insert(x) if wrapped else x
            close(sequence, f"hidden/in_{index}")
            if n:
                close(sequence[:, 1 : 1 + n], f"prompts/layer_{index}")
            if wrapped and isinstance(block.prompts, AdaptivePrompts):
                substeps(block.prompts, x, close, f"vapt/layer_{index}/")
            out = (block.block if wrapped else block)(sequence)
            x = block.strip(out) if wrapped and block.strips else out
        close(out, "hidden/out_last")


def substeps(prompts, x, close, where):
    normed = prompts.norm(x)
    close(normed, where + "norm")
    U = normed[:, 1:]
    maps = U.transpose(1, 2).reshape(*U.shape[::2], 14, 14)
    close(F.conv2d(maps, prompts.kernel.expand(48, 1, 2, 2), groups=48), where + "conv")
    Z = prompts.tokens(U)
    close(Z.transpose(1, 2), where + "down")
    hidden = F.linear(Z, prompts.projector.down)
    close(hidden, where + "mlp_pre")
    close(hidden.relu(), where + "mlp_hidden")
    close(prompts.projector(Z), where + "mlp_out")


def test_full_checkpoint_names(reference):
    """A whole official checkpoint carries a prefix and another name of the head; numbers are the same."""
    with np.load(reference / "golden" / "vapt_default.npz", allow_pickle=False) as file:
        golden = dict(file)
    params = {name.removeprefix("param/"): value for name, value in golden.items() if name.startswith("param/")}
    renamed = {
        name.replace("head.", "head.last_layer.") if name.startswith("head.") else f"enc.{name}": value
        for name, value in params.items()
    }
    model = from_official(renamed, json.loads(str(golden["meta"]))).double()
    with torch.no_grad():
        logits = model(torch.from_numpy(golden["images"]).double())
    np.testing.assert_allclose(logits, golden["logits_f64"], rtol=0, atol=1e-12)
