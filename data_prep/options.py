"""The command line options that the preparation commands share."""

import argparse
from pathlib import Path

from data_prep.templates import CHAT, TEMPLATES, Wording, requirement


def make_parser(name: str, description: str, wording: Wording, *, source: str | None) -> argparse.ArgumentParser:
    """Makes the parser of a command, with the options that all have.

    Args:
        name: Name of the module in `data_prep`.
        description: What the command writes.
        wording: The data set's instructions.
        source: What `--source` may be; a data set that is generated has none.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m data_prep.{name}",
        description=f"{description} The same input and options give the same bytes.",
        epilog=f"With --template rho, train with {requirement('rho')}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    # argparse.SUPPRESS keeps "(default: None)" out of the help.
    add("--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder to write to")
    if source:
        add(
            "--source",
            type=Path,
            default=argparse.SUPPRESS,
            help=f"{source}; .jsonl, .parquet or a folder of .json files (default: the Hugging Face hub)",
        )
        add("--revision", default=argparse.SUPPRESS, help="commit, tag or branch on the hub (default: the newest)")
    add(
        "--template",
        choices=TEMPLATES,
        default=CHAT,
        help="prompt style: chat = question and instruction; rho = '[MATH_TASK] Problem', the complete text, for a "
        "chat template that passes it on unchanged (see below); r1 = the authors' instruction for R1-distilled models",
    )
    add(
        "--instruction",
        default=argparse.SUPPRESS,
        metavar="TEXT",
        help=f"text after the question, for --template chat (default: {_escaped(wording.chat)})",
    )
    add(
        "--tokenizer",
        type=Path,
        default=argparse.SUPPRESS,
        metavar="FOLDER",
        help="model folder whose tokenizer counts the tokens of the prompts",
    )
    add(
        "--max-prompt-tokens",
        type=int,
        default=argparse.SUPPRESS,
        metavar="N",
        help="drop longer prompts, in every split",
    )
    return parser


def add_carving(parser: argparse.ArgumentParser, validation: int) -> None:
    """Adds the options of a data set whose validation split is carved out of train."""
    add = parser.add_argument
    add("--validation", type=int, default=validation, metavar="N", help="problems carved out of train")
    add("--seed", type=int, default=0, metavar="N", help="seed of the validation problems")


def add_against(parser: argparse.ArgumentParser) -> None:
    """Adds the option of a data set that is for testing only."""
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=argparse.SUPPRESS,
        metavar="FOLDER",
        help="prepared folder whose train and validation questions are looked for here; may be given again",
    )


def _escaped(text: str) -> str:
    """Keeps argparse from reading a percent sign as a placeholder."""
    return text.replace("%", "%%")
