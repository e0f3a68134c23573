"""Read one head of one real block, or all of them, as the prompt regression of the theory, and plant prompts.

    y = f(z) + N(0, s^2 I),   f the class token's row of the head's output, z which of m real images

Everything frozen is the block's: tokens after its norm, W_Q, W_K, W_V and their biases. The images are a
finite list, so z can be all m - 1 principal coordinates of their tokens, and nothing of the tokens is left
out; adaptive prompts read the first few of them. Inputs are drawn from the list, so counts and means are
sufficient statistics and any n costs the same. Of a prompt in R^d the head sees at most 2 d_h directions
(``models.token_head``): prompts are fitted in those. All heads of a block share their prompts; y is then the
class token's row of the block's output, after its projection W_O and bias (``models.multi_head``).

Prompts stand beside the tokens after the block's norm, as in the theory, and have logit biases b. Only
``frozen_head`` and ``frozen_block`` need torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from moe_prompts.errors import InputError
from moe_prompts.estimators.prompts.least_squares import LeastSquaresOptions
from moe_prompts.estimators.prompts.objective import Box
from moe_prompts.identifiability import kappas, second_order_part
from moe_prompts.models.multi_head import MultiHead, prompt_map
from moe_prompts.models.prompt_attention import PromptAttention, PromptFamily, PromptKind
from moe_prompts.models.prompt_truths import PromptTruth
from moe_prompts.models.token_head import (
    Projections,
    TokenHead,
    TokenMap,
    Visibility,
    blind_basis,
    head_of_tokens,
    heads_of,
    key_rows,
    seen,
    unseen,
    visibility,
    visible_basis,
)
from moe_prompts.seeds import rng_at

TRUTHS = ("fixed", "adaptive")
IMAGES = "count"
#: b is searched within this of the truth's, everything else in [-5, 5] units.
B_RANGE, THETA_RANGE = 2.0, 5.0
#: Logit biases between which the one with the asked mass is looked for.
B_SEARCH = 60.0
#: How far a prompt is moved along directions that should change nothing.
MOVE = 1.0

#: Projections of every head of a block, W_O (H d_h, D) and its bias c_o (D,).
BlockProjections = tuple[list[Projections], np.ndarray, np.ndarray]


@dataclass(frozen=True)
class HeadChoice:
    """Choose a head, its inputs, and what is planted beside it.

    backbone     name, as ``create_backbone`` knows it
    block, head  which head of which block; head None: all of them, which share the prompts
    query        token whose row is the output; 0 is the class token
    images       m, the number of inputs
    coordinates  r, leading principal coordinates of the tokens that adaptive prompts read
    outputs      l, leading principal components of the output without prompts, of the head or, after W_O, of
                 the block; all of them: the output as it is
    prompts      number of prompts of the truth
    hidden       hidden units of adaptive prompts
    mass         mean share of the gate that the truth's prompts have, in (0, 1)
    noise        standard deviation of each output, as a share of the root mean square of f
    size         side of the images in pixels; None: the backbone's own
    weights      file of the backbone's weights; None: those of its name

    Raises ``InputError`` for values out of range.
    """

    backbone: str = "small"
    block: int = 3
    head: int | None = 0
    query: int = 0
    images: int = 128
    coordinates: int = 6
    outputs: int = 4
    prompts: int = 2
    hidden: int = 2
    mass: float = 0.35
    noise: float = 0.1
    size: int | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("images", 2), ("coordinates", 1), ("outputs", 1), ("prompts", 1), ("hidden", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} = {getattr(self, name)}; expected at least {least}")
        if not 0 < self.mass < 1 or not self.noise > 0:
            raise InputError(f"mass = {self.mass}, noise = {self.noise}; expected a share in (0, 1) and a positive one")

    def facts(self) -> dict[str, Any]:
        """Return what results depend on: a file of weights by its sha256, nothing not asked for."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        if self.weights is not None:
            from moe_prompts.vision.training.runs import weights_hash

            found["weights"] = weights_hash(self.weights)
        return found

    def loaded(self) -> dict[str, str]:
        """Return the hash of the weights that the backbone really has, as ``Setup.loaded`` does."""
        from moe_prompts.vision.training.runs import Setup

        return Setup(self.backbone, self.weights, size=self.size).loaded()

    @property
    def name(self) -> str:
        """Return a short name, as ``small-b3h0`` of a head and ``small-b3`` of all heads of a block."""
        return f"{self.backbone}-b{self.block}" + ("" if self.head is None else f"h{self.head}")


