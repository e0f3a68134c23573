"""Prompts planted in one head of the small backbone: the block's own attention, what is visible, fits, the command."""

import importlib
import json
import re
import shutil
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from moe_prompts.engine.runner import run_study
from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.least_squares import least_squares, near_truth
from moe_prompts.estimators.result import FitStatus
from moe_prompts.models.prompt_attention import PromptAttention, PromptFamily, PromptKind
from moe_prompts.models.token_head import TokenMap, head_of_tokens
from moe_prompts.vision import VPT, create_backbone, prompt
from moe_prompts.vision.planted_head.head import (
    TRUTHS,
    HeadChoice,
    constants_as_adaptive,
    frozen_head,
    identified,
    planted_head,
    split_along,
)
from moe_prompts.vision.planted_head.report import planted_head_figure, report, risk_curves, verdict
from moe_prompts.vision.planted_head.study import (
    FitCell,
    PromptClass,
    expected_seconds,
    fit_class_of,
    fit_study,
    noise_free_study,
    prompt_classes,
)
from moe_prompts.vision.prompting.head_as_moe import attention_parts

ROOT = Path(__file__).parents[3]
SMALL = HeadChoice(images=48, outputs=2, coordinates=3)
WIDTH, HEAD_WIDTH, TOKENS = 64, 16, 17


@cache
def read(block=3, head=0):
    """Projections and tokens, and the block's attention itself; the choice of outputs does not matter."""
    projections, tokens = frozen_head(replace(SMALL, block=block, head=head), 0)
    model = prompt(create_backbone("small").double(), VPT(1), 0, rng=torch.Generator().manual_seed(0))
    return projections, tokens, attention_parts(model, block).module


@cache
def design():
    return planted_head(SMALL, 0, read=lambda choice, entropy: read(choice.block, choice.head)[:2])


def of_the_block(attn, tokens, prompts, head, query):
    """Row ``query`` of what head ``head`` of timm's attention gives before W_O, on tokens (m, N, D) and, after them,
    prompts (m, k, D)."""
    joined = []
    hook = attn.proj.register_forward_pre_hook(lambda _, inputs: joined.append(inputs[0]))
    with torch.no_grad():
        attn(torch.from_numpy(np.concatenate([tokens, prompts], axis=1)))
    hook.remove()
    return joined[0][:, query, head * HEAD_WIDTH : (head + 1) * HEAD_WIDTH].numpy()


def prompts_of(kind, head, rng):
    """Two prompts with b = 0, as the block has them."""
    if kind == "fixed":
        return PromptAttention.fixed(head, np.zeros(2), rng.standard_normal((2, WIDTH)))
    W1 = rng.standard_normal((2, 2, head.reads))
    return PromptAttention.adaptive(head, np.zeros(2), W1, rng.standard_normal((WIDTH, 2)))


@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize(("block", "head", "query"), [(3, 0, 0), (1, 2, 5)])
@pytest.mark.parametrize("keep", [47, 5])
def test_the_model_is_the_block_s_attention(kind, block, head, query, keep):
    """On real tokens (all 47 coordinates of 48 images) and on projected ones, to 1e-10."""
    projections, tokens, attn = read(block, head)
    of, z, kept = TokenMap.principal(tokens, keep)
    if keep == 47:
        assert np.abs(of.tokens(z) - tokens).max() < 1e-12
        assert kept == pytest.approx(1)
    params = prompts_of(kind, head_of_tokens(projections, of, query, 3), np.random.default_rng(0))
    expected = of_the_block(attn, of.tokens(z), params.prompts(z)[0], head, query)
    assert np.abs(params.regression(z) - expected).max() < 1e-10
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("name", TRUTHS)
def test_truths_are_the_block_s_attention_up_to_their_logit_biases(name):
    """In visible coordinates and chosen outputs; at b = 0 the block itself, and prompts with the asked mass at b*."""
    found, attn = design(), read()[2]
    full, own = found.planted[name], found.truths[name]
    assert np.abs(own.params.regression(own.x) - full.regression(found.z)).max() < 1e-12
    plain = replace(full, b=np.zeros(2))
    tokens = read()[1]
    expected = of_the_block(attn, tokens, plain.prompts(found.z)[0], 0, 0) @ found.outputs
    assert np.abs(plain.regression(found.z) - expected).max() < 1e-10
    assert full.gates(found.z)[:, TOKENS:].sum(axis=1).mean() == pytest.approx(SMALL.mass)
    without = of_the_block(attn, tokens, np.zeros((48, 0, WIDTH)), 0, 0) @ found.outputs
    assert np.abs(found.plain - without).max() < 1e-10
    signal = (own.params.regression(own.x) ** 2).mean()
    assert own.noise == pytest.approx(SMALL.noise * signal**0.5)


