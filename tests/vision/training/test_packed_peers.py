"""Packed LoRA, adapters and biases against the models of ``trainable_copy`` one by one.

Tolerances are rounding: float64, sums in another order.
"""

import numpy as np
import pytest
import torch
from packed_backbones import backbone
from timm.layers import GluMlp
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch.nn import functional as F

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.task import Pixels
from moe_prompts.vision.training import runs
from moe_prompts.vision.training.methods import Sizes, trainable_copy
from moe_prompts.vision.training.packed_peers import PACKED, PackedPeers, why_alone
from moe_prompts.vision.training.runs import Setup, train_and_score
from moe_prompts.vision.training.sgd import Recipe, Setting, Trial, init_generator, train_alone, train_packed
from moe_prompts.vision.training.states import States

TRIALS, CLASSES = 3, 5
MODELS = {
    "class token": {},
    "registers": {"reg_tokens": 2},
    "average": {"global_pool": "avg", "class_token": False},
    "norms and scales": {"qk_norm": True, "init_values": 0.3, "qkv_bias": False},
}
SIZES = Sizes(tokens=3, hidden=4, rank=2, blocks=2)


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(TRIALS)]


def alone(model, method, packed, index, rng, sizes=SIZES) -> VisionTransformer:
    """The model of one trial, with the values that the packed one has."""
    one = trainable_copy(method, model, CLASSES, rng, sizes)
    own, trained = packed.trial(index), {name for name, value in one.named_parameters() if value.requires_grad}
    assert set(own) == trained
    with torch.no_grad():
        for name, parameter in one.named_parameters():
            if name in own:
                parameter.copy_(own[name])
    return one


@pytest.mark.parametrize("options", MODELS.values(), ids=list(MODELS))
@pytest.mark.parametrize("method", PACKED)
def test_logits_and_gradients_are_those_of_separate_trials(method, options):
    torch.manual_seed(2)
    model = backbone(**options)
    images, labels = torch.randn(2, 4, 3, 32, 24, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    packed = PackedPeers(model, method, CLASSES, generators(), SIZES)
    for index, rng in enumerate(generators()):  # first values are those of separate trials
        for name, value in trainable_copy(method, model, CLASSES, rng, SIZES).named_parameters():
            if value.requires_grad:
                assert torch.equal(packed.trial(index)[name], value)
    with torch.no_grad():
        for value in packed.parts.values():
            value.add_(0.3 * torch.randn_like(value))
    batch_of = torch.tensor([1, 0, 1])
    logits = packed(images, batch_of)
    F.cross_entropy(logits.flatten(0, 1), labels.repeat(TRIALS), reduction="sum").backward()
    gradients = {key.replace("/", "."): value.grad for key, value in packed.parts.items()}
    for index, rng in enumerate(generators()):
        one = alone(model, method, packed, index, rng).train()
        expected = one(images[batch_of[index]])
        torch.testing.assert_close(logits[index], expected, rtol=0, atol=1e-12)
        F.cross_entropy(expected, labels, reduction="sum").backward()
        for name, parameter in one.named_parameters():
            if parameter.requires_grad:
                scale = max(1.0, float(parameter.grad.abs().max()))
                torch.testing.assert_close(gradients[name][index], parameter.grad, rtol=0, atol=1e-11 * scale)
    assert not any(value.requires_grad for value in model.parameters()), "the backbone is left as it is"


def scheduled(method, schedule):
    """Rates of each step are made before the method is asked: the second schedule meets the first method by default."""
    slow = schedule == "official" and method != PACKED[0]
    return pytest.param(method, schedule, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    ("method", "schedule"), [scheduled(method, schedule) for method in PACKED for schedule in ("smooth", "official")]
)
def test_packed_trials_train_as_separate_ones(method, schedule):
    """Same first values, batches and steps: apart only by rounding of float64, which training amplifies."""
    rng = np.random.default_rng(0)
    data = Pixels(rng.integers(0, 256, (12, 32, 24, 3), dtype=np.uint8), rng.integers(0, CLASSES, 12))
    recipe = Recipe(epochs=3, batch=8, warmup=0.4, schedule=schedule)
    trials = [Trial(Setting(0.5, 0.1), 5), Trial(Setting(0.2, 0.0), 6), Trial(Setting(1.0, 0.01), 5)]
    model = backbone()
    packed = PackedPeers(model, method, CLASSES, [init_generator(trial.seed) for trial in trials], SIZES)
    outcomes = train_packed(packed, data, trials, recipe)
    for index, trial in enumerate(trials):
        one = trainable_copy(method, model, CLASSES, init_generator(trial.seed), SIZES)
        outcome = train_alone(one, data, trial, recipe)
        assert outcome.train_loss == pytest.approx(outcomes[index].train_loss, rel=1e-6)  # kept as float32
        found = packed.trial(index)
        for name, value in one.named_parameters():
            if value.requires_grad:
                torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=1e-10)


