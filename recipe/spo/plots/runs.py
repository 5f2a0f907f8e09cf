"""Training runs as points: accuracy against steps, optimiser steps, generated tokens or training time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.spo.plots.band import Points
from recipe.spo.training_log import History, LogError, accuracies, cumulative, history, read_records


@dataclass(frozen=True, slots=True)
class Axis:
    """What a picture has on its x axis: how it is called and how a run's steps map to it."""

    name: str
    label: str
    of_step: Callable[[History], dict[int, float]]


def optimizer_steps(run: History) -> dict[int, float]:
    """Optimiser steps up to each step; a step without a row to train has taken none, and says only that."""
    counted = {
        step: {"spo/optimizer_steps": 0, **data} if data.get("spo/skipped_updates") else data
        for step, data in run.items()
    }
    return cumulative(counted, "spo/optimizer_steps")


#: Training time is `timing_s/step`: sampling, credit, updates, weight sync and checkpoints. verl times a
#: validation (`timing_s/testing`) after it closed the step's timer, so validation is not in it.
AXES = {
    "steps": Axis("steps", "training step", lambda run: {step: float(step) for step in run}),
    "optimizer": Axis("optimizer", "optimiser step", optimizer_steps),
    "tokens": Axis("tokens", "generated tokens", lambda run: cumulative(run, "spo/generated_tokens")),
    "time": Axis("time", "training time without validation", lambda run: cumulative(run, "timing_s/step")),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One seed of a method.

    Attributes:
        label: the method; runs with the same label are seeds of it.
        files: the run's logs, a resumed run's in order.
        steps: metrics by step.
        accuracy: data source -> step -> accuracy.
    """

    label: str
    files: tuple[Path, ...]
    steps: History
    accuracy: dict[str, dict[int, float]]

    @property
    def name(self) -> str:
        return ",".join(map(str, self.files))


def load(argument: str) -> Run:
    """Read the run that `LABEL=metrics.jsonl[,resumed.jsonl ...]` names.

    Args:
        argument: label and files.

    Returns:
        The run.

    Raises:
        LogError: no label, a file that is missing or unreadable, or no validation in the log.
    """
    label, equals, names = argument.partition("=")
    if not equals or not label.strip() or not all(names.split(",")):
        raise LogError(f"{argument!r} is not LABEL=metrics.jsonl: say what the run is called in the legend")
    files = tuple(Path(name) for name in names.split(","))
    records = []
    for file in files:
        if not file.is_file():
            raise LogError(f"{file} (of {label!r}) is not a file")
        try:
            records += read_records(file)
        except (OSError, UnicodeDecodeError) as error:
            raise LogError(f"{file} (of {label!r}) cannot be read: {error}") from None
    steps = history(records)
    accuracy = accuracies(steps)
    run = Run(label.strip(), files, steps, accuracy)
    if not accuracy:
        raise LogError(f"{run.name} holds no validation accuracy (val-core/SOURCE/acc/mean@N): set trainer.test_freq")
    return run


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Put the seeds of each method together.

    Args:
        runs: runs in the order of the command line.

    Returns:
        label -> its runs, in that order.

    Raises:
        LogError: a file stands twice under a label (it would narrow the band), or seeds of one label were
            validated on different data sources.
    """
    methods: dict[str, list[Run]] = {}
    for run in runs:
        seeds = methods.setdefault(run.label, [])
        for other in seeds:
            if {file.resolve() for file in other.files} & {file.resolve() for file in run.files}:
                raise LogError(f"{run.name} stands twice under {run.label!r}: a seed counts once")
            if other.accuracy.keys() != run.accuracy.keys():
                raise LogError(
                    f"seeds of {run.label!r} were validated on different data: {other.name} on "
                    f"{', '.join(other.accuracy)}; {run.name} on {', '.join(run.accuracy)}; pick with --source"
                )
        seeds.append(run)
    return methods


def pick_source(run: Run, source: str) -> Run:
    """Leave out every data source but one.

    Raises:
        LogError: the run was not validated on it.
    """
    if source not in run.accuracy:
        raise LogError(f"{run.name} was not validated on {source!r}, but on {', '.join(run.accuracy)}")
    return Run(run.label, run.files, run.steps, {source: run.accuracy[source]})


def points(run: Run, source: str, axis: Axis) -> Points:
    """Place a run's validations on an axis.

    Args:
        run: the run.
        source: data source of the validation.
        axis: what x is.

    Returns:
        (x, accuracy) of each validation, x ascending.

    Raises:
        LogError: the log does not say where on the axis its steps are; the message names the file.
    """
    try:
        position = axis.of_step(run.steps)
    except LogError as error:
        raise LogError(f"{run.name}: {error}") from None
    return [(position[step], accuracy) for step, accuracy in run.accuracy[source].items()]
