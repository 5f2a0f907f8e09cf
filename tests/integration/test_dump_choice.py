"""From the manager's choice to the worker's record, with Ray's workers replaced by calls."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from verl.utils import tensordict_utils as tu

from recipe.spo import recorder
from recipe.spo.dump import TREES, Dump, read_dump
from recipe.spo.metrics import step_metrics
from recipe.spo.rollout import worker as module
from recipe.spo.token_texts import TokenTexts
from tests.dumped import PROMPT_IDS, decode, tree
from tests.unit.test_settings import DEFAULTS, settings

pytestmark = pytest.mark.integration
QUESTIONS, SEED = 6, 42


def batch(validate: bool = False):
    rows = {
        "uid": np.array([f"u{i}" for i in range(QUESTIONS)], dtype=object),
        "index": np.arange(QUESTIONS),
        "raw_prompt": np.array([[{"role": "user", "content": str(i)}] for i in range(QUESTIONS)], dtype=object),
    }
    made = tu.get_tensordict(rows)
    tu.assign_non_tensor_data(made, "global_steps", 11)
    if validate:
        tu.assign_non_tensor_data(made, "validate", True)
    return made


@pytest.fixture
def sent(monkeypatch):
    """What verl's manager gets."""
    batches = []
    monkeypatch.setattr(
        module.SPOAgentLoopManager.__mro__[1], "generate_sequences", lambda self, prompts: batches.append(prompts)
    )
    return batches


def manager(**changes):
    made = object.__new__(module.SPOAgentLoopManager)
    made.settings = settings(**changes)
    made.config = OmegaConf.create({"data": {"seed": SEED}})
    return made


def test_two_questions_of_a_step_are_marked(sent):
    manager(dump_dir="d").generate_sequences(batch())
    assert sent[0][module.DUMP_COLUMN].sum() == DEFAULTS["dump_sample"]["questions"] == 2
    assert sent[0].chunk(3)[0][module.DUMP_COLUMN].tolist() == sent[0][module.DUMP_COLUMN].tolist()[:2]


@pytest.mark.parametrize("changes, validate", [({}, False), ({"dump_dir": "d"}, True)])
def test_nothing_is_marked_in_validation_and_without_a_folder(sent, changes, validate):
    manager(**changes).generate_sequences(batch(validate))
    assert module.DUMP_COLUMN not in sent[0].keys()


@pytest.fixture
def roll_out(monkeypatch):
    """Has a worker with these settings roll out what the manager sent; returns the tags it wrote, by key."""

    class NoClient:
        def __init__(self, *arguments):
            pass

        async def __aenter__(self):
            return self

        async def __aexit__(self, *reason):
            pass

    async def write_rows(*arguments):
        pass

    async def grow(sampler, prompt_ids, prompt):
        return tree(random.Random(0), (2, 2), tokens=3)

    async def grade(rollout, prompt_ids, prompt):
        assert module.DUMP_COLUMN not in prompt  # the grader never sees it

    def run(spo, row) -> dict[str, dict]:
        written = {}

        async def put(key, partition_id, tag):
            written[key] = tag

        monkeypatch.setattr(module.tq, "async_kv_put", put)
        monkeypatch.setattr(module, "TreeClient", NoClient)
        worker = object.__new__(module.SPOAgentLoopWorker)
        worker.settings, worker.llm_client, worker.eos_ids, worker.end_rule = spo, None, frozenset(), None
        worker.recorder = recorder.recorder_of(spo, decode)
        worker.rollout_config = SimpleNamespace(seed=0)
        worker._prompt_ids = lambda messages: PROMPT_IDS
        worker._grow, worker._grade, worker._write_rows = grow, grade, write_rows

        async def questions():
            for i in range(QUESTIONS):  # as verl's worker takes a prompt out of its chunk
                prompt = {
                    key: value.data
                    if key == "global_steps"
                    else value[i].data
                    if hasattr(value[i], "data")
                    else value[i]
                    for key, value in row.items()
                }
                await worker._run_agent_loop({}, {"validate": False}, agent_name="a", **prompt, session_id=0)

        asyncio.run(questions())
        return written

    return run


def test_the_workers_record_what_is_marked_and_count_the_rest(sent, roll_out, tmp_path):
    spo = settings(dump_dir=str(tmp_path), tree={"branch_factors": [2, 2], "segment_length": 3})
    manager(dump_dir="d").generate_sequences(batch())
    written = roll_out(spo, sent[0])
    metrics = step_metrics([tag[module.COUNTS_TAG] for tag in written.values()], failed_questions=0)
    assert (metrics["spo/dump/questions"], metrics["spo/dump/not_sampled"], metrics["spo/dump/over_limit"]) == (2, 4, 0)
    assert 0 < metrics["spo/dump/seconds"] < 1
    marked = {f"u{i}" for i in range(QUESTIONS) if sent[0][module.DUMP_COLUMN][i]}
    assert {record["uid"] for record in read_dump(tmp_path, TREES)} == marked


def test_without_a_folder_no_code_of_the_dump_is_called(sent, roll_out, monkeypatch):
    """What dumping costs when off: a comparison a step in the manager, and one a question in the worker."""

    def never(*arguments, **named):
        raise AssertionError("called with dumping off")

    monkeypatch.setattr(module, "choose", never)
    for kind in (recorder.Recorder, Dump, TokenTexts):
        for name in [name for name, value in vars(kind).items() if callable(value)]:
            monkeypatch.setattr(kind, name, never)
    for function in ("node_record", "probability_mask"):
        monkeypatch.setattr(recorder, function, never)
    manager().generate_sequences(batch())
    written = roll_out(settings(tree={"branch_factors": [2, 2], "segment_length": 3}), sent[0])
    assert len(written) == QUESTIONS
    assert not [name for tag in written.values() for name in tag[module.COUNTS_TAG] if "dump" in name]
