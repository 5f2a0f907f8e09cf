"""From a dump to the viewer's nodes, against the rollouts that were dumped; and dumps that cannot be used."""

from __future__ import annotations

import json
import math
import random

import pytest

from recipe.spo.dump import CHAINS, TREES, read_dump
from recipe.spo.viewer.command import main
from recipe.spo.viewer.errors import ViewError
from recipe.spo.viewer.page import page_data, summary
from recipe.spo.viewer.questions import CONTINUATION, SEGMENT, UNCUT
from recipe.spo.viewer.records import read_questions
from tests.dumped import chain, recorded, tree


def test_a_tree_has_its_nodes_values_and_masks(tmp_path):
    rollout = tree(random.Random(0))
    recorded(tmp_path, rollout)
    (question,) = read_questions(tmp_path)
    data = page_data(question)
    assert len(data["nodes"]) == 1 + 258 and summary(question)["nodes"] == 258
    assert data["nodes"][0]["value"] == rollout.value and question.prompt == "the sum of 12 and 30"
    by_label = {node["label"]: node for node in data["nodes"]}
    for path in [(0,), (5,), (3, 2), (0, 0, 0), (5, 5, 5)]:
        parent, node = None, rollout
        for index in path:
            parent, node = node, node.children[index]
        shown = by_label[".".join(map(str, path))]
        assert shown["value"] == node.value and shown["ids"] == node.token_ids
        assert shown["advantage"] == pytest.approx(node.value - parent.value)
        assert shown["p"] == pytest.approx([math.exp(x) for x in node.log_probs], rel=1e-5)
        assert shown["mask"] == [int(math.exp(x) < 0.9) for x in node.log_probs]
        assert (shown["reward"], shown["verdict"], shown["finished"]) == (node.reward, node.verdict, node.finished)
        assert data["nodes"][shown["parent"]]["label"] == ".".join(map(str, path[:-1]))


def test_a_chains_response_is_a_path_of_its_segments(tmp_path):
    rollout = chain(random.Random(1), responses=2, tokens=30, continuations=3)
    recorded(tmp_path, rollout)
    (question,) = read_questions(tmp_path)
    kinds = [node.kind for node in question.nodes]
    assert (kinds.count(UNCUT), kinds.count(SEGMENT), kinds.count(CONTINUATION)) == (2, 8, 24)
    values = rollout.values()
    for number, trajectory in enumerate(rollout.trajectories):
        path = [node for node in question.nodes if node.label.startswith(f"{number}.") and node.kind != CONTINUATION]
        assert [len(node.tokens.ids) for node in path] == [4, 8, 8, 8, 2]
        assert sum((node.tokens.ids for node in path), []) == trajectory.response.token_ids
        after = [values[trajectory.state(cut)] for cut in trajectory.cuts] + [trajectory.response.reward]
        assert [node.value for node in path] == after
        gains = [b - a for a, b in zip(after, after[1:], strict=False)]
        assert [node.advantage for node in path] == [None, *map(pytest.approx, gains)]
        assert [question.nodes[node.parent].label for node in path] == ["", *(node.label for node in path[:-1])]
        assert [node.verdict for node in path] == [""] * 4 + [trajectory.response.verdict]
    samples = [node for node in question.nodes if node.kind == CONTINUATION]
    assert all(node.value == node.reward and node.tokens.mask is None and not node.row for node in samples)
    for state, group in rollout.continuations.items():
        hung = [node.tokens.ids for node in samples if prefix(question, node) == state]
        assert hung == [sample.token_ids for sample in group]


def prefix(question, node) -> tuple[int, ...]:
    """Response tokens before a node."""
    before = question.nodes[node.parent]
    return () if before.parent is None else (*prefix(question, before), *before.tokens.ids)


def test_continuations_of_the_prompt_and_of_a_shared_state(tmp_path):
    rollout = chain(random.Random(1))
    first, second = rollout.trajectories
    second.response.token_ids[:4] = first.response.token_ids[:4]  # the same state after four tokens
    rollout.continuations = {
        t.state(cut): rollout.continuations[first.state(4)] for t in (first, second) for cut in t.cuts
    }
    first.cuts.insert(0, 0)
    rollout.continuations[()] = rollout.continuations[first.state(4)]
    recorded(tmp_path, rollout)
    (question,) = read_questions(tmp_path)
    assert question.nodes[0].value == rollout.values()[()]
    assert sum(node.parent == 0 and node.kind == CONTINUATION for node in question.nodes) == 3
    (shared,) = [node for node in question.nodes if node.same_state is not None]
    assert shared.label == "1.0" and question.nodes[shared.same_state].label == "0.0"
    assert sum(node.kind == CONTINUATION for node in question.nodes) == 3 * len(rollout.continuations)


