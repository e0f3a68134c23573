"""What holds the house together: cheap import, one direction of imports, one list of dependencies."""

import ast
import json
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from commands import call, taken_back
from committed import DATA, committed, report, report_of_replication

import moe_prompts
from moe_prompts.intervals import mean_interval
from moe_prompts.vision.data_efficiency import report as curves_report

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "moe_prompts"


def test_import_is_cheap():
    """Neither torch, matplotlib, sympy nor even NumPy until something is used."""
    code = (
        "import sys, moe_prompts; print([m for m in "
        "('torch', 'matplotlib', 'sympy', 'pandas', 'scipy', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def loaded(code: str, *names: str) -> list[str]:
    """Which of these modules a fresh process has after ``code``."""
    code = f"import sys\n{code}\nprint([m for m in {names!r} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stderr.splitlines()[-1])


def test_running_a_study_imports_neither_sympy_nor_torch():
    """Nor what its fits load when they first need it: scipy.stats alone takes as long as all the rest."""
    code = "import moe_prompts.study.gaussian, moe_prompts.study.attention, moe_prompts.engine.runner"
    names = ("torch", "matplotlib", "sympy", "scipy.stats", "scipy.optimize", "numba")
    assert loaded(code, *names) == []
    assert loaded("import moe_prompts.study.summary", "torch", "matplotlib", "sympy") == []


@pytest.mark.parametrize("option", ["--help", "--n=1e3..x"])
def test_help_and_a_refused_size_load_nothing_but_numpy(option: str):
    code = (
        f"import runpy\nsys.argv = ['sample_efficiency.py', {option!r}]\n"
        f"try:\n    runpy.run_path({str(ROOT / 'experiments' / 'sample_efficiency.py')!r}, run_name='__main__')\n"
        "except SystemExit:\n    pass\n"
    )
    assert loaded(code, "scipy", "pandas", "pyarrow", "matplotlib", "tqdm", "numba", "numpy") == ["numpy"]


def processor_seconds(*arguments: str) -> float:
    """Return what a fresh Python process computed, not what it waited for: a busy machine counts little."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_startup_costs_few_imports_of_numpy():
    """Measured at 1.1, 4 and 8 of them (0.12 s each on a quiet machine): 1 s is 8, 2 s is 16."""
    command = str(ROOT / "experiments" / "sample_efficiency.py")
    study = "import moe_prompts.cli, moe_prompts.study.gaussian, moe_prompts.study.attention, moe_prompts.engine.runner"
    asked = [([command, "--help"], 4), ([command, "--kinds", "unknown"], 8), (["-c", study], 16)]
    for arguments, most in asked:
        ratios = (processor_seconds(*arguments) / processor_seconds("-c", "import numpy") for _ in range(3))
        assert any(ratio < most for ratio in ratios), arguments  # the first measurement that holds is enough


def test_every_public_name_resolves():
    for name in moe_prompts.__all__:
        assert getattr(moe_prompts, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = moe_prompts.nonsense


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirement_name(text: str) -> str:
    return re.match(r"[A-Za-z0-9_.-]+", text)[0].lower()


def test_core_install_does_not_pull_torch():
    assert not {"torch", "timm"} & {requirement_name(r) for r in project()["dependencies"]}


def test_environment_yml_is_in_step_with_pyproject():
    """conda-forge names; pip installs only the project itself."""
    conda_names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "was not solved" in text
    listed = {requirement_name(line.strip("- ")) for line in re.findall(r"^  - (?!pip:)\S+", text, flags=re.M)}
    extras = project()["optional-dependencies"]
    wanted = {requirement_name(r) for r in project()["dependencies"]}
    wanted |= {requirement_name(r) for name in ("vision", "notebooks", "dev") for r in extras[name]}
    assert {conda_names.get(name, name) for name in wanted} <= listed
    assert "python" in listed
    assert "- pip:" in text
    assert "-e ." in text


def test_extra_all_is_the_union():
    extras = project()["optional-dependencies"]
    assert extras["all"] == [f"moe-prompts[{','.join(name for name in extras if name != 'all')}]"]


def test_lock_pins_every_requirement():
    lock = {requirement_name(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}
    extras = project()["optional-dependencies"]
    wanted = project()["dependencies"] + [r for name, group in extras.items() if name != "all" for r in group]
    assert {requirement_name(r) for r in wanted} <= lock


def test_predictions_name_what_they_must():
    table = json.loads((PACKAGE / "theory" / "predictions.json").read_text(encoding="utf-8"))
    keys = ("model", "truth_kind", "kind", "fit_class", "group")
    seen = set()
    for entry in table["predictions"]:
        assert set(entry) == {*keys, "exponent", "over", "status", "source"}
        assert entry["status"] in ("proved", "numeric", "theorem")
        assert entry["over"] in ("grid", "last decade")
        assert entry["source"]
        key = tuple(entry[name] for name in keys)
        assert key not in seen
        seen.add(key)


def test_experiments_do_not_shadow_the_standard_library():
    names = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert names
    assert not names & set(sys.stdlib_module_names)


def test_readme_shows_lines_of_the_committed_run():
    """The tables of docs/results.md are lines that the default command printed, not typed."""
    printed = (ROOT / "paper_figures" / "data" / "sample_efficiency" / "summary.md").read_text(encoding="utf-8")
    derived = (ROOT / "docs" / "predicted_rates.md").read_text(encoding="utf-8")
    shown = re.findall(
        r"^\| (?:attention|prompts|gmoe)-.*$", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), re.M
    )
    assert len(shown) > 15
    assert set(shown) <= set(printed.splitlines())
    rates = re.findall(r"^\|.*\| proved.*$", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"), re.M)
    assert rates
    assert set(rates) <= set(derived.splitlines())


def test_pages_on_planted_prompts_show_numbers_of_the_committed_runs():
    """Every risk of the tables is one that a command printed, with its error."""
    page, short = (
        (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("planted_vit.md", "theory_meets_accuracy.md")
    )
    summaries = (DATA / run / "summary.md" for run in ("planted_vit", "planted_pretrained"))
    printed = re.sub(" +", " ", "".join(path.read_text(encoding="utf-8") for path in summaries))  # columns are aligned
    shown = re.findall(r"\| (\d\.\d{3}(?: \+- \d\.\d{3})?) (?=\|)", page)
    assert len(shown) > 25
    assert [cell for cell in shown if f"| {cell} |" not in printed] == []
    crossing = re.search(
        r"at_teacher has less excess than vpt_deep from n = (\d+) on (\[\d+, \d+\]).* (\d+)\n", printed
    )
    for text in (page, short):
        assert f"n = {crossing[1]} {crossing[2]}" in " ".join(text.split())
        assert crossing[3] in text


RUNS = sorted(DATA.iterdir())
#: Runs inside a Vision Transformer; that of the planted head has its test beside its other ones.
CURVES = (
    "planted_pretrained",
    "planted_vit",
    "pretrained_count",
    "pretrained_dsprites_loc",
    *(f"pretrained_fifth_{task}" for task in ("azimuth", "distance", "dsprites_ori", "letters")),
    *(
        f"pretrained_{part}_{task}"
        for part in ("sixth", "seventh")
        for task in ("azimuth", "count", "dsprites_loc", "letters")
    ),
    *(f"pretrained_seventh_{task}_more" for task in ("azimuth", "count", "dsprites_loc", "letters")),
    *(f"pretrained_eighth_{task}{more}" for task in ("count", "letters") for more in ("", "_full")),
    *(f"pretrained_ninth_{task}" for task in ("count", "letters")),
    *(f"pretrained_tenth_{task}_{optimiser}" for task in ("count", "letters") for optimiser in ("adamw", "lamb")),
    *(f"pretrained_eleventh_{task}" for task in ("azimuth", "count", "dsprites_loc", "letters")),
    *(
        f"pretrained_twelfth_{task}{by}"
        for task in ("azimuth", "count", "distance", "dsprites_loc", "dsprites_ori", "letters")
        for by in ("", "_lamb")
    ),
    *(f"pretrained_thirteenth_{setting}" for setting in ("tokens_2", "tokens_40", "decay_0.01", "decay_0.1")),
    *(
        f"pretrained_{part}_{task}"
        for part in (
            *("fourteenth", "fifteenth", "eighteenth", "nineteenth"),
            *("twenty_first", "twenty_second", "twenty_third", "twenty_fourth"),
        )
        for task in ("azimuth", "count", "distance", "dsprites_loc", "dsprites_ori", "letters")
    ),
    *(f"pretrained_sixteenth_{task}" for task in ("count", "dsprites_loc")),
    *(f"pretrained_twentieth_{task}" for task in ("emoji", "digits")),
    "pretrained_head_count",
    "pretrained_fourth_count",
    "pretrained_fourth_dsprites_loc",
    "pretrained_second_count",
    "pretrained_second_dsprites_loc",
    "pretrained_third_azimuth",
    "pretrained_third_distance",
    "pretrained_third_dsprites_ori",
    "pretrained_third_letters",
)
PARTS_COUNTED = tuple(
    f"_{part}_{task}" for part in ("third", "fifth") for task in ("letters", "azimuth", "distance", "dsprites_ori")
)
VISION_RUNS = (
    *CURVES,
    "planted_head",
    "planted_head_pretrained",
    "planted_block",
    "planted_block_fits",
    "head_as_moe",
    "pretrained_heads",
    *(f"predicted_excess{part}{again}" for part in ("", "_count", *PARTS_COUNTED) for again in ("", "_again")),
    *(f"predicted_excess_third_{task}_3000" for task in ("letters", "azimuth", "distance")),
    "starts",
    "starts_second",
    "search",
    "search_crossing",
    "search_crossing_second",
    "search_rivals",
    "search_fixed_first",
)


@pytest.mark.parametrize("name", CURVES)
def test_committed_curves_are_what_their_rows_say(name):
    text = curves_report.text(*committed(name))
    assert (DATA / name / "summary.md").read_text(encoding="utf-8") == text + "\n"


def test_readme_says_of_claims_what_their_records_say():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    records = json.loads((ROOT / "docs" / "claims.json").read_text(encoding="utf-8"))
    verdicts = {record["id"]: record["verdict"] for record in records}
    said = re.findall(r"([PGSEAVT]-[a-z0-9-]+) (holds|fails|not decidable here)", readme)
    assert len(said) >= 9
    assert [(claim, verdict) for claim, verdict in said if verdicts[claim] != verdict] == []
    assert f"What {len(records)} claims gave" in readme


def test_the_page_of_the_pretrained_backbone_shows_its_committed_tables():
    page = (ROOT / "docs" / "pretrained_study.md").read_text(encoding="utf-8")
    shown = page[page.index("## Results") :]
    rows = [line for line in shown.splitlines() if line.startswith("| stand-in:")]
    known = "".join(run.joinpath("summary.md").read_text(encoding="utf-8") for run in RUNS if run.name in CURVES)
    assert len(rows) >= 7
    assert [row for row in rows if row not in known] == []


def test_the_study_says_how_far_adaptive_prompts_are_behind_a_linear_head():
    rows = pd.read_parquet(DATA / "pretrained_third_dsprites_ori" / "results.parquet")
    accuracy = rows[rows["n"] == 800].pivot(index="replicate", columns="method", values="accuracy")
    behind = mean_interval(100 * (accuracy["linear"] - accuracy["vapt"]).to_numpy())
    low, high = f"{behind.low:.1f}".lstrip("0"), f"{behind.high:.1f}"
    study = " ".join((ROOT / "docs" / "pretrained_study.md").read_text(encoding="utf-8").split())
    assert f"`vapt` is {behind.value:.1f} points behind it (90 % interval {low} to {high}," in study


@pytest.mark.parametrize(
    "run",
    [run for run in RUNS if not run.name.startswith("replicate") and run.name not in VISION_RUNS],
    ids=lambda path: path.name,
)
def test_committed_tables_are_what_their_rows_say(run):
    """Summary recomputed from the committed rows, so that neither can drift."""
    text, _ = report(run.name)
    assert (run / "summary.md").read_text(encoding="utf-8") == text + "\n"


@pytest.mark.parametrize("run", [run for run in RUNS if run.name.startswith("replicate")], ids=lambda path: path.name)
def test_committed_replications_are_what_their_rows_say(run):
    """The same, beside the lines of the published losses as they stand in summary.json."""
    text, summary = report_of_replication(run.name)
    assert (run / "summary.md").read_text(encoding="utf-8") == text + "\n"
    assert (run / "summary.json").read_text(encoding="utf-8") == summary.to_json(orient="records", indent=2)
    assert (run / "results.parquet").stat().st_size < 500_000


def run_examples(pages, tmp_path, vision, own_process=False):
    """The Python blocks of the pages, in order, as one script in an empty folder: those on vision, or all others."""
    blocks = []
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        every = re.findall(r"(<!-- not run: .+? -->\n+)?```python\n(.*?)```", text, flags=re.S)
        own = [block for marker, block in every if not marker and ("moe_prompts.vision" in block) == vision]
        assert own
        blocks += own
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    if own_process:
        subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True)
        return
    with taken_back():
        done = call(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