def test_a_head_sees_few_directions_of_a_prompt():
    """Ranks d_h of B and l of C; parameters counted by hand; all outputs together 2 d_h."""
    found = design().visibility
    assert (found.width, found.by_logit, found.by_value) == (WIDTH, HEAD_WIDTH, 2)
    assert (found.together, found.blind) == (18, 46)
    assert design().truths["fixed"].params.family.n_parameters == 2 * (1 + 18)
    assert design().truths["adaptive"].params.family.n_parameters == 2 * (1 + 2 * 3) + 18 * 2
    of, _, _ = TokenMap.principal(read()[1], 47)
    whole = head_of_tokens(read()[0], of, 0)
    assert np.linalg.matrix_rank(np.concatenate([whole.B, whole.C])) == 2 * HEAD_WIDTH


def test_blind_directions_and_silent_splits_change_nothing():
    """1e-12: rounding of values of order one. Splits that a logit sees do change f."""
    fixed, adaptive = (identified(design(), name, np.random.default_rng(0)) for name in TRUTHS)
    for one in (fixed, adaptive):
        assert one.kappa1_token < 1e-12
        assert one.blind_change < 1e-12
        assert one.kappa1 > 1e-6
    assert fixed.silent_splits == 2
    assert fixed.split_change < 1e-12
    assert fixed.kappa2 < 1e-12
    assert adaptive.silent_splits == 0
    assert adaptive.kappa2 > 1e-5  # kappas' own threshold of zero
    truth = design().truths["fixed"]
    loud = np.linalg.svd(truth.params.head.B)[2][0]
    change = split_along(truth, 0, loud).regression(truth.x) - truth.params.regression(truth.x)
    assert np.abs(change).max() > 1e-3


@pytest.mark.parametrize("name", TRUTHS)
def test_risk_of_the_right_class_is_its_parameters_price(name):
    """n risk / s^2 is about chi-squared with P degrees of freedom: mean P, and four standard errors of 8 data sets."""
    truth = design().truths[name]
    rng = np.random.default_rng(7)
    n, count = 10**7, 8
    data = [truth.data(n, rng) for _ in range(count)]
    starts = [near_truth(truth.params, 2, 0, rng)[None] for _ in data]
    starts = [truth.params.vector + 0.1 * (start - truth.params.vector) for start in starts]
    fits = least_squares(truth.params.family, data, starts, truth.noise, design().options(name))
    assert all(fit.best.status is FitStatus.CERTIFIED for fit in fits)
    f, P = truth.params.regression(truth.x), truth.params.family.n_parameters
    risks = [((fit.best.value.regression(truth.x) - f) ** 2).sum(axis=1).mean() for fit in fits]
    ratio = np.mean(risks) * n / (truth.noise**2 * P)
    assert abs(ratio - 1) < 4 * np.sqrt(2 / (P * count))


def test_constants_are_adaptive_prompts_with_bias():
    truth = design().truths["fixed"]
    family = PromptFamily(truth.params.head, PromptKind.parse("adaptive:gelu:bias"), 2)
    same = family.unpack(constants_as_adaptive(truth, family))
    np.testing.assert_allclose(same.regression(truth.x), truth.params.regression(truth.x), rtol=0, atol=1e-12)
    with pytest.raises(InputError, match="constants_as_adaptive: 2 adaptive:gelu:bias prompts with 1 hidden"):
        constants_as_adaptive(truth, PromptFamily(truth.params.head, family.kind, 2, 1))


def test_lines_and_their_words():
    words = {(line.truth, line.kind, line.k): fit_class_of(design(), line) for line in prompt_classes(2, 2)}
    assert words == {
        ("fixed", "fixed", 2): "exact",
        ("fixed", "adaptive:gelu", 2): "misspecified",
        ("adaptive", "fixed", 2): "misspecified",
        ("adaptive", "adaptive:gelu", 2): "exact",
        ("fixed", "adaptive:gelu:bias", 2): "contained",
        ("fixed", "fixed", 3): "over",
        ("adaptive", "adaptive:gelu", 3): "over",
        ("adaptive", "fixed", 4): "misspecified",
    }
    assert len(prompt_classes(2, 2, quick=True)) == 4
    assert not [line for line in prompt_classes(3, 2) if line.kind.endswith("bias")]