def test_a_group_is_a_tree_of_depth_one(tmp_path):
    recorded(tmp_path, tree(random.Random(2), (8,)), of="grpo")
    (question,) = read_questions(tmp_path)
    assert question.method == "group" and {node.parent for node in question.nodes[1:]} == {0}
    assert len(question.nodes) == 9 and all(set(node.tokens.mask) == {1} for node in question.nodes[1:])


def test_what_only_the_trainer_knows_is_none(tmp_path):
    recorded(tmp_path, tree(random.Random(2), (4,)), of="ppo", mask_threshold=0.9)
    (question,) = read_questions(tmp_path)
    assert all(node.advantage is None and node.tokens.mask is None for node in question.nodes)


def test_questions_are_found_by_step_index_and_uid(tmp_path):
    for step, uid in ((11, "abc1"), (1, "abd2"), (11, "xyz3")):
        recorded(tmp_path, tree(random.Random(step), (2,)), step=step, uid=uid)
    assert [(q.step, q.uid) for q in read_questions(tmp_path)] == [(1, "abd2"), (11, "abc1"), (11, "xyz3")]
    assert len(read_questions(tmp_path, step=11)) == 2 and len(read_questions(tmp_path, question="7")) == 3
    assert [q.uid for q in read_questions(tmp_path, step=11, question="xy")] == ["xyz3"]
    asked, held = "no question with --step 2 and --question 8", "it has the steps 1, 11 and the questions 7"
    with pytest.raises(ViewError, match=f"{asked}: {held}$"):
        read_questions(tmp_path, step=2, question="8")


def test_a_line_that_a_run_is_writing_is_left_out(tmp_path):
    recorded(tmp_path, tree(random.Random(0), (2,)))
    (file,) = tmp_path.glob("*.jsonl")
    with open(file, "a") as more:
        more.write('{"format": 1, "ui')
    assert len(read_questions(file)) == 1
    file.write_text('{"format": 1, "ui')
    with pytest.raises(ViewError, match="holds no question yet: its files have no finished line"):
        read_questions(file)


def cut_last(record: dict, *path) -> None:
    *parents, last = path
    for key in parents:
        record = record[key]
    record[last] = record[last][:-1]


def nested(levels: int) -> list:
    inner: list = []
    for _ in range(levels - 1):
        inner = [inner]
    return inner


def deep(node: dict, levels: int) -> dict:
    """Such a node at every level."""
    top = {**node, "children": []}
    for _ in range(levels - 1):
        top = {**node, "children": [top]}
    return top


BAD_TREES = {
    "field format: must be 1": lambda r: r.pop("format"),
    "field uid: must be a string, and is missing": lambda r: r.pop("uid"),
    "field step: must be a whole number, not '1'": lambda r: r.update(step="1"),
    "field prompt_texts: must be a list of 6 strings": lambda r: cut_last(r, "prompt_texts"),
    r"field root.children\[1\].log_probs: must be a list of 3 finite": lambda r: cut_last(
        r, "root", "children", 1, "log_probs"
    ),
    r"field root.children\[0\].log_probs: must be a list of finite": lambda r: r["root"]["children"][0].update(
        log_probs=[-1.0, float("nan"), 0.0]
    ),
    r"field root.children\[0\].log_probs: must be a list of log-probabilities, at most 0 \(one is 1000\)": lambda r: r[
        "root"
    ]["children"][0].update(log_probs=[-1.0, 1000, 0.0]),
    r"field root.children\[0\].value: must be a number or null, not 1000": lambda r: r["root"]["children"][0].update(
        value=10**400
    ),
    r"field uid: must be a string, not \[": lambda r: r.update(uid=nested(300)),
    r"field root: must have at most 200 levels of segments": lambda r: r["root"].update(
        children=[deep(r["root"]["children"][0], 201)]
    ),
    r"field root.children\[1\].children\[0\].mask: must be a list of 3": lambda r: cut_last(
        r, "root", "children", 1, "children", 0, "mask"
    ),
    r"field root.children\[0\].token_ids: must be a list of token ids": lambda r: r["root"]["children"][0].update(
        token_ids=[1, "2", 3]
    ),
    r"field root.children\[0\].value: must be a number or null, and is missing": lambda r: r["root"]["children"][0].pop(
        "value"
    ),
    r"field root.children\[0\].row: must be true or false": lambda r: r["root"]["children"][0].update(row=1),
    r"field root.children: must be a list, not None": lambda r: r["root"].update(children=None),
    r"field root.children\[0\]: must be an object, not 3": lambda r: r["root"].update(children=[3]),
}
BAD_CHAINS = {
    r"field trajectories\[0\].cuts: must be places that increase": lambda r: r["trajectories"][0].update(cuts=[4, 4]),
    r"field trajectories\[1\].cuts: must be places that increase, below the response's 30": lambda r: r["trajectories"][
        1
    ].update(cuts=[4, 30]),
    "field continuations: must be a list with the state after 4 tokens of response 0": lambda r: r.update(
        continuations=r["continuations"][1:]
    ),
}


