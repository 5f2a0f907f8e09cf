"""`algorithm.spo`: budgets, and every complaint names its key."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from recipe.spo.settings import SettingsError, parse_settings

CONFIG = Path(__file__).parents[2] / "recipe/spo/config/spo_trainer.yaml"
DEFAULTS = yaml.safe_load(CONFIG.read_text())["algorithm"]["spo"]


def settings(response_length: int = 1024, **changes):
    node = copy.deepcopy(DEFAULTS)
    node["tree"].update(changes.pop("tree", {}))
    node.update(changes)
    return parse_settings(node, response_length)


def test_the_shipped_defaults_are_the_papers():
    spo = settings()
    assert spo.tree.branch_factors == (6, 6, 6)
    assert spo.tree.segment_lengths == (30, 30)
    assert spo.tree.max_nodes == 258
    assert spo.mask_threshold == 0.9


def test_budget_of_each_level():
    tree = settings(tree={"segment_length": [30, 50]}).tree
    assert tree.segment_budget(0, used=0, response_length=100) == 30
    assert tree.segment_budget(1, used=30, response_length=100) == 50
    assert tree.segment_budget(1, used=70, response_length=100) == 30  # what is left
    assert tree.segment_budget(2, used=80, response_length=100) == 20  # the last level runs to the end


def test_one_level_needs_no_segment_length():
    assert settings(tree={"branch_factors": [8]}).tree.segment_lengths == ()


BAD = {
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
    "mask_threshold is 0": {"mask_threshold": 0},
    "mask_threshold is 1.5": {"mask_threshold": 1.5},
    "mask_threshold is 'high'": {"mask_threshold": "high"},
    "optimizer_steps is 0": {"optimizer_steps": 0},
    "method is 'forest'": {"method": "forest"},
    "deterministic is 'yes'": {"deterministic": "yes"},
    "dump_dir is 3": {"dump_dir": 3},
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
