"""The value bench on a policy with exactly known values: closed forms, planted faults, resuming."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from recipe.spo.bench import measuring
from recipe.spo.bench.analysis import analyse
from recipe.spo.bench.files import write_files
from recipe.spo.bench.methods import Method
from recipe.spo.bench.store import Part
from recipe.spo.evaluation.errors import EvaluationError
from tests.unit.bench_runs import SETTINGS, all_methods, bench
from tests.unit.chain_policy import exact_gradient, true_value
from tests.unit.test_markov import LENGTH, PROMPT, assert_unbiased, assert_variance, first_segments, worth

ROOT = worth(PROMPT, LENGTH)


def shifted(method: Method, name: str, change) -> Method:
    """A wrong estimator: every value that it gives a state is changed by change(state)."""

    def credit(rollout, references):
        samples, found = method.credit(rollout, references)
        wrong = [
            [
                part._replace(before=part.before + change(part.begin), after=part.after + change(part.end))
                for part in one
            ]
            for one in found
        ]
        return samples, [[part._replace(advantage=part.after - part.before) for part in one] for one in wrong]

    return replace(method, name=name, family=name, credit=credit, gradient=False)


def with_faults() -> list[Method]:
    methods = all_methods()
    chain = next(method for method in methods if method.name == "chain, K=4")
    noise = random.Random(5)
    return [
        *methods,
        shifted(chain, "biased later", lambda state: 0.15 if state >= 3 else 0.0),
        shifted(chain, "noisier", lambda state: noise.gauss(0, 0.8)),
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished bench with two planted faults, its questions and its numbers."""
    methods = with_faults()
    run = bench(tmp_path_factory.mktemp("bench"), methods)
    run.run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "BIN", 3)
        numbers = analyse(run.measured(), methods, run.gradients(), SETTINGS.mask_threshold, 40, 2000, seed=0)
    return run, run.measured(), numbers


def row(numbers, name: str) -> dict:
    return next(each for each in numbers["methods"] if each["method"] == name)


def assert_near(found: dict, value: float) -> None:
    """Within three standard errors, taken from the 95 % interval."""
    error = (found["high"] - found["low"]) / 3.92
    assert abs(found["value"] - value) < 3 * error, (found, value)
    assert error < 0.35 * max(abs(value), 0.1)  # else the comparison says nothing


# --- closed forms --------------------------------------------------------------------------------


def test_the_ground_truth_is_unbiased_and_knows_its_error(finished):
    _, questions, _ = finished
    squares, errors = [], []
    for question in questions:
        for reference in question.references:
            for state, value, error in zip(reference.sampled, reference.values, reference.errors, strict=True):
                squares.append((value - true_value(reference.node.token_ids[:state])) ** 2)
                errors.append(error)
    assert statistics.fmean(squares) == pytest.approx(statistics.fmean(errors), rel=0.15)


def test_the_reward_of_one_response_errs_by_the_variance_of_the_reward(finished):
    assert_near(row(finished[2], "trajectory reward, 4")["own_value_mse"], ROOT * (1 - ROOT))
    assert_near(row(finished[2], "trajectory reward, 4")["own_value_worth"], 1)


@pytest.mark.parametrize("size", [4, 8])
def test_a_groups_mean_errs_by_a_share_of_it(finished, size):
    found = row(finished[2], f"group mean, {size}")
    assert_near(found["own_value_mse"], ROOT * (1 - ROOT) / size)


def test_the_mean_of_the_others_is_worth_one_response_less(finished):
    assert_near(row(finished[2], "leave-one-out, 4")["own_value_mse"], ROOT * (1 - ROOT) / 3)


@pytest.mark.parametrize("k", [1, 4])
def test_a_chains_value_is_worth_its_continuations(finished, k):
    assert_near(row(finished[2], f"chain, K={k}")["own_value_worth"], k)


def test_a_tree_through_references_has_the_variance_of_any_tree(finished):
    _, questions, _ = finished
    ends = list(first_segments("fixed_length"))
    between = sum(chance * (value - ROOT) ** 2 for chance, value in ends)
    within = sum(chance * value * (1 - value) for chance, value in ends)
    roots = [question.segments["tree 2-3"][0][0].before for question in questions]
    assert_variance(roots, (between + within / 3) / 2)


