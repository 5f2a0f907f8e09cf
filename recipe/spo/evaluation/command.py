"""The command line: `python -m recipe.spo.evaluate run | compare`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.protocol import PRESETS, PROMPT_STYLES, Protocol, check_ks, default_ks, preset

if TYPE_CHECKING:
    from recipe.spo.evaluation.models import Model
    from recipe.spo.evaluation.runner import Evaluation

PROG = "python -m recipe.spo.evaluate"
RUN_EXAMPLES = f"""examples:
  {PROG} run outputs/demo/checkpoints --data outputs/demo/data --preset greedy
  {PROG} run outputs/demo/policy --data outputs/demo/data --samples 4 --temperature 1
  {PROG} run gyr66/spo-tree-666-qwen1.5B-math --data data/math500 --preset long-cot-4k
An interrupted run goes on with the same command, and ends in the same result."""
COMPARE_EXAMPLES = f"""example:
  {PROG} compare outputs/evaluation/before/gsm8k outputs/evaluation/after/gsm8k --out outputs/comparison"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status: 2 for wrong input, 130 after an interruption."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except EvaluationError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROG, description="Evaluate a policy, and compare evaluations.")
    commands = parser.add_subparsers(required=True, metavar="run | compare")
    raw = argparse.RawDescriptionHelpFormatter

    run = commands.add_parser(
        "run", help="sample, grade and count", description=_presets_text(), epilog=RUN_EXAMPLES, formatter_class=raw
    )
    run.set_defaults(command=_run)
    add = run.add_argument
    add("model", help="Hugging Face folder, verl checkpoint (global_step_N), or hub id (owner/name[@revision])")
    add("--data", type=Path, required=True, help="parquet file of data_prep, or the folder with it")
    add("--split", help="file in that folder (default: test)")
    add("--limit", type=int, help="only so many questions, from the beginning")
    add("--out", type=Path, help="folder of the result (default: outputs/evaluation/MODEL/DATA-PRESET)")
    add("--preset", default="greedy", metavar="NAME", help=f"{', '.join(PRESETS)} (default: %(default)s)")
    drawing = run.add_argument_group("in place of the preset's")
    for name, kind, text in (
        ("--samples", int, "responses a question"),
        ("--temperature", float, "0 is greedy"),
        ("--top-p", float, "1 keeps all tokens"),
        ("--top-k", int, "-1 keeps all tokens"),
        (
            "--max-context",
            int,
            "tokens of prompt and response together (default: the preset's, or all that the model has)",
        ),
        ("--max-new-tokens", int, "tokens of a response"),
        ("--seed", int, "default 0"),
    ):
        drawing.add_argument(name, type=kind, help=text)
    drawing.add_argument("--stop", action="append", help="text that ends a response; may be given again")
    drawing.add_argument("--prompt", metavar="STYLE", help=f"{' or '.join(PROMPT_STYLES)} (without a chat template)")
    add("--chat-template", type=Path, metavar="FILE", help="jinja template in place of the tokenizer's")
    add("--k", type=int, nargs="+", help="k of pass@k and maj@k (default: 1, 2, 4, ... n)")
    grading = run.add_argument_group("grading, as reward_kwargs of training")
    grading.add_argument("--task", help="gsm8k, math or point24 (default: what data_source says)")
    grading.add_argument("--math-grader", default="math-verify", help="or minerva (default: %(default)s)")
    grading.add_argument("--grader", metavar="MODULE:FUNCTION", help="a reward function of your own, giving 0 or 1")
    add("--batch-questions", type=int, default=64, metavar="N", help="questions kept at a time (default: %(default)s)")
    add("--dtype", default="auto", help="auto (that of the weights), float32, bfloat16 or float16")
    add("--tensor-parallel-size", type=int, default=1, metavar="N", help="devices that share the model")
    add("--gpu-memory-utilization", type=float, metavar="SHARE", help="vLLM's share of a GPU's memory")
    add("--log-probs", action="store_true", help="keep each token's log-probability in responses.parquet")

    compare = commands.add_parser(
        "compare",
        help="compare finished evaluations",
        description="Paired bootstrap over the questions that both have, for every two results.",
        epilog=COMPARE_EXAMPLES,
        formatter_class=raw,
    )
    compare.set_defaults(command=_compare)
    compare.add_argument("results", type=Path, nargs="+", metavar="OUT", help="folders of two evaluations or more")
    compare.add_argument("--out", type=Path, help="folder for comparison.json")
    compare.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    return parser


def _presets_text() -> str:
    lines = ["Sample responses through vLLM, grade them with the graders of training, count.", "", "presets:"]
    for name, p in PRESETS.items():
        lines.append(
            f"  {name:13} {p.samples:2} samples, temperature {p.temperature}, top-p {p.top_p}, "
            f"context {p.max_context}, at most {p.max_new_tokens} new tokens"
        )
    return "\n".join(lines)


def _protocol(arguments: argparse.Namespace) -> Protocol:
    fields = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Protocol)}
    changed = {name: tuple(value) if name == "stop" else value for name, value in fields.items() if value is not None}
    base = dataclasses.asdict(preset(arguments.preset))
    if "max_context" in changed and "max_new_tokens" not in changed:
        changed["max_new_tokens"] = min(base["max_new_tokens"], changed["max_context"])
    return Protocol(**{**base, **changed})


def _within_model(protocol: Protocol, model: Model, chosen: bool) -> Protocol:
    """The protocol in the model's own context; one that the user chose is not changed but refused."""
    limit = model.context_limit
    if limit is None or protocol.max_context <= limit:
        return protocol
    if chosen:
        raise EvaluationError(
            f"--max-context {protocol.max_context} is more than the {limit} tokens that {model.name} was made for; "
            f"give {limit} or less, or leave it out"
        )
    print(f"note: context {limit}, for which {model.name} was made, in place of the preset's {protocol.max_context}")
    return dataclasses.replace(protocol, max_context=limit, max_new_tokens=min(protocol.max_new_tokens, limit))