@pytest.mark.parametrize("message", [*BAD_TREES, *BAD_CHAINS])
def test_a_wrong_record_is_refused_by_file_line_and_field(tmp_path, message):
    recorded(tmp_path, tree(random.Random(0), (2, 2), tokens=3) if message in BAD_TREES else chain(random.Random(0)))
    (record,) = read_dump(tmp_path, TREES if message in BAD_TREES else CHAINS)
    good = json.dumps(record)
    ({**BAD_TREES, **BAD_CHAINS}[message])(record)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_text(f"{good}\n{json.dumps(record)}\n")
    with pytest.raises(ViewError, match=f"{file}, line 2, {message}"):
        read_questions(tmp_path)


def test_a_log_probability_that_rounding_put_above_0_is_of_1(tmp_path):
    recorded(tmp_path, tree(random.Random(0), (2,), tokens=3))
    (file,) = tmp_path.glob("*.jsonl")
    record = json.loads(file.read_text())
    record["root"]["children"][0]["log_probs"] = [1e-6, 0.0, -1e9]
    file.write_text(json.dumps(record) + "\n")
    (question,) = read_questions(tmp_path)
    assert question.nodes[1].tokens.probabilities == [1.0, 1.0, 0.0]


def test_200_levels_are_read_and_shown(tmp_path, capsys):
    recorded(tmp_path, tree(random.Random(0), (2,), tokens=3))
    (file,) = tmp_path.glob("*.jsonl")
    record = json.loads(file.read_text())
    record["root"]["children"] = [deep(record["root"]["children"][0], 200)]
    file.write_text(json.dumps(record) + "\n")
    assert len(read_questions(tmp_path)[0].nodes) == 201
    assert main([str(tmp_path)]) == main([str(tmp_path), "--terminal"]) == 0
    assert not capsys.readouterr().err


def test_a_state_of_no_response_is_refused(tmp_path):
    recorded(tmp_path, chain(random.Random(0)))
    (record,) = read_dump(tmp_path, CHAINS)
    record["continuations"].append({**record["continuations"][0], "state": [1]})
    (file,) = tmp_path.glob("*.jsonl")
    file.write_text(json.dumps(record) + "\n")
    with pytest.raises(ViewError, match=r"field continuations\[8\].state: must be a state at which"):
        read_questions(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no\n", "line 1: not JSON"),
        ("[" * 100_000 + "]" * 100_000 + "\n", "line 1: JSON that is nested too deeply"),
        ("1" * 5000 + "\n", "line 1: not JSON"),
        ("[1]\n", "line 1: must be an object"),
        ("", "no question yet"),
    ],
)
def test_a_file_that_is_no_dump_is_refused(tmp_path, content, message):
    (tmp_path / "trees-1.jsonl").write_text(content)
    with pytest.raises(ViewError, match=message):
        read_questions(tmp_path)


def test_folders_and_files_without_trees_are_refused(tmp_path):
    with pytest.raises(ViewError, match="does not exist"):
        read_questions(tmp_path / "nowhere")
    with pytest.raises(ViewError, match="run with algorithm.spo.dump_dir="):
        read_questions(tmp_path)
    (tmp_path / "rows-1.jsonl").write_text("{}\n")
    with pytest.raises(ViewError, match="holds trained rows"):
        read_questions(tmp_path / "rows-1.jsonl")
    (tmp_path / "trees-1.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(ViewError, match="trees-1.jsonl cannot be read"):
        read_questions(tmp_path)
