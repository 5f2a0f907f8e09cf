"""Wrong input is one line and exit status 2, before vLLM is loaded; models and questions are found."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.writer import make_row, write_splits
from recipe.spo.evaluation import models, prompts
from recipe.spo.evaluation.command import main
from recipe.spo.evaluation.errors import EvaluationError
from recipe.spo.evaluation.protocol import PRESETS, Protocol, default_ks, preset
from recipe.spo.evaluation.questions import read_questions
from tests.conftest import REPOSITORY
from tests.refusals import refusal


def model_folder(folder, context=512, **leave_out):
    """Files of a model that nothing here loads."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "config.json": json.dumps({"max_position_embeddings": context, "dtype": "bfloat16"}),
        "tokenizer.json": "{}",
        "model.safetensors": "weights",
    }
    for name, text in files.items():
        if name not in leave_out.get("without", ()):
            (folder / name).write_text(text)
    return folder


@pytest.fixture
def data(tmp_path):
    row = make_row(
        data_source="openai/gsm8k", question="one and one?", answer="", ground_truth="2", split="test", index=0
    )
    write_splits(tmp_path / "data", {"test": [row]})
    return tmp_path / "data"


def check_error(capsys, arguments, message):
    error = refusal(main, arguments, capsys)
    assert message in error, error
    assert error.strip().splitlines()[-1].startswith(("error:", "python -m recipe.spo.evaluate"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "paper"], "--preset paper is not known; known are greedy, gsm8k-paper"),
        (["--samples", "0"], "--samples 0 must be at least 1"),
        (["--samples", "4"], "--temperature 0 gives one and the same response 4 times"),
        (["--top-p", "1.5"], "--top-p 1.5 must be above 0"),
        (["--top-p", "nan"], "--top-p nan must be above 0"),
        (["--temperature", "-1"], "--temperature -1.0 must be between"),
        (["--top-k", "0"], "--top-k 0 must be -1"),
        (["--max-context", "1"], "--max-context 1 must be at least 2"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0 must be"),
        (["--preset", "gsm8k-paper", "--k", "17"], "--k 17 must be between 1 and the 16 samples"),
        (["--stop", ""], "--stop must not be an empty string"),
        (["--prompt", "raw"], "--prompt raw must be one of chat, plain"),
        (["--limit", "0"], "--limit 0 must be at least 1"),
        (["--batch-questions", "0"], "--batch-questions 0"),
        (["--dtype", "int3"], "--dtype int3 must be one of"),
        (["--tensor-parallel-size", "0"], "--tensor-parallel-size 0"),
        (["--gpu-memory-utilization", "2"], "--gpu-memory-utilization 2.0"),
        (["--split", "dev"], "dev.parquet does not exist; make it with"),
        (["--grader", "recipe.spo.nothing:f"], "--grader recipe.spo.nothing:f: No module named"),
        (["--grader", "recipe.spo.rewards.score:nothing"], "has no attribute 'nothing'"),
        (["--grader", "json:nothing"], "has no attribute 'nothing'; it is written MODULE:FUNCTION"),
        (["--grader", "json:dumps", "--task", "math"], "leave them out with --grader json:dumps"),
        (["--task", "chess"], "--task chess must be one of gsm8k, math, point24"),
        (["--math-grader", "sympy"], "--math-grader sympy must be one of math-verify, minerva"),
        (["--max-context", "513"], "--max-context 513 is more than the 512 tokens that"),
        (["--max-context", "512"], "cannot be loaded"),  # tokenizer.json is none
        (["--samples", "many"], "invalid int value"),
    ],
)
def test_wrong_options(options, message, data, tmp_path, capsys):
    model = model_folder(tmp_path / "model")
    check_error(capsys, ["run", model, "--data", data, *options], message)
    assert not (tmp_path / "outputs").exists()


