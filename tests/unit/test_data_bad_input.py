"""Bad input to each preparation command: one clear line, exit status 2, nothing left half-done."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import aime24, arithmetic, gsm8k, math, math500, point24
from tests.conftest import run_module
from tests.preparing import assert_refused, files, run_here, write_lines


@dataclass(frozen=True)
class Preparer:
    """A command, rows it takes, and the field that its gold answer is read from."""

    module: ModuleType
    rows: list[dict]
    gold: str
    no_answer: tuple[object, str]
    options: tuple[object, ...] = ()

    @property
    def name(self) -> str:
        return self.module.__name__.rpartition(".")[2]

    def __call__(self, source: Path, out: Path):
        return run_here(self.module, "--source", source, "--out", out, *self.options)


BOXES = [{"problem": f"What is {n}?", "solution": f"\\boxed{{{n}}}", "unique_id": f"{n}"} for n in range(6)]
NO_BOX = ("It is two.", "line 3: field 'solution' has no \\boxed")
PREPARERS = [
    Preparer(
        gsm8k,
        [{"question": f"What is {n}?", "answer": f"#### {n}"} for n in range(6)],
        "answer",
        ("It is two.", "line 3: field 'answer' has no '####'"),
        ("--validation", 2),
    ),
    Preparer(math, BOXES, "solution", NO_BOX, ("--split", "7.5k", "--validation", 2)),
    Preparer(math500, BOXES, "solution", NO_BOX),
    Preparer(
        aime24,
        [{"problem": f"What is {n}?", "answer": str(n)} for n in range(6)],
        "answer",
        (" ", "line 3: field 'answer' is empty"),
    ),
]
GENERATORS = [
    (arithmetic, ["--train", 9, "--validation", 3, "--test", 3]),
    (point24, ["--max-number", 5, "--validation", 3, "--test", 3]),
]

for_each_preparer = pytest.mark.parametrize("prepare", PREPARERS, ids=lambda preparer: preparer.name)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def lines(preparer: Preparer) -> list[bytes]:
    return [json.dumps(row).encode() for row in preparer.rows]


@for_each_preparer
def test_good_input_is_taken(prepare, tmp_path, out):
    done = prepare(write_lines(tmp_path / "train.jsonl", prepare.rows), out)
    assert (done.returncode, done.stderr) == (0, "")


@for_each_preparer
def test_a_missing_file(prepare, tmp_path, out):
    assert_refused(prepare(tmp_path / "none.jsonl", out), "none.jsonl does not exist or is not a file", out)


@for_each_preparer
def test_a_truncated_jsonl_file(prepare, tmp_path, out):
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(lines(prepare))[:-9])
    assert_refused(prepare(tmp_path / "train.jsonl", out), "train.jsonl, line 6: not JSON", out)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000], ids=["5,000 digits", "100,000 deep"])
@for_each_preparer
def test_json_that_python_does_not_read(prepare, value, tmp_path, out):
    (tmp_path / "train.jsonl").write_text(f'{{"answer": {value}}}')
    assert_refused(prepare(tmp_path / "train.jsonl", out), "train.jsonl, line 1: not JSON", out)


@for_each_preparer
def test_a_truncated_parquet_file(prepare, tmp_path, out):
    source = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(prepare.rows), source)
    source.write_bytes(source.read_bytes()[:-9])
    assert_refused(prepare(source, out), "train.parquet is not a parquet file", out)


@for_each_preparer
def test_wrong_columns(prepare, tmp_path, out):
    rows = [{"text": "What?", "label": "1"}]
    assert_refused(prepare(write_lines(tmp_path / "a.jsonl", rows), out), "(fields found: text, label)", out)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert_refused(prepare(tmp_path / "a.parquet", out), "a.parquet, row 1: no field", out)


@for_each_preparer
def test_a_gold_without_an_answer(prepare, tmp_path, out):
    value, message = prepare.no_answer
    rows = [*prepare.rows[:2], prepare.rows[2] | {prepare.gold: value}, *prepare.rows[3:]]
    assert_refused(prepare(write_lines(tmp_path / "train.jsonl", rows), out), message, out)
    rows[2].pop(prepare.gold)
    message = f"line 3: no field {prepare.gold!r}"
    assert_refused(prepare(write_lines(tmp_path / "train.jsonl", rows), out), message, out)


@for_each_preparer
def test_what_is_not_utf8(prepare, tmp_path, out):
    bad = [lines(prepare)[0], lines(prepare)[1].replace(b"What", b"Wh\xe4t")]
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(bad))
    assert_refused(prepare(tmp_path / "train.jsonl", out), "train.jsonl, line 2: not UTF-8", out)


@for_each_preparer
def test_a_parquet_file_that_is_not_utf8(prepare, tmp_path, out):
    columns = {name: pa.array([b"\xe4"]).cast(pa.binary()) for name in prepare.rows[0]}
    columns = {name: pa.Array.from_buffers(pa.string(), 1, array.buffers()) for name, array in columns.items()}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    assert_refused(prepare(tmp_path / "train.parquet", out), "train.parquet: a text column is not UTF-8", out)


@for_each_preparer
def test_a_folder_where_a_file_belongs(prepare, tmp_path, out):
    (tmp_path / "in" / "train.jsonl").mkdir(parents=True)
    (tmp_path / "in" / "test.jsonl").mkdir()
    assert_refused(prepare(tmp_path / "in", out), ".jsonl is a folder, not a file", out)
    (tmp_path / "empty").mkdir()
    assert_refused(prepare(tmp_path / "empty", out), "empty has no ", out)


@for_each_preparer
def test_a_target_that_is_a_file(prepare, tmp_path):
    source = write_lines(tmp_path / "train.jsonl", prepare.rows)
    for target in (source, source / "below"):
        done = prepare(source, target)
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
        assert f"cannot make the folder {target}" in done.stderr
    assert list(files(tmp_path)) == ["train.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@for_each_preparer
def test_a_target_without_the_right_to_write(prepare, tmp_path, out):
    out.mkdir(mode=0o500)
    done = prepare(write_lines(tmp_path / "train.jsonl", prepare.rows), out)
    assert done.returncode == 2
    assert f"cannot write to {out}" in done.stderr


@for_each_preparer
def test_a_folder_in_the_place_of_a_target(prepare, tmp_path, out):
    (out / "test.parquet" if prepare.name in ("math500", "aime24") else out / "train.parquet").mkdir(parents=True)
    done = prepare(write_lines(tmp_path / "train.jsonl", prepare.rows), out)
    assert done.returncode == 2
    assert ".parquet is a folder where a file belongs" in done.stderr
    assert len(list(out.iterdir())) == 1


@for_each_preparer
def test_a_half_written_earlier_output(prepare, tmp_path, out):
    source = write_lines(tmp_path / "train.jsonl", prepare.rows)
    assert prepare(source, out).returncode == 0
    target = next(path for path in out.iterdir() if path.suffix == ".parquet")
    target.write_bytes(target.read_bytes()[:-9])
    before = files(out)
    done = prepare(source, out)
    assert done.returncode == 2
    assert f"{target} cannot be read as parquet" in done.stderr
    assert "delete it" in done.stderr
    assert files(out) == before
    target.unlink()
    assert prepare(source, out).returncode == 0


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@for_each_preparer
def test_partial_files_of_a_dead_process_go(prepare, tmp_path, out):
    out.mkdir()
    for name in (f".train.parquet.{dead_process()}.partial", f".manifest.json.{os.getpid()}.partial", ".keep"):
        (out / name).write_bytes(b"half")
    done = prepare(write_lines(tmp_path / "train.jsonl", prepare.rows), out)
    assert done.returncode == 0, done.stderr
    assert not [name for name in files(out) if name.endswith(".partial")]
    assert ".keep" in files(out)


@for_each_preparer
def test_another_process_that_writes_there(prepare, tmp_path, out):
    out.mkdir()
    (out / f".train.parquet.{os.getppid()}.partial").write_bytes(b"half")
    done = prepare(write_lines(tmp_path / "train.jsonl", prepare.rows), out)
    assert done.returncode == 2
    assert f"process {os.getppid()} is writing to {out}" in done.stderr
    assert len(files(out)) == 1


@for_each_preparer
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-prompt-tokens", 9], "--max-prompt-tokens needs --tokenizer"),
        (["--tokenizer", "none"], "--tokenizer none is not a folder"),
        (["--revision", "main"], "--revision would be ignored with --source"),
        (["--template", "rho", "--instruction", "Think."], "--instruction would be ignored with --template rho"),
    ],
)
def test_options_that_do_not_go_together(prepare, tmp_path, out, options, message):
    source = write_lines(tmp_path / "train.jsonl", prepare.rows)
    done = run_here(prepare.module, "--source", source, "--out", out, *prepare.options, *options)
    assert_refused(done, message, out)


@pytest.mark.parametrize(("module", "options"), GENERATORS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_generator_with_a_bad_target(module, options, tmp_path, out):
    (tmp_path / "file").write_text("")
    done = run_here(module, "--out", tmp_path / "file", *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot make the folder" in done.stderr
    assert run_here(module, "--out", out, *options).returncode == 0
    (out / "test.parquet").write_bytes(b"PAR1")
    done = run_here(module, "--out", out, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{out / 'test.parquet'} cannot be read as parquet" in done.stderr


@pytest.mark.parametrize("name", [preparer.name for preparer in PREPARERS])
def test_as_a_user_runs_it(name, tmp_path, out):
    done = run_module(f"data_prep.{name}", "--source", tmp_path / "none.jsonl", "--out", out)
    assert_refused(done, "none.jsonl does not exist", out)
