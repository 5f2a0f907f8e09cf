"""The bench of learning curves: which runs there are, what is done again, what is refused."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from benchmarks.learning.command import main
from benchmarks.learning.plan import (
    BASELINE,
    DEMO_RATE,
    METHODS,
    TUNE_SEED,
    VARIANTS,
    Run,
    main_runs,
    parse_method,
    tuning_runs,
)
from benchmarks.learning.starts import make_start
from benchmarks.learning.store import commit
from recipe.spo.evaluation.store import locked
from recipe.spo.json_files import read_json, write_json
from tests.unit.learning_runs import FEW, Launcher, bench, error_of

TREE, MASK = METHODS["tree"], METHODS[BASELINE]


def test_runs_come_seed_by_seed_with_all_methods():
    runs = main_runs(list(VARIANTS.values()), None, [TREE, MASK], {"tree": 1e-4, BASELINE: 3e-5}, 300)
    assert [str(run.path) for run in runs] == [
        *(f"main/hard/{label}/seed{seed}" for seed in (0, 1, 2) for label in ("tree", "grpo-mask")),
        *(f"main/easy/{label}/seed0" for label in ("tree", "grpo-mask")),
    ]
    assert {run.rate for run in runs if run.method is TREE} == {1e-4}


def test_tuning_tries_every_rate_of_a_method_before_the_next_and_no_rate_that_is_given():
    fixed = parse_method("slow=tree actor_rollout_ref.actor.optim.lr=2e-5 algorithm.spo.credit=std")
    assert (fixed.rate, fixed.overrides) == (2e-5, ("algorithm.spo.credit=std",))
    runs = tuning_runs([TREE, fixed, MASK], (1e-4, 3e-4), 100)
    assert [str(run.path) for run in runs] == [
        f"tune/hard/{label}/seed{TUNE_SEED}/lr{rate}"
        for label in ("tree", "grpo-mask")
        for rate in ("0.0001", "0.0003")
    ]


def test_the_seed_is_everywhere_where_there_is_chance():
    one, other = (Run("main", VARIANTS["hard"], TREE, seed, 1e-4, 300).overrides for seed in (0, 1))
    changed = {line.partition("=")[0] for line in set(one) ^ set(other)}
    actor = "actor_rollout_ref.actor.data_loader_seed"
    assert changed == {"data.seed", "actor_rollout_ref.rollout.seed", actor, "critic.data_loader_seed"}


def test_a_run_is_constant_in_its_rate_and_validated_about_eight_times():
    run = Run("main", VARIANTS["hard"], TREE, 0, 1e-4, 300_000)
    assert {
        "algorithm.spo.token_budget=300000",
        "actor_rollout_ref.actor.optim.lr_scheduler_type=constant",
        "trainer.test_freq=3",  # of about 21 steps
        "trainer.save_freq=-1",
    } < set(run.overrides)
    assert Run("tune", VARIANTS["hard"], TREE, 0, 1e-4, 100_000).validate_every == 2
    assert Run("tune", VARIANTS["hard"], TREE, 0, 1e-4, 10).validate_every == 1


def test_every_method_has_a_number_of_questions():
    for variant in VARIANTS.values():
        assert variant.questions.keys() == METHODS.keys()


def test_everything_once_then_nothing(tmp_path, capsys):
    status, launcher = bench(tmp_path, *FEW)
    assert status == 0 and len(launcher.runs) == 2 * 3 + 2 * 4
    assert launcher.paths[0].startswith("tune/hard/grpo-mask") and launcher.paths[-1] == "main/easy/tree/seed0"
    assert {run.rate for run in launcher.runs if run.phase == "main"} == {1e-4}  # the best of the three
    assert (tmp_path / "results.md").exists()
    status, launcher = bench(tmp_path, *FEW)
    assert (status, launcher.runs) == (0, [])
    record = read_json(tmp_path / "main/hard/tree/seed1/run.json")
    assert record["exit_status"] == 0 and record["problem"] == "" and record["seconds"] == 12.0
    assert {"commit", "versions", "hardware", "started", "finished"} < record.keys()
    assert "1 of 8: hard, GRPO + mask, seed 0, learning rate 0.0001" in capsys.readouterr().out.replace("\n", "")


def test_ctrl_c_keeps_what_is_finished_and_does_the_rest_anew(tmp_path, capsys):
    def interrupted(run: Run) -> int:
        if run.seed == 1:
            raise KeyboardInterrupt
        return 0

    options = (*FEW, "--rates", "demo", "--variants", "hard")
    status, first = bench(tmp_path, *options, launcher=Launcher(interrupted))
    assert status == 130 and first.paths[-1] == "main/hard/grpo-mask/seed1"
    left = tmp_path / "main/hard/grpo-mask/seed1"
    (left / "half").write_text("a checkpoint")
    status, second = bench(tmp_path, *options)
    assert status == 0 and second.paths == [*first.paths[-1:], "main/hard/tree/seed1", *second.paths[2:]]
    assert len(second.runs) == 4 and not (left / "half").exists()
    assert "an unfinished or failed run there is removed" in capsys.readouterr().out


def test_a_failed_run_does_not_stop_the_others_and_is_done_anew(tmp_path, capsys):
    fails = Launcher(lambda run: 1 if run.seed == 0 and run.method is TREE else 0)
    options = (*FEW, "--rates", "demo", "--variants", "hard")
    status, launcher = bench(tmp_path, *options, launcher=fails)
    assert status == 1 and len(launcher.runs) == 6
    out = capsys.readouterr().out
    assert "failed: hard, SPO-tree, seed 0" in out and "main/hard/tree/seed0: exit status 1" in out
    assert bench(tmp_path, *options)[1].paths == ["main/hard/tree/seed0"]


def test_a_run_that_ends_too_soon_or_unvalidated_is_no_success(tmp_path, capsys):
    options = ("--methods", "tree", "--rates", "demo", "--variants", "easy")

    class Short(Launcher):
        def __call__(self, run, folder, start, console):
            done = super().__call__(run, folder, start, console)
            log = folder / "metrics.jsonl"
            log.write_text("".join(self.lines(log.read_text().splitlines(keepends=True))))
            return done

    short = Short()
    short.lines = lambda lines: lines[:2]
    assert bench(tmp_path, *options, launcher=short)[0] == 1
    assert "it ended after 40 of 100 tokens" in capsys.readouterr().out.replace("\n", " ")
    short.lines = lambda lines: [*lines[:-1], lines[-1].replace("val-core", "other")]
    assert bench(tmp_path, *options, launcher=short)[0] == 1
    assert "not validated before training and after its last step" in capsys.readouterr().out.replace("\n", " ")
    assert read_json(tmp_path / "main/easy/tree/seed0/run.json")["problem"]
    assert bench(tmp_path, *options)[0] == 0


def test_other_settings_are_refused_before_anything_starts(tmp_path, capsys):
    options = ("--methods", "tree", "--rates", "demo", "--variants", "hard")
    bench(tmp_path, *options, "--seeds", "0")
    capsys.readouterr()
    status, launcher = bench(tmp_path, *options, "--budget", "200")
    assert (status, launcher.runs) == (2, [])
    assert "token_budget: there 100, now 200" in error_of(capsys)
    status, launcher = bench(tmp_path, *options, "--problems", "50")
    assert (status, launcher.runs) == (2, []) and "start.problems: there 100, now 50" in error_of(capsys)


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    folder = tmp_path / "main/easy/tree/seed0"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    status, launcher = bench(tmp_path, "--methods", "tree", "--rates", "demo", "--variants", "easy")
    assert (status, launcher.runs) == (2, []) and "holds no run" in error_of(capsys)
    assert (folder / "thesis.tex").exists()


def test_two_benches_do_not_share_a_folder(tmp_path, capsys):
    with locked(tmp_path):
        assert bench(tmp_path, *FEW)[0] == 2
    assert "is being written by another process" in error_of(capsys)


def test_the_main_phase_wants_rates(tmp_path, capsys):
    assert bench(tmp_path, *FEW, "--only", "main")[0] == 2
    assert "rates.json does not exist: run the phase tune first (--only tune)" in error_of(capsys)
    assert bench(tmp_path, "--methods", "tree", "--only", "tune")[0] == 0
    capsys.readouterr()
    assert bench(tmp_path, *FEW, "--only", "main")[0] == 2
    assert "has no learning rate for grpo-mask" in error_of(capsys)
    status, launcher = bench(tmp_path, *FEW, "--only", "main", "--rates", "demo", "--variants", "easy")
    assert status == 0 and {run.rate for run in launcher.runs} == {DEMO_RATE}


def test_a_method_of_ones_own_is_tuned_and_run_beside_the_others(tmp_path, capsys):
    own = ("--method", "tree-666=tree algorithm.spo.tree.branch_factors=[6,6,6]", "--variants", "easy")
    status, launcher = bench(tmp_path, *own, "--methods", "tree-666,grpo-mask")
    assert status == 0 and launcher.paths[-1] == "main/easy/tree-666/seed0"
    assert launcher.runs[-1].overrides[-1] == "algorithm.spo.tree.branch_factors=[6,6,6]"
    text = (tmp_path / "results.md").read_text()
    assert re.search(r"^\| tree-666 .* \| \+10\.0 \| \+5\.0 \|", text, re.MULTILINE)
    assert "* `tree-666` is SPO-tree with `algorithm.spo.tree.branch_factors=[6,6,6]`, learning rate 0.0001." in text
    capsys.readouterr()
    other = ("--method", "tree-666=tree algorithm.spo.credit=std", "--variants", "easy", "--methods", "tree-666")
    assert bench(tmp_path, *other, "--only", "main")[0] == 2
    assert "tree-666 was tuned as tree algorithm.spo.tree.branch_factors=[6,6,6], now it is" in error_of(capsys)


def test_a_method_whose_tuning_failed_is_left_out(tmp_path, capsys):
    fails = Launcher(lambda run: int(run.phase == "tune" and run.method is TREE and run.rate == 3e-4))
    status, launcher = bench(tmp_path, *FEW, "--variants", "easy", launcher=fails)
    assert status == 1 and launcher.paths[-1] == "main/easy/grpo-mask/seed0"
    assert "left out: tree has no learning rate" in capsys.readouterr().out


def test_all_runs_may_fail(tmp_path, capsys):
    assert bench(tmp_path, *FEW, "--rates", "demo", launcher=Launcher(lambda run: 3))[0] == 1
    assert capsys.readouterr().out.count("exit status 3") >= 8


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--methods", "forest"], "--methods: there is no forest; there are grpo, grpo-mask"),
        (["--methods", "tree,tree"], "--methods 'tree,tree': give each once"),
        (["--variants", "harder"], "--variants: there is no harder; there are hard, easy"),
        (["--seeds", "0,x"], "--seeds '0,x': give whole numbers"),
        (["--seeds", "100"], "100 is the seed that learning rates are tuned with"),
        (["--grid", "1e-4,fast"], "--grid: 'fast' is not a number above 0"),
        (["--grid", "0"], "--grid: '0' is not a number above 0"),
        (["--budget", "0"], "--budget is 0: it must be at least 1"),
        (["--problems", "-1"], "--problems is -1"),
        (["--method", "tree=tree a=b"], "tree is a method already"),
        (["--method", "x=forest"], "METHOD one of grpo"),
        (["--method", "x=tree branching"], "--method x: 'branching' is not key=value"),
        (["--method", "../x=tree"], "LABEL of small letters"),
        (["--method", "x=tree actor_rollout_ref.actor.optim.lr=no"], "optim.lr: 'no' is not a number above 0"),
        (["--method", "x=tree", "--method", "x=chain"], "two of them have the same label"),
        (["--method", "x=tree 'a"], "No closing quotation"),
        (["--rates", "demo", "--only", "tune"], "leave out --rates or --only tune"),
        (["--rates", "/nowhere/rates.json"], "/nowhere/rates.json does not exist"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, capsys, arguments, complaint):
    status, launcher = bench(tmp_path, *arguments)
    assert (status, launcher.runs) == (2, []) and complaint in error_of(capsys)


def test_out_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")], Launcher()) == 2
    assert "is a file; give a folder" in error_of(capsys)


def test_help_tells_how(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0 and "the same command goes on where it stopped" in capsys.readouterr().out


class TestStart:
    """Data and policy of a variant, from a `prepare` that makes next to nothing."""

    @staticmethod
    def prepare(folder, problems, console, task):
        for name in ("data/train.parquet", "data/validation.parquet", "policy/model.safetensors"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(f"{name} {task.max_steps}")
        write_json(folder / "policy/tiny_policy.json", {"greedy_accuracy": 0.25})
        return folder / "data", folder / "policy"

    def test_is_made_once_and_known_by_its_contents(self, tmp_path):
        first = make_start(tmp_path, VARIANTS["hard"], 256, None, self.prepare)
        assert first.data == tmp_path / "starts/hard/data" and first.facts["policy_greedy_accuracy"] == 0.25
        again = make_start(tmp_path, VARIANTS["hard"], 256, None, self.prepare)
        assert again == first and json.loads(json.dumps(first.facts)) == first.facts
        easy = make_start(tmp_path, VARIANTS["easy"], 256, None, self.prepare)
        assert easy.facts["policy_sha256"] != first.facts["policy_sha256"]

    def test_of_another_size_is_refused_before_it_is_made(self, tmp_path, capsys):
        make_start(tmp_path, VARIANTS["hard"], 256, None, self.prepare)

        def never(*arguments):
            raise AssertionError

        from recipe.spo.evaluation.errors import EvaluationError

        with pytest.raises(EvaluationError, match="problems: there 256, now 64"):
            make_start(tmp_path, VARIANTS["hard"], 64, None, never)

    def test_that_cannot_be_made_is_one_line(self, tmp_path):
        from benchmarks.learning.errors import LearningError

        def fails(*arguments):
            raise subprocess.CalledProcessError(2, "prepare")

        with pytest.raises(LearningError, match="of hard could not be made, see above"):
            make_start(tmp_path, VARIANTS["hard"], 64, None, fails)


def test_the_commit_is_known_or_absent(monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.learning.store.REPOSITORY", tmp_path)
    assert commit() is None
