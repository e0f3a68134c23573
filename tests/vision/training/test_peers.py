"""LoRA and adapters: what they compute, what trains, how many numbers, and peft's own files."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.errors import InputError
from moe_prompts.vision import VPT, backbone_hash, prompt
from moe_prompts.vision.tasks.task import Pixels
from moe_prompts.vision.training import peers
from moe_prompts.vision.training.methods import PEERS, Sizes, config, trainable_copy
from moe_prompts.vision.training.packed import PackedTrials
from moe_prompts.vision.training.peers import add_adapters, add_lora, load_lora, save_lora
from moe_prompts.vision.training.runs import Setup, train_and_score, trained_parameters
from moe_prompts.vision.training.sgd import Recipe, Setting, Trial
from moe_prompts.vision.training.statuses import TRAINED


def vit(classes: int = 5, seed: int = 0) -> VisionTransformer:
    torch.manual_seed(seed)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=3, num_heads=2, num_classes=classes)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def another_head() -> VisionTransformer:
    """The backbone of ``vit`` with 7 classes."""
    model = vit()
    model.reset_classifier(7)
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, generator=generator(1))


def trained(name: str, sizes: Sizes, seed: int = 0) -> VisionTransformer:
    """A method's model whose trained numbers are all drawn, so that nothing is zero."""
    model = trainable_copy(name, vit(), 5, generator(seed), sizes)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.copy_(0.3 * torch.randn(value.shape, generator=generator(value.numel())))
    return model.eval()


@pytest.mark.parametrize("blocks", [None, 2])
@pytest.mark.parametrize("name", PEERS)
def test_trained_numbers_are_counted_by_the_formula(name, blocks):
    sizes = Sizes(tokens=2, hidden=3, rank=4, blocks=blocks)
    model = trainable_copy(name, vit(), 5, generator(), sizes)
    found = [(part, value) for part, value in model.named_parameters() if value.requires_grad]
    head = sum(value.numel() for part, value in found if part.startswith("head."))
    assert head == 12 * 5 + 5
    number = sum(value.numel() for _, value in found) - head
    assert number == trained_parameters(name, sizes, vit())
    depth = blocks or 3
    if name == "lora":
        assert number == depth * (4 * 12 + 36 * 4)
    elif name == "adapter":
        assert number == depth * (12 * 4 + 4 + 4 * 12 + 12 + 12)
    else:
        wanted = config("vapt", sizes, vit()).n_parameters(12, 3, (2, 2))
        assert number >= wanted > number - depth * 4 * 12
    assert all(int(part.split(".")[1]) >= 3 - depth for part, _ in found if part.startswith("blocks."))


def test_lora_adds_a_product_of_low_rank_to_the_weights():
    """The oracle is the plain model with W + B A in place of W."""
    sizes = Sizes(rank=2, blocks=2)
    model = trained("lora", sizes)
    plain = vit()
    plain.head.load_state_dict(model.head.state_dict())
    with torch.no_grad():
        for index in (1, 2):
            layer = model.blocks[index].attn.qkv
            product = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
            assert torch.linalg.matrix_rank(product) == 2
            plain.blocks[index].attn.qkv.weight += product
        torch.testing.assert_close(model(images()), plain(images()), rtol=1e-5, atol=1e-5)


