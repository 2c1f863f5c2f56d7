"""Who may import whom, how long things may grow, which names are public, how notebooks are kept."""

import ast
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tomllib

import pytest
from beartype.roar import BeartypeCallHintViolation

import workbench
from workbench.units import human_bytes

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "workbench"
FOLDERS = ["workbench", "datasets", "tests", "tools", "benchmarks"]
MODULES = sorted(PACKAGE.rglob("*.py"))
PYTHON_FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)

# A module may import from the lines above its own, and from nowhere else.
ORDER = [
    {"units"},
    {"datasets", "dims"},
    {"cluster"},
    {"layout", "box"},
    {"geometry"},
    {"collectives"},
    {"transfer", "wire"},
    {"comm"},
    {"mesh"},
    {"strategies"},
    {"transformer"},
    {"closed_form"},
    {"shares", "traffic"},
    {"work", "hiding"},
    {"timing"},
    {"model"},
    {"failure"},
    {"process"},
    {"launch", "meter"},
    {"fsdp"},
    {"rank"},
    {"outcome", "wires"},
    {"step"},
    {"conformance", "train"},
    {"memory", "footprint", "slope"},
    {"cost"},
    {"watch", "timeline"},
    {"trace"},
    {"calibration", "published", "explain_step"},
    {"planner"},
    {"figures"},
    {"widgets"},
    {"exercises"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
FEDERATED_MAY_IMPORT = {"units", "datasets", "launch", "strategies"}
MAY_IMPORT_FEDERATED = {"widgets", "exercises", "__main__"}  # and only inside a function

OWNERS = {
    "plotly": {"figures"},
    "matplotlib": {"figures"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "flwr": {"federated"},
    "ray": {"federated"},
    "peft": {"federated"},
    "transformers": {"federated"},
}

PUBLIC_NAMES = {
    "CLUSTERS",
    "Cluster",
    "Device",
    "Link",
    "PRESETS",
    "STRATEGIES",
    "Stage",
    "Strategy",
    "TransformerSpec",
    "calibrate",
    "closed_form_bytes",
    "closed_form_memory",
    "diff",
    "explain",
    "fake_step",
    "fits",
    "plan",
    "predict",
    "run_local",
    "run_step",
    "verify",
}


def relative(path):
    return str(path.relative_to(ROOT))


def room_of(path):
    """Return the file or package directly below workbench/ that `path` belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path, tree=None):
    """Yield the dotted name of every import in a file, wherever it stands."""
    for node in ast.walk(tree or ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path, tree=None):
    names = {name.split(".")[1] for name in imports(path, tree) if name.startswith("workbench.")}
    return names & (LEVEL.keys() | {"federated"})


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_up(path):
    here = room_of(path)
    others = rooms_imported(path) - {here}
    if here == "__init__":
        assert "federated" not in others
    elif here == "federated":
        assert others <= FEDERATED_MAY_IMPORT
    else:
        assert here in LEVEL, f"give {here} its place in ORDER"
        below = {other for other in others - {"federated"} if LEVEL[other] >= LEVEL[here]}
        assert not below, f"{here} must not import {below}"
        assert "federated" not in others or here in MAY_IMPORT_FEDERATED


class OutsideFunctions(ast.NodeTransformer):
    """What runs as a module is imported: functions and methods don't."""

    def visit_FunctionDef(self, node):
        return None


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_the_federated_half_is_imported_lazily(path):
    at_import = OutsideFunctions().visit(ast.parse(path.read_text()))
    if room_of(path) != "federated":
        assert "federated" not in rooms_imported(path, at_import)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_each_large_package_has_one_owner(path):
    for name in imports(path):
        owners = OWNERS.get(name.split(".")[0])
        assert owners is None or room_of(path) in owners, f"only {owners} may import {name}"


def test_importing_the_library_is_light():
    heavy = sorted({*OWNERS, "pandas", "sklearn", "IPython", "beartype"})
    code = "import workbench, sys; [getattr(workbench, name) for name in workbench.__all__]; "
    code += f"print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert found.stdout.strip() == "[]", found.stdout + found.stderr


def test_the_public_names_are_these():
    assert set(workbench.__all__) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(workbench, name) is not None


def test_no_module_has_the_name_of_a_public_function():
    assert PUBLIC_NAMES.isdisjoint(path.stem for path in MODULES)


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node):
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            assert lines <= 40, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", sorted((PACKAGE / "strategies").glob("*.py")), ids=relative)
def test_a_strategy_is_less_than_100_lines(path):
    if path.stem not in {"base", "__init__"}:  # the reference and the choice are no strategies
        shared = {"attention", "schedule", "ring", "ring_schedule", "dsp_mesh"}  # of several
        assert len(path.read_text().splitlines()) < (155 if path.stem in shared else 100)


@pytest.mark.parametrize("path", PYTHON_FILES, ids=relative)
def test_annotations_are_real(path):
    future = f"{'__future__'}.annotations"  # with it, jaxtyping checks no dataclass
    assert future not in set(imports(path))


#: A shape that is given a name.
ALIAS = r"^([A-Z]\w+) = (?:Float|Int|Shaped)\["


def dotted(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_types_are_checked_in_all_tests():
    """Shapes where a module annotates them, and other types everywhere."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    (listed,) = (o for o in options["addopts"] if o.startswith("--jaxtyping-packages="))
    checked = tuple(listed.removeprefix("--jaxtyping-packages=").split(",")[:-1])
    shaped = [path for path in MODULES if any("jaxtyping" in name for name in imports(path))]
    shapes = {
        f"{dotted(path)}.{alias}"
        for path in shaped
        for alias in re.findall(ALIAS, path.read_text(), re.MULTILINE)
    }
    assert len(shapes) > 10
    for path in MODULES:
        if path in shaped or shapes & set(imports(path)):
            module = dotted(path)
            assert module.startswith(checked), f"{module} annotates shapes: add it to {listed}"
    with pytest.raises(BeartypeCallHintViolation):
        human_bytes("many")


def test_datasets_hold_data_only():
    assert not list((ROOT / "datasets").rglob("__init__.py"))


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_notebooks_are_stripped(path):
    assert "widgets" not in json.loads(path.read_text())["metadata"]
    for cell in code_cells(path):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_cells_are_thin(path):
    lengths = [len(source(cell).splitlines()) for cell in code_cells(path)]
    assert statistics.median(lengths) <= 5
    assert max(lengths) <= 15


@pytest.mark.parametrize("path", NOTEBOOKS, ids=relative)
def test_cells_are_plain_python(path):
    # nbval passes an unknown magic and hides the rest of its cell; a failing `!` passes everywhere
    for cell in code_cells(path):
        assert not re.search(r"^\s*[%!?]|\?\s*$", source(cell), flags=re.MULTILINE), source(cell)