def test_two_stages_on_the_engine(tmp_path):
    """Floors of wrong classes go into the fits that start there; one row per replicate, and prices by hand."""
    lines = [PromptClass("adaptive", "fixed", 2), PromptClass("adaptive", "adaptive:gelu", 2)]
    noise_free = run_study(noise_free_study(design(), lines, 0, False, 1), tmp_path / "first", progress=False)
    assert list(noise_free["what"]) == ["kappas", "kappas", "floor"]
    study = fit_study(design(), lines, noise_free, [10_000], 2, 0)
    table = run_study(study, tmp_path / "second", progress=False)
    assert list(table["replicate"]) == [0, 1, 0, 1]
    assert expected_seconds(study) > 0
    truth = design().truths["adaptive"]
    signal = (truth.params.regression(truth.x) ** 2).sum(axis=1).mean()
    wrong, right = (table[table["kind"] == kind].iloc[0] for kind in ("fixed", "adaptive:gelu"))
    assert right["predicted"] == pytest.approx(truth.noise**2 * right["n_parameters"] / 10_000 / signal)
    assert wrong["predicted"] == pytest.approx(wrong["floor"] + wrong["price"])
    assert wrong["floor"] == noise_free["floor"].iloc[2] > 0
    assert right["relative_risk"] < wrong["relative_risk"]
    alone = run_study(fit_study(design(), lines[1:], noise_free, [10_000], 2, 0), tmp_path / "alone", progress=False)
    same = table[table["kind"] == "adaptive:gelu"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone[same.columns], same, check_dtype=False)
    with pytest.raises(InputError, match="without noise-free rows"):
        fit_study(design(), lines, None, [10_000], 2, 0).run(study.cells[0], (0,), 0)


def test_singular_classes_are_fitted_at_few_sizes():
    lines = [PromptClass("fixed", "fixed", 3), PromptClass("fixed", "fixed", 2)]
    study = fit_study(design(), lines, None, [1000, 10_000, 100_000, 1_000_000], 16, 0)
    cells: list[FitCell] = list(study.cells)
    assert [cell.n for cell in cells if cell.k == 3] == [10_000, 1_000_000]
    assert {cell.replicates for cell in cells if cell.k == 3} == {8}
    assert {cell.replicates for cell in cells if cell.k == 2} == {16}
    with pytest.raises(InputError, match="n = 30 is below the 57 parameters of 3 fixed prompts; raise --n"):
        fit_study(design(), lines, None, [30, 1000], 16, 0)


def by_hand(right, wrong):
    """Five fits of the right class (20 parameters, price 20 / n) and of a wrong one at n = 100 and 1000, with risks
    ``right`` in units of the price, and ``wrong`` by n."""
    common = {"truth": "adaptive", "status": "CERTIFIED", "start_share": 1.0, "split_rms": np.nan, "k": 2}
    rows = [
        common
        | {
            "kind": "adaptive:gelu",
            "fit_class": "exact",
            "n_parameters": 20,
            "n": n,
            "floor": 0.0,
            "price": 20 / n,
            "relative_risk": ratio * 20 / n,
        }
        for n in (100, 1000)
        for ratio in right
    ] + [
        common
        | {
            "kind": "fixed",
            "fit_class": "misspecified",
            "n_parameters": 10,
            "n": n,
            "floor": 0.5,
            "price": 10 / n,
            "relative_risk": risk,
        }
        for n, risks in wrong.items()
        for risk in risks
    ]
    return pd.DataFrame(rows)


LEVEL = {100: np.linspace(0.400, 0.404, 8), 1000: np.linspace(0.400, 0.404, 8)}
NO_ROWS = pd.DataFrame({"what": []})


def test_curves_by_hand():
    """A wrong class whose least risk is below the floor that was found without noise."""
    table = by_hand((0.95, 0.95, 1.0, 1.05, 1.05), {100: (0.42, 0.44), 1000: (0.4, 0.44)})
    found = risk_curves(table).set_index(["kind", "n"])
    assert found.loc[("adaptive:gelu", 100), "ratio"] == pytest.approx(1)
    assert found.loc[("adaptive:gelu", 100), "error"] == pytest.approx(0.2 * 0.05 / 5**0.5)
    assert found.loc[("fixed", 100), "floor"] == 0.4
    assert found.loc[("fixed", 1000), "ratio"] == pytest.approx(0.42 / 0.41)
    crossing = verdict(table, NO_ROWS, 0)[2]
    assert "should be better from n = 25; they are at every n of 100, 1000" in crossing


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        ((0.95, 0.95, 1.0, 1.05, 1.05), "risk = 1.000 s^2 P / n, 90 % interval [0.973, 1.027]: holds"),
        # The interval meets the band [.9, 1.1] and does not lie in it.
        ((0.9, 1.0, 1.1, 1.2, 1.3), "risk = 1.100 s^2 P / n, 90 % interval [1.014, 1.186]: not decidable here"),
        ((1.9, 1.95, 2.0, 2.05, 2.1), ": fails"),
    ],
)
def test_the_price_holds_where_the_whole_interval_lies_in_the_band(right, expected):
    """Student's interval with 9 degrees of freedom, t = 1.833, by hand: sd .0471 and .149 of ten ratios."""
    assert verdict(by_hand(right, LEVEL), NO_ROWS, 0)[0].endswith(expected)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (LEVEL, "a plateau: holds"),
        ({100: LEVEL[100] * 1.5, 1000: LEVEL[1000]}, "a plateau: fails"),  # slope -.18: it still falls
        ({100: LEVEL[100], 1000: LEVEL[1000] * 1.5}, "a plateau: fails"),  # slope +.18: it rises
        ({1000: LEVEL[1000]}, "a plateau: not decidable here"),  # one size
        ({100: LEVEL[100][:4], 1000: LEVEL[1000][:4]}, "a plateau: not decidable here"),  # few fits
    ],
)
def test_a_plateau_is_judged_on_both_sides(wrong, expected):
    lines = verdict(by_hand((1.0,) * 5, wrong), NO_ROWS, 0)
    assert lines[1].startswith("- adaptive truth, 2 fixed (wrong class): floor at most 4.0")
    assert lines[1].endswith(expected)


