"""Every notebook runs, is built as readers expect, and agrees with the maps."""

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

from workbench import exercises
from workbench.exercises import federated
from workbench.figures import COLOURS

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))
LESSONS = [path for path in PATHS if path.stem != "00-start-here"]
START = FOLDER / "00-start-here.ipynb"


def name_of(path):
    return path.stem


def cells(path, kind):
    notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def prose(path):
    """All text, without the code in it."""
    return re.sub(r"```.*?```", "", "\n\n".join(cells(path, "markdown")), flags=re.DOTALL)


def code(path):
    return "\n".join(cells(path, "code"))


def minutes(text, stem):
    """Minutes to read a notebook by a map's row."""
    return re.search(rf"\[{stem}\]\([^)]*{stem}\.ipynb\) \|.*?\| (\d+) \|", text).group(1)


def test_the_first_one_runs_from_top_to_bottom(monkeypatch):
    """The browser and nbval run all of them; this is a third way, that of nbconvert and others."""
    monkeypatch.setenv("WORKBENCH_SIZE", "ci")
    notebook = nbformat.read(START, as_version=4)
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_the_first_cell_says_what_a_reader_needs_to_know(path):
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    for part in (
        r"\*\*Question.\*\* .*\?",
        r"\*\*Minutes:\*\* \d+",
        r"\*\*Before this:\*\*",
        r"\*\*Afterwards you can\*\*",
        r"\*\*Real and simulated.\*\*",
    ):
        assert re.search(part, first.source), part
    if path != START:
        assert ".ipynb)" in first.source, "link what to read before"


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_it_is_built_in_order(path):
    text = prose(path)
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    last = [heading for heading in headings if heading in ("Summary", "Glossary", "Sources")]
    assert sorted(last) == ["Glossary", "Sources", "Summary"]
    assert headings[-1] == "Sources"


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_there_is_a_picture_by_the_fifth_cell(path):
    first = nbformat.read(path, as_version=4).cells[:5]
    pictures = r"widgets\.(show|compare|layout_player|\w+)\("
    assert any(re.search(pictures, c.source) for c in first if c.cell_type == "code")


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_readers_recall_predict_and_practise(path):
    text = code(path)
    assert text.count("exercises.recall(") >= 2
    assert len(set(re.findall(r"\.(check_\w+)\(", text))) >= 3
    guesses = [m.start() for m in re.finditer("^my_prediction = None", text, flags=re.MULTILINE)]
    results = [m.start() for m in re.finditer(r"beside\(\s*my_prediction", text)]
    assert len(guesses) == len(results) >= 2
    followed = zip(guesses, results, [*guesses[1:], len(text)], strict=True)
    assert all(guess < result < after for guess, result, after in followed)


def test_every_exercise_is_in_a_notebook():
    asked = {name for path in PATHS for name in re.findall(r"\.(check_\w+)\(", code(path))}
    known = {name for name in [*vars(exercises), *vars(federated)] if name.startswith("check_")}
    assert asked == known


def test_numbers_and_maps_agree():
    numbers = [re.fullmatch(r"(\d\d)-[a-z0-9-]+", path.stem).group(1) for path in PATHS]
    assert len(set(numbers)) == len(numbers)
    for path in PATHS:
        here = re.search(r"\*\*Minutes:\*\* (\d+)", prose(path)).group(1)
        for text in ((ROOT / "README.md").read_text(), prose(START)):
            assert minutes(text, path.stem) == here, path.stem


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^):#]+)[^)]*\)", prose(path)):
        if not target.startswith("http"):
            assert (FOLDER / target).exists(), target


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_a_strategy_has_its_colour_in_text_too(path):
    for colour, name in re.findall(r'color:(#\w+)">&#9632;</span> \*\*([a-z-]+)\*\*', prose(path)):
        assert COLOURS[name] == colour


@pytest.mark.parametrize("path", PATHS, ids=name_of)
def test_ids_are_names(path):
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert len(set(ids)) == len(ids)
    assert not [i for i in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", i)], "random ids"
