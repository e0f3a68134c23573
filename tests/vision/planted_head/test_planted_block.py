"""Prompts planted in all heads of a block: heads computed one by one, splits, a run that goes on, wrong input."""

import importlib
import json
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax

from moe_prompts import identifiability
from moe_prompts.engine.runner import run_study
from moe_prompts.errors import InputError
from moe_prompts.identifiability import DenseQuartic, SplitQuartic, kappas, profile, second_order_part
from moe_prompts.models.multi_head import prompt_map
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.vision import VPT, create_backbone, prompt
from moe_prompts.vision.planted_head.block import heads_seen, held_split
from moe_prompts.vision.planted_head.block_report import block_ending, block_report, planted_block_figure, split_lines
from moe_prompts.vision.planted_head.head import HeadChoice, first_heads, frozen_block, planted_head
from moe_prompts.vision.planted_head.study import block_classes, fit_study, noise_free_study
from moe_prompts.vision.prompting.head_as_moe import attention_parts

ROOT = Path(__file__).parents[3]
#: A random block: 3 heads of d_h = 2 in d = 6, 30 images of 4 tokens, 4 of its 6 outputs.
IMAGES, TOKENS, WIDTH, HEADS, HEAD_WIDTH = 30, 4, 6, 3, 2
RANDOM = HeadChoice("random", 0, None, images=IMAGES, coordinates=3, outputs=4, prompts=1, hidden=1)


@cache
def random_block():
    rng = np.random.default_rng(3)
    draw = lambda *shape: rng.standard_normal(shape)
    parts = [(*draw(3, WIDTH, HEAD_WIDTH), tuple(draw(3, HEAD_WIDTH))) for _ in range(HEADS)]
    return (parts, draw(HEADS * HEAD_WIDTH, WIDTH), draw(WIDTH)), draw(IMAGES, TOKENS, WIDTH)


@cache
def design():
    return planted_head(RANDOM, 0, read=lambda choice, entropy: random_block())


def one_by_one(prompts, b, heads=HEADS):
    """Token 0's row of the output of the first heads with prompts (m, k, D) beside the tokens, image by image."""
    (parts, W_O, c_o), tokens = random_block()
    rows = []
    for X, P in zip(tokens, prompts, strict=True):
        total = c_o.copy()
        for h, (W_Q, W_K, W_V, (c_q, c_k, c_v)) in enumerate(parts[:heads]):
            every = np.concatenate([X, P])
            logits = (every @ W_K + c_k) @ (X[0] @ W_Q + c_q) / np.sqrt(HEAD_WIDTH)
            # A prompt's logit has no c_k in the model: it adds the same to all logits of a head and drops out.
            logits += np.concatenate([np.zeros(TOKENS), b])
            total += softmax(logits) @ (every @ W_V + c_v) @ W_O[h * HEAD_WIDTH : (h + 1) * HEAD_WIDTH]
        rows.append(total)
    return np.array(rows)


@pytest.mark.parametrize("name", ["fixed", "adaptive"])
def test_truths_are_the_heads_computed_one_by_one(name):
    found = design()
    full, own = found.planted[name], found.truths[name]
    expected = one_by_one(full.prompts(found.z)[0], full.b) @ found.outputs
    np.testing.assert_allclose(own.params.regression(own.x), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.plain, one_by_one(np.zeros((IMAGES, 0, WIDTH)), []) @ found.outputs, atol=1e-10)
    mass = full.gates(found.z)[..., TOKENS:].sum(axis=2)
    assert mass.shape == (IMAGES, HEADS)
    assert mass.mean() == pytest.approx(RANDOM.mass)


