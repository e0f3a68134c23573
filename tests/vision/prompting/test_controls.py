"""Controls of VAPT: prompts computed from another image or from mean states, and pooled position weights."""

import numpy as np
import pytest
import torch
from vision_models import DEPTH, WIDTH, by_hand, images, oracle_of, plain, prompted

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, load_prompts, prompt_table, save_prompts, set_mean_states, unprompt
from moe_prompts.vision.prompting.prompted import adaptive_prompts, mean_states, prompt_parameters

GRID = (4, 6)
MEAN = VAPT(3, hidden=4, source="mean")


def with_means(batches=2, config=MEAN):
    """A model whose prompts are computed from the mean states of some images."""
    model = prompted(config, GRID)
    set_mean_states(model, [images(GRID, seed=seed) for seed in range(batches)])
    return model


@pytest.mark.parametrize("kernel", [None, 2])
def test_pooled_weights_are_one_number_for_each_prompt(kernel):
    """D N d + A (2 d + k^2 + 2 N) + 2 d r, and so many there are."""
    model = prompted(VAPT(3, hidden=4, kernel=kernel, pooled=True), GRID)
    blocks = DEPTH - 1
    expected = 3 * WIDTH + blocks * (2 * WIDTH + (kernel or 0) ** 2 + 2 * 3) + 2 * WIDTH * 4
    head = sum(one.numel() for one in model.head.parameters())
    assert model.config.n_parameters(WIDTH, DEPTH, GRID) == expected
    assert sum(one.numel() for one in prompt_parameters(model).values()) - head == expected


def test_another_image_is_the_one_before():
    """As prompts of the image's own states, put in by hand with the images of the batch rolled."""
    model = prompted(VAPT(3, hidden=4, source="another"), GRID)
    own = prompted(VAPT(3, hidden=4), GRID)  # the same weights
    adaptive = adaptive_prompts(own)

    def rolled(index, patches):
        if index not in adaptive:
            return own.blocks[index].prompts(patches)
        return adaptive[index](torch.cat([patches[-1:], patches[:-1]]))

    batch = images(GRID, number=3)
    torch.testing.assert_close(model(batch), by_hand(model, batch, rolled), rtol=0, atol=1e-12)
    assert (model(batch) - own(batch)).abs().max() > 1e-3


def test_mean_states_are_those_of_the_plain_model():
    """Against NumPy's, over batches of different sizes; the same from the prompted and the plain model."""
    model = prompted(MEAN, GRID)
    batches = [images(GRID, number=number, seed=number) for number in (1, 3)]
    found = mean_states(model, batches)
    oracle = oracle_of(model, GRID)
    oracle.p, oracle.n = {}, 0
    every = [image for batch in batches for image in batch.numpy()]
    entering = [[oracle.embedded(image), *oracle.states(image)[:-1]] for image in every]
    expected = np.mean(entering, axis=0)[:, model.num_prefix_tokens :]
    np.testing.assert_allclose(torch.stack(found), expected, rtol=0, atol=1e-12)
    for one, other in zip(mean_states(unprompt(model), batches), found, strict=True):
        assert torch.equal(one, other)


def test_prompts_of_mean_states():
    """The same for all images, and NumPy's from those states."""
    model = with_means()
    oracle = oracle_of(model, GRID)
    oracle.means = [one.numpy() for one in mean_states(model, [images(GRID, seed=seed) for seed in range(2)])]
    batch = images(GRID, number=3, seed=9)
    expected = [oracle.logits(image, "token") for image in batch.numpy()]
    np.testing.assert_allclose(model(batch).detach(), expected, rtol=0, atol=1e-12)
    for prompts in adaptive_prompts(model).values():
        made = prompts(torch.randn(4, 24, WIDTH, dtype=torch.float64))
        assert torch.equal(made, made[:1].expand_as(made))


def test_prompts_of_mean_states_do_not_vary():
    """Exactly, as a head reads them; those of another image do."""
    batch = images(GRID, number=4)
    assert (prompt_table(with_means(), batch)["variation"] == 0).all()
    table = prompt_table(prompted(VAPT(3, hidden=4, source="another"), GRID), batch)
    assert ((table["variation"] > 0) == (table["block"] > 0)).all()


def test_mean_states_are_saved(tmp_path):
    path = tmp_path / "prompts.safetensors"
    model = with_means()
    save_prompts(model, path)
    back = load_prompts(plain(GRID), path).eval()
    assert torch.equal(back(images(GRID)), model(images(GRID)))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda path: prompted(MEAN, GRID)(images(GRID)), r"no mean states; call set_mean_states\(model, images\)"),
        (lambda path: save_prompts(prompted(MEAN, GRID), path), "save_prompts: no mean states; call set_mean_states"),
        (lambda path: set_mean_states(prompted(MEAN, GRID), []), "no images; expected at least one batch"),
        (lambda path: set_mean_states(prompted(VPT(3)), [images()]), r"expected VAPT\(source='mean'\)"),
        (lambda path: set_mean_states(prompted(VAPT(3)), [images()]), r"expected VAPT\(source='mean'\)"),
        (lambda path: set_mean_states(plain(), [images()]), "expected a model that prompt"),
    ],
)
def test_what_mean_states_need(call, match, tmp_path):
    with pytest.raises(InputError, match=match):
        call(tmp_path / "prompts.safetensors")


def test_an_offset_adds_a_free_vector_to_each_prompt():
    """A N d parameters more; with the rest as it is, prompts move by it; the first prompts are those without."""
    config = VAPT(3, hidden=4, offset=True)
    model, without = prompted(config, GRID), prompted(VAPT(3, hidden=4), GRID)
    extra = (DEPTH - 1) * 3 * WIDTH
    assert config.n_parameters(WIDTH, DEPTH, GRID) - without.config.n_parameters(WIDTH, DEPTH, GRID) == extra
    states = torch.randn(2, 24, WIDTH, dtype=torch.float64)
    for index, prompts in adaptive_prompts(model).items():
        plain_prompts = adaptive_prompts(without)[index]
        own = dict(prompts.named_parameters())
        with torch.no_grad():
            for name, value in plain_prompts.named_parameters():
                if name in own:
                    value.copy_(own[name])
            if index == 1:
                plain_prompts.projector.load_state_dict(prompts.projector.state_dict())
        expected = plain_prompts(states) + own["offset"]
        torch.testing.assert_close(prompts(states), expected, rtol=0, atol=1e-12)
        assert own["offset"].shape == (3, WIDTH)
