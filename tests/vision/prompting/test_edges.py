"""Faults that outside cases found: what a file would lose, what tracing fixed, and how training starts."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, parameter_groups, prompt, save_prompts, set_mean_states

CONFIGS = [VPT(3, deep=False), VPT(3), VAPT(3, hidden=4)]


def made(config, **options):
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return prompt(VisionTransformer(**sizes), config, num_classes=5, **{"head": "published"} | options)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda model: model.norm.requires_grad_(True), "norm.weight, norm.bias train"),
        (lambda model: model.to(torch.bfloat16), "changed since the model was prompted"),
        (lambda model: model.pos_embed.data.add_(1), "pos_embed changed"),
        (lambda model: model.blocks.append(torch.nn.Tanh()), "blocks.3 changed"),
    ],
)
def test_what_a_file_would_lose_is_refused_when_it_is_saved(change, named, tmp_path):
    model = made(VPT(3))
    save_prompts(model, tmp_path / "before.safetensors")
    change(model)
    with pytest.raises(InputError, match=named):
        save_prompts(model, tmp_path / "after.safetensors")
    assert not (tmp_path / "after.safetensors").exists()


def test_a_state_dict_with_mean_states_loads_into_a_new_model():
    x = torch.randn(2, 3, 32, 32)
    model, again = made(VAPT(3, hidden=4, source="mean")), made(VAPT(3, hidden=4, source="mean"))
    with pytest.raises(InputError, match="no mean states"):
        again(x)
    set_mean_states(model, [x])
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x), model.eval()(x))


def test_averages_that_were_begun_before_the_mean_states_say_so():
    """A moving average mixes what was there at first, which is not a number, into all that follows."""
    x, model = torch.randn(2, 3, 32, 32), made(VAPT(3, hidden=4, source="mean"))
    early, copied = ModelEmaV3(model, 0.9), AveragedModel(model)
    set_mean_states(model, [x])
    early.update(model)
    with pytest.raises(InputError, match=r"no mean states; call set_mean_states.* make moving averages .* after it"):
        early.module.eval()(x)
    copied.update_parameters(model)  # copies buffers as they are
    late = ModelEmaV3(model, 0.9)
    late.update(model)
    for one in (copied.module, late.module):
        assert torch.equal(one.eval()(x), model.eval()(x))


# torch warns that tracing and its own exporter are old ways, each in words of its version.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", CONFIGS, ids=["shallow", "deep", "VAPT"])
def test_a_recorded_model_takes_other_batches(config):
    model, x, y = made(config).eval(), torch.randn(3, 3, 32, 32), torch.randn(7, 3, 32, 32)
    assert torch.allclose(torch.jit.trace(model, x)(y), model(y), atol=1e-5)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: torch.export.Dim("b", min=1, max=64)}})
    assert torch.allclose(program.module()(y), model(y), atol=1e-5)
    with pytest.raises(InputError, match=r"torch\.jit\.script"):
        torch.jit.script(model)


@pytest.mark.parametrize("config", CONFIGS, ids=["shallow", "deep", "VAPT"])
def test_the_recipe_descends_from_the_loss_of_chance(config):
    model = made(config, head="zero")
    optimiser = torch.optim.SGD(parameter_groups(model, weight_decay=1e-4), lr=0.1, momentum=0.9)
    warmup = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=0.1, total_iters=10)
    images, labels, losses = torch.randn(16, 3, 32, 32), torch.arange(16) % 5, []
    for _ in range(20):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model.train()(images), labels)
        loss.backward()
        optimiser.step()
        warmup.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(torch.tensor(5.0).log().item(), abs=1e-5)
    assert max(losses) <= losses[0] + 1e-5
    assert losses[-1] < 0.9 * losses[0]
