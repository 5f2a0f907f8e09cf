"""What a run learned, from the metrics that verl's `file` tracker wrote: numbers and a picture.

python -m recipe.spo.report outputs/demo/metrics.jsonl --out outputs/demo
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ReportError(ValueError):
    """The metrics cannot be read or hold no validation."""


@dataclass(frozen=True, slots=True)
class Curves:
    """A run as series over training steps; accuracies are fractions in [0, 1].

    Attributes:
        accuracy: validation accuracy (mean@n, the first data source) by step, step 0 included.
        root_value: mean reward of the responses sampled in a step, by step.
        totals: sums over the run of `spo/generated_tokens`, `spo/trained_tokens`, `spo/questions`, ...
    """

    accuracy: dict[int, float]
    root_value: dict[int, float]
    totals: dict[str, float]

    @property
    def steps(self) -> int:
        return max(self.root_value, default=0)


SUMMED = (
    "questions",
    "segments",
    "trained_rows",
    "generated_tokens",
    "trained_tokens",
    "skipped_updates",
    "failed_questions",
)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read the records of verl's `file` tracker; an unfinished last line is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def curves(records: Sequence[Mapping[str, Any]]) -> Curves:
    """Pick the series out of tracker records `{"step": ..., "data": {...}}`."""
    accuracy: dict[int, float] = {}
    root_value: dict[int, float] = {}
    totals = dict.fromkeys(SUMMED, 0.0)
    for record in records:
        step, data = int(record["step"]), record["data"]
        for name, number in data.items():
            if name.startswith("val-core/") and "/acc/mean@" in name:
                accuracy[step] = float(number)
        if "spo/root_value" in data:
            root_value[step] = float(data["spo/root_value"])
        for name in SUMMED:
            totals[name] += float(data.get(f"spo/{name}", 0))
    return Curves(accuracy, root_value, totals)


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


def standard_error(accuracy: float, size: int) -> float:
    """Binomial standard error of an accuracy over `size` problems, one greedy answer each."""
    return (accuracy * (1 - accuracy) / size) ** 0.5 if size else 0.0


def plot(run: Curves, validation_size: int, title: str, path: Path) -> None:
    """Draw validation accuracy, with its standard error, and the mean sampled reward over steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    if run.root_value:
        steps, values = zip(*sorted(run.root_value.items()), strict=True)
        axes.plot(steps, [100 * v for v in values], color="0.7", lw=1.2, label="reward of sampled responses, training")
    steps, values = zip(*sorted(run.accuracy.items()), strict=True)
    errors = [100 * standard_error(v, validation_size) for v in values]
    axes.errorbar(
        steps,
        [100 * v for v in values],
        yerr=errors,
        marker="o",
        capsize=3,
        color="tab:blue",
        label=f"greedy accuracy on {validation_size} unseen problems (± s.e.)",
    )
    axes.set(xlabel="training step", ylabel="%", title=title, ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("metrics", type=Path, help="metrics.jsonl of verl's file tracker (trainer.logger=[file])")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for curve.png (default: %(default)s)")
    parser.add_argument("--validation-size", type=int, default=0, help="problems a validation, for error bars")
    parser.add_argument("--title", default="SPO", help="title of the picture (default: %(default)s)")
    arguments = parser.parse_args()
    run = curves(read_records(arguments.metrics))
    if not run.accuracy:
        raise SystemExit(f"error: {arguments.metrics} holds no validation accuracy")
    plot(run, arguments.validation_size, arguments.title, arguments.out / "curve.png")
    print(f"{arguments.out / 'curve.png'}")


if __name__ == "__main__":
    main()
