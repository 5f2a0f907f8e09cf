"""What a dump holds, which questions it gets, and how large it becomes."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from recipe.spo.check_dump import expected_of_chain, expected_of_tree
from recipe.spo.dump import CHAINS, TREES, Dump, node_of, read_dump
from recipe.spo.recorder import choose
from recipe.spo.settings import DumpSampleSettings
from recipe.spo.token_texts import TokenTexts
from recipe.spo.tree import compute_values
from tests.builders import inner, leaf, root_of
from tests.conftest import REPOSITORY
from tests.dumped import PROMPT_IDS, chain, decode, recorded, tree
from tests.unit.test_settings import settings

SAMPLE = DumpSampleSettings(every_steps=10, questions=2, max_mib=1)


def test_a_tree_is_recorded_with_text_credit_and_mask(tmp_path):
    rollout = tree(random.Random(0), (2, 2), tokens=3)
    counts = recorded(tmp_path, rollout)
    assert (counts["dumped"], counts["dump_not_sampled"], counts["dump_over_limit"]) == (1, 0, 0)
    (record,) = read_dump(tmp_path, TREES)
    assert record["prompt_texts"] == ["the", " sum", " of", " 12", " and", " 30"]
    assert (record["method"], record["mask_threshold"], record["truth"]) == ("tree", 0.9, "42")
    assert node_of(record["root"]) == rollout
    parent, node = record["root"], record["root"]["children"][1]
    assert "".join(node["texts"]) == decode(node["token_ids"])
    assert node["advantages"] == [pytest.approx(node["value"] - parent["value"])] * 3
    assert node["mask"] == [int(math.exp(log_prob) < 0.9) for log_prob in node["log_probs"]]


def test_a_row_is_a_segment_with_signal_and_a_trained_token(tmp_path):
    rollout = root_of(inner(leaf(1), leaf(0), log_probs=(-0.01,)), inner(leaf(1), leaf(1), log_probs=(-2.0,)))
    compute_values(rollout)
    recorded(tmp_path, rollout, decode=lambda ids: "x" * len(ids))
    (record,) = read_dump(tmp_path, TREES)
    masked, signal = record["root"]["children"]
    assert not masked["row"] and any(masked["advantages"])  # the mask leaves nothing of it
    assert signal["row"] and not any(child["row"] for child in signal["children"])  # siblings that are worth the same


def test_a_chain_is_recorded_with_its_states_and_their_values(tmp_path):
    rollout = chain(random.Random(1))
    recorded(tmp_path, rollout)
    (record,) = read_dump(tmp_path, CHAINS)
    assert [t["cuts"] for t in record["trajectories"]] == [[4, 12, 20, 28]] * 2
    values = rollout.values()
    assert {tuple(entry["state"]): entry["value"] for entry in record["continuations"]} == values
    first, state = record["trajectories"][0]["response"], rollout.trajectories[0].state
    assert first["advantages"][:4] == [0.0] * 4  # of no segment
    assert first["advantages"][4] == pytest.approx(values[state(12)] - values[state(4)])
    assert "".join(first["texts"]) == decode(first["token_ids"])


def test_the_rows_follow_from_the_dump_as_the_check_reads_it(tmp_path):
    """By code that was written apart: `recipe.spo.check_dump`."""
    for folder, rollout, expected_of in (
        (tmp_path / "tree", tree(random.Random(2), (3, 3)), expected_of_tree),
        (tmp_path / "chain", chain(random.Random(2)), expected_of_chain),
    ):
        recorded(folder, rollout, dump_sample=None)
        (record,) = read_dump(folder, TREES if folder.name == "tree" else CHAINS)
        responses = [entry["response"] for entry in record.get("trajectories", [])]
        found = {path: node for path, node in (paths(record["root"]) if not responses else enumerate(responses))}
        expected = {path if not responses else int(path): row for path, row in expected_of(record, 0.9)}
        assert expected.keys() == {path for path, node in found.items() if node["row"]} != set()
        for path, row in expected.items():
            assert row.mask == found[path]["mask"]
            credited = [a * m for a, m in zip(found[path]["advantages"], row.mask, strict=True)]
            assert credited == pytest.approx(row.advantages)


def paths(node: dict, path: str = ""):
    """Every segment of a dumped tree with its path."""
    for index, child in enumerate(node["children"]):
        yield (f"{path}.{index}" if path else str(index)), child
        yield from paths(child, f"{path}.{index}" if path else str(index))


def test_what_only_the_trainer_knows_is_null(tmp_path):
    rollout = tree(random.Random(0), (3,), tokens=4)
    recorded(tmp_path / "trainer", rollout, of="grpo", mask_threshold=0.9, mask_source="trainer")
    recorded(tmp_path / "ppo", rollout, of="ppo")
    (trainer,), (ppo,) = read_dump(tmp_path / "trainer", TREES), read_dump(tmp_path / "ppo", TREES)
    assert trainer["root"]["children"][0]["mask"] is None
    assert ppo["root"]["children"][0]["advantages"] is None and ppo["root"]["children"][0]["row"]


def test_the_choice_is_some_of_every_tenth_step_and_repeatable():
    steps = {step: choose(step, 24, SAMPLE, seed=42) for step in range(1, 41)}
    assert [step for step, chosen in steps.items() if any(chosen)] == [1, 11, 21, 31]
    assert {sum(chosen) for chosen in steps.values()} == {0, 2} and all(len(chosen) == 24 for chosen in steps.values())
    assert steps == {step: choose(step, 24, SAMPLE, seed=42) for step in range(1, 41)}
    assert len({tuple(steps[step]) for step in (1, 11, 21, 31)}) > 1  # not always the same places
    assert choose(1, 24, SAMPLE, seed=1) != choose(1, 24, SAMPLE, seed=42)


def test_small_steps_and_no_sample_give_all():
    assert choose(1, 1, SAMPLE, seed=0) == [True]
    assert choose(2, 3, None, seed=0) == [True] * 3


def test_what_does_not_fit_is_left_out_whole_and_counted(tmp_path):
    rollout = tree(random.Random(0))
    assert recorded(tmp_path, rollout, dump_sample={"max_mib": 1})["dumped"]
    size = size_of(tmp_path)
    counts = [recorded(tmp_path, rollout, dump_sample={"max_mib": 1}) for _ in range(2 + 2**20 // size)]
    assert sum(c["dumped"] for c in counts) == 2**20 // size - 1
    assert sum(c["dump_over_limit"] for c in counts) == 3
    assert size_of(tmp_path) <= 2**20 < size_of(tmp_path) + size
    assert len(list(read_dump(tmp_path, TREES))) == 2**20 // size


def test_without_a_sample_there_is_no_limit(tmp_path):
    assert settings(dump_sample=None).dump_sample is None
    rollout = tree(random.Random(0), tokens=60)
    assert all(recorded(tmp_path, rollout, dump_sample=None)["dumped"] for _ in range(3))
    assert size_of(tmp_path) > 2**20


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.jsonl"))


def _fill(folder: str) -> int:
    dump = Dump(folder, 200_000)
    return sum(dump.write(TREES, [{"text": "x" * 900}]) for _ in range(100))


def test_processes_share_the_limit(tmp_path):
    with ProcessPoolExecutor(4) as pool:
        written = sum(pool.map(_fill, [str(tmp_path)] * 4))
    lines = [line for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert written == len(lines) == 200_000 // len(json.dumps({"text": "x" * 900}) + "\n")


def by_bytes(token_ids) -> str:
    return bytes(token_ids).decode(errors="replace")


def test_a_character_of_several_tokens_is_the_text_of_its_last():
    ids = list("1 日é本!".encode())
    assert TokenTexts(by_bytes).of(ids) == ["1", " ", "", "", "日", "", "é", "", "", "本", "!"]
    cut = TokenTexts(by_bytes).of(ids[:4])
    assert cut[:2] == ["1", " "] and set("".join(cut[2:])) == {"\ufffd"}


def test_a_first_space_that_decoding_drops_is_there():
    words = {1: " so", 2: " it", 3: "s"}
    texts = TokenTexts(lambda ids: "".join(words[i] for i in ids).removeprefix(" ")).of([1, 2, 3, 1])
    assert texts == [" so", " it", "s", " so"]


def test_each_id_is_decoded_once():
    asked = []
    texts = TokenTexts(lambda ids: asked.append(list(ids)) or decode(ids))
    for _ in range(5):
        texts.of(PROMPT_IDS)
    assert len(asked) == 2 * len(PROMPT_IDS)


def test_recorder_and_viewer_load_neither_verl_nor_vllm_nor_ray():
    """A page is made in a second, on a machine that has none of them."""
    modules = "recipe.spo.view, recipe.spo.recorder, recipe.spo.dump"
    heavy = "{'verl', 'vllm', 'ray', 'torch', 'transformers'}"
    code = f"import sys, {modules}; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
