"""The command line: `python -m recipe.spo.view`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from recipe.spo.json_files import write_text
from recipe.spo.viewer.errors import ViewError
from recipe.spo.viewer.page import page
from recipe.spo.viewer.questions import Question
from recipe.spo.viewer.records import read_questions
from recipe.spo.viewer.terminal import legend, listing, outline

PROG = "python -m recipe.spo.view"
PAGES = (".html", ".htm")
EXAMPLES = f"""examples:
  {PROG} outputs/dump                          outputs/dump/view.html, with the newest questions
  {PROG} outputs/dump --step 11 --out step11.html
  {PROG} outputs/dump --step 11 --question 4711 --terminal"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status: 2 for wrong input."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except ViewError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Show dumped trees and chains: as one HTML page that works without a network, or on the terminal.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dump", type=Path, metavar="DUMP", help="algorithm.spo.dump_dir of a run, or one of its files")
    add("--step", type=int, help="questions of this training step only")
    add("--question", metavar="ID", help="this question only: the data set's index, or the beginning of its uid")
    add("--limit", type=int, default=100, metavar="N", help="most questions, the newest ones (default: %(default)s)")
    add("--out", type=Path, metavar="FILE.html", help="page to write (default: view.html beside the dumped files)")
    add("--terminal", action="store_true", help="print; of several questions, a list and the newest")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise ViewError(f"--limit {arguments.limit} must be at least 1")
    if arguments.terminal and arguments.out is not None:
        raise ViewError("--out is for the page, and --terminal writes none: give one of them")
    if arguments.question == "":
        raise ViewError("--question is empty: give the data set's index, or the beginning of a uid")
    questions = read_questions(arguments.dump, arguments.step, arguments.question)
    shown = questions[-arguments.limit :]
    if len(shown) < len(questions):
        left = f"the newest {len(shown)} of {len(questions)} questions; others with --step, --question or --limit"
        print(f"note: {left}", file=sys.stderr)
    if arguments.terminal:
        _print(shown)
        return 0
    folder = arguments.dump if arguments.dump.is_dir() else arguments.dump.parent
    out = arguments.out or folder / "view.html"
    _write(out, page(shown[::-1]))
    print(f"{out}   {len(shown)} question{'s' if len(shown) > 1 else ''}, {out.stat().st_size / 2**20:.1f} MiB")
    return 0


def _write(out: Path, text: str) -> None:
    try:
        if out.is_dir():
            raise ViewError(f"--out {out} is a folder: give a file, such as {out / 'view.html'}")
        if out.suffix.lower() not in PAGES:  # the page would take the place of a dump, or be read as one
            raise ViewError(f"--out {out} is no name of a page: give one that ends in .html")
        if not out.parent.is_dir():
            raise ViewError(f"--out {out} cannot be written: {out.parent} is not a folder; make it, or give another")
        write_text(out, text)
    except OSError as error:  # of which the text names a file that is ours
        raise ViewError(f"--out {out} cannot be written: {error.strerror}; give another file") from error


def _print(questions: Sequence[Question]) -> None:
    console = Console(highlight=False)
    if len(questions) > 1:
        console.print(listing(questions))
        console.print()
    question = questions[-1]
    console.print(legend(question))
    console.print(outline(question))
