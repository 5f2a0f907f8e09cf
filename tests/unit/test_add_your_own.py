"""The page `docs/add_your_own.md` stays true: its code runs, its commands are legal, its numbers come out."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from recipe.spo.advantage import chain_samples, tree_samples
from recipe.spo.chain import ChainRollout, Trajectory
from recipe.spo.credit import chain_rule, tree_rule
from recipe.spo.cutting import chain_partition
from recipe.spo.parsing import parse_settings
from recipe.spo.reader import SettingsError
from recipe.spo.settings import SPOSettings
from recipe.spo.tree import compute_values
from tests.builders import inner, leaf, root_of
from tests.conftest import REPOSITORY
from tests.unit.test_settings import of_method

PAGE = (REPOSITORY / "docs/add_your_own.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def overrides(command: str) -> dict[str, object]:
    """The settings of a training command, read by Hydra's own grammar."""
    words = shlex.split(command.replace("\\\n", " "))
    arguments = words[words.index("recipe.spo.main_spo") + 1 :]
    return {read.key_or_group: read.value() for read in OverridesParser.create().parse_overrides(arguments)}


COMMANDS = [overrides(command) for command in blocks("bash") if "main_spo" in command]


def settings(chosen: dict[str, object]) -> SPOSettings:
    """`algorithm.spo` of a command, checked."""
    node = copy.deepcopy(of_method(str(chosen["method"])))
    for name, value in chosen.items():
        *above, key = name.removeprefix("algorithm.spo.").split(".")
        if name.startswith("algorithm.spo."):
            (node[above[0]] if above else node)[key] = value
    return parse_settings(node, response_length=1024)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The page's files, as a reader saves them."""
    made = tmp_path_factory.mktemp("add_your_own")
    for block in blocks("python"):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name, f"a code block does not begin with its file's name: {block[:40]!r}"
        (made / name[1]).write_text(block)
    return made


@pytest.fixture(scope="module")
def page_test(folder):
    """The page's test module; while it is in use, `my_rules` can be imported too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import test_my_rules

        yield test_my_rules
    for name in ("my_rules", "test_my_rules"):
        sys.modules.pop(name, None)


def test_the_test_of_the_page_passes_as_the_page_runs_it(folder):
    assert {path.name for path in folder.glob("*.py")} == {"my_rules.py", "test_my_rules.py"}
    command = next(shlex.split(block) for block in blocks("bash") if "pytest" in block)
    done = subprocess.run(
        [sys.executable, *command[1:], "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("chosen", COMMANDS, ids=lambda chosen: chosen["method"])
def test_its_commands_are_legal(page_test, chosen):
    spo = settings(chosen)
    assert spo.credit == chosen["algorithm.spo.credit"]
    if spo.chain is not None:
        assert spo.chain.partition == chosen["algorithm.spo.chain.partition"]


def test_its_command_for_a_chain_is_refused_without_the_null(page_test):
    chosen = {name: value for name, value in COMMANDS[0].items() if not name.endswith("cut_interval")}
    with pytest.raises(SettingsError, match="chain.cut_interval is 5: partition my_rules:every_comma does not use it"):
        settings(chosen)


def test_its_partition_and_chain_rule_give_the_numbers_that_it_claims(page_test):
    spo = settings(COMMANDS[0])
    response = leaf(1.0, log_probs=(-1.0,) * 8)
    response.token_ids = list(range(8))
    cuts = chain_partition(spo.chain, spo.cut_threshold, page_test.decode)(response)
    assert cuts == [0, 2, 5] and str(cuts) in PAGE

    trajectory, values = Trajectory(response, cuts), [0.25, 0.5, 0.0]
    continuations = {trajectory.state(cut): [leaf(value)] for cut, value in zip(cuts, values, strict=True)}
    (sample,) = chain_samples(ChainRollout([trajectory], continuations), chain_rule(spo.credit))
    credits = [sample.advantages[cut] for cut in cuts]
    assert credits == [0.25, -0.25, 0.75] and f"since_first_cut({values}, 1.0) == {credits}" in PAGE


def test_its_tree_rule_gives_the_numbers_that_it_claims(page_test):
    spo = settings(COMMANDS[1])
    root = root_of(leaf(0.0), inner(leaf(0.0), leaf(0.0)), leaf(1.0))
    compute_values(root)

    def of_siblings(name: str) -> list[float]:
        samples = tree_samples(root, tree_rule(name, spo.shrinkage))
        return [sample.advantages[0] for sample in samples if len(sample.path) == 1]

    assert of_siblings(spo.credit) == [0.0, 0.0, 1.0] and "credits([0.0, 0.0, 1.0]) == [0.0, 0.0, 1.0]" in PAGE
    assert of_siblings("mean") == pytest.approx([-1 / 3, -1 / 3, 2 / 3]) and "-1/3, -1/3, 2/3" in PAGE


@pytest.mark.parametrize("key", ["algorithm.spo.credit", "algorithm.spo.chain.partition"])
def test_a_module_that_is_not_on_the_path_is_refused_before_anything_starts(page_test, key):
    with pytest.raises(SettingsError, match=f"{key} is 'no_rules:at_all': .*on PYTHONPATH of every process"):
        settings({**COMMANDS[0], key: "no_rules:at_all"})


def test_every_file_that_it_names_is_there():
    named = set(re.findall(r"`((?:recipe|tests)/[\w/.]+)`", PAGE))
    assert named and not [path for path in named if not (REPOSITORY / path).is_file()]
