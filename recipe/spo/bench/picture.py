"""The report's pictures: error against generated tokens, and the gradient's cosine at equal tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.spo.plots.draw import COLORS, MARKERS, canvas, plain, save

#: A family keeps a colour of its own up to eight of them; then the stroke changes. The eighth is Paul Tol's wine.
FAMILY_COLORS = (*COLORS, "#882255")
STROKES = ("-", "--", ":", "-.")
PANELS = {
    "value_mse": "MSE of value, all states",
    "own_value_mse": "MSE of value, own states",
    "token_advantage_correlation": "correlation of advantage, trained tokens",
}


def draw_error(methods: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel a number, a line a family, against generated tokens a question; bars are 95 % intervals.

    An error that is measured as 0 or less, once the noise of the truth is taken off, has no place on a log axis.

    Args:
        methods: of the result.
        path: file to write.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    methods = [row for row in methods if row["drawn"]]
    families = list(dict.fromkeys(row["family"] for row in methods))
    styles = {family: family_style(place) for place, family in enumerate(families)}
    figure, axes = canvas(len(PANELS))
    handles: dict[str, Any] = {}
    for panel, (name, label) in zip(axes, PANELS.items(), strict=True):
        for family in families:
            rows = [row for row in methods if row["family"] == family and _drawn(row[name])]
            if not rows:
                continue
            rows.sort(key=lambda row: row["tokens"])
            values = [row[name]["value"] for row in rows]
            handles[family] = panel.errorbar(
                [row["tokens"] for row in rows],
                values,
                yerr=_bars([row[name] for row in rows]),
                **styles[family],
                markersize=4.5,
                lw=1.3,
                elinewidth=0.7,
            )
        panel.set(xscale="log", xlabel="generated tokens a question", ylabel=label)
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: f"{tokens:,.0f}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        if name.endswith("mse"):
            panel.set_yscale("log")
    figure.set_figheight(5.2)
    figure.legend(
        list(handles.values()), [plain(name) for name in handles], loc="outside lower center", ncols=4, frameon=False
    )
    save(figure, path)


def family_style(place: int) -> dict[str, str]:
    """Colour, marker and stroke of a family; no two of the first 32 places are alike."""
    return {
        "color": FAMILY_COLORS[place % len(FAMILY_COLORS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": STROKES[place // len(FAMILY_COLORS) % len(STROKES)],
    }


def draw_gradient(gradients: Mapping[str, Any], path: Path) -> None:
    """Agreement of two updates and cosine to the truth, a line a method, with and without the mask.

    Args:
        gradients: of the result.
        path: file to write.
    """
    methods = list(dict.fromkeys(row["method"] for row in gradients["rows"]))
    labels = {"agreement": "two updates agree", "measured_cosine": "cosine to the measured truth"}
    figure, axes = canvas(len(labels), f"gradient from {gradients['tokens']:,.0f} generated tokens")
    for panel, (name, label) in zip(axes, labels.items(), strict=True):
        for shift, (trains, color, marker) in zip(
            (-0.14, 0.14), (("all tokens", COLORS[0], "o"), ("mask", COLORS[1], "s")), strict=True
        ):
            rows = [row for row in gradients["rows"] if row["trains"] == trains and _drawn(row[name])]
            panel.errorbar(
                [row[name]["value"] for row in rows],
                [methods.index(row["method"]) + shift for row in rows],
                xerr=_bars([row[name] for row in rows]),
                fmt=marker,
                color=color,
                markersize=4.5,
                elinewidth=0.9,
                label=trains,
            )
        panel.set_yticks(range(len(methods)), [plain(method) for method in methods] if panel is axes[0] else [])
        panel.set_ylim(len(methods) - 0.5, -0.5)
        panel.axvline(0, color="black", lw=0.6)
        panel.set_xlabel(label)
        panel.tick_params(labelbottom=True)
    axes[-1].legend(frameon=False, title="trains")
    save(figure, path)


def _drawn(found: Mapping[str, float | None] | None) -> bool:
    return found is not None and found["value"] is not None and found["low"] is not None


def _bars(found: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """Lengths of the bars below and above, none negative."""
    return [
        [max(row["value"] - row["low"], 0.0) for row in found],
        [max(row["high"] - row["value"], 0.0) for row in found],
    ]
