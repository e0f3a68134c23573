"""The site as a reader meets it: every page in headless Chromium at two widths, opened as a file, without a network.

Chromium is looked for on the PATH (Debian's package ``chromium``) and driven by Playwright (in the extra ``docs``). The
screenshots stay in the folder that MOE_PROMPTS_SCREENSHOTS names, for whoever wants to look at them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WIDTHS = (1280, 390)
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    pytest.importorskip("material", reason="needs the extra docs")
    pytest.importorskip("playwright", reason="needs the extra docs")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium that reaches no network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


class Visit:
    """A page that was opened, with what its console and its requests complained of."""

    def __init__(self, browser, path: Path, width: int) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"not loaded: {request.url}"))
        self.page.goto(path.resolve().as_uri(), wait_until="load")

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_fits_and_nothing_complains(site, browser, width, tmp_path):
    """No page scrolls sideways, no error in the console, no request to a network, no formula left as text."""
    shots = Path(os.environ.get("MOE_PROMPTS_SCREENSHOTS", tmp_path))
    shots.mkdir(parents=True, exist_ok=True)
    found = {}
    # 404.html is for servers, which show it under any address: its links begin at their root.
    for path in sorted(set(site.rglob("*.html")) - {site / "404.html"}):
        name = path.relative_to(site).with_suffix("").as_posix().replace("/", "-")
        with Visit(browser, path, width) as visit:
            visit.page.wait_for_timeout(100)
            wide = visit.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            bare = visit.page.evaluate("document.querySelectorAll('.arithmatex:not(:has(.katex))').length")
            outside = visit.page.evaluate(
                "[...document.querySelectorAll('script[src], link[rel=stylesheet], img')]"
                ".map((one) => one.src || one.href).filter((url) => url.startsWith('http')).length"
            )
            if wide > 0 or bare or outside or visit.complaints:
                found[name] = [f"{wide} px too wide", f"{bare} formulas bare", f"{outside} from a network"]
                found[name] += visit.complaints
            visit.page.screenshot(path=shots / f"{name}-{width}.png", full_page=path.stat().st_size < 300_000)
    assert not found, json.dumps(found, indent=1)


def test_search_finds_a_page_that_was_opened_as_a_file(site, browser):
    with Visit(browser, site / "index.html", 1280) as visit:
        visit.page.click(".md-search__input")
        visit.page.keyboard.type("decoupled")
        visit.page.wait_for_selector(".md-search-result__item", timeout=20_000)
        assert visit.page.locator(".md-search-result__item").count() >= 3
        assert not visit.complaints


def test_code_is_highlighted_and_has_a_button_to_copy(site, browser):
    with Visit(browser, site / "algebra.html", 1280) as visit:
        assert visit.page.locator(".highlight .kn, .highlight .k").count() > 0
        visit.page.wait_for_selector(".md-code__button[data-md-type=copy], .md-clipboard")
        assert visit.page.locator(".katex").count() > 10


@pytest.mark.parametrize("width", WIDTHS)
def test_the_explorer_shows_what_is_picked(site, browser, width):
    """Slope and verdict are those of the committed summary, and a choice draws other points."""
    lines = json.loads((ROOT / "paper_figures/data/sample_efficiency/summary.json").read_text(encoding="utf-8"))
    with Visit(browser, site / "explore.html", width) as visit:
        page = visit.page
        page.wait_for_selector("#chart svg")
        for truth, kind, k, measure, shown in [
            ("attention-gelu", "adaptive:gelu", "3", "D", "Voronoi loss D"),
            ("prompts-adaptive", "fixed", "4", "risk", "risk, relative"),
            ("attention-fixed", "fixed", "3", "split", "distance of split atoms"),
        ]:
            for name, value in (("truth", truth), ("kind", kind), ("k", k), ("loss", shown)):
                page.select_option(f"#{name}", value)
            page.wait_for_function("document.querySelectorAll('#chart svg path').length > 50")
            line = next(
                one
                for one in lines
                if (one["truth"], one["kind"], str(one["k"]), one["measure"]) == (truth, kind, k, measure)
            )
            assert page.inner_text("#verdict") == f"Verdict: {line['verdict']}"
            assert f"{line['slope']:.3f} [{line['low']:.3f}, {line['high']:.3f}]" in page.inner_text("#slope")
            assert page.input_value("#truth") == truth
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
        assert not visit.complaints


@pytest.mark.parametrize("width", WIDTHS)
def test_the_frame_of_the_explorer_is_as_high_as_what_it_shows(site, browser, width):
    """No second scroll bar, no empty band."""
    with Visit(browser, site / "explorer.html", width) as visit:
        frame = visit.page.locator("iframe.explorer")
        frame.scroll_into_view_if_needed()
        inner = frame.element_handle().content_frame()
        inner.wait_for_selector("#chart svg")
        visit.page.wait_for_function("document.querySelector('iframe.explorer').style.height !== ''")
        visit.page.wait_for_timeout(200)
        spare = frame.bounding_box()["height"] - inner.evaluate("document.body.offsetHeight")
        assert 0 <= spare <= 12
        assert not visit.complaints


def test_formulas_below_an_indented_block_are_mathematics(site, browser):
    """The claims in the last table of the results stand below commands."""
    with Visit(browser, site / "results.html", 1280) as visit:
        last = visit.page.locator("table").last
        assert last.locator(".katex").count() > 10
        assert "n^-1/2" not in last.inner_text()
