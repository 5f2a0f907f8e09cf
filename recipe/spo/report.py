"""What a run learned, from the metrics that verl's `file` tracker wrote: numbers and a picture.

python -m recipe.spo.report outputs/demo/metrics.jsonl --out outputs/demo
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from recipe.spo.plots.band import standard_error
from recipe.spo.plots.draw import COLORS, canvas, percent, save
from recipe.spo.training_log import SUMMED, Curves, LogError, curves, read_records


class ReportError(ValueError):
    """The metrics hold no validation before and after training."""


def summary(run: Curves, validation_size: int, seconds: float) -> dict[str, Any]:
    """The run in numbers, ready for JSON.

    Args:
        run: the run's series.
        validation_size: problems behind each accuracy.
        seconds: wall-clock time of the run.

    Raises:
        ReportError: the run was not validated before and after training.
    """
    if len(run.accuracy) < 2:
        raise ReportError(
            "no validation before and after training: keep trainer.val_before_train and trainer.test_freq"
        )
    first, last = min(run.accuracy), max(run.accuracy)
    return {
        "accuracy_before": run.accuracy[first],
        "accuracy_after": run.accuracy[last],
        "accuracy_standard_error": standard_error(run.accuracy[last], validation_size),
        "accuracy_by_step": {str(step): value for step, value in sorted(run.accuracy.items())},
        "validation_size": validation_size,
        "steps": run.steps,
        **{name: int(run.totals[name]) for name in SUMMED},
        "seconds": round(seconds, 1),
    }


def plot(run: Curves, validation_size: int, title: str, path: Path) -> None:
    """Draw validation accuracy, with its standard error, and the mean sampled reward over steps."""
    figure, (axes,) = canvas(title=title)
    if run.root_value:
        steps, values = zip(*sorted(run.root_value.items()), strict=True)
        axes.plot(steps, percent(values), color="0.7", lw=1.2, label="reward of sampled responses, training")
    steps, values = zip(*sorted(run.accuracy.items()), strict=True)
    axes.errorbar(
        steps,
        percent(values),
        yerr=percent([standard_error(value, validation_size) for value in values]),
        marker="o",
        capsize=3,
        color=COLORS[0],
        label=f"greedy accuracy on {validation_size} unseen problems (± s.e.)",
    )
    axes.set(xlabel="training step", ylabel="%", ylim=(0, 100))
    axes.legend(loc="lower right", frameon=False)
    save(figure, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("metrics", type=Path, help="metrics.jsonl of verl's file tracker (trainer.logger=[file])")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for curve.png (default: %(default)s)")
    parser.add_argument("--validation-size", type=int, default=0, help="problems a validation, for error bars")
    parser.add_argument("--title", default="SPO", help="title of the picture (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        run = curves(read_records(arguments.metrics))
        if not run.accuracy:
            raise LogError(f"{arguments.metrics} holds no validation accuracy")
    except LogError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    plot(run, arguments.validation_size, arguments.title, arguments.out / "curve.png")
    print(f"{arguments.out / 'curve.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
