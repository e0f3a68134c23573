"""Prompted models leave the package: as programs of torch, as ONNX, and merged into plain models of timm."""

from copy import deepcopy

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from vision_models import DEPTH, HEADS, PATCH, WIDTH, images, plain, prompted

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, export_onnx, exported, merge, prompt
from moe_prompts.vision.prompting.export import TOLERANCE

VAPT_2 = VAPT(2, hidden=4)
KINDS = {
    "cls": {},
    "registers": {"reg_tokens": 2, "no_embed_class": True},
    "registers with places": {"reg_tokens": 2},
    "average": {"class_token": False, "global_pool": "avg"},
    "normed": {"qk_norm": True},
    "clip": {"pre_norm": True},
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "clip"])
@pytest.mark.parametrize("config", [VPT(3), VPT(3, blocks=2), VPT(3, deep=False)], ids=["deep", "last", "shallow"])
def test_a_merged_model_computes_the_same(kind, config):
    """float64: rounding only. The prompted model is left as it is."""
    model = prompted(config, **KINDS[kind])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = merge(model)
    assert type(merged) is VisionTransformer
    assert (merged(images()) - model(images())).abs().max() < 1e-12
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_merged_shallow_prompts_are_an_ordinary_checkpoint_of_timm(tmp_path):
    """timm alone reads it: a state_dict, and the two arguments that the page names."""
    model = prompted(VPT(3, deep=False))
    torch.save(merge(model).state_dict(), tmp_path / "plain.pt")
    again = (
        VisionTransformer(
            img_size=16,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            mlp_ratio=2.0,
            num_classes=7,
            reg_tokens=3,
            no_embed_class=True,
        )
        .double()
        .eval()
    )
    again.load_state_dict(torch.load(tmp_path / "plain.pt", weights_only=True))
    assert (again(images()) - model(images())).abs().max() < 1e-12


def test_merged_deep_prompts_are_two_constants_a_block():
    model = prompted(VPT(3))
    state = merge(model).state_dict()
    assert state["blocks.1.attn.keys"].shape == (HEADS, 3, WIDTH // HEADS)
    more = sum(value.numel() for name, value in state.items() if name.endswith((".keys", ".values")))
    assert more == DEPTH * 2 * 3 * WIDTH
    assert (
        merge(prompted(VPT(3), **KINDS["clip"]))(images()) - prompted(VPT(3), **KINDS["clip"])(images())
    ).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        (VAPT_2, {}, "adaptive prompts are computed from each image"),
        (VPT(2, deep=False, blocks=2), {}, "VPT-shallow in the last 2 blocks"),
        (VPT(2, deep=False), {"pre_norm": True}, "norms its tokens before the first block"),
    ],
)
def test_what_cannot_be_merged_says_why(config, options, words):
    with pytest.raises(InputError, match=words):
        merge(prompted(config, **options))


def test_only_prompted_models_are_taken_out():
    for way in (merge, exported, lambda model: export_onnx(model, "x.onnx")):
        with pytest.raises(InputError, match=r"expected a model that prompt\(\.\.\.\) returned"):
            way(plain())


#: Adaptive prompts are fixed ones in the first block: what is exported of these is in a program of those as well.
@pytest.mark.parametrize("config", [pytest.param(VPT(2), marks=pytest.mark.slow), VAPT_2], ids=["vpt", "vapt"])
def test_a_program_takes_any_number_of_images(config, tmp_path):
    model = prompted(config, depth=2).train()
    torch.export.save(exported(model), tmp_path / "model.pt2")
    assert model.training
    program = torch.export.load(tmp_path / "model.pt2").module()
    model.eval()
    for number in (1, 2, 5):
        assert (program(images(number=number)) - model(images(number=number))).abs().max() < 1e-12


@pytest.mark.parametrize("library", ["timm", pytest.param("transformers", marks=pytest.mark.slow)])
def test_onnx_agrees_with_torch(library, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra export: pip install -e '.[export]'")
    if library == "timm":
        model = prompted(VAPT_2, depth=2).float()
    else:
        transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")
        config = transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=16,
            patch_size=4,
        )
        model = prompt(transformers.ViTModel(config), VAPT_2, 7, rng=torch.Generator().manual_seed(0), head="published")
    assert export_onnx(model, tmp_path / "model.onnx") < TOLERANCE
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    batch = images(number=4).float()
    [logits] = session.run(None, {"images": batch.numpy()})
    found = model.eval()(batch)
    found = found if isinstance(found, torch.Tensor) else found.logits
    assert (torch.from_numpy(logits) - found).abs().max() < TOLERANCE * found.abs().max()


def test_a_head_of_zeros_leaves_nothing_to_compare(tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra export: pip install -e '.[export]'")
    model = prompt(plain().float(), VPT(2), 7)
    with pytest.raises(InputError, match="all logits are 0"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_merged_model_of_timms_own_making():
    """A name of timm, and the copy leaves the original's prompts alone."""
    model = prompt(timm.create_model("test_vit", num_classes=3).eval(), VPT(2), rng=torch.Generator().manual_seed(0))
    twin = deepcopy(model).eval()
    batch = torch.randn(2, 3, *model.patch_embed.img_size)
    with torch.no_grad():
        expected = twin(batch)
        assert (merge(model).eval()(batch) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    "config", [pytest.param(VPT(2, deep=False), marks=pytest.mark.slow), VAPT_2], ids=["shallow", "vapt"]
)
def test_a_program_of_transformers_takes_any_number_of_images(config):
    """While it is exported, transformers makes a mask for the plain tokens, which must not reach the blocks."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")
    settings = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=4
    )
    model = prompt(
        transformers.ViTModel(settings), config, 7, rng=torch.Generator().manual_seed(0), head="published"
    ).eval()
    program = exported(model).module()
    for number in (1, 3):
        batch = images(number=number).float()
        assert (program(batch) - model(batch).logits).abs().max() < TOLERANCE
