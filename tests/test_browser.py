"""Every notebook as a reader meets it: in JupyterLab, in a browser, run from top to bottom."""

import json
import re
from pathlib import Path

import lab
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Trains for minutes: only opened, and run as far as its first explorer.
LONG = {"30-federated-fine-tune.ipynb", "37-deploy-it.ipynb"}
EXPLORER = re.compile(
    r"widgets\.(compare|layout_player|schedules|memory)|"
    r"(?<![\w.])(?:traffic|gap_explorer|attack_explorer)\("
)

pytestmark = [
    pytest.mark.skipif(lab.CHROMIUM is None, reason=lab.MISSING),
    pytest.mark.timeout(900),
]


def sources(path):
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def has_explorer(path):
    return any(EXPLORER.search(source) for source in sources(path))


def copy(path, folder):
    """Copy a notebook, so that no outputs are saved into ours; a long one up to its explorer."""
    book = json.loads(path.read_text())
    if path.name in LONG:
        shows = [bool(EXPLORER.search("".join(cell["source"]))) for cell in book["cells"]]
        book["cells"] = book["cells"][: shows.index(True) + 1 if any(shows) else 3]
    (folder / path.name).write_text(json.dumps(book))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    for path in NOTEBOOKS:
        copy(path, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_SIZE", "ci")
        with lab.server(folder, tmp_path_factory.mktemp("lab")) as address:
            yield address


@pytest.fixture(scope="module")
def chromium():
    with lab.browser() as chromium:
        yield chromium


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_widgets_react(path, address, chromium, tmp_path):
    notebook = lab.Notebook(chromium, address.format(path=path.name))
    try:
        notebook.run_all()
        assert notebook.errors() == []
        if has_explorer(path):
            assert notebook.press(".jupyter-widgets input[type='number']", "ArrowUp")
            assert notebook.press(".jupyter-widgets .noUi-handle", "ArrowLeft")
        notebook.page.screenshot(path=tmp_path / f"{path.stem}.png")
        assert notebook.faults == []
    finally:
        notebook.close()
