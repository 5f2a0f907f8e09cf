"""What all preparation commands share: the way from rows to files, a manifest and a report."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.errors import DataError
from data_prep.lengths import PromptLengths
from data_prep.manifest import manifest
from data_prep.problems import Counts, Problem, carve, distinct, overlaps, quantiles, report, select, take
from data_prep.sources import Record, Source
from data_prep.templates import CHAT, Message, Wording, messages, requirement
from data_prep.writer import Row, make_row, read_split, write_splits


@dataclass
class Preparation:
    """One run of a command: gathers what its manifest and report say.

    Attributes:
        args: The command line options.
        name: Name of the data set, see `names`.
        wording: The data set's instructions.
        counts: What became of the rows, by source.
        sources: Where the rows come from.
        notes: Lines to print with the report.
        test_name: Name of the data set that the test split is of, where it is another one.
    """

    args: argparse.Namespace
    name: str
    wording: Wording
    counts: dict[str, Counts] = field(default_factory=dict)
    sources: list[Mapping[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    test_name: str | None = None
    lengths: PromptLengths | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Checks the options before anything is read.

        Raises:
            DataError: Options do not go together, or the tokenizer does not load.
        """
        instruction, limit = self.option("instruction"), self.option("max_prompt_tokens")
        if instruction is not None:
            if self.args.template != CHAT:
                raise DataError(f"--instruction would be ignored with --template {self.args.template}; leave one out")
            self.wording = replace(self.wording, chat=instruction)
        if limit is not None and self.option("tokenizer") is None:
            raise DataError("--max-prompt-tokens needs --tokenizer, to count the tokens; add it")
        if limit is not None and limit < 1:
            raise DataError(f"--max-prompt-tokens must be at least 1, not {limit}")
        if self.option("revision") is not None and self.option("source") is not None:
            raise DataError("--revision would be ignored with --source; leave one out")
        if (tokenizer := self.option("tokenizer")) is not None:
            self.lengths = PromptLengths(tokenizer, self.args.template)

    def option(self, name: str) -> Any:
        """Gives an option that may not have been given."""
        return getattr(self.args, name, None)

    def take(
        self,
        kind: str,
        source: Source,
        read: Callable[[Record], Problem],
        taken: Mapping[str, Sequence[Problem]] | None = None,
    ) -> list[Problem]:
        """Turns a source into problems, without those that occur twice or are taken by another split.

        Args:
            kind: What the report calls the source.
            source: The rows.
            read: Makes a problem of a row.
            taken: Problems of other splits, by words for their place.
        """
        self.counts[kind] = Counts()
        return distinct(take(source.records, read, self.counts[kind]), self.counts[kind], taken)

    def within_limit(self, kind: str, problems: Sequence[Problem]) -> list[Problem]:
        """Measures the prompts where a tokenizer is given, and drops those that are too long."""
        if self.lengths is None or not problems:
            return list(problems)
        measured = self.lengths([self.prompt(problem) for problem in problems])
        sized = [replace(problem, tokens=tokens) for problem, tokens in zip(problems, measured, strict=True)]
        limit = self.option("max_prompt_tokens")
        if limit is None:
            return sized
        reason = f"the prompt has more than {limit} tokens"
        kept = select(sized, lambda problem: (problem.tokens or 0) <= limit, reason, self.counts[kind])
        if kind == "test" and len(kept) < len(sized):
            self.notes.append(
                f"the test split lacks {len(sized) - len(kept)} long problems: scores on it are not comparable"
            )
        return kept

    def train_and_test(self, train: Sequence[Problem], test: Sequence[Problem]) -> None:
        """Carves validation out of train, writes all splits and reports."""
        test = self.within_limit("test", test)
        train, validation = carve(self.within_limit("train", train), self.args.validation, self.args.seed)
        self.counts["train"].kept = {"train": len(train), "validation": len(validation)}
        splits = {"train": train, "validation": validation}
        if "test" in self.counts:
            self.counts["test"].kept["test"] = len(test)
            splits["test"] = test
        else:
            self.notes.append("the source has no test file: no test split is written")
        self.write(splits)

    def test_only(self, test: Sequence[Problem]) -> None:
        """Writes a test split alone and reports."""
        test = self.within_limit("test", test)
        self.counts["test"].kept["test"] = len(test)
        self.write({"test": test})

    def prompt(self, problem: Problem) -> list[Message]:
        """Puts a problem into the prompt style."""
        return messages(self.args.template, problem.question, self.wording)

    def row(self, problem: Problem, split: str) -> Row:
        """Puts a problem into the schema."""
        return make_row(
            data_source=self.test_name if split == "test" and self.test_name else self.name,
            question=problem.question,
            answer=problem.answer,
            ground_truth=problem.truth,
            split=split,
            index=problem.index,
            prompt=self.prompt(problem),
            id=problem.id,
            subject=problem.subject,
            level=problem.level,
        )

    def write(self, splits: Mapping[str, Sequence[Problem]]) -> None:
        """Checks that no question is in two splits, writes the files and prints the report.

        Raises:
            DataError: A question is in two splits, a row is not usable, or the files cannot be written.
        """
        questions = {split: [problem.question for problem in problems] for split, problems in splits.items()}
        shared = overlaps(questions)
        if any(shared.values()):
            raise DataError(
                f"questions are in two splits: {shared}; this is an error of data_prep.{self.name}, report it"
            )
        for folder in self.option("against") or []:
            shared.update(against(folder, questions["test"]))
        counts = dict(sorted(self.counts.items(), reverse=True))  # train before test
        tokens = None
        if self.lengths:
            tokens = {
                split: quantiles([p.tokens or 0 for p in problems]) for split, problems in splits.items() if problems
            }
        said = manifest(
            self.name,
            args=self.args,
            sources=self.sources,
            counts=counts,
            overlaps=shared,
            prompt_tokens=tokens and {"tokenizer": self.lengths.origin, **tokens},
            training_needs=requirement(self.args.template),
            notes=self.notes,
        )
        written = write_splits(
            self.args.out, {split: [self.row(p, split) for p in problems] for split, problems in splits.items()}, said
        )
        print(report(counts))
        for note in self.notes:
            print(note)
        if shared:
            print("questions in common: " + ", ".join(f"{pair} {count}" for pair, count in shared.items()))
        for split, numbers in (tokens or {}).items():
            print(f"prompt tokens, {split}: " + ", ".join(f"{name} {n}" for name, n in numbers.items()))
        if needed := requirement(self.args.template):
            print(f"train with {needed}")
        for path in written:
            print(f"wrote {path}")


def against(folder: Path, questions: Sequence[str]) -> dict[str, int]:
    """Counts the questions that the train and validation splits of a prepared folder have too.

    Raises:
        DataError: The folder holds no prepared train split.
    """
    found = {}
    for split in ("train", "validation"):
        if split == "train" or (folder / f"{split}.parquet").exists():
            others = [row["extra_info"]["question"] for row in read_split(folder, split)]
            found.update(overlaps({f"{folder.name}:{split}": others, "test": questions}))
    return found