def frozen_head(choice: HeadChoice, entropy: int) -> tuple[Projections, np.ndarray]:
    """Return the head's projections and the tokens that its block's attention is given, float64.

    The projections are W_Q, W_K, W_V (D, d_h) with their biases; the tokens are (m, N, D).

    Raises ``InputError`` for a block, head or query that is not there.
    """
    if choice.head is None:
        raise InputError("frozen_head: head None; expected the number of one head: frozen_block reads all of them")
    (found,), _, _, tokens = _frozen(choice, entropy)
    return found, tokens


def frozen_block(choice: HeadChoice, entropy: int) -> tuple[BlockProjections, np.ndarray]:
    """Return the projections of all heads of a block with W_O and its bias, and its tokens, float64.

    Raises ``InputError`` for a block or query that is not there.
    """
    found, W_O, c_o, tokens = _frozen(choice, entropy)
    return (found, W_O, c_o), tokens


def _frozen(choice: HeadChoice, entropy: int) -> tuple[list[Projections], np.ndarray, np.ndarray, np.ndarray]:
    """Return the projections of the chosen heads, W_O (H d_h, D), c_o (D,), and the tokens (m, N, D)."""
    import torch

    from moe_prompts.vision.backbones.create import create_backbone
    from moe_prompts.vision.backbones.normalisation import normalisation_of, normalised
    from moe_prompts.vision.prompting.config import VPT
    from moe_prompts.vision.prompting.head_as_moe import attention_parts, projections
    from moe_prompts.vision.prompting.prompted import prompt, unprompt
    from moe_prompts.vision.tasks.procedural import fresh

    torch.set_num_threads(1)
    plain = create_backbone(choice.backbone, file=choice.weights, size=choice.size).double()
    wrapped = prompt(plain, VPT(1), 0, rng=torch.Generator().manual_seed(0))
    parts = attention_parts(wrapped, choice.block, "planted head")
    which = range(parts.num_heads) if choice.head is None else [choice.head]
    found = [projections(wrapped, choice.block, head) for head in which]
    attn: Any = parts.module
    plain = unprompt(wrapped)
    pixels = fresh(IMAGES, plain.patch_embed.img_size[0], 0, choice.images, entropy).pixels
    seen_tokens: list[torch.Tensor] = []
    hook = attn.register_forward_pre_hook(lambda _, inputs: seen_tokens.append(inputs[0]))
    with torch.no_grad():
        # In one piece of memory: the strides of an image decide how sums over a patch round.
        plain.forward_features(normalised(pixels, normalisation_of(choice.backbone)).contiguous().double())
    hook.remove()
    tokens = seen_tokens[0].numpy()
    if not 0 <= choice.query < tokens.shape[1]:
        raise InputError(f"query {choice.query}; expected 0 to {tokens.shape[1] - 1}, the tokens of {choice.backbone}")
    W_O, c_o = (one.detach().numpy() for one in (attn.proj.weight, attn.proj.bias))
    return found, W_O.T, c_o, tokens


@dataclass(frozen=True, eq=False)
class PlantedHead:
    """Hold a frozen head, or all heads of a block, and the two truths planted there.

    choice        what was asked for
    head          in z, with prompts p in R^d; a ``MultiHead`` of a whole block
    z             (m, m - 1): the images
    kept          share of the tokens' variance in the coordinates that adaptive prompts read
    kept_outputs  share of the variance of the output in the outputs of the model
    unit          root mean square of a token's feature, the unit of prompts
    basis         (d, v): the directions of p that f can see; p = unit * basis q
    plain         (m, l): f without prompts
    planted       by name: the truths as they were drawn, in p
    truths        by name: the same functions in q, with noise and design
    outputs       (d_h or D, l): the combinations of the outputs that f consists of
    weights       hash of the backbone's weights by its name; {} where the head was read from none
    """

    choice: HeadChoice
    head: TokenHead | MultiHead
    z: np.ndarray
    kept: float
    kept_outputs: float
    unit: float
    basis: np.ndarray
    plain: np.ndarray
    planted: dict[str, PromptAttention]
    truths: dict[str, PromptTruth]
    outputs: np.ndarray
    weights: dict[str, str]

    @property
    def visibility(self) -> Visibility:
        """Return how many directions of a prompt logits and values see."""
        return visibility(self.head)

    def options(self, truth: str) -> LeastSquaresOptions:
        """Return the options of fits to this truth: the box in which they search."""
        b = self.truths[truth].params.b
        return LeastSquaresOptions(Box((b.min() - B_RANGE, b.max() + B_RANGE), (-THETA_RANGE, THETA_RANGE)))


