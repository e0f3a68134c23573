"""Every public function of the vision part gets each of its arguments wrong: it takes it, or says so in one line."""

from copy import deepcopy
from dataclasses import fields

import pytest
import torch
from torch import nn
from vision_models import CLASSES, CONFIGS, images, plain, prompted, rng
from wrong import faults

from moe_prompts import vision
from moe_prompts.vision import VAPT, VPT
from moe_prompts.vision.prompting.prompts import Projector
from moe_prompts.vision.training.packed import PackedTrials


def own(config) -> dict:
    return {one.name: getattr(config, one.name) for one in fields(config)}


def on_a_copy(function):
    """What changes a model gets one of its own each time."""
    fresh = lambda model: deepcopy(model) if isinstance(model, nn.Module) else model
    return lambda model, **arguments: function(model=fresh(model), **arguments)


def named_models(names):
    """None is every model of timm, which takes a minute."""
    return vision.supported_models(["vit_tiny_patch16_224"] if names is None else names)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    # Two blocks: most of the time goes into copies of models.
    model, config = plain(depth=2), CONFIGS["VAPT"]
    adapted, low_rank = prompted(config, depth=2), plain(depth=2)
    vision.save_prompts(adapted, folder / "prompts.safetensors")
    vision.add_lora(low_rank, 2, rng())
    vision.save_lora(low_rank, folder / "lora")
    pixels = images()
    at = {"block": 1, "head": 0}
    static = {"num_tokens": 2, "width": 4, "bound": 0.1, "dropout": 0.0, "rng": rng()}
    packed = {"config": config, "head": CLASSES, "rngs": [rng(0), rng(1)], "mean_states": None, "head_init": "zero"}
    adaptive = {
        "config": config,
        "width": 4,
        "grid": (4, 4),
        "projector": Projector(config, 4, rng()),
        "rng": rng(),
        "borrowed": False,
    }
    return {
        "VPT": (VPT, own(VPT())),
        "VAPT": (VAPT, own(VAPT())),
        "VPT.check": (VPT().check, {"blocks": 3, "grid": (4, 4)}),
        "VAPT.n_parameters": (VAPT().n_parameters, {"width": 4, "blocks": 3, "grid": (4, 4)}),
        "StaticPrompts": (vision.StaticPrompts, static),
        "AdaptivePrompts": (vision.AdaptivePrompts, adaptive),
        "prompt": (
            on_a_copy(vision.prompt),
            {"model": model, "config": config, "num_classes": CLASSES, "rng": rng(), "head": "zero"},
        ),
        "gradient_ratio": (vision.gradient_ratio, {"model": adapted, "images": pixels, "rng": rng()}),
        "start_from": (
            on_a_copy(vision.start_from),
            {
                "model": prompted(CONFIGS["VPT-deep"], depth=2),
                "config": VAPT(3, start="vpt", offset=True),
                "rng": rng(),
            },
        ),
        "train_prompts": (
            on_a_copy(vision.train_prompts),
            {
                "model": adapted,
                "batches": [(pixels, torch.arange(len(pixels)) % CLASSES)],
                "steps": 1,
                "lr": None,
                "weight_decay": 0.0,
                "optimiser": "sgd",
                "warmup": 0.1,
                "fixed_first": 0.5,
            },
        ),
        "unprompt": (on_a_copy(vision.unprompt), {"model": adapted}),
        "trainable_summary": (vision.trainable_summary, {"model": adapted}),
        "parameter_groups": (
            vision.parameter_groups,
            {"model": adapted, "weight_decay": 0.1, "rule": "no_decay"},
        ),
        "save_prompts": (vision.save_prompts, {"model": adapted, "path": folder / "again.safetensors"}),
        "load_prompts": (on_a_copy(vision.load_prompts), {"model": model, "path": folder / "prompts.safetensors"}),
        "backbone_hash": (vision.backbone_hash, {"model": model}),
        "set_mean_states": (
            on_a_copy(vision.set_mean_states),
            {"model": prompted(VAPT(3, hidden=4, source="mean"), depth=2), "images": [pixels]},
        ),
        "PackedTrials": (PackedTrials, {"model": plain(depth=2).requires_grad_(False).eval(), **packed}),
        "add_lora": (on_a_copy(vision.add_lora), {"model": model, "rank": 2, "rng": rng(), "blocks": None}),
        "add_adapters": (on_a_copy(vision.add_adapters), {"model": model, "rank": 2, "rng": rng(), "blocks": None}),
        "save_lora": (vision.save_lora, {"model": low_rank, "folder": folder / "lora-again"}),
        "load_lora": (on_a_copy(vision.load_lora), {"model": model, "folder": folder / "lora"}),
        "provenance": (vision.provenance, {"name": "small"}),
        "read_head": (vision.read_head, {"model": adapted, "images": pixels, **at}),
        "draw_mass": (vision.draw_mass, {"model": adapted, "image": pixels[0], **at, "ax": None}),
        "prompt_table": (vision.prompt_table, {"model": adapted, "images": pixels}),
        "projections": (vision.projections, {"model": adapted, **at}),
        "gate_rank": (vision.gate_rank, {"model": adapted, **at}),
        "create_backbone": (
            vision.create_backbone,
            {"name": "small", "pretrained": True, "file": None, "size": None, "blocks": None, "entropy": 0},
        ),
        "supported_models": (named_models, {"names": ["vit_tiny_patch16_224"]}),
        "as_timm": (on_a_copy(vision.as_timm), {"model": model}),
        "merge": (vision.merge, {"model": prompted(CONFIGS["VPT-deep"], depth=2)}),
        "exported": (vision.exported, {"model": None}),
        "export_onnx": (vision.export_onnx, {"model": None, "path": folder / "model.onnx"}),
        "from_official": (vision.from_official, {"params": {}, "options": {"heads": 2, "prompt": None}}),
        "load_moco_v3": (on_a_copy(vision.load_moco_v3), {"model": model, "path": folder / "moco.pth.tar"}),
    }


#: These need files or libraries of others, or take long: what is given here is refused, as everything else.
WITHOUT_FILES = {"from_official", "load_moco_v3", "as_timm", "exported", "export_onnx"}
NAMES = (
    *("VPT", "VAPT", "VPT.check", "VAPT.n_parameters", "StaticPrompts", "AdaptivePrompts", "prompt", "unprompt"),
    *("trainable_summary", "parameter_groups", "save_prompts", "load_prompts", "backbone_hash", "set_mean_states"),
    *("PackedTrials", "add_lora", "add_adapters", "save_lora", "load_lora", "provenance", "read_head", "draw_mass"),
    *(
        "prompt_table",
        "projections",
        "gate_rank",
        "create_backbone",
        "supported_models",
        "merge",
        "gradient_ratio",
        "start_from",
        "train_prompts",
        *sorted(WITHOUT_FILES),
    ),
)


# torch and NumPy warn of many wrong values on the way; what counts here is how a call ends.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_argument_is_taken_or_refused_in_one_line(name, calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = faults(name, calls[name], works=name not in WITHOUT_FILES)
    assert not found, "\n".join(found)


def test_every_public_function_is_called(calls):
    assert set(vision.__all__) <= set(NAMES)
    assert set(NAMES) == set(calls)