def _run(arguments: argparse.Namespace) -> int:
    """Everything that can be wrong is looked at before vLLM is loaded."""
    protocol = _protocol(arguments)
    ks = check_ks(arguments.k, protocol.samples) if arguments.k else default_ks(protocol.samples)
    if arguments.batch_questions < 1:
        raise EvaluationError(f"--batch-questions {arguments.batch_questions} must be at least 1")
    out = arguments.out or _default_out(arguments)
    from recipe.spo.evaluation import grading, models, sampling
    from recipe.spo.evaluation.prompts import load_tokenizer, render
    from recipe.spo.evaluation.questions import data_digest, read_questions
    from recipe.spo.evaluation.runner import Evaluation, prompts_digest
    from recipe.spo.evaluation.store import Store, check_folder

    check_folder(out)
    if arguments.dtype not in sampling.DTYPES:
        raise EvaluationError(f"--dtype {arguments.dtype} must be one of {', '.join(sampling.DTYPES)}")
    sampling.Engine("auto", arguments.tensor_parallel_size, arguments.gpu_memory_utilization)
    questions = read_questions(arguments.data, arguments.split, arguments.limit)
    grader_name, options = (
        arguments.grader or grading.DEFAULT,
        grading.grader_options(arguments.task, arguments.math_grader),
    )
    grader, grader_fingerprint = grading.load_grader(grader_name, options)
    if grader_name == grading.DEFAULT and arguments.task is None:
        grading.check_sources(questions)
    grading.check_truths(questions, grader)
    model = models.find_model(arguments.model)
    protocol = _within_model(protocol, model, chosen=arguments.max_context is not None)
    engine = sampling.Engine(
        sampling.engine_dtype(arguments.dtype, model),
        arguments.tensor_parallel_size,
        arguments.gpu_memory_utilization,
        arguments.log_probs,
    )
    prompts = render(questions, load_tokenizer(model.folder, arguments.chat_template), protocol)
    fingerprint = {
        "model": {"name": model.name, "sha256": model.digest()},
        "data": {
            "name": " + ".join(sorted({question.data_source for question in questions})),
            "questions": len(questions),
            "sha256": data_digest(questions),
            "prompts_sha256": prompts_digest(prompts),
        },
        "protocol": protocol.as_json(),
        "engine": {**engine.fingerprint(), "batch_questions": arguments.batch_questions},
        "grader": grader_fingerprint,
    }
    store = Store(out, fingerprint)
    evaluation = Evaluation(
        prompts,
        protocol,
        arguments.batch_questions,
        store,
        lambda: sampling.VllmSampler(model.folder, protocol, engine),
        grader,
    )
    with store.locked():
        return _finish(evaluation, ks, len(questions))


def _finish(evaluation: Evaluation, ks: list[int], questions: int) -> int:
    from rich.console import Console
    from tqdm import tqdm

    from recipe.spo.compat.processes import owned_run
    from recipe.spo.evaluation.result import caption, table

    folder, samples = evaluation.store.folder, evaluation.protocol.samples
    if evaluation.done:
        print(f"{evaluation.done} of {questions} questions are done in {folder}", flush=True)
    seen = {"questions": 0, "correct": 0.0}
    earlier = evaluation.done
    try:
        # Questions of an earlier run are the bar's start, so that the time left is of this one's speed.
        with owned_run(), tqdm(total=questions, initial=earlier, unit="question", smoothing=0) as bar:

            def show(count: int, correct: float) -> None:
                seen["questions"] += count
                seen["correct"] += correct
                bar.update(max(0, seen["questions"] - bar.n))
                bar.set_postfix_str(f"accuracy {seen['correct'] / (seen['questions'] * samples):.1%}")

            evaluation.run(show)
    except (KeyboardInterrupt, SystemExit) as stop:  # Ctrl-C, or SIGTERM by way of owned_run
        again = f"{PROG} {shlex.join(sys.argv[1:])}"
        print(f"\nstopped: {evaluation.done} of {questions} questions are done; to go on: {again}", file=sys.stderr)
        return stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 130
    result = evaluation.result(ks)
    console = Console(highlight=False)
    console.print(table(result))
    console.print(caption(result))
    print(f"{folder}/result.json   every response: {folder}/responses.parquet")
    return 0


def _default_out(arguments: argparse.Namespace) -> Path:
    model, data = Path(arguments.model), arguments.data
    parts = [part for part in Path(os.path.normpath(model)).parts[-3:] if part not in ("/", "..", ".")]
    name = data.stem if data.suffix == ".parquet" else f"{data.resolve().name}-{arguments.split or 'test'}"
    return Path("outputs/evaluation") / "_".join(parts) / f"{name}-{arguments.preset}"


def _compare(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from recipe.spo.evaluation.comparison import compare, legend, load, notes, table
    from recipe.spo.evaluation.store import check_folder, write_json

    if arguments.out is not None:
        check_folder(arguments.out)
    pairs = compare([load(path) for path in arguments.results], arguments.seed)
    console = Console(highlight=False)
    for line in legend(pairs):
        print(line)
    console.print(table(pairs))
    for note in notes(pairs):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if arguments.out is not None:
        try:
            arguments.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvaluationError(f"--out {arguments.out} cannot be made: {one_line(error)}") from error
        write_json(arguments.out / "comparison.json", {"pairs": pairs})
        print(f"{arguments.out}/comparison.json")
    return 0