def planted_head(choice: HeadChoice, entropy: int, read: Callable | None = None) -> PlantedHead:
    """Return the head of ``choice`` with its fixed and its adaptive truth, drawn from the entropy's address.

    read  gives projections and tokens, as ``frozen_head`` does, or ``frozen_block`` for all heads

    Raises ``InputError`` for a head whose queries do not vary in all directions, and for numbers out of
    range.
    """
    whole_block = choice.head is None
    projections, tokens = (read or (frozen_block if whole_block else frozen_head))(choice, entropy)
    everything = min(len(tokens) - 1, tokens[0].size)
    if choice.coordinates > everything:
        raise InputError(
            f"coordinates = {choice.coordinates}; the tokens of {choice.images} images have {everything}: ask for "
            "fewer, or for more images"
        )
    _, _, kept = TokenMap.principal(tokens, choice.coordinates)
    of, z, _ = TokenMap.principal(tokens, everything)
    frozen: Callable[..., tuple[Any, np.ndarray, float, int]] = _frozen_block if whole_block else _frozen_head
    head, outputs, kept_outputs, width = frozen(projections, of, z, choice)
    sees = visibility(head).by_logit
    if sees < width:
        raise InputError(
            f"block {choice.block}, query {choice.query}: on {choice.images} images its queries vary in {sees} of "
            f"{width} directions; expected all of them: take another query (the class token is constant in block 0) "
            "or more images"
        )
    numbers, needed = choice.outputs * choice.images, (choice.prompts + 1) * head.p
    if whole_block and numbers <= needed:
        raise InputError(
            f"outputs = {choice.outputs}, images = {choice.images}: f has {numbers} numbers; more than "
            f"{needed}, those of {choice.prompts} prompts and a split, are expected: ask for more images"
        )
    unit, basis = float(np.sqrt((tokens**2).mean())), visible_basis(head)
    planted = {name: _drawn(name, head, z, choice, unit, entropy) for name in TRUTHS}
    truths = {}
    for name, params in planted.items():
        own = seen(params, basis, unit)
        noise = choice.noise * float(np.sqrt((own.regression(z) ** 2).mean()))
        truths[name] = PromptTruth(
            f"{choice.name}-{name}", own, noise, z, f"this project: planted in a head of the backbone {choice.backbone}"
        )
    plain, weights = without_prompts(head, z), choice.loaded() if read is None else {}
    return PlantedHead(choice, head, z, kept, kept_outputs, unit, basis, plain, planted, truths, outputs, weights)


def _frozen_head(
    projections: Projections, of: TokenMap, z: np.ndarray, choice: HeadChoice
) -> tuple[TokenHead, np.ndarray, float, int]:
    """Return a head in z with the chosen outputs, those outputs, their share, and how much its logits may see."""
    whole = head_of_tokens(projections, of, choice.query, choice.coordinates)
    outputs, kept = _outputs(choice.outputs, without_prompts(whole, z), "head")
    head = head_of_tokens(projections, of, choice.query, choice.coordinates, outputs)
    return head, outputs, kept, projections[0].shape[1]


def _frozen_block(
    projections: BlockProjections, of: TokenMap, z: np.ndarray, choice: HeadChoice
) -> tuple[MultiHead, np.ndarray, float, int]:
    """Return what ``_frozen_head`` does of all heads of a block.

    W_O and the choice of outputs are applied within each head, so that every head has l outputs and the block's
    is their sum: the same function, with smaller arrays.
    """
    parts, W_O, c_o = projections
    to_outputs = np.split(W_O, len(parts))
    read = lambda one, outputs: head_of_tokens(one, of, choice.query, choice.coordinates, outputs)
    plain = sum(without_prompts(read(one, None), z) @ O for one, O in zip(parts, to_outputs, strict=True)) + c_o
    outputs, kept = _outputs(choice.outputs, plain, "block")
    heads = [read(one, O @ outputs) for one, O in zip(parts, to_outputs, strict=True)]
    widths = sum(one[0].shape[1] for one in parts)
    every = np.tile(np.eye(choice.outputs), len(heads))
    return MultiHead(tuple(heads), every, c_o @ outputs), outputs, kept, min(widths, parts[0][0].shape[0])