def test_an_adapter_is_its_formula():
    model = trained("adapter", Sizes(rank=2, blocks=1))
    plain, own = vit(), model.blocks[2]
    x = torch.randn(2, 5, 12, generator=generator(3))
    with torch.no_grad():
        y = plain.blocks[2](x)
        hidden = F.gelu(y @ own.down.weight.T + own.down.bias)
        expected = y + own.scale * (hidden @ own.up.weight.T + own.up.bias)
        torch.testing.assert_close(own(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PEERS)
def test_the_first_step_begins_near_the_plain_model(name):
    """LoRA begins exactly there. Adapters begin within their small first weights."""
    model = trainable_copy(name, vit(), 5, generator(), Sizes(tokens=2))
    plain = vit()
    plain.head.load_state_dict(model.head.state_dict())
    with torch.no_grad():
        gap = (model.eval()(images()) - plain(images())).abs().max()
    assert gap == 0 if name != "adapter" else 0 < gap < 1e-2


@pytest.mark.parametrize("name", PEERS)
def test_first_values_belong_to_the_generator(name):
    sizes = Sizes(tokens=2)
    torch.manual_seed(1)
    one = trainable_copy(name, vit(), 5, generator(7), sizes).state_dict()
    torch.manual_seed(2)
    same = trainable_copy(name, vit(), 5, generator(7), sizes).state_dict()
    other = trainable_copy(name, vit(), 5, generator(8), sizes).state_dict()
    assert all(torch.equal(one[key], same[key]) for key in one)
    drawn = [key for key in one if "lora_A" in key or "down.weight" in key]
    assert drawn
    assert not any(torch.equal(one[key], other[key]) for key in drawn)


@pytest.mark.parametrize("name", PEERS)
def test_a_run_trains_what_it_adds_and_leaves_the_backbone(name):
    rng = np.random.default_rng(0)
    some = Pixels(rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), rng.integers(0, 3, 24))
    setup = Setup("small-random", None, 8, Sizes(2, 4, 2, blocks=2), Recipe(steps=3, batch=8))
    [(outcome, score)] = train_and_score(name, setup, 3, [Trial(Setting(0.5, 0.01), 1)], some, some)
    assert outcome.status == TRAINED
    assert np.isfinite(score.cross_entropy)
    [again] = train_and_score(name, setup, 3, [Trial(Setting(0.5, 0.01), 1)], some, some)
    assert again[1] == score


def test_files_are_those_of_peft(tmp_path):
    import peft

    model = trained("lora", Sizes(rank=2, blocks=2))
    save_lora(model, tmp_path / "ours")
    backbone = vit(seed=0)
    with torch.no_grad():
        read = load_lora(deepcopy(backbone), tmp_path / "ours")
        torch.testing.assert_close(read(images()), model(images()), rtol=0, atol=0)
    theirs = peft.PeftModel.from_pretrained(deepcopy(backbone), str(tmp_path / "ours")).eval()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    with torch.no_grad():
        again = load_lora(deepcopy(backbone), tmp_path / "theirs")
        torch.testing.assert_close(again(images()), model(images()), rtol=0, atol=0)
    assert json.loads((tmp_path / "ours" / "adapter_config.json").read_text())["r"] == 2


def test_lora_of_another_backbone_is_refused_in_one_line(tmp_path):
    """By the hash that save_lora writes; files without one, as peft's, are taken."""
    import peft

    model = trained("lora", Sizes(rank=2))
    save_lora(model, tmp_path / "ours")
    with safe_open(tmp_path / "ours" / "adapter_model.safetensors", framework="pt") as file:
        assert file.metadata()["backbone_hash"] == backbone_hash(vit())
    for other in (vit(seed=5), vit().double()):
        with pytest.raises(InputError, match=r"load_lora: .*was made on the backbone .*expected the same") as raised:
            load_lora(other, tmp_path / "ours")
        assert "\n" not in str(raised.value)
        assert not any("lora" in name for name, _ in other.named_parameters())
    again = load_lora(vit(), tmp_path / "ours")
    again.save_pretrained(str(tmp_path / "theirs"))
    load_lora(vit(seed=5), tmp_path / "theirs")
    theirs = peft.PeftModel.from_pretrained(vit(), str(tmp_path / "ours")).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(images()), model(images()), rtol=0, atol=0)