def test_a_context_of_the_preset_is_cut_to_the_models(data, tmp_path, monkeypatch, capsys):
    drawn = []

    def stop(questions, tokenizer, protocol):
        drawn.append((protocol.max_context, protocol.max_new_tokens))
        raise EvaluationError("far enough")

    monkeypatch.setattr(prompts, "load_tokenizer", lambda *_: None)
    monkeypatch.setattr(prompts, "render", stop)
    small, large = model_folder(tmp_path / "small"), model_folder(tmp_path / "large", context=4096)
    for model, options in ((small, []), (small, ["--max-new-tokens", "100"]), (large, [])):
        main(["run", str(model), "--data", str(data), *options])
    assert drawn == [(512, 512), (512, 100), (2048, 2048)]
    notes = capsys.readouterr().out.splitlines()
    assert notes == [f"note: context 512, for which {small} was made, in place of the preset's 2048"] * 2


def test_wrong_data(tmp_path, capsys):
    model, path = model_folder(tmp_path / "model"), tmp_path / "x.parquet"
    run = ["run", model, "--data", path]
    check_error(capsys, run, "x.parquet does not exist")
    path.write_bytes(b"no parquet")
    check_error(capsys, run, "not a readable parquet file")
    row = {"data_source": "s", "prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "2"}}
    for name in row:
        pq.write_table(pa.Table.from_pylist([{k: v for k, v in row.items() if k != name}]), path)
        check_error(capsys, run, f"has no column {name!r}")
    pq.write_table(pa.Table.from_pylist([row]).slice(0, 0), path)
    check_error(capsys, run, "holds no question")
    pq.write_table(pa.Table.from_pylist([{**row, "reward_model": {"truth": "2"}}]), path)
    check_error(capsys, run, "row 0: no 'ground_truth'")
    pq.write_table(pa.Table.from_pylist([{**row, "extra_info": {"index": 3}}] * 2), path)
    check_error(capsys, run, "holds s/x/3 twice")


def test_questions_of_any_verl_parquet(tmp_path):
    row = {"data_source": "s", "prompt": [{"role": "user", "content": "?"}], "reward_model": {"ground_truth": "2"}}
    pq.write_table(pa.Table.from_pylist([row] * 3), tmp_path / "mine.parquet")
    questions = read_questions(tmp_path / "mine.parquet", limit=2)
    assert [question.id for question in questions] == ["s/mine/0", "s/mine/1"]
    assert (questions[0].text, questions[0].truth) == ("?", "2")
    assert len(read_questions(tmp_path / "mine.parquet", "mine")) == 3
    with pytest.raises(EvaluationError, match="--split test would be ignored, as --data .*mine.parquet is a file"):
        read_questions(tmp_path / "mine.parquet", "test")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no readable config.json"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
    ],
)
def test_incomplete_models(missing, message, data, tmp_path, capsys):
    model = model_folder(tmp_path / "model", without=[missing])
    check_error(capsys, ["run", model, "--data", data], message)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "no such model", "a/b/c"])
def test_addresses_that_are_none(name):
    with pytest.raises(EvaluationError, match="neither a folder on this machine nor a hub id"):
        models.find_model(name)


def test_a_hub_id_is_fetched_at_its_revision(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision, "*.bin" in allow_patterns))
        return str(model_folder(tmp_path / "hub", without=[] if len(asked) > 1 else ["model.safetensors"]))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = models.find_model("gyr66/spo-tree-666-qwen1.5B-math@abc")
    assert model.folder == tmp_path / "hub" and model.context_limit == 512 and model.dtype == "bfloat16"
    assert asked == [("gyr66/spo-tree-666-qwen1.5B-math", "abc", bulk) for bulk in (False, True)]

    def offline(*_, **__):
        raise OSError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(EvaluationError, match="the hub did not give it: no network at all"):
        models.find_model("gyr66/none")


def checkpoint(run, ranks=2, present=(0, 1)):
    actor = run / "global_step_5" / "actor"
    model_folder(actor / "huggingface", without=["model.safetensors"])
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))
    for rank in present:
        (actor / f"model_world_size_{ranks}_rank_{rank}.pt").write_text("shard")
    (run / "latest_checkpointed_iteration.txt").write_text("5")
    return actor