def _outputs(count: int, plain: np.ndarray, whose: str) -> tuple[np.ndarray, float]:
    """Return orthonormal directions (width, count) of an output, and their share of its variance.

    plain  (m, width), the output; as many directions as it has are the output as it is
    whose  word of errors, "head" or "block"
    """
    width = plain.shape[1]
    if count > width:
        raise InputError(f"outputs = {count}; the {whose} has {width}: expected 1 to {width}")
    _, sizes, right = np.linalg.svd(plain - plain.mean(axis=0))
    kept = float((sizes[:count] ** 2).sum() / (sizes**2).sum())
    return (np.eye(width) if count == width else right[:count].T), kept


def _drawn(
    name: str, head: TokenHead | MultiHead, z: np.ndarray, choice: HeadChoice, unit: float, entropy: int
) -> PromptAttention:
    """Draw the prompts of a truth, with equal b for the asked mass (of all heads in the mean).

    Fixed prompts are p ~ N(0, unit^2). Adaptive ones (gelu) have W1 ~ N(0, 1 / r) and W2 ~ N(0, unit^2).
    """
    rng = rng_at(entropy, "planted-head", name)
    k, p, r = choice.prompts, head.p, head.reads
    if name == "fixed":
        params = PromptAttention.fixed(head, np.zeros(k), unit * rng.standard_normal((k, p)))
    else:
        W1 = rng.standard_normal((k, choice.hidden, r)) / np.sqrt(r)
        params = PromptAttention.adaptive(head, np.zeros(k), W1, unit * rng.standard_normal((p, choice.hidden)))
    with_b = lambda b: replace(params, b=np.full(k, b))
    excess = lambda b: float(with_b(b).gates(z)[..., -k:].sum(axis=-1).mean()) - choice.mass
    return with_b(brentq(excess, -B_SEARCH, B_SEARCH))


def without_prompts(head: TokenHead | MultiHead, z: np.ndarray) -> np.ndarray:
    """Return the output of the frozen experts alone, (m, l)."""
    if isinstance(head, MultiHead):
        parts = [without_prompts(one, z) for one in head.heads]  # type: ignore[arg-type]
        return np.concatenate(parts, axis=1) @ head.out.T + head.shift
    logits, experts = head.gates_and_experts(z)
    gates = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.einsum("mn,mnl->ml", gates / gates.sum(axis=1, keepdims=True), experts)


def first_heads(design: PlantedHead, truth: str, count: int) -> PromptTruth:
    """Return a truth in the first ``count`` heads of the block alone, with prompts in token coordinates.

    p = unit q, so that a split of one unit is as large as in the truth itself. The outputs are the block's:
    what these heads add to them, and the bias.
    """
    full, of = design.planted[truth], design.head
    assert isinstance(of, MultiHead)
    heads = MultiHead(heads_of(of)[:count], of.out[:, : count * of.l], of.shift)
    params = seen(replace(full, head=heads), np.eye(of.p), design.unit)
    return replace(design.truths[truth], name=f"{design.truths[truth].name}-first{count}", params=params)


# What can be told without data ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identified:
    """Hold what can be told of one truth without data.

    kappa1_token   smallest singular value of the Jacobian in the coordinates of tokens, p; 0 where the head
                   is blind
    blind_change   largest |change of f| when prompts move one unit in a blind direction
    kappa1         smallest singular value in visible coordinates
    kappa2         second-order kappa of splits in two, in visible coordinates; where there are silent splits,
                   an upper bound from one of them, which is 0 up to rounding; NaN for fixed prompts in all
                   heads of a block, where ``block.held_split`` has it
    silent_splits  dimension of the directions in which a fixed prompt splits without any change of f: those
                   that no logit sees; 0 for adaptive prompts
    split_change   largest |change of f| over splits by one unit there; NaN where there are none
    """

    kappa1_token: float
    blind_change: float
    kappa1: float
    kappa2: float
    silent_splits: int
    split_change: float


