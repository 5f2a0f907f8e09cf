"""The bench of learning curves: which rates are chosen, what its tables hold and what is said of them."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.learning.numbers import Mean
from benchmarks.learning.plan import (
    TUNE_SEED,
)
from benchmarks.learning.publish import compact_log
from benchmarks.learning.rates import choose
from benchmarks.learning.report import panels_of
from benchmarks.learning.results import gather
from benchmarks.learning.tables import sentences
from recipe.spo.json_files import read_json, write_json
from tests.unit.learning_runs import FEW, bench, error_of


def test_runs_that_differ_are_not_compared(tmp_path, capsys):
    bench(tmp_path, "--methods", "tree", "--rates", "demo", "--variants", "easy")
    capsys.readouterr()
    assert bench(tmp_path, "--methods", "rloo", "--rates", "demo", "--variants", "easy", "--budget", "120")[0] == 2
    assert "cannot be compared with" in (line := error_of(capsys)) and "token_budget" in line


def test_seeds_of_other_settings_are_not_averaged(tmp_path, capsys):
    def run(factors: str, seed: str) -> int:
        method = f"wide=tree algorithm.spo.tree.branch_factors={factors} actor_rollout_ref.actor.optim.lr=1e-4"
        arguments = ("--method", method, "--methods", "wide", "--only", "main", "--variants", "easy", "--seeds", seed)
        return bench(tmp_path, *arguments)[0]

    assert run("[6,6,6]", "0") == run("[6,6,6]", "1") == 0
    capsys.readouterr()
    assert run("[2,2]", "2") == 2
    assert "is not another seed of" in (line := error_of(capsys)) and "branch_factors: there" in line


def test_choosing_a_rate_by_hand():
    chosen = choose({1e-4: 0.5, 3e-4: 0.495, 3e-5: 0.4})
    assert chosen == {
        "rate": 1e-4,
        "area": {"3e-05": 0.4, "0.0001": 0.5, "0.0003": 0.495},
        "near_ties": [3e-4],
        "at_end_of_grid": False,
    }
    assert choose({1e-4: 0.5, 3e-4: 0.6})["at_end_of_grid"] and not choose({1e-4: 0.5})["at_end_of_grid"]
    assert choose({3e-4: 0.5, 1e-4: 0.5})["rate"] == 1e-4, "of equal ones the smaller"


def test_rates_json_says_how_they_were_chosen(tmp_path):
    bench(tmp_path, "--methods", "tree", "--only", "tune")
    entry = read_json(tmp_path / "rates.json")["tree"]
    # In a straight line from .2, with slope .003, .0015 and .0024: the mean up to 80 tokens.
    assert entry["area"] == {
        "3e-05": pytest.approx(0.26),
        "0.0001": pytest.approx(0.32),
        "0.0003": pytest.approx(0.296),
    }
    assert (entry["rate"], entry["seed"], entry["token_budget"], entry["variant"]) == (1e-4, TUNE_SEED, 80, "hard")
    bench(tmp_path, "--methods", "chain", "--only", "tune")
    assert read_json(tmp_path / "rates.json").keys() == {"tree", "chain"}


@pytest.mark.parametrize("content", ['{"tree": {"rate": 0}}', '{"tree": 1e-4}', "[]", '{"tree": {"rate": true}}', "{"])
def test_rates_that_are_none_are_refused(tmp_path, capsys, content):
    (tmp_path / "rates.json").write_text(content)
    assert bench(tmp_path, "--methods", "tree", "--only", "main")[0] == 2
    assert "rates.json" in error_of(capsys)


def test_the_table_by_hand(tmp_path):
    bench(tmp_path, *FEW, "--rates", "demo", "--variants", "hard")
    with open(tmp_path / "results.csv", newline="") as file:
        tree, mask = csv.DictReader(file)
    assert (tree["method"], mask["method"]) == ("tree", "grpo-mask")
    # At 100 tokens .2 + .3 (1 + seed / 10) and .2 + .2 (1 + seed / 10): differences .10, .11, .12.
    assert float(tree["final"]) == pytest.approx(0.53) and float(mask["final"]) == pytest.approx(0.42)
    assert float(tree["final_se"]) == pytest.approx(0.03 / 3**0.5, rel=1e-5)
    assert float(tree["final_minus_baseline"]) == pytest.approx(0.11)
    error = 0.01 / 3**0.5
    assert float(tree["final_minus_baseline_se"]) == pytest.approx(error, rel=1e-5)
    assert float(tree["final_minus_baseline_low"]) == pytest.approx(0.11 - 4.303 * error, rel=1e-5)
    assert float(tree["area"]) == pytest.approx(0.365) and float(tree["area_minus_baseline"]) == pytest.approx(0.055)
    assert mask["final_minus_baseline"] == "" and tree["final_minus_baseline_pairs"] == "3"
    # Three steps of 40 tokens, two optimiser steps and 2.5 seconds each.
    assert (tree["steps"], tree["optimizer_steps"], tree["generated_tokens"]) == ("3", "6", "120")
    assert (tree["training_seconds"], tree["seconds"], tree["trained_tokens"]) == ("7.5", "12", "21")
    text = (tmp_path / "results.md").read_text()
    assert "| SPO-tree | 0.0001 | 0, 1, 2 | 53.0 ± 1.7 | 36.5 ± 0.9 | +11.0 ± 0.6 [+8.5, +13.5] |" in text
    assert "SPO-tree **beats grpo-mask by more than two standard errors**: +11.0 points ± 0.6" in text
    for axis in ("tokens", "time", "optimizer"):
        assert (tmp_path / f"accuracy_hard_{axis}.png").read_bytes().startswith(b"\x89PNG")


def set_cores(records, cores):
    for path in records:
        record = read_json(path)
        record["hardware"]["cores"] = cores
        write_json(path, record)


def test_runs_on_different_numbers_of_cores_are_named(tmp_path):
    bench(tmp_path, *FEW, "--rates", "demo", "--variants", "hard")
    set_cores(tmp_path.glob("main/hard/tree/*/run.json"), 2)
    set_cores(tmp_path.glob("main/hard/tree/seed0/run.json"), 1)
    bench(tmp_path, "--report")
    text = (tmp_path / "results.md").read_text()
    assert re.search(r"^\| SPO-tree .* \| 12 \| 1, 2 \|$", text, re.MULTILINE)
    assert "Runs had different numbers of cores" in text
    set_cores(tmp_path.glob("main/hard/*/*/run.json"), 2)
    bench(tmp_path, "--report")
    text = (tmp_path / "results.md").read_text()
    assert re.search(r"^\| SPO-tree .* \| 12 \| 2 \|$", text, re.MULTILINE)
    assert "different numbers of cores" not in text


def test_variations_have_a_panel_of_their_own_beside_what_they_vary():
    bases = {"tree": "tree", "rloo": "rloo", "grpo-mask": "grpo-mask", "tree-gl": "tree", "tree-loo": "tree"}
    lines = {label: (label.upper(), object()) for label in bases}
    panels = panels_of("hard", list(lines), lines, bases)
    assert {name: list(panel) for name, panel in panels.items()} == {
        "hard arithmetic": ["TREE", "RLOO", "GRPO-MASK"],
        "hard arithmetic, variations": ["TREE", "GRPO-MASK", "TREE-GL", "TREE-LOO"],
    }
    assert panels["hard arithmetic, variations"]["TREE-GL"] is lines["tree-gl"][1]
    assert list(panels_of("hard", ["tree"], lines, bases)) == ["hard arithmetic"]
    alone = {"tree-gl": lines["tree-gl"]}
    assert list(panels_of("hard", ["tree-gl"], alone, bases)) == ["hard arithmetic, variations"]


def test_one_seed_has_its_binomial_error_and_decides_nothing(tmp_path):
    bench(tmp_path, *FEW, "--rates", "demo", "--variants", "easy")
    text = (tmp_path / "results.md").read_text()
    assert "| SPO-tree | 0.0001 | 0 | 50.0 (± 5.0) | 35.0 | +10.0 | +5.0 |" in text  # sqrt(.5 .5 / 100)
    assert "one seed has no standard error, so this decides nothing" in text


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (
            Mean(0.10, 0.01, 3),
            "**beats grpo-mask by more than two standard errors**: +10.0 points ± 1.0 (paired, n = 3)",
        ),
        (Mean(0.03, 0.02, 3), "**does not beat grpo-mask by more than two standard errors**: +3.0 points"),
        (Mean(-0.03, 0.01, 3), "it is behind by more than two standard errors**: -3.0 points"),
        (Mean(0.03, 0.01, 3), "is [-1.3, +7.3] and includes 0"),
        (None, "cannot be compared with grpo-mask: no seed that both have run"),
    ],
)
def test_what_is_said_follows_from_the_numbers(difference, words):
    from types import SimpleNamespace

    row = SimpleNamespace(base="tree", label="tree", variant="hard", title="SPO-tree", seeds=(0, 1, 2))
    row.final_difference = row.area_difference = difference
    final, area = sentences([row])
    assert words in final and words in area and final.startswith("hard, final accuracy: SPO-tree")
    row.label, row.title = "tree-gl", "tree-gl"
    assert len(sentences([row])) == 2
    row.seeds = (0,)
    assert sentences([row]) == ["hard, of one seed each, which has no standard error and decides nothing: tree-gl."]
    row.base = "rloo"
    assert sentences([row]) == []


def test_the_report_says_what_a_variation_changes(tmp_path):
    variation = "tree-gl=tree algorithm.spo.credit=global_local actor_rollout_ref.actor.optim.lr=3e-5"
    bench(tmp_path, "--method", variation, "--methods", "tree,tree-gl", "--rates", "demo", "--variants", "easy")
    text = (tmp_path / "results.md").read_text()
    assert "* `tree-gl` is SPO-tree with `algorithm.spo.credit=global_local`, learning rate 3e-05.\n" in text


def test_rates_of_another_bench_are_not_missing(tmp_path):
    bench(tmp_path, *FEW, "--variants", "easy")
    shutil.rmtree(tmp_path / "tune")
    bench(tmp_path, *FEW, "--variants", "easy", "--report")
    assert "Not in this report" not in (tmp_path / "results.md").read_text()


def test_a_report_of_part_says_what_is_missing(tmp_path, capsys):
    assert bench(tmp_path / "none", "--report")[0] == 2
    assert "does not exist: nothing to report" in error_of(capsys)
    bench(tmp_path, "--methods", "tree", "--rates", "demo", "--variants", "hard", "--seeds", "0")
    capsys.readouterr()
    status, launcher = bench(tmp_path, "--report", "--only", "main")
    assert (status, launcher.runs) == (0, [])
    text = (tmp_path / "results.md").read_text()
    assert "* main/hard/tree/seed1: not run" in text and "main/hard/tree/seed0: not run" not in text
    assert "cannot be compared with grpo-mask" in text
    assert text.count(": not run") == 3 * 7 + 7 - 1


def test_what_is_published_gives_the_same_report_and_no_paths(tmp_path, capsys):
    out, docs = tmp_path / "out", tmp_path / "docs"
    bench(out, *FEW, "--variants", "easy")
    assert bench(out, *FEW, "--variants", "easy", "--publish", str(docs))[0] == 0
    for name in ("results.md", "results.csv"):
        assert (docs / name).read_text() == (out / name).read_text()
    (log,) = (docs / "main/easy/tree").glob("seed0/metrics.jsonl")
    assert "not/kept" not in log.read_text() and "spo/root_value" in log.read_text()
    for file in docs.rglob("*.*"):
        if file.is_file() and file.suffix != ".png":
            assert str(tmp_path) not in file.read_text(), file
    run = gather(docs, "main")[0][0]
    assert compact_log(run.run.steps) == (run.folder / "metrics.jsonl").read_text()
    shutil.rmtree(out / "main/easy/tree")
    assert bench(out, *FEW, "--variants", "easy", "--publish", str(docs))[0] == 0
    assert not list((docs / "main/easy/tree").rglob("*.json*")), "what is no more in the bench"
    assert "| SPO-tree" not in (docs / "results.md").read_text()
    capsys.readouterr()
    assert bench(out, "--publish", str(out))[0] == 2 and "choose another" in error_of(capsys)


WEIGHTS = Path("starts/hard/policy/model.safetensors")


def begun_with(out: Path, weights: bytes) -> None:
    """Put a start policy into a bench, as `make_start` would."""
    (out / WEIGHTS).parent.mkdir(parents=True)
    (out / WEIGHTS).write_bytes(weights)
    (out / "starts/hard/data").mkdir()
    (out / "starts/hard/data/train.parquet").write_text("large")
    write_json(out / "starts/hard/start.json", {"problems": 100})


def published(tmp_path: Path) -> Path:
    """A published bench of seed 0."""
    here, docs = tmp_path / "here", tmp_path / "docs"
    begun_with(here, b"\xff\x00weights")
    options = (*FEW, "--variants", "hard", "--seeds", "0")
    assert bench(here, *options)[0] == bench(here, *options, "--publish", str(docs))[0] == 0
    return docs


def test_a_bench_goes_on_on_another_machine(tmp_path, capsys):
    docs, there = published(tmp_path), tmp_path / "there"
    assert sorted(path.name for path in (docs / "starts/hard").iterdir()) == ["policy", "start.json"], "no data"
    capsys.readouterr()
    options = (*FEW, "--variants", "hard", "--from", str(docs))
    status, launcher = bench(there, *options)
    assert status == 0 and launcher.paths == [
        f"main/hard/{label}/seed{seed}" for seed in (1, 2) for label in ("grpo-mask", "tree")
    ]
    assert (there / WEIGHTS).read_bytes() == b"\xff\x00weights"
    assert read_json(there / "starts/hard/start.json") == {"problems": 100}, "another task is refused before it is made"
    assert "8 runs taken from" in capsys.readouterr().out.replace("\n", " ")
    # What is there already is not replaced: its log is larger than the published one.
    log = there / "main/hard/tree/seed0/metrics.jsonl"
    log.write_text(log.read_text() + "\n")
    status, launcher = bench(there, *options)
    assert (status, launcher.runs) == (0, []) and "0 runs taken" in capsys.readouterr().out
    assert log.read_text().endswith("\n\n") and not list(tmp_path.rglob("*.partial"))


def test_nothing_is_taken_into_a_bench_of_another_start_policy(tmp_path, capsys):
    docs, there = published(tmp_path), tmp_path / "there"
    begun_with(there, b"other")
    capsys.readouterr()
    assert bench(there, *FEW, "--from", str(docs))[0] == 2
    assert "is another start policy than" in error_of(capsys)
    assert (there / WEIGHTS).read_bytes() == b"other" and not (there / "main").exists()


def test_what_is_no_run_is_not_replaced(tmp_path, capsys):
    docs, there = published(tmp_path), tmp_path / "there"
    thesis = there / "main/hard/tree/seed0/thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("x")
    capsys.readouterr()
    assert bench(there, *FEW, "--from", str(docs))[0] == 2 and "holds no run" in error_of(capsys)
    assert thesis.exists()


def test_rates_of_ones_own_stay_beside_those_that_are_taken(tmp_path):
    docs, out = tmp_path / "docs", tmp_path / "out"
    bench(docs, "--methods", "tree", "--only", "tune")
    taken = read_json(docs / "rates.json")["tree"]
    bench(out, "--methods", "tree,chain", "--only", "tune", "--grid", "3e-5")
    bench(out, "--methods", "rloo", "--only", "tune", "--from", str(docs))
    rates = read_json(out / "rates.json")
    elsewhere = "The runs that chose them are not in this bench"
    assert elsewhere not in (out / "results.md").read_text()
    shutil.rmtree(out / "tune")
    assert bench(out, "--methods", "rloo", "--only", "main", "--variants", "easy")[0] == 0
    assert elsewhere in (out / "results.md").read_text()
    assert rates.keys() == {"tree", "chain", "rloo"} and rates["tree"]["rate"] == 3e-5 != taken["rate"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "{out}"], "is the folder of the bench itself"),
        (["--from", "{out}/empty"], "holds no published run and no start policy"),
        (["--from", "{out}/docs", "--report"], "--from {out}/docs is for a bench that runs"),
    ],
)
def test_what_cannot_be_taken_is_one_line(tmp_path, capsys, arguments, complaint):
    arguments = [argument.format(out=tmp_path) for argument in arguments]
    status, launcher = bench(tmp_path, *FEW, *arguments)
    assert (status, launcher.runs) == (2, []) and complaint.format(out=tmp_path) in error_of(capsys)
