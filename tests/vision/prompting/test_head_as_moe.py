"""A head of a real block is a mixture of experts, exactly; what its prompts carry and how they vary."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from commands import call
from vision_models import CONFIGS, DEPTH, HEADS, KINDS, WIDTH, images, plain, prompted, rng, train_step

import moe_prompts
from moe_prompts.commands.head_as_moe import Case, tuned
from moe_prompts.errors import InputError
from moe_prompts.models.prompt_attention import PromptAttention
from moe_prompts.vision import VAPT, VPT, gate_rank, projections, prompt, prompt_table, read_head
from moe_prompts.vision.figures import draw_input_dependence, draw_mass
from moe_prompts.vision.prompting.head_as_moe import HeadReading, attention_parts
from moe_prompts.vision.prompting.mass import gate_mass


def attention_call(model, batch, block):
    """What the attention of a block is given and what it answers, in the model's own forward pass."""
    attn, seen = attention_parts(model, block).module, []
    hook = attn.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        model(batch)
    hook.remove()
    return attn, *seen[0]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kind", ["cls", "registers", "average", "normed"])
@pytest.mark.parametrize("block", [0, DEPTH - 1])
def test_heads_make_the_attention_output(config, kind, block):
    """sum over heads of gates @ experts @ W_O, plus the bias, is what the block's attention gives: rounding only."""
    grid = (4, 6)
    model = prompted(config, grid, **KINDS.get(kind, {"qk_norm": True}))
    attn, tokens, output = attention_call(model, images(grid), block)
    joined = attn.proj.bias.expand_as(output)
    for head in range(HEADS):
        reading = read_head(model, images(grid), block, head)
        columns = slice(head * attn.head_dim, (head + 1) * attn.head_dim)
        joined = joined + reading.output @ attn.proj.weight[:, columns].T
        assert reading.gates.shape == (2, tokens.shape[1], tokens.shape[1])
        assert (reading.gates.sum(dim=2) - 1).abs().max() < 1e-12
        assert reading.prompt_experts.shape == (2, 3, attn.head_dim)
        assert reading.mass_map.shape == (2, *grid)
        assert torch.equal(reading.mass_map[:, 1, 2], reading.prompt_mass[:, model.num_prefix_tokens + 3 + 8])
    assert (joined - output).abs().max() < 1e-10


def test_the_same_head_as_the_package_has_it():
    """``from_head`` with the block's projections, fixed prompts at its normed prompts: the class token's row."""
    model = prompted(VPT(3), (2, 2), embed_dim=8)
    batch, block, head = images((2, 2)), 1, 1
    _, tokens, _ = attention_call(model, batch, block)
    W_Q, W_K, W_V, bias = projections(model, block, head)
    own = np.delete(tokens.numpy(), slice(1, 4), axis=1)
    frozen = moe_prompts.from_head(W_Q, W_K, W_V, tokens=5, bias=bias)
    params = PromptAttention.fixed(frozen, np.zeros(3), tokens[0, 1:4].numpy())
    x = own.reshape(2, -1)
    reading = read_head(model, batch, block, head)
    np.testing.assert_allclose(params.regression(x), reading.output[:, 0], rtol=0, atol=1e-12)
    order = [0, 4, 5, 6, 7, 1, 2, 3]  # frozen experts first, then prompts
    np.testing.assert_allclose(params.gates(x), reading.gates[:, 0, order], rtol=0, atol=1e-12)


def test_variation_is_zero_for_vpt_and_positive_for_vapt_after_two_steps():
    """Exactly zero: in every block of VPT-deep, in the first of VPT-shallow, and of VAPT as it is initialised."""
    batch = images(number=5)
    fixed = prompt_table(prompted(VPT(3)), batch)
    assert (fixed["variation"] == 0).all()
    assert len(fixed) == DEPTH * HEADS * 3
    shallow = prompt_table(prompted(VPT(3, deep=False)), batch)
    assert ((shallow["variation"] == 0) == (shallow["block"] == 0)).all()
    model = prompt(plain(), VAPT(3), 7, rng=rng())
    assert (prompt_table(model, batch)["variation"] == 0).all()
    train_step(model, batch)  # moves the head alone, which began at zero
    assert (prompt_table(model, batch)["variation"] == 0).all()
    train_step(model, batch)
    after = prompt_table(model, batch)
    assert ((after["variation"] > 0) == (after["block"] > 0)).all()
    assert (after["variation"] <= 1).all()
    # Every token's gates sum to one, so the mean mass of three prompts lies between 0 and 1.
    assert after.groupby(["block", "head"])["mass"].sum().between(0, 1).all()


