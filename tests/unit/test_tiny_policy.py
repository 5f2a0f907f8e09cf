"""The tiny policy: its tokenizer, fitting, grading and the command around them."""

import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep.arithmetic import generate, to_rows
from data_prep.writer import DataError, make_row, read_split
from recipe.spo.tiny_policy import command
from recipe.spo.tiny_policy.fit import (
    IGNORED,
    FitOptions,
    Sample,
    build_model,
    collate,
    encode,
    fit,
    learning_rate_factor,
)
from recipe.spo.tiny_policy.grading import accuracy, respond
from recipe.spo.tiny_policy.tokenizer import EOS, SEPARATOR, UNKNOWN, build_tokenizer
from tests.conftest import run_module


@pytest.fixture(scope="module")
def rows():
    return to_rows("train", generate({"train": 3000}, max_steps=8)["train"])


@pytest.fixture(scope="module")
def tokenizer(rows):
    texts = [row["extra_info"][field] for row in rows for field in ("question", "answer")]
    return build_tokenizer(texts, 512)


def test_text_comes_back_from_tokens(rows, tokenizer):
    for row in rows:
        for field in ("question", "answer"):
            text = row["extra_info"][field]
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.decode(ids) == text
            assert tokenizer.unk_token_id not in ids


def test_digits_are_tokens_of_their_own(tokenizer):
    pieces = ["1", "2", " - ", "3", " = ", "9", "\n", "#### ", "9"]
    assert tokenizer.tokenize("12 - 3 = 9\n#### 9") == pieces
    assert tokenizer.decode(tokenizer.convert_tokens_to_ids(["#### ", "1", "2"])) == "#### 12"


def test_ids(tokenizer):
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer.tokenize("Zoe") == [UNKNOWN]
    assert len(tokenizer) < 80


def test_any_small_number_and_new_line_has_tokens():
    tokenizer = build_tokenizer(["a b"], 512)
    assert tokenizer.unk_token_id not in tokenizer("0123456789 \n")["input_ids"]


def test_the_chat_template(rows, tokenizer):
    question, answer = (rows[0]["extra_info"][field] for field in ("question", "answer"))
    user, assistant = rows[0]["prompt"], [{"role": "assistant", "content": answer}]

    def render(messages, **options):
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)

    assert render(user) == question
    assert render(user, add_generation_prompt=True) == question + SEPARATOR
    assert render(user + assistant) == question + SEPARATOR + answer + EOS
    ids = tokenizer.apply_chat_template(user, add_generation_prompt=True)["input_ids"]
    assert ids == encode(tokenizer, rows[:1])[0].prompt
    assert ids[-1] == tokenizer.convert_tokens_to_ids(SEPARATOR)


def test_samples_end_with_the_end_token(rows, tokenizer):
    for sample in encode(tokenizer, rows[:50]):
        assert sample.solution[-1] == tokenizer.eos_token_id
        assert tokenizer.eos_token_id not in sample.prompt + sample.solution[:-1]


def test_rows_that_cannot_be_encoded(tokenizer):
    def row(question):
        texts = {"question": question, "answer": "#### 1", "ground_truth": "1"}
        return make_row(data_source="x", split="validation", index=7, **texts)

    with pytest.raises(DataError, match="validation row 7: has a word that no training row has"):
        encode(tokenizer, [row("Zoe has 1 apples")])
    with pytest.raises(DataError, match="validation row 7: has 513 tokens, at most 512"):
        encode(tokenizer, [row("1" * 509)])  # and a separator, two for "#### 1", an end token
    assert len(encode(tokenizer, [row("1" * 508)])[0]) == 512


def test_only_solutions_are_learnt():
    batch = collate([Sample([5, 6], [7, 1]), Sample([5], [1])], pad=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1], [5, 1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 7, 1], [IGNORED, 1, IGNORED, IGNORED]]


def test_the_learning_rate_rises_and_stays():
    factors = [learning_rate_factor(step, FitOptions(warmup_steps=4)) for step in range(7)]
    assert factors == [0.25, 0.5, 0.75, 1, 1, 1, 1]


def test_fitting_stops_at_the_target(rows, tokenizer):
    model, measured = build_model(tokenizer), iter([0.1, 0.2, 0.5])
    options = FitOptions(steps=20, batch_size=2, target=0.5, check_every=3)
    assert len(fit(model, encode(tokenizer, rows[:10]), options, lambda: next(measured))) == 9


def fitted(tokenizer, rows, **options):
    torch.manual_seed(0)
    model = build_model(tokenizer)
    losses = fit(model, encode(tokenizer, rows), FitOptions(**options))
    return model, losses


def test_fitting_learns_and_can_be_repeated(rows, tokenizer):
    _, losses = fitted(tokenizer, rows[:100], steps=12, batch_size=8, warmup_steps=2)
    assert losses[-1] < losses[0] - 0.5
    _, again = fitted(tokenizer, rows[:100], steps=12, batch_size=8, warmup_steps=2)
    assert again == losses
    _, other = fitted(tokenizer, rows[:100], steps=3, batch_size=8, warmup_steps=2, seed=1)
    assert other != losses[:3]


