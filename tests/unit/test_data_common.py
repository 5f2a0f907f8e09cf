"""What the preparation commands share: prompt styles, counting tokens, carving, the manifest, repeatability."""

import hashlib
import importlib.util
import json
import random
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import aime24, gsm8k, math500, names, point24
from data_prep.problems import Problem, carve, key, overlaps, quantiles
from data_prep.templates import BOXED, HASHES, messages, requirement
from data_prep.writer import DataError, read_split
from tests.preparing import files, run_here, write_lines

ROWS = [{"question": f"What is {n} and {n}?", "answer": f"#### {2 * n}"} for n in range(200)]

R1_MATH = (
    "Solve the following math problem efficiently and clearly.  The last line of your response should be of the "
    "following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) "
    "where ANSWER is just the final number or expression that solves the problem. Think step by step before "
    "answering.\n\nHow {many}?"
)


def test_prompt_styles_to_the_letter():
    question = "How {many}?"
    assert messages("chat", question, BOXED) == [{"role": "user", "content": f"{question} {BOXED.chat}"}]
    for wording in (BOXED, HASHES):
        rho = [{"role": "user", "content": "[MATH_TASK] Problem:\nHow {many}?\n\nSolution:"}]
        assert messages("rho", question, wording) == rho
    assert messages("r1", question, BOXED) == [{"role": "user", "content": R1_MATH}]
    hashes = R1_MATH.replace("Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct", "#### ANSWER")
    assert messages("r1", question, HASHES) == [{"role": "user", "content": hashes}]


def test_the_prompt_styles_of_the_24_game():
    wording = point24.wording(24)
    assert messages("r1", "[1, 2, 3, 4]", wording) == [
        {
            "role": "system",
            "content": "You are an intelligent system that calculates 24 point games, put your final calculation "
            "expression into \\boxed{}, for example \\boxed{1 * 2 * 3 * 4}.",
        },
        {"role": "user", "content": "[1, 2, 3, 4]"},
    ]
    (rho,) = messages("rho", "[1, 2, 3, 4]", wording)
    assert rho["content"] == f"[MATH_TASK] Problem:\n[1, 2, 3, 4] {wording.chat}\n\nSolution:"


def test_rho_needs_a_chat_template_that_passes_it_on(tmp_path):
    import jinja2

    needed = requirement("rho")
    setting, template = needed.split("=", 1)
    content = messages("rho", "1?", BOXED)[0]["content"]
    assert jinja2.Template(template.strip("'")).render(m=0, messages=[{"content": content}]) == content
    done = run_here(gsm8k, "--source", write_lines(tmp_path / "a.jsonl", ROWS), "--out", tmp_path, "--template", "rho")
    assert done.returncode == 2  # --validation 373 of 200
    options = ["--template", "rho", "--validation", 9]
    done = run_here(gsm8k, "--source", tmp_path / "a.jsonl", "--out", tmp_path / "out", *options)
    assert f"train with {needed}\n" in done.stdout
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["training_needs"] == needed
    prompt = read_split(tmp_path / "out", "train")[0]["prompt"]
    assert prompt == [{"role": "user", "content": "[MATH_TASK] Problem:\nWhat is 0 and 0?\n\nSolution:"}]
    assert requirement("chat") is None


def test_verl_knows_the_setting_that_rho_needs():
    spec = importlib.util.find_spec("verl")
    if spec is None:
        pytest.skip("verl is not here")
    settings = Path(spec.origin).with_name("trainer") / "config" / "model" / "hf_model.yaml"
    part, setting = requirement("rho").split("=")[0].rsplit(".", 1)
    assert part == "actor_rollout_ref.model"
    assert f"\n{setting}: null\n" in settings.read_text()


@pytest.mark.parametrize("module", [gsm8k, math500, aime24, point24])
def test_help(module, capsys):
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert "--template {chat,rho,r1}" in said
    assert "custom_chat_template" in said
    assert "None" not in said


def problems(count: int) -> list[Problem]:
    return [Problem(f"{n}?", "", str(n), n, str(n)) for n in range(count)]


@given(st.integers(2, 60), st.data())
def test_carving_parts_train_in_two(count, data):
    size, seed = data.draw(st.integers(1, count - 1)), data.draw(st.integers(0, 9))
    train, validation = carve(problems(count), size, seed)
    assert len(validation) == size
    assert sorted(train + validation, key=lambda p: p.index) == problems(count)
    assert (train, validation) == carve(problems(count), size, seed)
    chosen = set(random.Random(seed).sample(range(count), size))
    assert {problem.index for problem in validation} == chosen


@pytest.mark.parametrize("size", [0, -1, 5, 6])
def test_carving_leaves_some(size):
    with pytest.raises(DataError, match="leave some of the 5 train problems"):
        carve(problems(5), size, 0)


def test_overlaps():
    splits = {"train": ["a", "b c", "d"], "validation": ["e"], "test": ["B  C ", "e", "A"]}
    assert overlaps(splits) == {"train/validation": 0, "train/test": 2, "validation/test": 1}
    assert key("$y = x$ \n") == key("$Y=x$") != key("$y+x$")


@pytest.mark.parametrize(
    ("lengths", "median", "p99", "most"), [([7], 7, 7, 7), ([3, 1, 2], 2, 3, 3), (list(range(1, 201)), 100, 198, 200)]
)
def test_quantiles(lengths, median, p99, most):
    assert quantiles(lengths) == {"median": median, "p99": p99, "max": most}


