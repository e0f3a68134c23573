"""bfloat16 on a processor: taken where it multiplies it itself, refused in one line where it does not."""

import pytest
import torch
from commands import call

from moe_prompts.errors import InputError
from moe_prompts.vision.training.sgd import checked_precision


@pytest.mark.parametrize(
    ("capabilities", "taken"),
    [({"avx512_bf16": True, "amx_bf16": False}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)],
)
def test_bfloat16_needs_a_processor_that_has_it(monkeypatch, capabilities, taken):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert checked_precision("float32", "cpu") == "float32"
    assert checked_precision("bfloat16", "cuda") == "bfloat16"
    if taken:
        assert checked_precision("bfloat16", "cpu") == "bfloat16"
    else:
        with pytest.raises(InputError, match=r"no instructions for it .* use --precision float32, or a GPU"):
            checked_precision("bfloat16", "cpu")


def test_the_command_refuses_before_it_trains(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    done = call("vtab.py", "run", "--quick", "--precision", "bfloat16", "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "out" / "final").exists()
