"""Controls with names, for readers with a keyboard or a screen reader only.

The handle of a slider has no accessible name, so each slider stands beside a number field that
has one; the two are linked in the browser.
"""

import ipywidgets as w
from traitlets import TraitError

_STYLE = {"description_width": "90px"}


def number(name: str, value: int, low: int, high: int) -> w.BoundedIntText:
    """A number field called ``name``."""
    return w.BoundedIntText(
        value=value, min=low, max=high, description=name, style=_STYLE,
        layout={"width": "180px"},
    )  # fmt: skip


def with_slider(field: w.BoundedIntText) -> w.HBox:
    """A number field and its slider, linked both ways."""
    slider = w.IntSlider(
        value=field.value, min=field.min, max=field.max, readout=False, layout={"width": "180px"}
    )
    for trait in ("value", "min", "max"):
        w.jslink((field, trait), (slider, trait))
    return w.HBox([field, slider])


def choice(name: str, options, value) -> w.Dropdown:
    """A drop-down list called ``name``; ValueError where ``value`` is none of its options."""
    how = {"description": name, "style": _STYLE, "layout": {"width": "240px"}}
    try:
        return w.Dropdown(options=options, value=value, **how)
    except TraitError:
        known = ", ".join(w.Dropdown(options=options)._options_labels)
        raise ValueError(f"{name} must be one of {known}; got {value!r}") from None


def beside_slider(field: w.Dropdown) -> w.HBox:
    """A list and a slider over its options, linked both ways."""
    how = {"readout": False, "layout": {"width": "180px"}}
    slider = w.SelectionSlider(options=field.options, value=field.value, **how)
    w.jslink((field, "index"), (slider, "index"))
    return w.HBox([field, slider])