def identified(design: PlantedHead, name: str, rng: np.random.Generator) -> Identified:
    """Return the kappas of a truth in both coordinates, and how f changes along blind and silent directions.

    rng  of the starts from which kappa2 is searched
    """
    truth, full = design.truths[name], design.planted[name]
    silent = silent_directions(truth)
    if silent.shape[1]:
        kappa2, split = _second_order(truth, silent[:, 0]), split_change(truth, MOVE)
    elif isinstance(design.head, MultiHead) and truth.params.kind.base == "fixed":
        kappa2, split = float("nan"), float("nan")
    else:
        kappa2, split = kappas(truth, rng).kappa2, float("nan")
    return Identified(
        float(jacobian_sizes(full, design.z)[-1]),
        _blind_change(design, full),
        float(jacobian_sizes(truth.params, truth.x)[-1]),
        kappa2,
        silent.shape[1],
        split,
    )


def jacobian_sizes(params: PromptAttention, x: np.ndarray) -> np.ndarray:
    """Return the singular values of the weighted Jacobian of f at ``params`` on x, in decreasing order."""
    family = params.family
    jacobian = prompt_map(family, x).at(params.vector[None]).jacobian()[0].reshape(family.size, -1)
    return np.linalg.svd(jacobian / np.sqrt(len(x)), compute_uv=False)


def silent_directions(truth: PromptTruth) -> np.ndarray:
    """Return the directions (q, count) in which a fixed prompt splits in silence.

    There p + u and p - u have the same logits in every head, so their values cancel for any u. Adaptive
    prompts have none.
    """
    head = truth.params.head
    return unseen(key_rows(head)) if truth.params.kind.base == "fixed" else np.zeros((head.p, 0))


def split_along(truth: PromptTruth, prompt: int, by: np.ndarray) -> PromptAttention:
    """Return the truth with one of its prompts as two halves, ``by`` and -``by`` away from it."""
    split = truth.params.chosen([*range(truth.k_true), prompt])
    atoms = split.atoms.copy()
    atoms[prompt] += by
    atoms[-1] -= by
    return replace(split, atoms=atoms)


def split_change(truth: PromptTruth, by: float) -> float:
    """Return the largest |change of f| when the first prompt splits by ``by`` units.

    It splits along the first silent direction.
    """
    split = split_along(truth, 0, by * silent_directions(truth)[:, 0])
    return float(np.abs(split.regression(truth.x) - truth.params.regression(truth.x)).max())


def _second_order(truth: PromptTruth, u: np.ndarray) -> float:
    """Return the largest |D2[u, u]| over prompts, an upper bound of what is left off the Jacobian's span."""
    values = prompt_map(truth.params.family, truth.x).at(truth.params.vector[None])
    parts = [np.einsum("ablm,a,b->lm", second_order_part(values, l), u, u) for l in range(truth.k_true)]
    return max(float(np.sqrt((part**2).sum() / len(truth.x))) for part in parts)


def _blind_change(design: PlantedHead, full: PromptAttention) -> float:
    blind = design.unit * MOVE * blind_basis(design.head)
    if not blind.shape[1]:
        return float("nan")
    along = blind.sum(axis=1) / np.sqrt(blind.shape[1])
    if full.kind.base == "fixed":
        moved = replace(full, atoms=full.atoms + along)
    else:
        moved = replace(full, W2=full.W2 + along[:, None])
    return float(np.abs(moved.regression(design.z) - full.regression(design.z)).max())


def family_of(design: PlantedHead, truth: str, kind: PromptKind, k: int) -> PromptFamily:
    """Return the family of k prompts of a kind beside the head.

    It is in visible coordinates, with the choice's number of hidden units.
    """
    return PromptFamily(design.truths[truth].params.head, kind, k, design.choice.hidden)


def constants_as_adaptive(truth: PromptTruth, family: PromptFamily) -> np.ndarray:
    """Return the vector of an adaptive family that computes the same as a truth of fixed prompts.

    Unit l of the projector is on, and constant, in prompt l alone. Raises ``InputError`` unless ``family``
    has bias, as many prompts as the truth, and at least as many hidden units.
    """
    k, p = truth.k_true, family.head.p
    if not family.kind.bias or family.hidden < k or family.k != k:
        raise InputError(
            f"constants_as_adaptive: {family.k} {family.kind} prompts with {family.hidden} hidden units; "
            f"expected {k} with bias and at least {k} hidden units"
        )
    W1 = np.zeros((k, family.hidden, family.w1_columns))
    W1[np.arange(k), np.arange(k), -1] = 1.0
    W2 = np.zeros((p, family.hidden))
    W2[:, :k] = truth.params.atoms.T / family.kind.activation.value(np.ones(1))
    return np.concatenate([truth.params.b, W1.ravel(), W2.ravel()])
