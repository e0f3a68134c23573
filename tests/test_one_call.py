"""`mp.fit`, `mp.study` and how results print: against the searches that they stand for, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import moe_prompts as mp
from moe_prompts.errors import InputError
from moe_prompts.models.added import ADDED
from moe_prompts.shown import aligned, as_html, as_text
from moe_prompts.study.gaussian import gaussian_study

RNG_OF = lambda i: np.random.default_rng([5, i])


@pytest.fixture(autouse=True)
def clean():
    """Leave no truth behind."""
    before = set(ADDED)
    yield
    for name in set(ADDED) - before:
        del ADDED[name]


def mine(shift: float = 0.0) -> mp.GaussianGatedMoE:
    return mp.GaussianGatedMoE.univariate(
        [0.5, 0.5], [-1.5 + shift, 1.5], [0.4, 0.4], [1.0, -1.0], [0.0, 1.0], [0.1, 0.1]
    )


class TestFit:
    def test_it_is_the_search_of_the_family(self):
        data = mp.sample("gmoe-1", 1_000, seed=1)
        found = mp.fit(data, k=3, seed=5, starts=4)
        wanted = mp.best_of(mp.GaussianGatedFamily(1, 1, 3), data, mp.starts.data(4), RNG_OF)
        assert found.log_likelihood == wanted.best.log_likelihood
        assert (found.starts, found.share) == (wanted.starts, wanted.share)
        assert found.certified

    def test_arrays_and_families_are_taken_as_well(self):
        data = mp.sample("prompts-fixed", 800, seed=1)
        family = mp.truth("prompts-fixed").family
        named = mp.fit((data.x, data.y), seed=5, family=family, starts=3)
        assert named.log_likelihood == mp.fit(data, seed=5, family=family, starts=3).log_likelihood
        constant = mp.fit(data, k=2, seed=5, family="gaussian-constant", starts=3)
        assert not np.any(constant.value.slopes)

    def test_softmax_gates(self):
        found = mp.fit(mp.softmax_sample("sgame", 2_000, seed=0), k=2, seed=0, family="softmax", starts=4)
        assert found.certified
        assert mp.softmax_loss(found, mp.softmax_truth("sgame")) < 1

    @pytest.mark.parametrize("kind", ["fixed", "adaptive:tanh"])
    def test_prompts_reach_what_starts_at_the_truth_reach(self, kind):
        """The minimum from beside the truth is the oracle: random starts find one as low."""
        name = f"attention-{kind.removeprefix('adaptive:')}"
        truth, data = mp.prompt_truth(name), mp.prompt_data(name, 20_000, seed=0)
        found = mp.fit(data, k=2, seed=0, family=kind, truth=truth)
        start = mp.vector_near_truth(truth.params, 2, 0, np.random.default_rng(0))[None]
        [near] = mp.least_squares(truth.params.family, [data], [start], truth.noise)
        assert found.certified
        assert found.log_likelihood > near.best.log_likelihood - 1e-2  # minima this near count as one

    def test_pairs_of_prompts_are_their_own_statistics(self):
        truth = mp.prompt_truth("attention-fixed")
        rng = np.random.default_rng(0)
        x = rng.choice(truth.x, 400)
        y = truth.params.regression(x) + truth.noise * rng.standard_normal((400, 2))
        asked = {"k": 2, "seed": 0, "family": "fixed", "truth": truth, "starts": 4}
        cells, places = np.unique(x, axis=0, return_inverse=True)
        sums = np.zeros((len(cells), 2))
        np.add.at(sums, places.ravel(), y)
        summed = mp.RegressionData(cells, np.bincount(places.ravel()).astype(float), sums, 400)
        one, other = mp.fit((x, y), **asked).value, mp.fit(summed, **asked).value
        # Both are minima of one Q, reached to 1e-6 nats of some 400.
        assert mp.prompt_loss(one, other) < 1e-3

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"k": None}, "no k; expected the number of atoms"),
            ({"k": 0}, "k"),
            ({"family": "quadratic"}, "family 'quadratic'; expected gaussian, gaussian-constant, softmax"),
            ({"family": "fixed"}, "family 'fixed' with no truth; expected the truth whose head it takes"),
            ({"family": "fixed", "truth": "attention-fixed"}, "with truth = 'attention-fixed'; expected the truth"),
            ({"family": 3}, "family of type int"),
            ({"noise": 0.1}, "takes no truth and no noise"),
            ({"family": mp.GaussianGatedFamily(1, 1, 2)}, "k = 3, but family has k = 2"),
            ({"family": mp.prompt_truth("attention-fixed").params.family}, "no truth, and no other k"),
            ({"family": mp.prompt_truth("attention-fixed").params.family, "k": 2}, "no noise"),
            ({"seed": -1}, "seed"),
            ({"data": "file.csv"}, "data of type str; expected a Sample or a tuple"),
        ],
    )
    def test_what_it_refuses(self, options, message):
        asked = {"data": mp.sample("gmoe-1", 100, seed=0), "k": 3, "seed": 0} | options
        with pytest.raises(InputError, match=message) as caught:
            mp.fit(**asked)
        assert "\n" not in str(caught.value)


class TestStudy:
    def test_it_is_the_study_of_the_engine(self, tmp_path):
        found = mp.study("gmoe-1", n=[200, 2_000], ks=[3], reps=2, seed=4)
        made = gaussian_study(
            sizes=[200, 2_000], replicates=2, entropy=4, truths=["gmoe-1"], kinds=["adaptive"], ks=[3]
        )
        wanted = mp.run_study(made, tmp_path / "run", progress=False)
        assert found.rows.equals(wanted)

    def test_own_parameters_are_a_truth_by_their_values(self):
        asked = {"n": [200, 2_000], "reps": 2, "seed": 4, "ks": [2]}
        first, again = (mp.study(mine(), **asked) for _ in range(2))
        assert first.rows.equals(again.rows)
        other = mp.study(mine(0.25), **asked)
        assert set(other.rows["truth"]).isdisjoint(first.rows["truth"])

    def test_what_it_shows(self, tmp_path):
        found = mp.study(mine(), n="2e2..2e3", points=3, reps=8, seed=0, out=tmp_path / "kept")
        assert (tmp_path / "kept" / "results.parquet").is_file()
        assert set(found.slopes["measure"]) == {"risk", "loss D"}
        assert set(found.slopes["predicted"]) == {-1.0, -0.5}
        assert list(found.verdicts.index.names) == ["truth", "kind", "k", "measure"]
        text = str(found)
        assert max(map(len, text.splitlines())) <= 80
        assert repr(found) == text
        shown = found._repr_html_()
        assert "<table>" in shown
        for told in (" ".join(text.split()), shown):
            assert "D: Voronoi loss of the parameters" in told
            assert "risk: mean squared error" in told
            assert "singleton" not in told  # the table has no such measure
        assert found.plot().axes

    def test_the_module_of_the_same_name_is_the_function(self):
        """Whichever was imported first."""
        code = "import moe_prompts.study.rows, moe_prompts as mp; assert callable(mp.study); mp.study.rows"
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize(
        ("truth", "options", "message"),
        [
            ("nothing", {}, "unknown truth 'nothing'; expected one of gmoe-1"),
            (3, {}, "truth of type int"),
            ("gmoe-1", {"seed": -1}, "seed = -1"),
            ("sgame", {"kinds": ["fixed"]}, "have no kinds"),
            ("gmoe-1", {"n": "1e3..x"}, "is not a size"),
            ("gmoe-1", {"n": [3]}, "below the"),
        ],
    )
    def test_what_it_refuses(self, truth, options, message):
        with pytest.raises(InputError, match=message):
            mp.study(truth, **{"seed": 0, "reps": 2} | options)

    @pytest.mark.parametrize(
        "changed",
        [
            lambda: replace(mp.truth("gmoe-1"), params=mine()),
            lambda: replace(mp.prompt_truth("attention-fixed"), noise=10.0),
            lambda: replace(mp.softmax_truth("sgame"), params=mp.softmax_truth("sgame").params.atoms([1, 0])),
        ],
    )
    def test_a_truth_that_was_changed_and_kept_a_name_of_the_package_is_not_the_packages(self, changed):
        """Cells find a truth by its name: the one that was handed in would not be the one that is measured."""
        with pytest.raises(InputError, match=r"differs from the package's '.*'; expected a new name"):
            mp.study(changed(), seed=0, reps=1, n=[500])


class TestShown:
    def test_a_fit_prints_as_a_table(self):
        found = mp.fit(mp.sample("gmoe-1", 300, seed=0), k=3, seed=0, starts=2)
        text = str(found)
        assert text.startswith("fit of GaussianGatedMoE, k = 3, d = 1, l = 1\n  status")
        assert max(map(len, text.splitlines())) <= 80
        assert repr(found) == text
        assert "certified local maximum" in found._repr_html_()

    def test_losses_take_fits_searches_and_truths(self):
        truth, data = mp.truth("gmoe-1"), mp.sample("gmoe-1", 1_000, seed=0)
        search = mp.best_of(truth.family, data, mp.starts.data(2), RNG_OF)
        wanted = mp.voronoi_loss(search.best.value, truth.params)
        assert mp.voronoi_loss(search, truth) == mp.voronoi_loss(search.best, truth.params) == wanted

    def test_text_wraps_and_html_escapes(self):
        text = as_text("title", [("name", "word " * 40)], columns=40)
        assert max(map(len, text.splitlines())) <= 40
        assert text.count("word") == 40
        assert "&lt;b&gt;" in as_html("<b>", [("a", "<b>")])
        assert aligned(["a", "b"], [["1", "22"]]).splitlines() == ["a  b", "-----", "1  22"]