def test_all_heads_of_a_real_block_are_its_attention():
    """At b = 0, after W_O and its bias, to 1e-10; the small backbone in float64."""
    choice = HeadChoice(head=None, images=70, coordinates=3, outputs=6, prompts=1)
    read = frozen_block(choice, 0)
    found = planted_head(choice, 0, read=lambda *_: read)
    plain = replace(found.planted["fixed"], b=np.zeros(1))
    model = prompt(create_backbone("small").double(), VPT(1), 0, rng=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = np.concatenate([read[1], plain.prompts(found.z)[0]], axis=1)
        expected = attention_parts(model, 3).module(torch.from_numpy(tokens))[:, 0].numpy() @ found.outputs
    assert np.abs(plain.regression(found.z) - expected).max() < 1e-10
    assert np.abs(expected).max() > 0.1
    assert found.visibility.by_logit == 64


def test_what_the_first_heads_see_of_a_split():
    """Silent directions by hand: d - h d_h; a split there leaves the heads, one by one, what they were."""
    for count in range(1, HEADS + 1):
        seen = heads_seen(design(), count)
        assert (seen.by_logit, seen.silent) == (2 * count, WIDTH - 2 * count)
        assert (np.array(seen.visible) > 0).sum() == 2 * count
        truth = first_heads(design(), "fixed", count)
        p, unit = design().planted["fixed"].atoms[0], design().unit
        b = truth.params.b - np.log(2)
        keys = np.concatenate([one[1] for one in random_block()[0][0][:count]], axis=1)
        least = np.linalg.svd(keys.T)[2][-1] * unit  # the keys of these heads see it least: not at all, but for all
        pair = np.broadcast_to([p + least, p - least], (IMAGES, 2, WIDTH))
        change = one_by_one(pair, np.repeat(b, 2), count) - one_by_one(
            pair.mean(axis=1, keepdims=True), truth.params.b, count
        )
        assert (np.abs(change).max() < 1e-12) == (count < HEADS)
        assert np.isnan(seen.split_change) if count == HEADS else seen.split_change < 1e-12


def test_kappa2_without_the_tensor_is_that_with_it(monkeypatch):
    truth = design().truths["fixed"]
    dense = kappas(truth, np.random.default_rng(0))
    values = prompt_map(truth.params.family, truth.x).at(truth.params.vector[None])
    span = np.linalg.qr(values.jacobian()[0].reshape(WIDTH + 1, -1).T)[0]
    second = second_order_part(values, 0).reshape(WIDTH, WIDTH, -1) / np.sqrt(IMAGES)
    off = second - (second @ span) @ span.T
    u = np.random.default_rng(1).standard_normal((5, WIDTH))
    own, other = SplitQuartic.of(values, 0, span), DenseQuartic(np.einsum("abm,cdm->abcd", off, off))
    np.testing.assert_allclose(own.at(u), other.at(u), rtol=1e-10)
    for mine, theirs in zip(own.bends(u), other.bends(u), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-10 * np.abs(theirs).max())
    monkeypatch.setattr(identifiability, "DENSE", 0)
    assert kappas(truth, np.random.default_rng(0)).kappa2 == pytest.approx(dense.kappa2, rel=1e-6)


def test_a_held_split_tends_to_the_profile():
    """Two heads of d_h = 1 in d = 2: never below the profile, 1 % above it at the smallest spread, exponent 2."""
    truth, eps = prompt_truth("attention-fixed-heads2"), (0.0125, 0.025)
    found = held_split(truth, np.random.default_rng(0), eps)
    known = profile(truth, np.random.default_rng(0), eps=eps)
    assert found.ended.all()
    assert (found.value > known.value * (1 - 1e-3)).all()
    np.testing.assert_allclose(found.value, known.value, rtol=0.02)
    assert np.log2(found.value[1] / found.value[0]) == pytest.approx(2, abs=0.02)


def test_a_run_goes_on_where_it_was_stopped_and_its_report_judges_by_the_rules(tmp_path):
    """The same tables with a block of each stage gone; a verdict of a change that is too small to be told from 0."""
    lines = block_classes(1)
    first = noise_free_study(design(), lines, 0)
    noise_free = run_study(first, tmp_path / "first", progress=False)
    next((tmp_path / "first" / "blocks").iterdir()).unlink()
    pd.testing.assert_frame_equal(run_study(first, tmp_path / "first", progress=False, resume=True), noise_free)
    study = fit_study(design(), lines, noise_free, [10**6], 2, 0)
    table = run_study(study, tmp_path / "second", progress=False)
    next((tmp_path / "second" / "blocks").iterdir()).unlink()
    pd.testing.assert_frame_equal(run_study(study, tmp_path / "second", progress=False, resume=True), table)
    assert set(table["fit_class"]) == {"exact"}
    kept = noise_free[noise_free["what"] == "kappas"]
    np.testing.assert_allclose(kept["mass"].to_numpy(float), RANDOM.mass, rtol=1e-9)
    words = [word for _, word in split_lines(noise_free)]
    assert words == ["holds"] * HEADS
    faint = noise_free.assign(profile=noise_free["profile"] * 1e-16)
    assert [word for _, word in split_lines(faint)][-1] == "not decidable here"
    loud = noise_free.assign(split_change=1e-3)
    assert [word for _, word in split_lines(loud)] == ["fails", "fails", "holds"]
    text = block_report(
        table, noise_free, {"backbone": "random", "block": 0, "query": 0, "images": 30, "coordinates": 3}, 0
    )
    assert "first 3 of 3 heads, 6 of 6 directions: predicted n^-1/4" in text
    assert len(block_ending(table, noise_free, 0).body) == HEADS
    assert len(planted_block_figure(noise_free).axes) == 2


def test_the_committed_run_is_what_its_rows_say_and_what_the_page_says():
    run = ROOT / "paper_figures" / "data" / "planted_block"
    choice = json.loads((run / "meta.json").read_text(encoding="utf-8"))["identity"]["head"]["choice"]
    rows = pd.read_parquet(run / "results.parquet")
    assert (run / "summary.md").read_text(encoding="utf-8") == block_report(None, rows, choice, 0) + "\n"
    assert [word for _, word in split_lines(rows)] == ["holds"] * 6
    page = " ".join((ROOT / "docs" / "planted_heads.md").read_text(encoding="utf-8").split())
    heads, held = rows[rows["what"] == "heads"], rows[rows["what"] == "profile"].sort_values("eps")
    assert ", ".join(f"{count:.0f}" for count in heads["silent"][:2]) in page
    assert f"by {heads['split_change'].max():.0e}, that is by rounding" in page
    seen, noise = np.sort(heads["visible"].iloc[-1]), heads["noise"].iloc[-1]
    unit = held[held["eps"] == 1]["profile"].iloc[0]
    power = lambda size: f"{(noise / size) ** 2:.0e}".replace("e+0", "e").replace("e+", "e")
    assert f"changes f by {unit:.0e}" in page
    assert f"takes {power(unit)} pairs" in page
    assert (
        f"Along the last of those axes it takes {power(seen[0])}, along the median one {power(np.median(seen))}" in page
    )
    assert f"along the first, the most visible, {power(seen[-1])}" in page


def test_the_committed_fits_are_what_their_rows_say_and_what_the_page_says():
    run = ROOT / "paper_figures" / "data" / "planted_block_fits"
    identity = json.loads((run / "meta.json").read_text(encoding="utf-8"))["identity"]
    rows, noise_free = (pd.read_parquet(run / f"{name}.parquet") for name in ("results", "noise_free"))
    text = block_report(rows, noise_free, identity["head"]["choice"], identity["entropy"])
    assert (run / "summary.md").read_text(encoding="utf-8") == text + "\n"
    page = (ROOT / "docs" / "planted_heads.md").read_text(encoding="utf-8")
    said = re.search(r"risk = 0(\.\d+) s\^2 P / n, 90 % interval \[0(\.\d+), (1\.\d+)\]: holds", text)
    assert f"{said[1]} [{said[2]}, {said[3]}] of s^2 P / n" in page


def test_wrong_input_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module("moe_prompts.commands.planted_head")
    monkeypatch.setattr(sys, "argv", ["planted_head.py", "--head", "2", "--all-heads"])
    with pytest.raises(InputError, match="--head 2 beside --all-heads; expected one of the two"):
        script.main()
    monkeypatch.setattr(sys, "argv", ["planted_head.py", "--noise-free"])
    with pytest.raises(InputError, match="--noise-free without --all-heads; expected both"):
        script.main()
    few = replace(RANDOM, outputs=1, images=12, coordinates=2)
    with pytest.raises(InputError, match="f has 12 numbers; more than 12, those of 1 prompts and a split") as raised:
        planted_head(few, 0, read=lambda *_: (random_block()[0], random_block()[1][:12]))
    assert "\n" not in str(raised.value)
