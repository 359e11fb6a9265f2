"""The plot of the page: requests/s and processor time of all servers."""

from __future__ import annotations

from pathlib import Path

from benchmarks.speed.cases import BY_NAME
from benchmarks.speed.results import CPU, RATE, Results
from benchmarks.speed.servers import OURS, UVLOOPS

_ROWS = [(RATE, "requests/s", "{:,.0f}"), (CPU, "CPU µs per request", "{:.1f}")]


def draw(results: Results, path: Path) -> None:
    """Draw a column for each case that most servers take part in."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": path.name}  # small and reproducible
    from matplotlib import pyplot as plt

    columns = results.overview()
    figure, axes = plt.subplots(
        len(_ROWS), len(columns), figsize=(14, 7), squeeze=False, layout="constrained"
    )
    for line, (one, title, form) in zip(axes, _ROWS, strict=True):
        for axis, (case, servers) in zip(line, columns.items(), strict=True):
            values = [results.middle(case, server, one) for server in servers]
            bars = axis.barh(servers, values, color=[_colour(server) for server in servers])
            axis.bar_label(bars, fmt=form.format, padding=2, fontsize=8)
            axis.margins(x=0.2)
            axis.invert_yaxis()
            axis.set_title(f"{BY_NAME[case].title}: {title}", fontsize=9)
            axis.tick_params(labelsize=8)
            axis.set_xticks([])  # the bars are labelled
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _colour(server: str) -> str:
    if server.startswith(OURS):
        return "tab:blue"
    return "tab:orange" if server in UVLOOPS else "tab:gray"