def test_damaged_weights_of_lora_are_one_line(tmp_path):
    save_lora(trained("lora", Sizes(rank=2)), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"load_lora: .*expected a file of save_lora or peft") as raised:
        load_lora(vit(), tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("last", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_stop_while_lora_is_written_leaves_a_folder_that_is_refused(last, tmp_path, monkeypatch):
    """Also where an older LoRA lies in the folder: its config must not describe the new weights."""
    model = trained("lora", Sizes(rank=2))
    save_lora(model, tmp_path)
    assert model.peft_config["default"].modules_to_save is None  # the model's own config is left as it is
    write = peers.write_atomically

    def stopping(path, content):
        if path.name == last:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(peers, "write_atomically", stopping)
    with pytest.raises(KeyboardInterrupt):
        save_lora(model, tmp_path)
    with pytest.raises(InputError, match=r"no adapter_config\.json; expected a folder that save_lora or peft wrote"):
        load_lora(vit(), tmp_path)


def test_a_folder_without_weights_is_refused_in_one_line(tmp_path):
    save_lora(trained("lora", Sizes(rank=2)), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors; expected a folder"):
        load_lora(vit(), tmp_path)


def test_wrong_input_is_one_line(tmp_path, monkeypatch):
    save_lora(trained("lora", Sizes(rank=2)), tmp_path / "ours")
    cases = [
        (lambda: add_lora(vit(), 0, generator()), "add_lora: rank = 0; expected a whole number of at least 1"),
        (lambda: add_adapters(vit(), 2.0, generator()), "add_adapters: rank = 2.0; expected a whole number"),
        (
            lambda: add_lora(vit(), 2, generator(), blocks=4),
            "add_lora: blocks = 4; expected a whole number from 1 to 3",
        ),
        (lambda: add_adapters(vit(), 2, generator(), blocks=4), "add_adapters: blocks = 4; expected"),
        (lambda: save_lora(vit(), tmp_path), "this model has no LoRA"),
        (lambda: load_lora(vit(), tmp_path / "nowhere"), "no adapter_config.json"),
        (lambda: load_lora(another_head(), tmp_path / "ours"), "does not fit this model"),
        (lambda: Sizes(rank=-1), "rank = -1; expected"),
    ]
    for call, message in cases:
        with pytest.raises(InputError) as raised:
            call()
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)


def test_what_was_changed_already_is_refused_in_one_line():
    def made(change) -> VisionTransformer:
        model = vit()
        change(model)
        return model

    changed = {
        "prompts": lambda: prompt(vit(), VPT(2), 3),
        "LoRA": lambda: made(lambda model: add_lora(model, 2, generator())),
        "adapters": lambda: made(lambda model: add_adapters(model, 2, generator())),
    }
    for kind, model in changed.items():
        for add, what in ((add_lora, "add_lora"), (add_adapters, "add_adapters")):
            with pytest.raises(InputError, match=f"{what}: this model has {kind} already; expected a plain one"):
                add(model(), 2, generator())


def test_prompts_beside_lora_or_adapters_are_refused_in_one_line(tmp_path):
    """They would be frozen without a word; and packed trials take products from the weights, without LoRA's part."""
    for add, said in ((add_lora, "it has LoRA"), (add_adapters, "it has adapters")):
        model = vit()
        add(model, 2, generator())
        before = {name: value.requires_grad for name, value in model.named_parameters()}
        calls = (
            lambda model=model: prompt(model, VPT(2), 3),
            lambda model=model: PackedTrials(model.requires_grad_(False), VPT(2), 3, [generator()]),
        )
        for call in calls:
            with pytest.raises(InputError, match=f"{said}.*would not train beside prompts.*take a plain model"):
                call()
            assert type(model) is VisionTransformer
            if call is calls[0]:
                assert before == {name: value.requires_grad for name, value in model.named_parameters()}
    model = trained("lora", Sizes(rank=2))
    save_lora(model, tmp_path / "lora")
    merged = load_lora(vit(), tmp_path / "lora").merge_and_unload()
    torch.testing.assert_close(merged(images()), model(images()), rtol=1e-5, atol=1e-5)
    assert prompt(merged, VPT(2), 3)(images()).shape == (4, 3)


def test_packed_trials_ask_a_layer_that_is_not_plain():
    """A layer of another kind computes what it computes, also where its weights say something else."""

    class Doubled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = vit()
    model.blocks[1].attn.qkv = Doubled(12, 36)
    packed = PackedTrials(model.requires_grad_(False), VPT(2), 3, [generator()])
    one = prompt(deepcopy(model), VPT(2), 3, rng=generator(), head="published").eval()
    torch.testing.assert_close(packed(images())[0], one(images()), rtol=1e-5, atol=1e-5)


def test_lora_without_its_layers_or_library_is_one_line(monkeypatch):
    model = vit()
    model.blocks[1].attn.qkv = torch.nn.Identity()
    with pytest.raises(InputError, match=r"no linear layer blocks\.1\.attn\.qkv"):
        add_lora(model, 2, generator())
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError, match=r"needs the library peft; try: pip install"):
        add_lora(vit(), 2, generator())
    assert peers.adapter_parameters(vit(), 2) > 0  # adapters need no library
