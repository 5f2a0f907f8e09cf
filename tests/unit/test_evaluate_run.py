"""Evaluation with a sampler that invents responses: resuming, budgets, numbers, refusals."""

from __future__ import annotations

import json
from functools import partial

import pyarrow.parquet as pq
import pytest

from data_prep.writer import make_row, write_splits
from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.evaluation.grading import reward_function_grader
from recipe.spo.evaluation.prompts import Prompt
from recipe.spo.evaluation.protocol import Protocol
from recipe.spo.evaluation.questions import data_digest, read_questions
from recipe.spo.evaluation.runner import Evaluation
from recipe.spo.evaluation.sampling import Response, request_seed
from recipe.spo.evaluation.store import Store, differences
from recipe.spo.plots.results import read_result
from recipe.spo.rewards.score import compute_score

PROTOCOL = Protocol(samples=4, temperature=1.0, top_p=1.0, max_context=20, max_new_tokens=10)
FINGERPRINT = {
    "model": {"name": "m", "sha256": "1"},
    "data": {"name": "d"},
    "protocol": PROTOCOL.as_json(),
    "grader": {"function": "m:f"},
}
GRADER = reward_function_grader(partial(compute_score, task="gsm8k"))


class Inventor:
    """Answers by seed; fails at the question it is told to."""

    def __init__(self, fail_at: str | None = None) -> None:
        self.fail_at, self.asked = fail_at, []

    def sample(self, prompts):
        self.asked.append([prompt.question.id for prompt in prompts])
        if any(prompt.question.id == self.fail_at for prompt in prompts):
            raise KeyboardInterrupt
        return [[self.respond(prompt, i) for i in range(PROTOCOL.samples)] for prompt in prompts]

    def respond(self, prompt, sample):
        drawn = request_seed(PROTOCOL.seed, prompt.question.id, sample) % 10
        assert prompt.budget > 0
        return Response(f"#### {drawn % 3}", (5, drawn, 1), drawn != 9)


@pytest.fixture
def prompts(tmp_path):
    rows = [
        make_row(data_source="s", question=f"question {i}", answer="", ground_truth=str(i % 3), split="test", index=i)
        for i in range(10)
    ]
    write_splits(tmp_path / "data", {"test": rows})
    questions = read_questions(tmp_path / "data")
    # Question 7 fills the context.
    lengths = [30 if i == 7 else 5 for i in range(10)]
    return [
        Prompt(question, tuple(range(length)), "...", PROTOCOL.budget(length))
        for question, length in zip(questions, lengths, strict=True)
    ]


def evaluation(prompts, folder, sampler, grader=GRADER):
    return Evaluation(prompts, PROTOCOL, 3, Store(folder, FINGERPRINT), lambda: sampler, grader)


