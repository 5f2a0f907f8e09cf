"""What a bench leaves behind: result.json, tables.md, two parquet files, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.spo.bench.measuring import value_at
from recipe.spo.bench.run import Measured
from recipe.spo.bench.tables import grids, markdown
from recipe.spo.evaluation.errors import EvaluationError, one_line
from recipe.spo.evaluation.store import replace_file, write_json
from recipe.spo.json_files import write_text


def write_files(out: Path, result: Mapping[str, Any], questions: Sequence[Measured]) -> list[Path]:
    """Write everything, each file whole or not at all.

    Returns:
        The files.

    Raises:
        EvaluationError: one cannot be written.
    """
    from recipe.spo.bench.picture import draw_error, draw_gradient

    paths = [out / name for name in ("result.json", "tables.md", "states.parquet", "segments.parquet", "error.png")]
    try:
        write_json(paths[0], result)
        write_text(paths[1], "\n".join(map(markdown, grids(result))))
        _write_parquet(paths[2], _states(questions))
        _write_parquet(paths[3], _segments(questions))
        draw_error(result["methods"], paths[4])
        if "gradients" in result:
            paths.append(out / "gradient.png")
            draw_gradient(result["gradients"], paths[-1])
    except OSError as error:
        raise EvaluationError(f"--out {out} cannot be written: {one_line(error)}") from error
    return paths


def _states(questions: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row a sampled state, with its true value and what each method takes it to be."""
    return [
        {
            "question": question.id,
            "response": index,
            "state": state,
            "value": value,
            "squared_standard_error": error,
            **{name: value_at(found[index], state) for name, found in question.segments.items()},
        }
        for question in questions
        for index, reference in enumerate(question.references)
        for state, value, error in zip(reference.sampled, reference.values, reference.errors, strict=True)
    ]


def _segments(questions: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row a segment of a reference under a method, with its true advantage."""
    rows = []
    for question in questions:
        for method, credited in question.segments.items():
            for index, (reference, found) in enumerate(zip(question.references, credited, strict=True)):
                for part in found:
                    true, error = reference.advantage(part.begin, part.end)
                    rows.append(
                        {"question": question.id, "response": index, "method": method}
                        | part._asdict()
                        | {"true_advantage": true, "squared_standard_error": error}
                    )
    return rows


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    replace_file(path, lambda partial: pq.write_table(pa.Table.from_pylist(rows), partial))
