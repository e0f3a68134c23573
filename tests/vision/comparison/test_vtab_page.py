"""docs/vtab.md says what files say, and no page shows an accuracy on the small backbone as a result."""

from pathlib import Path

from moe_prompts.vision.backbones.create import provenance

DOCS = Path(__file__).parents[3] / "docs"


def test_whether_it_counts_as_pretrained_follows_from_its_probes():
    page = " ".join((DOCS / "vtab.md").read_text(encoding="utf-8").split())
    made = provenance()
    better = [row["trained"] > max(row["random"], row["pixels"]) for row in made["probes"]["rows"]]
    assert made["counts as pretrained"] == all(better)
    assert ("does not count as pretrained" in page) == (not all(better))


def test_no_page_shows_an_accuracy_on_the_small_backbone():
    """Rows of its probes, as they stood on the page once, are on none; those of the real backbone are."""
    rows = provenance()["probes"]["rows"]
    shown = [" | ".join(f"{row[key]:.3f}" for key in ("chance", "trained", "random", "pixels")) for row in rows]
    pages = {path.name: path.read_text(encoding="utf-8") for path in DOCS.glob("*.md")}
    assert [name for name, page in pages.items() for numbers in shown if numbers in page] == []
    assert "dinov2-small-focus" in pages["tasks.md"]
    assert "| vpt_deep" in pages["pretrained_study.md"]
