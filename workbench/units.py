"""SI units: names for the powers of ten, and numbers as people read them."""

#: Sizes are decimal, as on data sheets: 1 GB = 10**9 bytes.
KB, MB, GB, TB = 10**3, 10**6, 10**9, 10**12
TFLOP_PER_S = 10**12

_BYTES = ((TB, "TB"), (GB, "GB"), (MB, "MB"), (KB, "kB"))
_SECONDS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def human_bytes(count: float) -> str:
    """Write a number of bytes with three figures and a decimal unit.

    Parameters
    ----------
    count : float
        Size in [bytes]; exact below 1 kB.

    Examples
    --------
    >>> human_bytes(1536), human_bytes(83_886_080), human_bytes(12)
    ('1.54 kB', '83.9 MB', '12 B')
    """
    for size, unit in _BYTES:
        if abs(count) >= size * 0.9995:
            return f"{count / size:.3g} {unit}"
    return f"{count:.3g} B" if count % 1 else f"{int(count)} B"


def human_seconds(duration_s: float) -> str:
    """Write a duration with three figures and a unit.

    Parameters
    ----------
    duration_s : float
        Duration in [s]; from 2 minutes on it is written in minutes, from 2 hours on in hours.

    Examples
    --------
    >>> human_seconds(0.0123), human_seconds(90), human_seconds(600), human_seconds(0)
    ('12.3 ms', '90 s', '10 min', '0 s')
    """
    if abs(duration_s) >= 7200:
        return f"{duration_s / 3600:.3g} h"
    if abs(duration_s) >= 120:
        return f"{duration_s / 60:.3g} min"
    for size, unit in _SECONDS:
        if abs(duration_s) >= size * 0.9995:
            return f"{duration_s / size:.3g} {unit}"
    return "0 s" if duration_s == 0 else f"{duration_s / 1e-9:.3g} ns"