class Merger:
    """verl's merger, which here writes a complete folder or fails."""

    def __init__(self) -> None:
        self.calls, self.fails = [], False

    def run(self, command, **_):
        self.calls.append(command)
        if self.fails:
            return subprocess.CompletedProcess(command, 1, "", "Traceback\nRuntimeError: broken shard")
        model_folder(Path(command[command.index("--target_dir") + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def merger(monkeypatch):
    found = Merger()
    monkeypatch.setattr(models.subprocess, "run", found.run)
    return found


def test_a_checkpoint_of_verl_is_merged_once(tmp_path, merger):
    actor = checkpoint(tmp_path / "run")
    target = actor.parent / "actor_merged"
    for address in (tmp_path / "run", actor.parent, actor):
        assert models.find_model(str(address)).folder == target
    assert len(merger.calls) == 1
    (actor / "model_world_size_2_rank_1.pt").write_text("another shard")  # trained again in the same folder
    models.find_model(str(actor))
    assert len(merger.calls) == 2
    assert {path.name for path in actor.parent.iterdir()} == {"actor", "actor_merged"}


def test_a_failed_merge_leaves_nothing(tmp_path, merger):
    actor, merger.fails = checkpoint(tmp_path / "run"), True
    with pytest.raises(EvaluationError, match="merger failed on .*: RuntimeError: broken shard"):
        models.find_model(str(actor))
    assert [path.name for path in actor.parent.iterdir()] == ["actor"]


def test_a_checkpoint_that_was_cut_off_is_refused(tmp_path, merger):
    actor = checkpoint(tmp_path / "run", present=(0,))
    with pytest.raises(EvaluationError, match=r"model_world_size_2_rank_1.pt is missing \(1 of 2\)"):
        models.find_model(str(actor))


def test_weights_saved_by_verl_in_hugging_face_format_are_taken(tmp_path, merger):
    actor = checkpoint(tmp_path / "run")
    model_folder(actor / "huggingface")
    assert models.find_model(str(actor)).folder == actor / "huggingface" and not merger.calls


def test_another_weight_is_another_model(tmp_path):
    model = models.find_model(str(model_folder(tmp_path / "model")))
    before = model.digest()
    (model.folder / "README.md").write_text("text")
    assert model.digest() == before
    (model.folder / "model.safetensors").write_text("Weights")
    assert model.digest() != before


def test_presets_are_the_published_ones():
    gsm8k, long_cot = preset("gsm8k-paper"), preset("long-cot-4k")
    assert (gsm8k.samples, gsm8k.temperature, gsm8k.top_p) == (16, 0.35, 1.0)
    assert (gsm8k.max_context, gsm8k.max_new_tokens) == (2047, 1024)
    assert (long_cot.temperature, long_cot.top_p) == (0.6, 0.95)
    assert (long_cot.max_context, long_cot.max_new_tokens) == (4096, 4096)
    assert PRESETS["long-cot-32k"].max_context == 32768


@pytest.mark.parametrize(
    ("given", "samples"),
    [([], "--samples 16"), (["PRESET=greedy"], ""), (["PRESET=long-cot-2k", "SAMPLES=3"], "--samples 3")],
)
def test_make_asks_for_samples_where_there_are_several(given, samples):
    # The stamp is taken for made, whether this repository has an environment of its own or not.
    command = ["make", "-n", "-o", ".venv/.spo-cpu", "eval-aime24", "MODEL=m", *given]
    of_its_own = {
        name: value for name, value in os.environ.items() if "MAKE" not in name
    }  # these tests may run in make
    done = subprocess.run(command, cwd=REPOSITORY, env=of_its_own, capture_output=True, text=True, check=True)
    assert " ".join(done.stdout.splitlines()[-1].split()[9:]) == samples


def test_the_prompt_counts_against_the_context():
    protocol = Protocol(samples=1, temperature=1.0, top_p=1.0, max_context=100, max_new_tokens=60)
    assert [protocol.budget(n) for n in (10, 40, 41, 99, 100, 500)] == [60, 60, 59, 1, 0, 0]


def test_ks():
    assert [default_ks(n) for n in (1, 2, 6, 16)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8, 16]]