def test_variation_by_hand():
    """sqrt(mean |f - mean f|^2 / mean |f|^2) of the values of the model's own tokens."""
    model = prompted(VAPT(3))
    batch = images(number=4)
    attn, tokens, _ = attention_call(model, batch, 2)
    values = attn.qkv(tokens)[:, 1:4, 2 * WIDTH : 2 * WIDTH + attn.head_dim].detach().numpy()
    spread = ((values - values.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0)
    expected = np.sqrt(spread / (values**2).sum(axis=2).mean(axis=0))
    np.testing.assert_allclose(read_head(model, batch, 2, 0).variation, expected, rtol=1e-10)


def test_variation_of_zero_and_of_no_number():
    """0 for an expert that is zero on every image; what went wrong is not shown as 0."""
    experts = torch.randn(4, 6, 5, generator=rng())
    experts[:, 1] = 0
    experts[0, 2, 0] = torch.nan
    found = HeadReading(torch.zeros(4, 6, 6), experts, 1, 3, (1, 2)).variation
    assert found[0] == 0
    assert found[1].isnan()
    assert found[2] > 0


def test_projections_without_biases():
    model = prompted(VPT(3), qkv_bias=False)
    W_Q, W_K, W_V, bias = projections(model, 1, np.int64(1))
    assert all(one.dtype == np.float64 for one in (W_Q, W_K, W_V, *bias))
    assert not any(one.any() for one in bias)
    assert read_head(model, images(), np.int64(1), np.int64(0)).gates.shape == (2, 20, 20)


def test_a_head_is_blind_where_its_width_is_smaller():
    rank = gate_rank(prompted(VPT(3)), 0, 1)
    assert (rank.head_width, rank.width, rank.rank, rank.rank_of_all_heads) == (8, 16, 8, 16)
    alone = gate_rank(prompted(VPT(3), num_heads=1), 0, 0)
    assert (alone.rank, alone.rank_of_all_heads) == (16, 16)


def test_reading_leaves_the_model_as_it_was():
    model = prompted(VAPT(3)).train()
    read_head(model, images(), 1, 0)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: read_head(plain(), images(), 0, 0), "expected a model that prompt"),
        (
            lambda: read_head(prompted(VPT(3)), images(), DEPTH, 0),
            f"read_head: block {DEPTH}; expected 0 to {DEPTH - 1}",
        ),
        (
            lambda: read_head(prompted(VPT(3)), images(), 0, HEADS),
            f"read_head: head {HEADS}; expected 0 to {HEADS - 1}",
        ),
        (lambda: read_head(prompted(VPT(3)), images(), True, 0), "block True; expected 0"),
        (lambda: read_head(prompted(VPT(3)), images(), 0, 1.0), r"head 1\.0; expected 0"),
        (lambda: prompt_table(prompted(VPT(3)), images(number=1)), "1 image; expected at least 2"),
        (lambda: projections(prompted(VPT(3), qk_norm=True), 0, 0), "projections: block 0 norms its queries and keys"),
        (lambda: gate_rank(prompted(VPT(3), qk_norm=True), 0, 0), "gate_rank: block 0 norms its queries and keys"),
        (lambda: gate_rank(prompted(VPT(3)), 99, 0), f"gate_rank: block 99; expected 0 to {DEPTH - 1}"),
        (lambda: gate_rank(prompted(VPT(3)), 0, 99), f"gate_rank: head 99; expected 0 to {HEADS - 1}"),
        (lambda: gate_mass(prompted(VPT(3)), images()[0], 99), f"draw_mass: block 99; expected 0 to {DEPTH - 1}"),
        (lambda: gate_mass(prompted(VPT(3)), images()[0], 0, 99), f"draw_mass: head 99; expected 0 to {HEADS - 1}"),
        (lambda: read_head(prompted(VPT(3), scale_attn_norm=True), images(), 0, 0), "no sum over heads"),
    ],
)
def test_wrong_input(call, match):
    with pytest.raises(InputError, match=match):
        call()


def test_figures_draw_what_they_are_given():
    model = prompted(VAPT(3))
    table = prompt_table(model, images(number=3)).assign(method="VAPT")
    mass = read_head(model, images(), 1, 0).mass_map[0].numpy()
    figure, (left, right) = plt.subplots(1, 2)
    draw_mass(left, mass, image=np.eye(16))
    draw_input_dependence(right, table)
    np.testing.assert_array_equal(left.images[0].get_array(), mass)
    mean = table.groupby("block")["variation"].mean()
    np.testing.assert_allclose(right.lines[-1].get_ydata(), mean)
    plt.close(figure)


def test_the_command_writes_its_table_and_its_figure(tmp_path):
    done = call("head_as_moe.py", "--steps", 2, "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {"results.parquet", "meta.json", "summary.md", "head_as_moe.pdf", "head_as_moe.png"}
    assert "head_as_moe.png  figure" in done.stdout


def test_the_seed_of_the_command_makes_a_training_on_a_backbone_repeatable():
    """Also the channels that VAPT drops, which torch draws from its global generator."""
    case = Case("small", None, 32, 2, steps=2, seed=0)
    found = []
    for other in (1, 2):
        torch.manual_seed(other)
        model, _ = tuned(case, "VAPT")
        found.append(torch.cat([one.detach().flatten() for one in model.parameters() if one.requires_grad]))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("config", [VPT(3, blocks=2), VAPT(3, blocks=2)], ids=["vpt", "vapt"])
def test_blocks_before_the_first_with_prompts_have_none(config):
    """No patch is taken for a prompt there, and the table has rows of the last two blocks alone."""
    grid = (4, 6)
    model = prompted(config, grid)
    counts = [read_head(model, images(grid), block, 0).num_prompts for block in range(DEPTH)]
    assert counts == [0] * (DEPTH - 2) + [3, 3]
    table = prompt_table(model, images(grid))
    assert set(table["block"]) == {DEPTH - 2, DEPTH - 1}
    assert len(table) == 2 * 3 * HEADS
