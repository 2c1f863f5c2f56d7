"""How long from a key press to the changed picture, in JupyterLab and a real browser.

The handler alone is timed in the same kernel: from a new value to the new picture's markup.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import lab

#: Goals [ms]: key to picture, median and 95th percentile; handler.
GOALS = "goals: median 80 ms, p95 120 ms; handler 35 ms"
#: What is pressed where: the widget, the control that a handler's time is taken of, the element.
CASES = {
    "compare, layouts and volumes": ("compare()", "time", "input[type='number']"),
    "compare, its slider": ("compare()", "time", ".noUi-handle"),
    "compare, 64 ranks: volumes only": ("compare()", "time", "input[type='number']"),
    "layout_player, step": ("layout_player()", "step", "input[type='number'] >> nth=1"),
}

#: From a key press to the frame in which the browser draws the changed picture [ms].
WATCH = """() => {
  window.latency = new Promise(done => {
    let started;
    document.addEventListener("keydown", () => { started = performance.now(); },
                              {once: true, capture: true});
    const watch = new MutationObserver(changes => {
      if (started && changes.some(change => change.target.querySelector?.("svg[role=img]"))) {
        watch.disconnect();
        requestAnimationFrame(() => done(performance.now() - started));
      }
    });
    watch.observe(document.body, {childList: true, subtree: true});
  });
}"""


def cells(call: str, control: str, label: str) -> list[str]:
    """Source of a notebook: the widget, then its handler's times on values that it goes through."""
    first = "shown.controls['p'].value = 64; " if "64" in label else ""
    timed = (
        f"control, spent = shown.controls['{control}'], []\n{first}\n"
        "for i in range(31):\n"
        "    started = time.perf_counter()\n"
        "    control.value = 2 + i % 3\n"
        "    spent.append(1000 * (time.perf_counter() - started))\n"
        "print('SPENT', spent[1:])"
    )
    return [f"import time\nfrom workbench import widgets\nshown = widgets.{call}\nshown", timed]


def book(sources: list[str]) -> str:
    """A notebook of code cells."""
    made = [
        {"cell_type": "code", "id": str(i), "metadata": {}, "source": source, "outputs": [],
         "execution_count": None}
        for i, source in enumerate(sources)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps(
        {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    )


def presses(notebook: lab.Notebook, selector: str, count: int) -> list[float]:
    """Milliseconds from each key press to its picture."""
    page, spent = notebook.page, []
    page.locator(f".jupyter-widgets {selector}").first.focus()
    for i in range(count + 3):
        page.evaluate(WATCH)
        page.keyboard.press("ArrowUp" if i % 2 == 0 else "ArrowDown")
        spent.append(page.evaluate("() => window.latency"))
        page.wait_for_timeout(50)
    return spent[3:]  # the first ones warm up


def row(label: str, spent: list[float]) -> str:
    """One line of the table."""
    p95 = statistics.quantiles(spent, n=20)[-1]
    return f"{label:>42}: median {statistics.median(spent):5.1f} ms, p95 {p95:5.1f} ms"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presses", type=int, default=40)
    given = parser.parse_args()
    if lab.CHROMIUM is None:
        print(f"nothing measured: {lab.MISSING}")
        return
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as scratch:
        for i, (label, (call, control, _)) in enumerate(CASES.items()):
            Path(root, f"{i}.ipynb").write_text(book(cells(call, control, label)))
        with lab.server(Path(root), Path(scratch)) as address, lab.browser() as chromium:
            for i, (label, (_, _, selector)) in enumerate(CASES.items()):
                notebook = lab.Notebook(chromium, address.format(path=f"{i}.ipynb"))
                notebook.run_all()
                printed = notebook.page.get_by_text("SPENT [").last.inner_text()
                print(row(label + ", key", presses(notebook, selector, given.presses)))
                print(row("handler", json.loads(printed.split("SPENT ")[1])), flush=True)
                notebook.close()
    print(GOALS)


if __name__ == "__main__":
    main()
