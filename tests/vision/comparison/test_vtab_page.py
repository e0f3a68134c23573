"""docs/vtab.md says what files say."""

from pathlib import Path

from moe_prompts.vision.backbones.create import provenance

PAGE = (Path(__file__).parents[3] / "docs" / "vtab.md").read_text(encoding="utf-8")


def test_probes_are_those_of_the_checkpoint():
    made = provenance()
    for row in made["probes"]["rows"]:
        numbers = " | ".join(f"{row[key]:.3f}" for key in ("chance", "trained", "random", "pixels"))
        line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{row['task']}` |"))
        assert line.endswith(f"| {numbers} |")
    better = [row["trained"] > max(row["random"], row["pixels"]) for row in made["probes"]["rows"]]
    assert made["counts as pretrained"] == all(better)
    assert ("does not count as pretrained" in " ".join(PAGE.split())) == (not all(better))
