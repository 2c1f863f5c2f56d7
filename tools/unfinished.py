"""Forget packages whose installation was interrupted, so that pip installs them again.

pip takes a package for installed as soon as its ``.dist-info`` folder names it, but writes the
list of its files, with ``INSTALLER`` in it, last. A folder without that line was cut off.
"""

import pathlib
import shutil
import sys


def unfinished(venv):
    """Return the ``.dist-info`` folders below `venv` that pip did not finish.

    >>> unfinished(pathlib.Path("no/such/folder"))
    []
    """
    folders = sorted(venv.glob("lib/python*/site-packages/*.dist-info"))
    return [folder for folder in folders if not _is_finished(folder)]


def _is_finished(folder):
    record = folder / "RECORD"
    return record.exists() and f"{folder.name}/INSTALLER" in record.read_text(encoding="utf-8")


if __name__ == "__main__":
    for folder in unfinished(pathlib.Path(sys.argv[1])):
        print(f"{folder.name} was cut off: installing it again")
        shutil.rmtree(folder)
