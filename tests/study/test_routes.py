"""Fits of the default study by the compiled and by the NumPy passes: the same fits.

``python tests/study/test_routes.py 1000,5000 4`` prints how many agree at those sizes, with that many replicates.
"""

import os
import sys
import time
from collections import Counter

import pytest

from moe_prompts import compilation
from moe_prompts.study import gaussian

#: Smallest share of fits with the same status, and largest relative difference of log-likelihoods certified by both.
SAME_STATUS, SAME_VALUE = 0.995, 1e-9


def fits(route, sizes, replicates):
    """Status, log-likelihood of every fit and the seconds of each size, by one route."""
    os.environ[compilation.VARIABLE] = route
    found, seconds = {}, Counter()
    for cell in gaussian.gaussian_study(sizes=sizes, replicates=replicates, entropy=0).cells:
        began = time.perf_counter()
        for replicate in range(replicates):
            best = gaussian.fit_replicate(cell, replicate, 0).best
            found[cell, replicate] = best.status.name, best.log_likelihood
        seconds[cell.n] += time.perf_counter() - began
    return found, seconds


def agreement(sizes, replicates):
    """Number of fits, share with the same status, and relative differences of those certified by both."""
    one, other = (fits(route, sizes, replicates) for route in compilation.ROUTES)
    pairs = [(one[0][key], other[0][key]) for key in one[0]]
    same = sum(a[0] == b[0] for a, b in pairs) / len(pairs)
    off = sorted(abs(a[1] / b[1] - 1) for a, b in pairs if a[0] == b[0] == "CERTIFIED")
    return len(pairs), same, off, {n: other[1][n] / one[1][n] for n in sizes}, (one[0], other[0])


@pytest.mark.slow
def test_both_routes_end_on_the_same_fits(monkeypatch):
    """At two sizes, two replicates; a start may lead to another maximum where rounding decides, in few of them."""
    monkeypatch.setenv(compilation.VARIABLE, "compiled")
    count, same, off, _, _ = agreement([1000, 3000], 2)
    assert count == 64
    assert same * count >= count - 1
    assert sum(value > SAME_VALUE for value in off) <= 1


if __name__ == "__main__":
    sizes = [int(float(n)) for n in sys.argv[1].split(",")]
    count, same, off, faster, _ = agreement(sizes, int(sys.argv[2]))
    print(f"{count} fits: same status in {100 * same:.2f} %; {len(off)} certified by both, log-likelihoods differ")
    print(f"by more than {SAME_VALUE} relative in {sum(value > SAME_VALUE for value in off)}, at most by {off[-1]:.1e}")
    print("NumPy seconds / compiled seconds:", ", ".join(f"n = {n}: {ratio:.2f}" for n, ratio in faster.items()))