def test_the_committed_run_is_what_its_rows_say():
    run = ROOT / "paper_figures" / "data" / "planted_head"
    identity = json.loads((run / "meta.json").read_text(encoding="utf-8"))["identity"]
    results, noise_free = (pd.read_parquet(run / f"{name}.parquet") for name in ("results", "noise_free"))
    text = report(results, noise_free, identity["head"]["choice"], identity["entropy"])
    assert (run / "summary.md").read_text(encoding="utf-8") == text + "\n"
    assert identity["head"]["choice"] == {
        name: value for name, value in asdict(HeadChoice()).items() if value is not None
    }
    assert len(planted_head_figure(results).axes) == 3


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"block": 9}, "block 9; expected 0 to 3"),
        ({"head": -1}, "head -1; expected 0 to 3"),
        ({"query": 17}, "query 17; expected 0 to 16, the tokens of small"),
        ({"block": 0}, "its queries vary in 0 of 16 directions"),
        ({"coordinates": 48}, "coordinates = 48; the tokens of 48 images have 47"),
        ({"outputs": 17}, "outputs = 17; the head has 16: expected 1 to 16"),
        ({"backbone": "none"}, "no backbone 'none'"),
    ],
)
def test_a_head_that_is_not_there_is_one_clear_error(choice, message):
    with pytest.raises(InputError) as raised:
        planted_head(replace(SMALL, **choice), 0)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"coordinates": 0}, "coordinates = 0; expected at least 1"),
        ({"mass": 1.0}, r"mass = 1.0, noise = 0.1; expected a share in \(0, 1\)"),
        ({"noise": 0.0}, "mass = 0.35, noise = 0.0; expected"),
    ],
)
def test_a_choice_checks_itself(choice, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **choice)


def call(monkeypatch, *arguments):
    script = importlib.import_module("moe_prompts.commands.planted_head")
    monkeypatch.setattr(sys, "argv", ["planted_head.py", *map(str, arguments)])
    script.main()


def test_the_command(tmp_path, monkeypatch, capsys):
    call(monkeypatch, "--quick", "--workers", 1, "--reps", 1, "--out", tmp_path / "run")
    shown = capsys.readouterr().out
    told = (tmp_path / "run" / "summary.md").read_text()
    assert "of 64 directions of a prompt logits see 16 (rank of B)" in told
    assert "minutes with 1 free cores" in shown
    assert "| adaptive | fixed | 2 | wrong class | 38 |" in re.sub(" +", " ", told)
    assert max(map(len, shown.splitlines())) <= 80
    for name in ("planted_head.png", "planted_head.pdf", "noise_free.parquet", "results.parquet", "summary.md"):
        assert (tmp_path / "run" / name).stat().st_size > 0


@pytest.mark.slow
def test_an_interrupted_run_is_completed_to_the_same_table(tmp_path, monkeypatch):
    """After the first stage alone, and with a block of the second gone."""
    run, options = tmp_path / "run", ("--quick", "--workers", 1, "--reps", 2)
    call(monkeypatch, *options, "--out", run)
    whole = (run / "results.parquet").read_bytes()
    next((run / "blocks").iterdir()).unlink()
    call(monkeypatch, *options, "--out", run, "--resume")
    assert (run / "results.parquet").read_bytes() == whole
    shutil.rmtree(run / "blocks")
    (run / "meta.json").unlink()
    call(monkeypatch, *options, "--out", run, "--resume")
    assert (run / "results.parquet").read_bytes() == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n", "20,100"), "n = 20 is below the 42 parameters of 2 fixed prompts; raise --n"),
        (("--n", "abc"), "'abc' is not a size"),
        (("--seed", "-1"), "--seed -1; expected a whole number of at least 0"),
        (("--resume",), "--resume needs --out"),
    ],
)
def test_wrong_arguments_are_one_clear_error(monkeypatch, arguments, message, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        call(monkeypatch, *arguments)
    assert message in str(raised.value)
    assert not list(tmp_path.iterdir())
