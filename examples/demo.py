"""`make demo`: watch SPO learn, through the real verl, Ray, FSDP2 and vLLM, on the CPU.

Four stages: generate word problems, fit a tiny policy until it is right some of the time, train it
with SPO-tree or another method, show what it learned. Everything lands in one folder; a second run
skips the first two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.launch import show_failure, train
from recipe.spo.report import ReportError, plot, summary
from recipe.spo.training_log import LogError, curves, read_records

SCRIPT = Path(__file__).with_name("run_tiny_arithmetic.sh")
#: METHOD -> what it is called in titles.
METHODS = {
    "tree": "SPO-tree",
    "chain": "SPO-chain",
    "vineppo": "VinePPO",
    "equal-parts": "Equal parts",
    "grpo": "GRPO",
    "grpo-mask": "GRPO + mask",
    "rloo": "RLOO",
    "reinforce-pp": "REINFORCE++",
    "ppo": "PPO",
}


@dataclass(frozen=True, slots=True)
class Task:
    """Word problems, and the policy to start from.

    Attributes:
        min_steps: least additions and subtractions in a problem.
        max_steps: most of them.
        max_number: greatest number named in a question.
        fit: options of `recipe.spo.tiny_policy`.
    """

    min_steps: int = 4
    max_steps: int = 6
    max_number: int = 9
    fit: tuple[str, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--method", choices=list(METHODS), default="tree", help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="default: outputs/demo, or outputs/demo-METHOD")
    parser.add_argument("--steps", type=int, help="training steps (default: 32 of tree, 50 of the others)")
    parser.add_argument("--validation", type=int, default=256, help="unseen problems (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", help="verl's Hydra overrides, passed on")
    arguments = parser.parse_args()
    if arguments.steps is None:
        # Of the tree as few as fit, with installation, into 15 minutes; chains need more before they improve.
        arguments.steps = 32 if arguments.method == "tree" else 50
    if arguments.steps < 1 or arguments.validation < 1:
        parser.error("--steps and --validation must be at least 1")
    console, method, title = Console(highlight=False), arguments.method, METHODS[arguments.method]
    out = arguments.out or Path("outputs/demo" if method == "tree" else f"outputs/demo-{method}")
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        data, policy = prepare(out, arguments.validation, console)
        console.print(f"\n[bold]3. {title}[/bold] (full output: {out / 'train.log'})")
        outcome = train(
            ["bash", str(SCRIPT), *arguments.overrides],
            {
                "METHOD": method,
                "DATA": str(data),
                "MODEL": str(policy),
                "OUT": str(out),
                "PYTHON": sys.executable,
                "STEPS": str(arguments.steps),
            },
            metrics=out / "metrics.jsonl",
            log=out / "train.log",
            steps=arguments.steps,
            console=console,
        )
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    except subprocess.CalledProcessError as error:
        return error.returncode
    if outcome.exit_code != 0:
        show_failure(out / "train.log", outcome.exit_code, console)
        return outcome.exit_code

    try:
        run = curves(read_records(out / "metrics.jsonl"))
        result = summary(run, arguments.validation, time.monotonic() - started)
    except (LogError, ReportError) as error:
        console.print(f"[red]error:[/red] {error}")
        return 1
    result["peak_memory_gib"] = round(outcome.peak_memory_gib, 2)
    (out / "summary.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    plot(run, arguments.validation, f"{title}, generated arithmetic, 0.8 M parameters", out / "curve.png")
    show(result, out, console)
    return 0


def prepare(out: Path, validation: int, console: Console, task: Task | None = None) -> tuple[Path, Path]:
    """Make the data and the tiny policy, or find them made.

    Args:
        out: folder for both.
        validation: problems of the validation split, and of the test split.
        console: where the stages are announced.
        task: which problems; the demo's by default.

    Returns:
        The folders of the data and of the policy.

    Raises:
        subprocess.CalledProcessError: a stage failed; it has said why.
    """
    task = task or Task()
    data, policy = out / "data", out / "policy"
    options = ["--train", "8000", "--validation", str(validation), "--test", str(validation)]
    options += ["--min-steps", str(task.min_steps), "--max-steps", str(task.max_steps)]
    options += ["--max-number", str(task.max_number)]
    console.print("[bold]1. Word problems[/bold]")
    subprocess.run([sys.executable, "-m", "data_prep.arithmetic", "--out", str(data), *options], check=True)
    console.print("\n[bold]2. A tiny policy that is right some of the time[/bold]")
    command = [sys.executable, "-m", "recipe.spo.tiny_policy", "--data", str(data), "--out", str(policy)]
    subprocess.run([*command, *task.fit], check=True)
    return data, policy


def show(result: dict, out: Path, console: Console) -> None:
    """Print the short table at the end."""
    before, after = result["accuracy_before"], result["accuracy_after"]
    table = Table(title="What it learned", show_header=False)
    rows = {
        f"greedy accuracy on {result['validation_size']} unseen problems": f"{before:.1%} → {after:.1%} "
        f"(± {result['accuracy_standard_error']:.1%})",
        "training steps": f"{result['steps']}",
        "questions rolled out": f"{result['questions']:,}",
        "segments sampled / rows trained": f"{result['segments']:,} / {result['trained_rows']:,}",
        "tokens generated / trained": f"{result['generated_tokens']:,} / {result['trained_tokens']:,}",
        "time, preparation included": f"{result['seconds'] / 60:.1f} min",
        "peak memory": f"{result['peak_memory_gib']:.1f} GiB",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print()
    console.print(table)
    console.print(f"Curve: {out / 'curve.png'}   numbers: {out / 'summary.json'}")


if __name__ == "__main__":
    sys.exit(main())
