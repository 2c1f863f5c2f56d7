"""Draw the picture of the README: one layer of a space/time transformer under DSP, on four ranks.

python tools/readme_picture.py
"""

import pathlib

import matplotlib

import workbench as wb
from workbench import figures

TARGET = pathlib.Path(__file__).parents[1] / "docs" / "layouts.svg"

if __name__ == "__main__":
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "workbench"  # the same picture, the same bytes
    figure = figures.layout_strip(wb.PRESETS["toy-video"], "dsp", 4)
    figure.savefig(TARGET, metadata={"Date": None})
    print(f"{TARGET.name}: {figures.caption(figure)}")