def test_a_run_packs_what_it_can_and_reads_kept_states(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    some = Pixels(rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8), rng.integers(0, 3, 24))
    setup = Setup("small-random", None, 8, Sizes(2, 4, 2, blocks=2), Recipe(steps=3, batch=8))
    kept = Setup("small-random", None, 8, Sizes(2, 4, 2, blocks=2), Recipe(steps=3, batch=8), states=str(tmp_path))
    trials = [Trial(Setting(0.5, 0.01), 1), Trial(Setting(0.1, 0.0), 1)]
    for method in PACKED:
        found = train_and_score(method, setup, 3, trials, some, some)
        assert found == train_and_score(method, kept, 3, trials, some, some)
        monkeypatch.setattr(runs, "why_alone", lambda method, model: "for once")
        for (outcome, score), (own, other) in zip(
            found, train_and_score(method, setup, 3, trials, some, some), strict=True
        ):
            assert outcome.train_loss == pytest.approx(own.train_loss, rel=1e-5)
            assert score.cross_entropy == pytest.approx(other.cross_entropy, rel=1e-5)  # rounding of float32
        monkeypatch.undo()
    model = runs.backbone(kept)
    for method, first in (
        ("lora", 2),
        ("lora_matched", 2),
        ("adapter", 2),
        ("bias_blocks", 2),
        ("bias", 0),
        ("full", 0),
        ("linear", 4),
    ):
        assert runs.first_read(method, kept.sizes, model) == first
        read = runs.entering(first, kept, model, [some], some)[1]
        assert isinstance(read, States) == (first > 0)


def test_what_cannot_be_packed_runs_alone():
    cases = [
        ("full", {}, "trains every weight"),
        ("lora", {"block_fn": ParallelScalingBlock}, "not timm's own"),
        ("bias", {"proj_drop_rate": 0.1}, "drops at random"),
        ("adapter", {"drop_path_rate": 0.1}, "drops at random"),
        ("bias", {"mlp_layer": GluMlp}, "MLPs are not timm's own"),
        ("bias", {"global_pool": "map", "class_token": False}, "attn_pool"),
        ("bias", {"pre_norm": True}, "norm_pre"),
    ]
    for method, options, reason in cases:
        assert reason in why_alone(method, backbone(**options)), (method, options)
    for method, options in (("adapter", {"block_fn": ParallelScalingBlock}), ("lora", {"mlp_layer": GluMlp})):
        assert why_alone(method, backbone(**options)) is None
        packed = PackedPeers(backbone(**options), method, CLASSES, generators(), SIZES)
        images = torch.randn(2, 3, 32, 24, dtype=torch.float64)
        one = alone(backbone(**options), method, packed, 0, generators()[0]).eval()
        torch.testing.assert_close(packed(images)[0], one(images), rtol=0, atol=1e-12)


def test_wrong_input_is_one_line():
    model = backbone()
    cases = [
        (lambda: PackedPeers(model, "full", 3, generators()), "PackedPeers: method = 'full'; expected one of"),
        (lambda: PackedPeers(model, "lora", 0, generators()), "PackedPeers: classes = 0"),
        (lambda: PackedPeers(model, "lora", 3, []), "no generators"),
        (lambda: PackedPeers(backbone().requires_grad_(True), "bias", 3, generators()), "the model trains itself"),
        (lambda: PackedPeers(torch.nn.Linear(2, 2), "bias", 3, generators()), "has no layer qkv"),
        (
            lambda: PackedPeers(backbone(block_fn=ParallelScalingBlock), "lora", 3, generators()),
            "its blocks are not timm's own; expected trials one by one",
        ),
    ]
    for call, message in cases:
        with pytest.raises(InputError) as raised:
            call()
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
