"""A certificate is a file from anybody: too large ones are refused at once, whatever is in them."""

import copy
import json
import os
import time

import pytest
from algebra import table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_prompts import InputError
from moe_prompts.theory.atoms import atom
from moe_prompts.theory.certificates import limits
from moe_prompts.theory.certificates.verify import verify, verify_table
from moe_prompts.theory.dependences import dependences
from moe_prompts.theory.solvability import gauss_hermite_witness

SECONDS = 5
POWERS = "a**16**16", "((a**16)**16)**16", "(((a+b)**16)**3)", "9**9**9"


@pytest.fixture(scope="module")
def certificates():
    report = dependences(atom("softmax-linear"), 2)
    location = json.loads(table("location-scale", (1, 2)).to_json())
    made = {"identity": report.identity_certificate(report.identities[0]), "witness": gauss_hermite_witness(3)}
    made |= {certificate["kind"]: certificate for certificate in location["certificates"].values()}
    return made, location


def places(value, path=()):
    """Every entry: its path and what it is."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    value = copy.deepcopy(value)
    at = value
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return value


def in_time(check, value):
    began = time.process_time()
    try:
        said = check(value).reason
    except InputError as error:
        said = str(error)
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 1
    assert time.process_time() - began < SECONDS


def test_own_certificates_are_within_the_limits(certificates):
    made, table = certificates
    assert limits.excess(table) is None
    assert all(verify(certificate) for certificate in made.values())


@pytest.mark.parametrize("name", ["order", "frozen", "m", "digits", "weight", "sizes"])
@pytest.mark.parametrize("value", [10**6, 10**9, "1000000", 1e308, float("inf"), 10**5000], ids=range(6))
def test_sizes_that_would_keep_a_check_busy_are_one_line(name, value, certificates):
    found = 0
    for certificate in certificates[0].values():
        for path, inner in places(certificate):
            if path and path[-1] == name and not isinstance(inner, dict):
                new = [value] * len(inner) if isinstance(inner, list) else value
                answer = verify(changed(certificate, path, new))
                assert not answer
                assert "larger than any certificate of this package" in answer.reason
                found += 1
    assert found


@pytest.mark.parametrize(
    "text", ["1e1000000000", "1E+999999", "1_000e1_000_0", "9" * 201, "x" * 5000, "-1.5e-100000", "1/1e9999"]
)
def test_numbers_of_a_billion_digits_are_one_line(text, certificates):
    identity = certificates[0]["identity"]
    for path, inner in places(identity):
        if isinstance(inner, str) and path != ("kind",):
            answer = verify(changed(identity, path, text))
            assert not answer
            assert "larger than any certificate" in answer.reason


@pytest.mark.parametrize("text", POWERS)
def test_powers_of_powers_are_one_line(text, certificates):
    identity = certificates[0]["identity"]
    answer = verify(changed(identity, ("terms", 0, 1), text))
    assert not answer
    assert "power" in answer.reason


def test_deep_long_and_endless_ones_are_one_line():
    deep, endless = [], {"kind": "identity"}
    for _ in range(100_000):
        deep = [deep]
    endless["terms"] = endless
    for value, message in ((deep, "levels"), (endless["terms"], "levels"), ([0] * 200_000, "entries")):
        answer = verify({"kind": "identity", "terms": value})
        assert not answer
        assert message in answer.reason
    while deep:  # or its end would go as deep
        deep = deep.pop()


@pytest.mark.parametrize("kind", [["identity"], {}, None, 3, "k" * 10_000])
def test_kinds_that_are_none_are_one_line(kind):
    with pytest.raises(InputError, match=r"certificate of kind .*expected a dict with kind one of") as raised:
        verify({"kind": kind})
    assert len(str(raised.value)) < 500


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([*POWERS, "1e400", "1/0", "10**9", [], {}, [[]], "softmax-gaussian", "adaptive:tanh", 8, 12, 32]),
)
EXAMPLES = int(os.environ.get("MOE_PROMPTS_EXAMPLES", "60"))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_certificate_is_answered_in_time(certificates, data):
    made, table = certificates
    name = data.draw(st.sampled_from([*sorted(made), "table"]))
    value = table if name == "table" else made[name]
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([path for path, _ in places(value) if path]))
        value = changed(value, path, data.draw(ODD))
    in_time(verify_table if name == "table" else verify, value)