@pytest.mark.parametrize("method", ["chain, K=4", "tree 2-3", "tree 6-6", "cut-point tree 2-3"])
def test_values_are_unbiased_given_the_state(finished, method):
    _, questions, _ = finished
    found = defaultdict(list)
    for question in questions:
        for reference, parts in zip(question.references, question.segments[method], strict=True):
            for part in parts:
                ids = tuple(reference.node.token_ids[: part.begin])
                found[(PROMPT, *ids)[-1], LENGTH - len(ids)].append(part.before)
    assert_unbiased(found, lambda state: worth(*state), least=40)


@pytest.mark.parametrize("method", ["group mean, 8", "chain, K=4", "tree 6-6"])
def test_the_corrected_error_is_the_error_against_exact_values(finished, method):
    """Against noisy truth, less its noise, as against the truth itself: question by question on average."""
    _, questions, _ = finished
    differences = []
    for question in questions:
        sums, _, _ = measuring.own_sums(question.references, question.segments[method], 4)
        exact = sum(
            (part.before - true_value(reference.node.token_ids[: part.begin])) ** 2
            for reference, parts in zip(question.references, question.segments[method], strict=True)
            for part in parts
        )
        differences.append(sums[6] - exact)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    assert abs(statistics.fmean(differences)) < 3 * error


# --- planted faults ------------------------------------------------------------------------------


def test_a_planted_bias_is_found_where_it_is(finished):
    honest, wrong = row(finished[2], "chain, K=4"), row(finished[2], "biased later")
    by_place = {part["from_token"]: part for part in wrong["own_value_bias_by_position"]}
    assert by_place[0]["low"] < 0 < by_place[0]["high"]
    assert by_place[3]["low"] > 0.05 and by_place[3]["low"] < 0.15 < by_place[3]["high"]
    assert wrong["own_value_bias"]["low"] > 0
    assert wrong["own_value_mse"]["value"] > honest["own_value_mse"]["value"]
    assert all(part["low"] < 0.02 and part["high"] > -0.02 for part in honest["own_value_bias_by_position"])


def test_a_noisier_estimator_ranks_lower_in_everything(finished):
    honest, noisier = row(finished[2], "chain, K=4"), row(finished[2], "noisier")
    assert noisier["own_value_mse"]["low"] > honest["own_value_mse"]["high"]
    assert noisier["value_mse"]["low"] > honest["value_mse"]["high"]
    for name in ("segment_advantage_correlation", "token_advantage_correlation"):
        assert noisier[name]["high"] < honest[name]["low"], name
    assert noisier["sibling_rank_accuracy"]["high"] < honest["sibling_rank_accuracy"]["high"]
    assert noisier["sibling_rank_accuracy"]["value"] < honest["sibling_rank_accuracy"]["value"] - 0.05


def test_more_continuations_are_better_and_cost_more(finished):
    one, four = row(finished[2], "chain, K=1"), row(finished[2], "chain, K=4")
    assert four["own_value_mse"]["high"] < one["own_value_mse"]["low"] and four["tokens"] > one["tokens"]


def test_what_has_no_scale_has_no_error(finished):
    for name in ("group mean / std, 4", "tree 2-3, global+local"):
        found = row(finished[2], name)
        assert found["value_mse"] is None and found["segment_advantage_mse"] is None
        assert found["segment_advantage_correlation"]["low"] > 0


# --- gradients -----------------------------------------------------------------------------------


def test_the_gradient_of_a_group_and_of_the_truth_are_the_exact_one(finished):
    run, _, _ = finished
    exact, found = exact_gradient(), run.gradients()
    names = [method.name for method in run.measured_gradients]
    for index, responses in ((names.index("leave-one-out, 4"), 4), (-1, SETTINGS.responses)):
        each = found[:, index, 0] / responses
        error = each.std(axis=0, ddof=1) / math.sqrt(len(each))
        assert (
            np.abs(each.mean(axis=0) - exact).max() > 0 and (np.abs(each.mean(axis=0) - exact) < 4 * error + 1e-6).all()
        )


def test_a_baseline_lessens_the_noise_and_a_mask_turns_the_gradient(finished):
    rows = {(each["method"], each["trains"]): each for each in finished[2]["gradients"]["rows"]}
    reward, group = (rows[name, "all tokens"] for name in ("trajectory reward, 4", "group mean, 4"))
    assert reward["noise_to_signal"]["value"] > group["noise_to_signal"]["value"]
    assert group["direction"]["value"] > 0.95
    assert rows["group mean, 4", "mask"]["direction"]["high"] < group["direction"]["low"]