def test_the_manifest(tmp_path):
    source = write_lines(tmp_path / "in" / "train.jsonl", [*ROWS, ROWS[5]])
    run_here(gsm8k, "--source", source, "--out", tmp_path / "out", "--validation", 20, "--seed", 3)
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    manifest = json.loads(text)
    assert manifest["data_set"] == names.GSM8K
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["made_by"]["version"])
    assert manifest["options"] == {"seed": 3, "source": "train.jsonl", "template": "chat", "validation": 20}
    hashed = hashlib.sha256(source.read_bytes()).hexdigest()
    assert manifest["sources"] == [{"name": "train.jsonl", "sha256": hashed, "rows": 201}]
    counts = manifest["counts"]["train"]
    assert (counts["read"], counts["kept"]) == (201, {"train": 180, "validation": 20})
    (dropped,) = counts["dropped"]
    assert dropped == {"reason": "the same question is in this file", "count": 1, "ids": ["train.jsonl, line 201"]}
    written = {name: data for name, data in files(tmp_path / "out").items() if name != "manifest.json"}
    said = {file["name"]: (file["rows"], file["sha256"]) for file in manifest["files"]}
    rows = {"train.parquet": 180, "validation.parquet": 20}
    assert said == {name: (rows[name], hashlib.sha256(data).hexdigest()) for name, data in written.items()}


def test_the_same_input_gives_the_same_bytes_wherever_it_lies(tmp_path):
    for folder in "ab":
        write_lines(tmp_path / folder / "train.jsonl", [*ROWS, ROWS[5]])
        options = ["--source", tmp_path / folder / "train.jsonl", "--validation", 9]
        done = run_here(gsm8k, "--out", tmp_path / f"out_{folder}", *options)
        assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out_a") == files(tmp_path / "out_b")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer with one token a word, and a chat template that adds two."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0, "<u>": 1, "<a>": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    made.chat_template = (
        "{% for m in messages %}<u> {{ m.content }}{% endfor %}{% if add_generation_prompt %} <a>{% endif %}"
    )
    folder = tmp_path_factory.mktemp("model")
    made.save_pretrained(folder)
    return folder


@pytest.fixture
def worded(tmp_path):
    """Questions of 1 to 200 words, in another order."""
    order = random.Random(0).sample(range(1, 201), 200)
    return write_lines(tmp_path / "a.jsonl", [{"question": f"{n} " * n, "answer": "#### 1"} for n in order])


def test_token_statistics(worded, tokenizer, tmp_path):
    options = ["--source", worded, "--validation", 1, "--instruction", "", "--tokenizer", tokenizer]
    done = run_here(gsm8k, "--out", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    held = len(read_split(tmp_path / "out", "validation")[0]["prompt"][0]["content"].split())
    lengths = [n + 2 for n in range(1, 201) if n != held]
    median, p99, most = sorted(lengths)[99], sorted(lengths)[197], max(lengths)
    assert f"prompt tokens, train: median {median}, p99 {p99}, max {most}\n" in done.stdout
    said = json.loads((tmp_path / "out" / "manifest.json").read_text())["prompt_tokens"]
    assert said["validation"] == {"median": held + 2, "p99": held + 2, "max": held + 2}


def test_long_prompts_are_dropped_and_named(worded, tokenizer, tmp_path):
    limits = ["--instruction", "", "--tokenizer", tokenizer, "--max-prompt-tokens", 102]
    done = run_here(gsm8k, "--out", tmp_path / "out", "--source", worded, "--validation", 10, *limits)
    assert re.search(r"^train +200 +200 +100 +100  train 90, validation 10$", done.stdout, re.M), done.stderr
    assert "  dropped 100: the prompt has more than 102 tokens\n" in done.stdout
    assert " and 90 more, see the manifest\n" in done.stdout
    (dropped,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]["train"]["dropped"]
    assert len(set(dropped["ids"])) == 100
    rows = [row for split in ("train", "validation") for row in read_split(tmp_path / "out", split)]
    assert max(len(row["prompt"][0]["content"].split()) for row in rows) == 100


def test_a_test_split_without_its_long_problems_says_so(tokenizer, tmp_path):
    rows = [{"problem": "a " * n, "answer": "1"} for n in (1, 2, 3)]
    source = write_lines(tmp_path / "aime.jsonl", rows)
    options = ["--source", source, "--instruction", "", "--tokenizer", tokenizer, "--max-prompt-tokens"]
    for limit, said in ((4, True), (5, False)):
        done = run_here(aime24, "--out", tmp_path / "out", *options, limit)
        assert ("the test split lacks 1 long problems" in done.stdout) is said


def test_rho_is_measured_without_a_chat_template(worded, tokenizer, tmp_path):
    options = ["--source", worded, "--validation", 199, "--template", "rho", "--tokenizer", tokenizer]
    run_here(gsm8k, "--out", tmp_path / "out", *options)
    said = json.loads((tmp_path / "out" / "manifest.json").read_text())["prompt_tokens"]["train"]
    question = read_split(tmp_path / "out", "train")[0]["extra_info"]["question"]
    assert said["max"] == len(question.split()) + 3  # [MATH_TASK] Problem: Solution:


def test_tokenizers_that_will_not_do(worded, tokenizer, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(tokenizer, tmp_path / "silent", ignore=shutil.ignore_patterns("*.jinja"))
    for folder, message in ((tmp_path / "empty", "no tokenizer that loads"), (tmp_path / "silent", "no chat template")):
        done = run_here(gsm8k, "--out", tmp_path / "out", "--source", worded, "--tokenizer", folder)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert message in done.stderr


def test_names_are_those_that_verl_grades_by():
    assert (names.GSM8K, names.MATH) == ("openai/gsm8k", "DigitalLearningGmbH/MATH-lighteval")