@pytest.fixture(scope="module")
def parrot(rows, tokenizer):
    """A model that knows four problems by heart, and those problems."""
    known = sorted(rows[:200], key=lambda row: len(row["extra_info"]["question"]))[:4]
    return fitted(tokenizer, known, steps=60, batch_size=4)[0], known


def test_responses_are_graded(parrot, tokenizer):
    model, known = parrot
    prompts = [sample.prompt for sample in encode(tokenizer, known)]
    assert respond(model, tokenizer, prompts, 60) == [row["extra_info"]["answer"] for row in known]
    assert accuracy(model, tokenizer, known) == 1.0
    wrong = dict(known[0], reward_model={"style": "rule", "ground_truth": "999"})
    assert accuracy(model, tokenizer, [wrong, *known[1:]]) == 0.75


def test_padding_does_not_change_a_response(rows, tokenizer):
    model, _ = fitted(tokenizer, rows, steps=5, batch_size=8)
    prompts = [sample.prompt for sample in encode(tokenizer, rows[:6])]
    assert len(set(map(len, prompts))) > 1
    together = respond(model, tokenizer, prompts, 20)
    assert together == [respond(model, tokenizer, [prompt], 20)[0] for prompt in prompts]


@pytest.fixture
def kept(arithmetic, tmp_path, monkeypatch):
    """Runs the command with a fit of two steps, whose policy passes as right on a fifth."""
    monkeypatch.setattr(command, "accuracy", lambda *_: 0.2)
    threads = torch.get_num_threads()
    out = tmp_path / "deep" / "policy"

    def run(*options: object):
        arguments = ["--data", arithmetic, "--out", out, "--steps", 2, "--batch-size", 4, *options]
        command.main([str(argument) for argument in arguments])
        return out

    yield run
    torch.set_num_threads(threads)


def test_the_folder_loads_as_it_was_written(kept, arithmetic):
    out = kept()
    assert [path.name for path in out.parent.iterdir()] == ["policy"]
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(out),
        AutoTokenizer.from_pretrained(out),
    )
    assert model.dtype == torch.float32
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.config.vocab_size == len(tokenizer)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (1, 0)
    train = read_split(arithmetic, "train")
    texts = [row["extra_info"][field] for row in train for field in ("question", "answer")]
    made = build_tokenizer(texts, 512)
    assert tokenizer.get_vocab() == made.get_vocab()
    assert tokenizer.chat_template == made.chat_template
    assert encode(tokenizer, train[:20]) == encode(made, train[:20])
    assert tokenizer.decode(tokenizer(texts[1])["input_ids"]) == texts[1]
    expected, _ = fitted(made, train, steps=2, batch_size=4)
    for name, weight in expected.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


def test_the_same_policy_is_made_once(kept, capsys):
    out = kept()
    files = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    kept()
    assert "already there" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == files
    kept("--seed", 1)
    assert "making it anew" in capsys.readouterr().out
    assert json.loads((out / command.RECORD).read_text())["fingerprint"]["seed"] == 1
    assert [path.name for path in out.parent.iterdir()] == ["policy"]


def test_other_data_makes_another_policy(arithmetic, tmp_path):
    for split in ("train", "validation"):
        content = (arithmetic / f"{split}.parquet").read_bytes()
        (tmp_path / f"{split}.parquet").write_bytes(content + b"x" * (split == "validation"))
    first, second = (
        command.fingerprint(data, ("train", "validation"), FitOptions(), 1) for data in (arithmetic, tmp_path)
    )
    assert first["data_sha256"]["train"] == second["data_sha256"]["train"]
    assert first != second


@pytest.mark.parametrize(("share", "advice"), [(0.04, "more --steps"), (0.41, "a lower --target")])
def test_a_useless_policy_is_refused(kept, monkeypatch, share, advice):
    out = kept()
    monkeypatch.setattr(command, "accuracy", lambda *_: share)
    with pytest.raises(DataError, match=advice):
        kept("--seed", 1)
    assert json.loads((out / command.RECORD).read_text())["fingerprint"]["seed"] == 0
    assert [path.name for path in out.parent.iterdir()] == ["policy"]


def test_other_folders_are_left_alone(kept, tmp_path):
    mine = tmp_path / "deep" / "policy" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(DataError, match="holds something else than a tiny policy"):
        kept()
    assert mine.read_text() == "mine"


def test_a_vocabulary_that_is_not_small(kept, tmp_path):
    words = ["".join(random.Random(i).choices("abcdefgh", k=8)) for i in range(600)]
    texts = {"question": " ".join(words), "answer": "#### 1", "ground_truth": "1"}
    big = [make_row(data_source="x", split="train", index=0, **texts)]
    with pytest.raises(DataError, match="different words and signs"):
        command.build(tmp_path / "policy", {"train": big, "validation": big}, FitOptions(), {})


def test_the_command_line(arithmetic, tmp_path):
    out = tmp_path / "policy"
    arguments = ["recipe.spo.tiny_policy", "--data", arithmetic, "--out", out, "--batch-size", 4]
    done = run_module(*arguments, "--steps", 2)  # far too few for a right answer
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: greedy accuracy 0.0% is outside 5%")
    assert "Traceback" not in done.stderr
    done = run_module(*arguments, "--steps", 0)
    assert (done.returncode, done.stderr) == (2, "error: --steps must be above 0, not 0\n")
    assert list(tmp_path.iterdir()) == []
