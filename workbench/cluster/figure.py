"""Numbers that remember where they are from."""

#: How a number came to be known.
KINDS = {
    "spec": "the maker's data sheet",
    "measured": "somebody's measurement, or ours",
    "vendor-statement": "an engineer of the maker, on the record",
    "vendor-model": "a constant in the maker's own model of costs",
    "derived": "computed from other figures, as its source says",
    "fitted": "chosen so that published results come out",
    "given": "by whoever made the cluster",
}


class Figure(float):
    """A number that remembers where it is from. Arithmetic with it gives plain floats.

    Parameters
    ----------
    value : float
        In SI units.
    kind : str
        A key of `KINDS`.
    source : str
        Where it is from, or how it was computed.
    interval : tuple of two float, optional
        Where it lies with a confidence that the source names.

    Examples
    --------
    >>> peak = Figure(989e12, "spec", "the data sheet")
    >>> peak.kind, peak / 1e12
    ('spec', 989.0)
    """

    kind: str
    source: str
    interval: tuple[float, float] | None

    def __new__(
        cls, value: float, kind: str, source: str, interval: tuple[float, float] | None = None
    ):
        assert kind in KINDS, kind
        figure = super().__new__(cls, value)
        figure.kind, figure.source, figure.interval = kind, source, interval
        return figure

    def __getnewargs__(self):
        return float(self), self.kind, self.source, self.interval
