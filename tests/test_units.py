"""Numbers that users hand in: no unit, origin, type or layout changes a fit, and what cannot be used is one line."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moe_prompts as mp
from moe_prompts.checks import LARGEST, SMALLEST
from moe_prompts.errors import InputError
from moe_prompts.estimators.softmax.search import softmax_from_data
from moe_prompts.models.data import RegressionData, Sample, StreamedSample

RNG = np.random.default_rng(0)
HALF = RNG.integers(2, size=300)
X = np.where(HALF, -3, 3) + RNG.standard_normal(300)
Y = np.where(HALF, X, 2 - X) + 0.3 * RNG.standard_normal(300)
#: Volumes of a change of units are n log(unit) nats, so that this is known to 1e-6 where logs are of order 350.
NATS = 1e-5


def rng_of(number):
    return np.random.default_rng([0, number])


def gaussian(x, y):
    family = mp.GaussianGatedFamily(d=Sample(x, y).d, l=1, k=2)
    return mp.best_of(family, Sample(x, y), mp.starts.data(2), rng_of).best


def softmax(x, y):
    return softmax_from_data(Sample(x, y), 2, 2, rng_of).best


def out_of_reach(*columns):
    """The square of a column is no number."""
    sizes = [np.abs(one).max(axis=0) for one in columns]
    spreads = [np.std(one / size, axis=0) * size for one, size in zip(columns, sizes, strict=True)]
    return max(map(np.max, sizes)) > LARGEST or min(map(np.min, spreads)) < SMALLEST


@cache
def plainly(fit):
    """The fit to the data as they are, made when a test first asks: importing this file computes nothing."""
    return fit(X, Y)


UNITS = st.floats(-150, 150).map(lambda power: 10.0**power)
ORIGINS = st.sampled_from([0.0, 0.0, 1.0, -30.0, 1e3, 1e6])


@pytest.mark.parametrize("fit", [gaussian, softmax])
@settings(max_examples=100, deadline=None, derandomize=True)
@given(ux=UNITS, uy=UNITS, ox=ORIGINS, oy=ORIGINS)
def test_a_fit_does_not_depend_on_units_and_origins(fit, ux, uy, ox, oy):
    """Up to the digits that an origin of 1e6 standard deviations takes from the data."""
    plain = plainly(fit)
    data = ux * (X + ox), uy * (Y + oy)
    if out_of_reach(*data):
        with pytest.raises(InputError, match="unit in which"):
            fit(*data)
        return
    found = fit(*data)
    volume = len(X) * (np.log(uy) + (np.log(ux) if fit is gaussian else 0.0))
    assert found.status is plain.status
    assert found.log_likelihood + volume == pytest.approx(plain.log_likelihood, abs=NATS)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(u=st.tuples(UNITS, UNITS, UNITS))
def test_columns_may_have_different_units(u):
    """Two correlated inputs: matrices whose entries are 1e300 apart are as definite as those of equal units."""
    x = np.stack([X, X + RNG_COLUMN], axis=1)
    plain = gaussian(x, Y)
    data = x * np.array(u[:2]), Y * u[2]
    if out_of_reach(*data):
        with pytest.raises(InputError, match="unit in which"):
            gaussian(*data)
        return
    found = gaussian(*data)
    assert found.log_likelihood + len(X) * np.log(u).sum() == pytest.approx(plain.log_likelihood, abs=1e-4)


RNG_COLUMN = np.random.default_rng(1).standard_normal(300)

#: Ways to spell the same numbers.
SPELLINGS = {
    "list": lambda v: v.tolist(),
    "tuple": lambda v: tuple(v.tolist()),
    "column": lambda v: v[:, None],
    "object": lambda v: v.astype(object),
    "big-endian": lambda v: v.astype(">f8"),
    "series": lambda v: pd.Series(v, index=np.arange(len(v))[::-1]),
    "frame": lambda v: pd.DataFrame({"v": v}),
    "nullable": lambda v: pd.Series(v, dtype="Float64"),
    "masked nowhere": np.ma.array,
    "reversed view": lambda v: v[::-1].copy()[::-1],
    "strided": lambda v: np.repeat(v, 3)[::3],
    "Fortran": lambda v: np.asfortranarray(v[:, None]),
    "read-only": lambda v: _locked(v),
    "polars": lambda v: pytest.importorskip("polars").Series(v),
    "polars frame": lambda v: pytest.importorskip("polars").DataFrame({"v": v}),
    "xarray": lambda v: pytest.importorskip("xarray").DataArray(v),
    "arrow": lambda v: pytest.importorskip("pyarrow").array(v),
    "buffer": memoryview,
}


def _locked(value):
    value = value.copy()
    value.setflags(write=False)
    return value


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_the_same_numbers_give_the_same_sample(spelling):
    of = SPELLINGS[spelling]
    sample = Sample(of(X), of(Y))
    assert np.array_equal(sample.x[:, 0], X)
    assert np.array_equal(sample.y[:, 0], Y)
    assert gaussian(of(X), of(Y)).log_likelihood == plainly(gaussian).log_likelihood


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float16, np.float32, np.longdouble, bool])
def test_every_real_type_is_read_as_the_numbers_it_holds(dtype):
    value = np.arange(100).astype(dtype)
    assert np.array_equal(Sample(value, Y[:100]).x[:, 0], value.astype(float))


MASKED = np.ma.array(X, mask=np.arange(300) < 20)
WRONG = {
    "masked": (MASKED, "masked entries"),
    "list of masked": ([MASKED[:10], MASKED[10:20]], "masked entries"),
    "complex": (X + 0j, "complex numbers"),
    "complex objects": ((X + 0j).astype(object), "complex"),
    "text": (X.astype(str), "text"),
    "dates": (np.arange(300).astype("M8[D]"), "dates"),
    "missing": (
        pd.Series([1.0, None] * 150, dtype="Float64"),
        "numbers|NaN|[Ff]inite|shape|expected \\(",
    ),
    "ragged": ([[1.0], [1.0, 2.0]], "real numbers"),
    "None": (None, "real numbers"),
    "nanoseconds": (10**18 + np.arange(300), "beyond 2"),
}
MOE = {
    "weights": [1.0],
    "gate_means": [[0.0]],
    "gate_covs": [[[1.0]]],
    "slopes": [[[1.0]]],
    "intercepts": [[0.0]],
    "noise_covs": [[[1.0]]],
}
KNOWN = mp.GaussianGatedMoE(**MOE)
SOFT = mp.SoftmaxGatedMoE([0.0], [[0.0]], [[0.0]], [0.0], [1.0])
PROMPT = mp.prompt_truth("attention-fixed")
#: Every door through which arrays of users come.
DOORS = {
    "Sample x": lambda v: Sample(v, Y),
    "Sample y": lambda v: Sample(X, v),
    "pairs of fit": lambda v: mp.fit((v, Y), k=1, seed=0),
    "outputs of fit": lambda v: mp.fit([X, v], k=1, seed=0),
    "RegressionData": lambda v: RegressionData(np.zeros((300, 2)), v, np.zeros((300, 2)), 300),
    "parameters": lambda v: mp.GaussianGatedMoE(**{**MOE, "gate_means": v}),
    "univariate": lambda v: mp.GaussianGatedMoE.univariate(*[v] * 6),
    "log_density": lambda v: KNOWN.log_density(v, Y),
    "regression": lambda v: KNOWN.regression(v),
    "multiplicities": lambda v: mp.newton(mp.GaussianGatedFamily(1, 1, 1), Sample(X, Y), KNOWN, weights=v),
    "multiplicities of em": lambda v: mp.em(mp.GaussianGatedFamily(1, 1, 1), Sample(X, Y), KNOWN, weights=v),
    "softmax parameters": lambda v: mp.SoftmaxGatedMoE(v, [[0.0]], [[0.0]], [0.0], [1.0]),
    "softmax gates": lambda v: SOFT.gates(v),
    "softmax regression": lambda v: SOFT.regression(v),
    "respond": lambda v: SOFT.respond(v, np.random.default_rng(0)),
    "head": lambda v: mp.Head(v, [0.0], [[[0.0, 0.0]]], [[1.0]], [[1.0]]),
    "from_head": lambda v: mp.from_head(v, v, v, 1),
    "prompts": lambda v: PROMPT.params.regression(v),
    "vector": lambda v: PROMPT.params.family.unpack(v),
    "least squares starts": lambda v: mp.least_squares(PROMPT.params.family, [PROMPT.population()], [v], 0.1),
    "slope": lambda v: mp.slope({10: v, 100: v}, np.random.default_rng(0)),
    "box": lambda v: mp.Box(b=v),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("door", DOORS)
def test_what_would_lose_something_is_refused_in_one_line(door, wrong):
    value, said = WRONG[wrong]
    if door.startswith("multiplicities") and value is None:
        return  # there it means none
    with pytest.raises(InputError, match=said + ("|two real numbers" if door == "box" else "")) as caught:
        DOORS[door](value)
    assert "\n" not in str(caught.value)


def test_constant_columns_and_lost_origins_are_told_apart():
    with pytest.raises(InputError, match=r"column 0 of x is constant \(7\)"):
        gaussian(np.full(300, 7.0), Y)
    with pytest.raises(InputError, match=r"constant up to rounding.*subtract its origin"):
        gaussian(1e13 + X, Y)
    with pytest.raises(InputError, match=r"constant up to rounding.*subtract its origin"):
        softmax(X, 1e13 + Y)


@pytest.mark.parametrize("start", [mp.starts.data(2), mp.starts.random(2)])
def test_columns_that_rest_among_the_first_pairs_do_not_stop_a_start(start):
    """Sorted data: the starts look at the first 2000 pairs, where an input of counts is still 0."""
    x = np.sort(np.random.default_rng(0).poisson(0.5, 6000)).astype(float)
    y = x + np.random.default_rng(1).standard_normal(6000)
    found = mp.best_of(mp.GaussianGatedFamily(1, 1, 1), Sample(x, y), start, rng_of).best
    assert found.certified


@pytest.mark.parametrize("k", [3, 7, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_parameters_computed_in_short_floats_are_taken(k, dtype):
    weights = np.full(k, 1 / k, dtype=dtype)
    params = mp.GaussianGatedMoE.univariate(weights, range(k), [1] * k, [1] * k, [0] * k, [1] * k)
    assert abs(params.weights.sum() - 1) < 1e-8
    root = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    covariance = np.linalg.inv(root @ root.T + 1)
    made = mp.GaussianGatedMoE([1.0], [[0.0] * 3], covariance[None], [[[0.0] * 3]], [[0.0]], [[[1.0]]])
    assert np.array_equal(made.gate_covs, made.gate_covs.swapaxes(1, 2))
    w2 = np.array([[0.6, 0.8], [0.8, 0.6]]) / 1.0
    relu = mp.PromptKind.parse("adaptive:relu")
    short = (w2 / np.linalg.norm(w2, axis=0)).astype(np.float32)
    made = mp.PromptAttention(PROMPT.params.head, relu, [0.0], np.ones((1, 4)), short)
    assert np.abs(np.linalg.norm(made.W2, axis=0) - 1).max() < 1e-9
    with pytest.raises(InputError, match="sum to"):
        mp.GaussianGatedMoE.univariate([0.5, 0.51], [0, 1], [1, 1], [1, 1], [0, 0], [1, 1])


def test_whole_numbers_in_every_spelling():
    for two in (2, 2.0, np.int64(2), np.uint8(2), np.float32(2)):
        assert mp.GaussianGatedFamily(d=1, l=1, k=two).k == 2
        assert mp.SoftmaxGatedFamily(d=1, k=two).k == 2
        assert mp.PromptFamily(PROMPT.params.head, mp.PromptKind("fixed"), two).k == 2
    assert mp.sample("gmoe-1", n=1e2, seed=np.int64(0)).n == 100
    for wrong in (2.5, "2", None, True, -1, 0):
        for make in (
            lambda k: mp.GaussianGatedFamily(1, 1, k),
            lambda k: mp.SoftmaxGatedFamily(1, k),
            lambda k: mp.PromptFamily(PROMPT.params.head, mp.PromptKind("fixed"), k),
            lambda n: mp.sample("gmoe-1", n, 0),
            lambda n: mp.streamed("gmoe-1", n, 0),
            lambda n: mp.softmax_sample("sgame", n, 0),
            lambda n: mp.prompt_data("attention-fixed", n, 0),
        ):
            with pytest.raises(InputError, match="expected a whole number"):
                make(wrong)


def test_boxes_hold_floats():
    family = mp.prompt_truth("attention-fixed").params.family.with_k(3)
    data = mp.prompt_data("attention-fixed", 1000, 0)
    start = [mp.random_start(family, np.random.default_rng(0), mp.Box())]
    fits = [
        mp.least_squares(family, [data], [start], 0.1, mp.LeastSquaresOptions(box=box))[0].best
        for box in (mp.Box((-1, 3), (-5, 5)), mp.Box(), mp.Box(np.array([-1, 3]), [-5, 5]))
    ]
    assert len({fit.log_likelihood for fit in fits}) == 1


@pytest.mark.parametrize("power", [-100, -12, 12, 100])
def test_units_of_the_output_of_prompts(power):
    """The head's experts, the data and the noise in another unit: the same fit, the same nats."""
    unit = 10.0**power
    known, data = PROMPT, mp.prompt_data("attention-fixed", 1000, 0)
    head = known.params.head
    scaled = mp.Head(head.A, head.a, head.eta * unit, head.B, head.C * unit)
    start = [[mp.near_truth(known.params, 2, 0, np.random.default_rng(0))]]
    one = mp.least_squares(known.params.family, [data], start, 0.1)[0].best
    family = mp.PromptFamily(scaled, known.params.kind, 2)
    other = RegressionData(data.x, data.weights, data.sums * unit, data.n)
    two = mp.least_squares(family, [other], start, 0.1 * unit)[0].best
    assert two.status is one.status
    assert two.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-6)
    with pytest.raises(InputError, match="whose square is no number"):
        mp.least_squares(family, [other], start, 1e-160)