# --- resuming ------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def test_an_interrupted_bench_ends_in_the_same_numbers(tmp_path):
    settings, methods = replace(SETTINGS, chunk=4), all_methods()
    whole = bench(tmp_path / "whole", methods, 12, settings)
    whole.run()
    for stop in (2, 5):  # in the truth, in the rollouts
        told = []

        def progress(part, count, told=told, stop=stop):
            told.append(part)
            if len(told) == stop:
                raise Stopped

        folder = tmp_path / f"stopped {stop}"
        with pytest.raises(Stopped):
            bench(folder, methods, 12, settings).run(progress)
        resumed = bench(folder, methods, 12, settings)
        assert resumed.done() != {"truth": 12, "rollouts": 12}
        resumed.run()
        assert resumed.measured() == whole.measured()
        assert np.array_equal(resumed.gradients(), whole.gradients())


def test_a_finished_bench_samples_nothing(tmp_path):
    settings, methods = replace(SETTINGS, chunk=4), all_methods()
    first = bench(tmp_path, methods, 8, settings)
    first.run()

    def none():
        raise AssertionError("nothing is to be sampled")

    again = bench(tmp_path, methods, 8, settings, client=none, gradient=none)
    again.run()
    assert again.measured() == first.measured()


def test_two_questions_are_enough_and_say_little(tmp_path):
    """Where a bootstrap draws one question twice, nothing is defined; then there is no interval, and no error."""
    methods = all_methods()
    run = bench(tmp_path / "bench", methods, 2)
    run.run()
    numbers = analyse(run.measured(), methods, run.gradients(), SETTINGS.mask_threshold, 40, 2000, seed=0)
    assert write_files(tmp_path, numbers, run.measured())
    assert all(each["cosine"]["low"] is None for each in numbers["gradients"]["rows"])
    assert all(each["tokens"] > 0 for each in numbers["methods"])


def test_another_seed_gives_other_numbers(tmp_path):
    runs = [bench(tmp_path / str(s), all_methods(), 4, replace(SETTINGS, seed=s)) for s in (0, 1)]
    for run in runs:
        run.run()
    assert runs[0].measured() != runs[1].measured()


def test_another_fingerprint_or_a_damaged_chunk_is_refused(tmp_path):
    settings, methods = replace(SETTINGS, chunk=4), all_methods()
    bench(tmp_path, methods, 4, settings).run()
    with pytest.raises(EvaluationError, match='rollouts holds another bench .*there "rollouts", now "other"'):
        bench(tmp_path, methods, 4, settings, rollouts="other")
    (tmp_path / "truth" / "00000.json").write_text("[")
    with pytest.raises(EvaluationError, match="00000.json is damaged"):
        bench(tmp_path, methods, 4, settings).measured()
    (tmp_path / "rollouts" / "00000.npy").write_bytes(b"")
    with pytest.raises(EvaluationError, match="00000.npy is damaged"):
        bench(tmp_path, methods, 4, settings).gradients()
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaluationError, match="is a file"):
        Part(tmp_path / "file", {})


def test_the_files_hold_what_was_measured(finished, tmp_path):
    import pyarrow.parquet as pq

    _, questions, numbers = finished
    paths = write_files(tmp_path, numbers, questions)
    assert {path.name for path in paths} >= {"result.json", "tables.md", "error.png", "gradient.png"}
    assert all(path.stat().st_size > 1000 for path in paths)
    states = pq.read_table(tmp_path / "states.parquet").to_pylist()
    assert len(states) == numbers["truth"]["states"]
    errors = [
        (each["chain, K=4"] - each["value"]) ** 2 - each["squared_standard_error"]
        for each in states
        if each["chain, K=4"] is not None
    ]
    assert statistics.fmean(errors) == pytest.approx(row(numbers, "chain, K=4")["value_mse"]["value"])
    segments = pq.read_table(tmp_path / "segments.parquet").to_pylist()
    assert {each["method"] for each in segments} == {each["method"] for each in numbers["methods"]}
    assert "**Values**" in (tmp_path / "tables.md").read_text()
