"""Drawing methods' lines, and the canvas that every picture of the package is drawn on."""

from __future__ import annotations

import csv
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recipe.spo.plots.band import Band
from recipe.spo.plots.runs import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's palette, which people with colour blindness tell apart; its yellow is too pale for a line.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
#: In grey print the marker tells two lines apart; eight of them, so that no pair of both comes twice before 56 lines.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
#: A line whose points were measured shows each. Where there are more of them than this, or points are
#: interpolated, markers only tell lines apart: one for each such share of the picture's diagonal.
MARKED_POINTS = 40
MARKER_DISTANCE = 0.12
#: Letters of the legend's font, cautiously.
LETTERS_AN_INCH = 13
COLUMNS = 3

#: data source -> label -> line
Panels = Mapping[str, Mapping[str, Band]]


def canvas(panels: int = 1, title: str = "") -> tuple[Figure, list[Axes]]:
    """Make a picture with panels beside one another (three a row), in percent, with a light grid.

    Args:
        panels: how many.
        title: title of the whole picture.

    Returns:
        The figure and its panels.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "spo"  # else the same picture is another file each time
    columns = min(panels, COLUMNS)
    rows = math.ceil(panels / columns)
    width = 7.0 if columns == 1 else 4.6 * columns
    figure, grid = plt.subplots(
        rows, columns, figsize=(width, 4.4 * rows), squeeze=False, sharex=True, constrained_layout=True
    )
    axes = [panel for row in grid for panel in row]
    for spare in axes[panels:]:
        spare.remove()
    for panel in axes[:panels]:
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(plain(title))
    return figure, axes[:panels]


def save(figure: Figure, *paths: Path) -> None:
    """Write a picture to files (the suffix says the format) and close it."""
    import matplotlib.pyplot as plt

    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def plain(text: str) -> str:
    """Keep matplotlib from reading a name as a formula."""
    return text.replace("$", r"\$")


def draw(panels: Panels, axis: Axis, title: str = "") -> Figure:
    """Draw accuracy against an axis: one panel a data source, one line with its band a method.

    Args:
        panels: data source -> label -> line.
        axis: what x is.
        title: title of the picture.

    Returns:
        The figure, to be saved.
    """
    styles = styles_of(panels)
    largest = max(band.x[-1] for lines in panels.values() for band in lines.values())
    divisor, unit = scale(axis, largest)
    figure, axes = canvas(len(panels), title)
    handles = {}
    for panel, (source, lines) in zip(axes, panels.items(), strict=True):
        for label, band in lines.items():
            color, marker = styles[label]
            x = [value / divisor for value in band.x]
            (line,) = panel.plot(x, percent(band.mean), color=color, marker=marker, markersize=4.5, lw=1.8)
            if not band.measured or len(x) > MARKED_POINTS:
                line.set_markevery(MARKER_DISTANCE)
            if band.low:
                panel.fill_between(x, percent(band.low), percent(band.high), color=color, alpha=0.18, lw=0)
            line.set_label(legend_entry(label, band))
            handles.setdefault(line.get_label(), line)
        # On a panel the data set is a title; alone it is part of the axis, and the title is the picture's.
        alone = len(panels) == 1
        name = plain(source)
        panel.set(ylabel=f"accuracy on {name} (%)" if alone else "accuracy (%)", title="" if alone else name)
        panel.set_xlabel(f"{axis.label}{unit}")
        panel.tick_params(labelbottom=True)
    room = int(figure.get_figwidth() * LETTERS_AN_INCH)
    longest = max(len(row) for name in handles for row in name.split("\n"))
    columns = max(1, min(len(handles), 4, room // (longest + 9)))  # 9: the line's sample and the gap
    # a long legend makes the picture higher, not its panels lower
    figure.set_figheight(figure.get_figheight() + 0.22 * (math.ceil(len(handles) / columns) - 1))
    figure.legend(
        handles=list(handles.values()),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        title=textwrap.fill(band_note(panels), room + 10) or None,
        title_fontsize="small",
    )
    return figure


def styles_of(panels: Mapping[str, Collection[str]]) -> dict[str, tuple[str, str]]:
    """Give each label a colour and a marker, the same in all panels.

    Colours and markers are taken in turn. A colour that another line of the same panel has is passed over while there
    are others, so that up to seven lines of a panel differ in colour, whatever is in the other panels.

    Args:
        panels: data source -> labels.
    """
    styles: dict[str, tuple[str, str]] = {}
    for index, label in enumerate(dict.fromkeys(label for labels in panels.values() for label in labels)):
        marker, turn = MARKERS[index % len(MARKERS)], index % len(COLORS)
        beside = {other for labels in panels.values() if label in labels for other in labels}
        taken = {style[0] for other, style in styles.items() if other in beside}
        free = (
            color
            for color in COLORS[turn:] + COLORS[:turn]
            if color not in taken and (color, marker) not in styles.values()
        )
        styles[label] = (next(free, COLORS[turn]), marker)
    return styles


def legend_entry(label: str, band: Band) -> str:
    """A method's name in the legend, long ones in several rows, with its number of seeds."""
    name = f"{label} ({band.seeds} seed{'s' if band.seeds > 1 else ''})"
    # matplotlib leaves a name that begins with an underscore out of a legend
    return (" " if name.startswith("_") else "") + plain(textwrap.fill(name, 60))


def band_note(panels: Panels) -> str:
    """What the bands of a picture are, in words; empty where there is none."""
    bands = [band for lines in panels.values() for band in lines.values()]
    meanings = dict.fromkeys(band.meaning for band in bands if band.meaning)
    return "bands: " + "; ".join(meanings) if meanings else ""


def percent(fractions: Sequence[float]) -> list[float]:
    """Fractions as percentages."""
    return [100 * fraction for fraction in fractions]


def scale(axis: Axis, largest: float) -> tuple[float, str]:
    """Choose the unit that keeps tick labels short.

    Args:
        axis: what x is.
        largest: the largest x of the picture.

    Returns:
        What to divide by, and the unit to write behind the axis' name.
    """
    if axis.name == "tokens":
        for divisor, unit in ((1e9, "billions"), (1e6, "millions"), (1e3, "thousands")):
            if largest >= 2 * divisor:
                return divisor, f" ({unit})"
    if axis.name == "time":
        for divisor, unit in ((3600.0, "hours"), (60.0, "minutes")):
            if largest >= 2 * divisor:
                return divisor, f" ({unit})"
        return 1.0, " (seconds)"
    return 1.0, ""


def write_points(panels: Panels, axis: Axis, path: Path) -> None:
    """Write what is drawn as CSV: x in steps, tokens or seconds, accuracies as fractions.

    Args:
        panels: data source -> label -> line.
        axis: what x is.
        path: file to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = "seconds" if axis.name == "time" else axis.name
    with open(path, "w", encoding="utf-8", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(["source", "label", unit, "mean", "low", "high", "seeds", "band"])
        for source, lines in panels.items():
            for label, band in lines.items():
                edges = zip(band.low, band.high, strict=True) if band.low else [("", "")] * len(band.x)
                for x, mean, (low, high) in zip(band.x, band.mean, edges, strict=True):
                    writer.writerow([source, label, x, mean, low, high, band.seeds, band.meaning])
