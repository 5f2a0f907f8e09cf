"""`algorithm.spo`: budgets, and every complaint names its key."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from recipe.spo.overrides import METHOD_SHAPES
from recipe.spo.parsing import parse_settings
from recipe.spo.reader import SettingsError

CONFIG = Path(__file__).parents[2] / "recipe/spo/config"
DEFAULTS = yaml.safe_load((CONFIG / "spo_trainer.yaml").read_text())["algorithm"]["spo"]
METHODS = sorted(path.stem for path in (CONFIG / "method").glob("*.yaml"))


def of_method(name: str) -> dict:
    """`algorithm.spo` as `method=NAME` composes it."""
    preset = yaml.safe_load((CONFIG / "method" / f"{name}.yaml").read_text())
    return {**copy.deepcopy(DEFAULTS), **preset["algorithm"]["spo"]}


def settings(response_length: int = 1024, of: str = "tree", **changes):
    node = of_method(of)
    for name, change in changes.items():
        node[name] = {**node[name], **change} if isinstance(change, dict) and node[name] is not None else change
    return parse_settings(node, response_length)


def test_the_shipped_defaults_are_the_papers():
    spo = settings()
    assert spo.tree.branch_factors == (6, 6, 6)
    assert spo.tree.segment_lengths == (30, 30)
    assert spo.tree.max_nodes == 258
    assert spo.mask_threshold == 0.9


@pytest.mark.parametrize("name", METHODS)
def test_every_preset_is_legal_and_fills_the_node_that_shapes_it(name):
    spo = settings(of=name)
    shapes = {"tree": spo.tree, "chain": spo.chain, "group": spo.group}
    assert shapes.pop(METHOD_SHAPES[name]) is not None and not any(shapes.values())
    assert spo.max_samples == {"tree": 258}.get(name, 8)


def test_runs_of_different_methods_have_different_names():
    """Their names are part of their checkpoint folders, and verl resumes from what it finds there."""
    names = {yaml.safe_load(path.read_text())["trainer"]["experiment_name"] for path in (CONFIG / "method").iterdir()}
    assert len(names) == len(METHODS)


def test_presets_are_those_that_the_command_line_knows():
    assert set(METHODS) == set(METHOD_SHAPES)


def test_the_baselines_are_one_segment_and_differ_in_credit_and_mask():
    credits = {name: (settings(of=name).credit, settings(of=name).mask_threshold) for name in METHODS}
    assert credits["grpo"] == ("std", None) and credits["grpo_mask"] == ("std", 0.9)
    assert credits["rloo"] == ("leave_one_out", None) and credits["ppo"] == (None, None)
    assert settings(of="grpo").tree_shape.branch_factors == (8,)
    assert settings(of="grpo").tree_shape.segment_budget(0, used=0, response_length=99) == 99


def test_a_rule_of_your_own_is_named_by_module_and_function():
    assert settings(credit="recipe.spo.credit:mean").credit == "recipe.spo.credit:mean"


def test_who_makes_the_mask():
    assert settings().rollout_mask_threshold == 0.9 and not settings().trainer_masks
    assert settings(mask_source="trainer").rollout_mask_threshold is None
    assert settings(mask_source="trainer").trainer_masks
    assert settings(of="ppo", mask_threshold=0.9).trainer_masks and not settings(of="ppo").trainer_masks


def test_budget_of_each_level():
    tree = settings(tree={"segment_length": [30, 50]}).tree
    assert tree.segment_budget(0, used=0, response_length=100) == 30
    assert tree.segment_budget(1, used=30, response_length=100) == 50
    assert tree.segment_budget(1, used=70, response_length=100) == 30  # what is left
    assert tree.segment_budget(2, used=80, response_length=100) == 20  # the last level runs to the end


def test_one_level_needs_no_segment_length():
    assert settings(tree={"branch_factors": [8]}).tree.segment_lengths == ()


CHAIN_BAD = {
    "chain.cut_interval is 0": {"chain": {"cut_interval": 0}},
    "chain.continuations is 0": {"chain": {"continuations": 0}},
    "chain.trajectories is -1": {"chain": {"trajectories": -1}},
    "chain.partition is 'words': choose one of low_probability": {"chain": {"partition": "words"}},
    "chain.parts is 4: partition low_probability does not use it": {"chain": {"parts": 4}},
    "chain.cut_interval is 5: partition lines does not use it": {"chain": {"partition": "lines"}},
    "chain.segment_length is None": {"chain": {"partition": "fixed_length", "cut_interval": None}},
    "chain.segment_length is 1024: shorter": {
        "chain": {"partition": "fixed_length", "cut_interval": None, "segment_length": 1024}
    },
    "chain.parts is 1": {"chain": {"partition": "equal_parts", "cut_interval": None, "parts": 1}},
    "chain.max_steps is 0": {"chain": {"partition": "lines", "cut_interval": None, "max_steps": 0}},
    "unknown key algorithm.spo.chain.continuation": {"chain": {"continuation": 4}},
    "algorithm.spo.tree is .*method chain does not use it": {"tree": {"branch_factors": [2]}},
    "credit is 'mean': for method chain: choose one of difference": {"credit": "mean"},
    "cut_threshold is 0": {"cut_threshold": 0},
    "cut_threshold is 1.01": {"cut_threshold": 1.01},
}
GROUP_BAD = {
    "group.responses is 1: a single response": {"group": {"responses": 1}},
    "algorithm.spo.chain is .*method group does not use it": {"chain": {"continuations": 4}},
}
PPO_BAD = {
    "normalize is 'none': verl whitens PPO's advantages": {"normalize": "none"},
    "keep_zero_advantage is True: PPO trains every": {"keep_zero_advantage": True},
    "credit is 'mean': PPO's advantages come from its critic": {"credit": "mean"},
}


@pytest.mark.parametrize(
    ("of", "message", "changes"),
    [
        *(("chain", message, changes) for message, changes in CHAIN_BAD.items()),
        *(("grpo", message, changes) for message, changes in GROUP_BAD.items()),
        *(("ppo", message, changes) for message, changes in PPO_BAD.items()),
    ],
)
def test_wrong_settings_of_other_methods_are_refused_by_name(of, message, changes):
    with pytest.raises(SettingsError, match=message):
        settings(of=of, **copy.deepcopy(changes))


BAD = {
    "chain is .*method tree does not use it": {"chain": {"continuations": 4}},
    "credit is 'best': for method tree: choose one of mean": {"credit": "best"},
    "credit is 'no.such.module:rule': for method tree: cannot be imported": {"credit": "no.such.module:rule"},
    "shrinkage is -1": {"credit": "shrinkage", "shrinkage": -1},
    "shrinkage is None": {"credit": "shrinkage"},
    "shrinkage is 2.0: only credit=shrinkage uses it": {"shrinkage": 2.0},
    "credit is 'math:atan2': for method tree: .*must take .path": {"credit": "math:atan2"},
    "mask_source is 'trainer': there is no mask": {"mask_source": "trainer", "mask_threshold": None},
    "mask_source is 'rollout': as_published_code masks by": {"as_published_code": True, "normalize": "micro_batch"},
    "rows_per_step is 3: at least one row for each": {"replay": {"rows_per_step": 3}},
    "normalize is 'all'": {"normalize": "all"},
    "as_published_code whitens by micro-batch": {"as_published_code": True},
    "mask_source is 'both'": {"mask_source": "both"},
    "tree.partition is 'sentences': choose one of": {"tree": {"partition": "sentences"}},
    "tree.cut_interval is 3: partition fixed_length": {"tree": {"cut_interval": 3}},
    "tree.cut_interval is None": {"tree": {"partition": "low_probability"}},
    "replay.max_age is -1": {"replay": {"max_age": -1}},
    "replay.max_age is 3: no row is ever left over": {"replay": {"max_age": 3}},
    "replay.rows_per_step is 0": {"replay": {"rows_per_step": 0}},
    "replay.rows_per_question is 2.5": {"replay": {"rows_per_question": 2.5}},
    "branch_factors\\[1\\] is 0": {"tree": {"branch_factors": [6, 0, 6]}},
    "branch_factors is 6": {"tree": {"branch_factors": 6}},
    "branch_factors is '6-6-6'": {"tree": {"branch_factors": "6-6-6"}},
    "branch_factors is empty": {"tree": {"branch_factors": []}},
    "branch_factors\\[0\\] is 2.5": {"tree": {"branch_factors": [2.5]}},
    "branch_factors\\[0\\] is True": {"tree": {"branch_factors": [True, 2]}},
    "must branch": {"tree": {"branch_factors": [1, 1]}},
    "no sibling": {"tree": {"branch_factors": [1]}},
    "segment_length is 0": {"tree": {"segment_length": 0}},
    "segment_length lists 3 levels": {"tree": {"segment_length": [1, 2, 3]}},
    "leave nothing of data.max_response_length": {"tree": {"segment_length": 512}},
    "stop is '###': give a list of texts": {"stop": "###"},
    "stop is \\[''\\]: give a list of texts": {"stop": [""]},
    "mask_threshold is 0": {"mask_threshold": 0},
    "mask_threshold is 1.5": {"mask_threshold": 1.5},
    "mask_threshold is 'high'": {"mask_threshold": "high"},
    "optimizer_steps is 0": {"optimizer_steps": 0},
    "method is 'forest'": {"method": "forest"},
    "deterministic is 'yes'": {"deterministic": "yes"},
    "token_budget is 0: it must be a whole number of at least 1": {"token_budget": 0},
    "token_budget is '3e5'": {"token_budget": "3e5"},
    "token_budget is 300000.0": {"token_budget": 3e5},
    "dump_dir is 3": {"dump_dir": 3},
    "dump_sample is 'all': it must hold": {"dump_sample": "all"},
    "dump_sample.every_steps is 0": {"dump_sample": {"every_steps": 0}},
    "dump_sample.questions is 0.5": {"dump_sample": {"questions": 0.5}},
    "dump_sample.max_mib is 0: it must be at least 1": {"dump_sample": {"max_mib": 0}},
    "unknown key algorithm.spo.dump_sample.max_mb: did you mean 'max_mib'": {"dump_sample": {"max_mb": 9}},
    "unknown key algorithm.spo.mask_treshold: did you mean 'mask_threshold'": {"mask_treshold": 0.9},
    "unknown key algorithm.spo.tree.branch_factor": {"tree": {"branch_factor": [6]}},
}


@pytest.mark.parametrize("message", BAD)
def test_wrong_settings_are_refused_by_name(message):
    with pytest.raises(SettingsError, match=message):
        settings(**copy.deepcopy(BAD[message]))


def test_a_missing_key_and_a_missing_node_are_refused():
    node = {key: value for key, value in DEFAULTS.items() if key != "tree"}
    with pytest.raises(SettingsError, match="algorithm.spo.tree is missing"):
        parse_settings(node, 1024)
    with pytest.raises(SettingsError, match="algorithm.spo is missing"):
        parse_settings(None, 1024)
