"""Carry the theory into a Vision Transformer: prompts in timm's and Hugging Face's, a head read as a mixture.

    model = timm.create_model("vit_base_patch16_224", pretrained=True)
    model = prompt(model, VAPT(num_tokens=10), num_classes=100)

prompting        VPT, VAPT; prompt, unprompt; saved, converted, and read as experts
backbones        create_backbone: the small one that comes along, or timm's
tasks            images with labels: VTAB-1K, FGVC, drawn stand-ins
training         one run of the published protocol, many trials packed as one model
comparison       methods on tasks: tune, train, test, report
data_efficiency  accuracy and excess risk against the number of images
planted_head     the exact theory in one real head
figures          draw_*(ax, table)

The first four are the library; the others are studies made with it.

Needs the extra ``vision`` (torch, timm, safetensors), loaded on first use.
"""

from __future__ import annotations

from moe_prompts.lazy import loaded

_PUBLIC = {
    "VPT": "prompting.config",
    "VAPT": "prompting.config",
    "StaticPrompts": "prompting.prompts",
    "AdaptivePrompts": "prompting.prompts",
    "prompt": "prompting.prompted",
    "unprompt": "prompting.prompted",
    "trainable_summary": "prompting.prompted",
    "parameter_groups": "prompting.prompted",
    "start_from": "prompting.continued",
    "gradient_ratio": "prompting.diagnosis",
    "train_prompts": "training.recipe",
    "save_prompts": "prompting.checkpoint",
    "load_prompts": "prompting.checkpoint",
    "backbone_hash": "prompting.checkpoint",
    "from_official": "prompting.convert",
    "load_moco_v3": "prompting.convert",
    "as_timm": "prompting.as_timm",
    "exported": "prompting.export",
    "export_onnx": "prompting.export",
    "merge": "prompting.export",
    "set_mean_states": "prompting.prompted",
    "PackedTrials": "training.packed",
    "add_lora": "training.peers",
    "add_adapters": "training.peers",
    "save_lora": "training.peers",
    "load_lora": "training.peers",
    "create_backbone": "backbones.create",
    "provenance": "backbones.create",
    "read_head": "prompting.head_as_moe",
    "draw_mass": "prompting.mass",
    "prompt_table": "prompting.head_as_moe",
    "projections": "prompting.head_as_moe",
    "gate_rank": "prompting.head_as_moe",
    "supported_models": "prompting.supported",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = loaded(__name__, _PUBLIC, extra="vision")