def test_a_run_that_stops_between_chunks_goes_on_and_ends_in_the_same_files(prompts, tmp_path):
    whole = evaluation(prompts, tmp_path / "whole", Inventor())
    whole.run()
    whole.result([1, 4])

    stopped = evaluation(prompts, tmp_path / "stopped", Inventor(fail_at="s/test/5"))
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert stopped.done == 3
    sampler, seen = Inventor(), []
    again = evaluation(prompts, tmp_path / "stopped", sampler)
    again.run(lambda questions, correct: seen.append(questions))
    again.result([1, 4])
    assert [len(part) for part in sampler.asked] == [3, 2, 1]  # not the first chunk, and not question 7
    assert seen == [3, 3, 3, 1]
    for name in ("result.json", "responses.parquet", "run.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_finished_evaluation_needs_no_sampler(prompts, tmp_path):
    evaluation(prompts, tmp_path / "out", Inventor()).run()
    again = evaluation(prompts, tmp_path / "out", None)
    again.run()
    assert again.result([1])["overall"]["questions"] == 10


def test_every_response_is_there_with_its_tokens(prompts, tmp_path):
    run = evaluation(prompts, tmp_path / "out", Inventor())
    run.run()
    run.result([1])
    rows = pq.read_table(tmp_path / "out" / "responses.parquet").to_pylist()
    assert [(row["question_id"], row["sample"]) for row in rows] == [
        (f"s/test/{q}", sample) for q in range(10) for sample in range(4)
    ]
    assert all(row["tokens"] == len(row["token_ids"]) == 3 for row in rows if row["question_id"] != "s/test/7")
    assert {row["reason"] for row in rows} == {"correct", "wrong", "unfinished"}
    assert all((row["score"] == 1) == (row["reason"] == "correct") for row in rows)


def test_a_prompt_without_room_counts_as_unfinished_and_is_named(prompts, tmp_path):
    run = evaluation(prompts, tmp_path / "out", Inventor())
    run.run()
    numbers = run.result([1])["overall"]
    assert numbers["prompts_without_room"] == ["s/test/7"]
    assert numbers["questions"] == 10 and numbers["reasons"]["unfinished"] >= 0.1
    rows = pq.read_table(tmp_path / "out" / "responses.parquet").to_pylist()
    assert [row["tokens"] for row in rows if row["question_id"] == "s/test/7"] == [0] * 4


def test_only_prompts_without_room_are_an_evaluation_too(prompts, tmp_path):
    class Silent:
        def sample(self, prompts):
            return []

    run = evaluation([prompts[7]], tmp_path / "out", Silent())
    run.run()
    numbers = run.result([1])["overall"]
    assert numbers["mean_at_n"]["value"] == 0 and numbers["unfinished"]["value"] == 1
    assert numbers["mean_at_n"]["standard_error"] is None


def test_the_numbers_are_those_of_the_responses(prompts, tmp_path):
    run = evaluation(prompts, tmp_path / "out", Inventor())
    run.run()
    result = run.result([1, 2, 4])
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    cell = read_result(tmp_path / "out" / "result.json")  # what the table of results reads
    assert (cell.model, cell.data, cell.context, cell.n, cell.questions) == ("m", "d", 20, 4, 10)
    assert cell.mean == result["overall"]["mean_at_n"]["value"]
    numbers = result["overall"]
    rows = pq.read_table(tmp_path / "out" / "responses.parquet").to_pylist()
    assert numbers["mean_at_n"]["value"] == pytest.approx(sum(row["score"] for row in rows) / 40)
    assert numbers["pass_at_k"]["1"]["value"] == pytest.approx(numbers["mean_at_n"]["value"])
    assert numbers["maj_at_k"]["1"]["value"] == pytest.approx(numbers["mean_at_n"]["value"])
    hit = {row["question_id"] for row in rows if row["score"]}
    assert numbers["pass_at_k"]["4"]["value"] == pytest.approx(len(hit) / 10)
    assert numbers["mean_at_n"]["standard_error"] == pytest.approx(
        numbers["mean_at_n"]["bootstrap_standard_error"], rel=0.1
    )
    assert sum(numbers["reasons"].values()) == pytest.approx(1)
    assert numbers["tokens"]["total"] == 9 * 4 * 3


def test_another_evaluation_in_the_same_folder_is_refused(tmp_path):
    Store(tmp_path / "out", FINGERPRINT)
    other = {**FINGERPRINT, "protocol": {**FINGERPRINT["protocol"], "temperature": 0.5}}
    with pytest.raises(EvaluationError, match=r"protocol.temperature: there 1.0, now 0.5"):
        Store(tmp_path / "out", other)
    renamed = {**FINGERPRINT, "model": {"name": "the same, elsewhere", "sha256": "1"}}
    assert Store(tmp_path / "out", renamed).fingerprint["model"]["name"] == "m"


@pytest.mark.parametrize("content", ["[]", "1", "[" * 100_000])
def test_a_folder_with_another_kind_of_run_file_is_refused(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(EvaluationError, match="cannot be used"):
        Store(tmp_path, FINGERPRINT)


def test_chunks_of_another_evaluation_are_not_taken_over(prompts, tmp_path):
    evaluation(prompts, tmp_path / "out", Inventor()).run()
    run_file, chunks = tmp_path / "out" / "run.json", tmp_path / "out" / "chunks"
    run_file.unlink()
    other = {**FINGERPRINT, "protocol": {**FINGERPRINT["protocol"], "temperature": 0.5}}
    with pytest.raises(EvaluationError, match="00000.parquet is of another evaluation; delete .*chunks"):
        Store(tmp_path / "out", other)
    assert not run_file.exists()
    copied = Store(tmp_path / "copied", other)
    copied.chunk_path(0).write_bytes((chunks / "00000.parquet").read_bytes())
    with pytest.raises(EvaluationError, match="of another evaluation"):
        copied.read_chunk(0)
    assert evaluation(prompts, tmp_path / "out", None).done == 10  # the same settings go on


def test_differences_name_keys_that_only_one_has():
    assert differences({"a": {"b": 1}}, {"a": {"b": 1, "c": [2]}}) == [("a.c", None, [2])]


def test_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EvaluationError, match=f"--out {out}: {tmp_path}/file is a file; give a folder"):
            Store(out, FINGERPRINT)
    assert (tmp_path / "file").read_text() == "text"


def test_a_full_disk_is_one_error_and_finished_chunks_are_kept(prompts, tmp_path, monkeypatch):
    write, calls = pq.write_table, []

    def fill(table, path):
        write(table, path)
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fill)
    run = evaluation(prompts, tmp_path / "out", Inventor())
    with pytest.raises(EvaluationError, match=r"00001.parquet cannot be written: .*No space left on device; what is"):
        run.run()
    assert [path.name for path in (tmp_path / "out" / "chunks").iterdir()] == ["00000.parquet"]
    again = evaluation(prompts, tmp_path / "out", sampler := Inventor())
    again.run()
    assert again.done == 10 and sampler.asked[0][0] == "s/test/3"


def test_two_processes_do_not_write_one_folder(tmp_path):
    first, second = Store(tmp_path, FINGERPRINT), Store(tmp_path, FINGERPRINT)
    with first.locked(), pytest.raises(EvaluationError, match="another process"), second.locked():
        pass


def test_a_damaged_chunk_is_named(prompts, tmp_path):
    run = evaluation(prompts, tmp_path / "out", Inventor())
    run.run()
    (tmp_path / "out" / "chunks" / "00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(EvaluationError, match=r"00001.parquet is damaged; delete it"):
        run.result([1])


def test_a_grader_that_fails_names_the_question(prompts, tmp_path):
    def fail(*arguments):
        raise ValueError("ground truth is not a number")

    with pytest.raises(EvaluationError, match="s/test/0: ground truth is not"):
        evaluation(prompts, tmp_path / "out", Inventor(), fail).run()
    assert evaluation(prompts, tmp_path / "out", Inventor()).done == 0


def test_seeds_differ_by_seed_question_and_sample():
    asked = {request_seed(s, q, i) for s in (0, 1) for q in ("a", "a/1") for i in range(50)}
    assert request_seed(0, "q", 11) != request_seed(0, "q1", 1)
    assert len(asked) == 200 and all(0 <= seed < 2**63 for seed in asked)


def test_the_digest_of_the_data_is_of_order_and_content(prompts):
    questions = [prompt.question for prompt in prompts]
    assert data_digest(questions) != data_digest(questions[::-1]) != data_digest(questions[:9])