MISUSES = {
    "best_of without a function": (
        lambda: mp.best_of(mp.GaussianGatedFamily(1, 1, 1), Sample(X, Y), mp.starts.data(1), np.random.default_rng(0)),
        "expected a function from the number of a draw",
    ),
    "softmax without a function": (lambda: softmax_from_data(Sample(X, Y), 2, 2, 0), "expected a function"),
    "no pairs": (lambda: softmax_from_data(Sample(X[:0], Y[:0]), 2, 2, rng_of), "n = 0 pairs for k = 2"),
    "no pairs, Gaussian": (lambda: gaussian(X[:0], Y[:0]), "n = 0 pairs for k = 2"),
    "risk of a fit": (lambda: mp.Evaluation(KNOWN).excess_risk(plainly(gaussian)), "take its value"),
    "seed": (lambda: mp.sample("gmoe-1", 10, -1), "seed = -1; expected a whole number of at least 0"),
    "seed of softmax": (lambda: mp.softmax_sample("sgame", 10, -1), "seed = -1"),
    "seed of prompts": (lambda: mp.prompt_data("attention-fixed", 10, 0.5), "seed = 0.5"),
    "replicate": (lambda: mp.sample("gmoe-1", 10, 0, replicate=-1), "replicate = -1"),
    "slope of a list": (lambda: mp.slope([1.0, 2.0], np.random.default_rng(0)), "expected a map from n"),
    "slope with a seed": (lambda: mp.slope({1: [1.0]}, 0), "expected a numpy.random.Generator"),
    "least squares of one": (
        lambda: mp.least_squares(PROMPT.params.family, PROMPT.population(), [[0]], 0.1),
        "expected a list of them",
    ),
    "least squares of a sample": (
        lambda: mp.least_squares(PROMPT.params.family, Sample(X, Y), [[0]], 0.1),
        "expected a list of them",
    ),
    "start of another kind": (
        lambda: mp.newton(mp.GaussianGatedFamily(1, 1, 1), Sample(X, Y), SOFT),
        "start: a SoftmaxGatedMoE",
    ),
    "a search as a start": (
        lambda: mp.softmax_newton(mp.SoftmaxGatedFamily(1, 1), Sample(X, Y), plainly(gaussian)),
        "take its value",
    ),
    "a generator that is none": (
        lambda: mp.best_of(mp.GaussianGatedFamily(1, 1, 1), Sample(X, Y), mp.starts.data(2), lambda i: i),
        "rng = 0; expected a numpy.random.Generator",
    ),
    "options of another estimator": (
        lambda: mp.em(mp.GaussianGatedFamily(1, 1, 1), Sample(X, Y), KNOWN, mp.NewtonOptions()),
        "options: a NewtonOptions; expected a EMOptions",
    ),
    "options in a dict": (
        lambda: mp.newton(mp.GaussianGatedFamily(1, 1, 1), Sample(X, Y), KNOWN, {"compress": False}),
        "options: a dict; expected a NewtonOptions",
    ),
    "one spread": (lambda: mp.profile(PROMPT, np.random.default_rng(0), eps=0.1), "expected at least two positive"),
    "spreads in words": (lambda: mp.profile(PROMPT, np.random.default_rng(0), eps="ab"), "expected real numbers"),
    "a box of numbers": (
        lambda: mp.profile(PROMPT, np.random.default_rng(0), eps=(0.1, 0.2), box=(0, 1)),
        "box: a tuple; expected a Box",
    ),
    "gaps of one data set": (
        lambda: mp.likelihood_gaps(PROMPT, PROMPT.population(), 0.4, np.random.default_rng(0)),
        "expected a list of them",
    ),
    "a spread in words": (
        lambda: mp.likelihood_gaps(PROMPT, [PROMPT.population()], "a", np.random.default_rng(0)),
        "spread = 'a'; expected a number",
    ),
    "a part of nothing": (lambda: Sample(X, Y).thinned(0), "n = 0; expected a whole number of at least 1"),
    "a part of a pair": (lambda: Sample(X, Y).head(2.5), "n = 2.5; expected a whole number"),
    "a kind that is no text": (lambda: mp.PromptKind.parse(3), "expected text"),
    "a truth that is no text": (lambda: mp.prompt_truth(None), "expected text"),
    "arrays for data": (lambda: mp.newton(mp.GaussianGatedFamily(1, 1, 1), (X, Y), KNOWN), "data: a tuple"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_one_line_that_says_what_to_do(misuse):
    call, said = MISUSES[misuse]
    with pytest.raises(InputError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_streamed_pairs_in_small_units_have_the_same_summary():
    """Every chunk of a stream: a mean whose sum of squares is 1e-24 of the plain one."""
    unit = 1e-12
    stream = lambda u: StreamedSample(
        lambda chunk: (Sample(u * X[i : i + chunk], u * Y[i : i + chunk]) for i in range(0, len(X), chunk)),
        n=np.int64(300),
        d=1,
        l=1,
        chunk=np.int32(70),
    )
    plain, small = stream(1.0), stream(unit)
    assert small.spread.sd == pytest.approx(unit * plain.spread.sd, rel=1e-12)
    family = mp.GaussianGatedFamily(1, 1, 2)
    one, two = (mp.best_of(family, data, mp.starts.data(2), rng_of).best for data in (plain, small))
    assert two.status is one.status
    assert two.log_likelihood + 2 * 300 * np.log(unit) == pytest.approx(one.log_likelihood, abs=NATS)


def test_boxes_entropy_and_replicates_take_whole_numbers_of_every_kind():
    family, box = PROMPT.params.family, mp.Box(b=(-1, 3))
    start = mp.random_start(family, np.random.default_rng(0), box)
    assert np.array_equal(start, mp.random_start(family, np.random.default_rng(0), mp.Box(b=(-1.0, 3.0))))
    plain = mp.sample("gmoe-1", 20, 3, replicate=2)
    for kind in (np.int64, np.uint8, np.int32):
        assert np.array_equal(mp.sample("gmoe-1", 20, kind(3), replicate=kind(2)).x, plain.x)
        one = mp.prompt_data("attention-fixed", 20, kind(3), replicate=kind(2))
        assert np.array_equal(one.sums, mp.prompt_data("attention-fixed", 20, 3, replicate=2).sums)


SIZES = st.tuples(st.integers(2, 60), st.integers(1, 3), st.integers(1, 2), st.integers(1, 3))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(size=SIZES, spelling=st.sampled_from(sorted(SPELLINGS)), dtype=st.sampled_from(["f4", "f8", ">f8", "i2"]))
def test_sizes_types_and_layouts_end_in_a_fit_or_in_one_line(size, spelling, dtype):
    """Whatever the shape: a status and a number, or what is wrong; the same for the same numbers in plain float64."""
    n, d, l, k = size
    rng = np.random.default_rng(n)
    draw = lambda columns: (100 * rng.standard_normal((n, columns))).astype(dtype)
    x, y = draw(d), draw(l)
    of = SPELLINGS[spelling] if d == l == 1 else lambda value: value
    shape = lambda value: value[:, 0] if value.shape[1] == 1 else value
    family, ends = mp.GaussianGatedFamily(d=d, l=l, k=k), []
    for pair in ((of(shape(x)), of(shape(y))), (x.astype(float), y.astype(float))):
        try:
            found = mp.best_of(family, Sample(*pair), mp.starts.data(1), rng_of).best
            assert np.isfinite(found.log_likelihood) or not found.certified
            ends.append(f"{found.status.name} {found.log_likelihood}")
        except InputError as error:
            ends.append(str(error))
    assert ends[0] == ends[1]
    assert "\n" not in ends[0]


def test_losses_take_fits_and_searches_for_their_values():
    """And, of what is neither parameters nor holds some, one line."""
    fit = plainly(gaussian)
    assert mp.voronoi_loss(fit, KNOWN) == mp.voronoi_loss(fit.value, KNOWN)
    assert mp.softmax_loss(plainly(softmax), SOFT) == mp.softmax_loss(plainly(softmax).value, SOFT)
    for loss, known in ((mp.voronoi_loss, KNOWN), (mp.softmax_loss, SOFT), (mp.prompt_loss, PROMPT.params)):
        with pytest.raises(InputError, match="a str; expected a") as caught:
            loss("fit", known)
        assert "\n" not in str(caught.value)


def test_advice_to_least_squares_does_not_speak_of_em():
    assert "em(" not in mp.FitStatus.NOT_CERTIFIED.advice
    stopped = mp.em(
        mp.GaussianGatedFamily(1, 1, 2), Sample(X, Y), plainly(gaussian).value, mp.EMOptions(max_iterations=0)
    )
    assert stopped.certified or "newton(...)" in stopped.detail
