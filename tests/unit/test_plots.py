"""Seeds as a line with a band, by hand; and the command that draws them."""

from __future__ import annotations

import csv
import json

import pytest

from recipe.spo.plots.__main__ import main
from recipe.spo.plots.band import BandError, average, standard_error
from recipe.spo.plots.draw import COLORS, draw, scale, styles_of
from recipe.spo.plots.runs import AXES, load, points
from recipe.spo.training_log import LogError

SOURCE = "s/math"


def log(path, accuracy, tokens=100, seconds=2.0, sources=(SOURCE,), steps=None):
    """Write a run that is validated at the given steps; a step takes `seconds` and `tokens`."""
    records = []
    for step in range(max(accuracy) + 1 if steps is None else steps):
        costs = {"spo/generated_tokens": tokens, "timing_s/step": seconds, "timing_s/testing": 50.0}
        data = {} if step == 0 else costs | {"spo/optimizer_steps": 2, "spo/skipped_updates": 0}
        if step in accuracy:
            data |= {f"val-core/{source}/acc/mean@1": accuracy[step] for source in sources}
        records.append({"step": step, "data": data})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_mean_and_standard_error_at_shared_steps():
    band = average([[(0, 0.2), (10, 0.4)], [(0, 0.2), (10, 0.6)], [(0, 0.2), (10, 0.8)]])
    assert band.x == [0, 10] and band.mean == pytest.approx([0.2, 0.6])
    error = 0.2 / 3**0.5  # sample deviation of .4 .6 .8 is .2
    assert band.low == pytest.approx([0.2, 0.6 - error]) and band.high == pytest.approx([0.2, 0.6 + error])
    assert (band.seeds, band.measured, band.cut) == (3, True, 0)
    assert band.meaning == "± standard error over seeds"


def test_range_is_lowest_to_highest():
    band = average([[(0, 0.2), (10, 0.4)], [(0, 0.3), (10, 0.9)]], "range")
    assert (band.low, band.high) == ([0.2, 0.4], [0.3, 0.9])
    assert band.meaning == "lowest to highest seed"


def test_seeds_that_differ_in_x_meet_on_the_common_part():
    # First: 0 at 0, .4 at 8. Second: .3 at 2, .5 at 6, .9 at 10. Both exist on 2 .. 8.
    band = average([[(0, 0.0), (8, 0.4)], [(2, 0.3), (6, 0.5), (10, 0.9)]], "range")
    assert band.x == [2, 6, 8]
    assert band.low == pytest.approx([0.1, 0.3, 0.4])  # the first, interpolated at 2 and 6
    assert band.high == pytest.approx([0.3, 0.5, 0.7])  # the second, interpolated at 8
    assert band.mean == pytest.approx([0.2, 0.4, 0.55])
    assert not band.measured and band.cut == 2  # at 0 and at 10


def test_one_seed_has_a_binomial_band_or_none():
    band = average([[(5, 0.5)]], validation_size=100)
    assert band.low == pytest.approx([0.45]) and band.high == pytest.approx([0.55])
    bare = average([[(5, 0.5)]])
    assert (bare.low, bare.high, bare.meaning) == ([], [], "")
    assert standard_error(0.5, 0) == 0.0


def test_seeds_without_common_x_are_refused():
    with pytest.raises(BandError, match="begins at 20, another ends at 10"):
        average([[(0, 0.1), (10, 0.2)], [(20, 0.1), (30, 0.2)]])


def test_axes_add_up_tokens_and_training_time(tmp_path):
    run = load(f"a={log(tmp_path / 'm.jsonl', {0: 0.1, 2: 0.2, 4: 0.4})}")
    assert points(run, SOURCE, AXES["steps"]) == [(0, 0.1), (2, 0.2), (4, 0.4)]
    assert points(run, SOURCE, AXES["optimizer"]) == [(0, 0.1), (4, 0.2), (8, 0.4)]
    assert points(run, SOURCE, AXES["tokens"]) == [(0, 0.1), (200, 0.2), (400, 0.4)]
    assert points(run, SOURCE, AXES["time"]) == [(0, 0.1), (4, 0.2), (8, 0.4)], "validation takes no training time"


def test_a_step_without_an_update_takes_no_optimiser_step(tmp_path):
    run = load(f"a={log(tmp_path / 'm.jsonl', {0: 0.1, 2: 0.2, 4: 0.4})}")
    del run.steps[3]["spo/optimizer_steps"]
    with pytest.raises(LogError, match="training steps 3 did not log spo/optimizer_steps"):
        points(run, SOURCE, AXES["optimizer"])
    run.steps[3]["spo/skipped_updates"] = 1
    assert points(run, SOURCE, AXES["optimizer"]) == [(0, 0.1), (4, 0.2), (6, 0.4)]


def test_a_resumed_run_has_two_files(tmp_path):
    first = log(tmp_path / "first.jsonl", {0: 0.1, 2: 0.2}, tokens=100, steps=5)
    first.write_text(first.read_text() + '{"step": 5, "da')  # killed while it wrote
    again = tmp_path / "again.jsonl"
    again.write_text(
        json.dumps({"step": 3, "data": {"spo/generated_tokens": 10, f"val-core/{SOURCE}/acc/mean@1": 0.5}})
    )
    again.write_text(again.read_text() + "\n")
    assert points(load(f"a={first},{again}"), SOURCE, AXES["tokens"]) == [(0, 0.1), (200, 0.2), (210, 0.5)]
    with pytest.raises(LogError, match="again.jsonl: training steps 1-2 are not in the log"):
        points(load(f"a={again}"), SOURCE, AXES["tokens"])


def test_scale_keeps_ticks_short():
    assert scale(AXES["tokens"], 5e6) == (1e6, " (millions)")
    assert scale(AXES["tokens"], 900) == (1.0, "")
    assert scale(AXES["time"], 7200) == (3600, " (hours)")
    assert scale(AXES["time"], 90) == (1.0, " (seconds)")
    assert scale(AXES["steps"], 1e6) == (1.0, "")


def test_lines_differ_and_the_legend_says_what_they_are():
    lines = {f"method of number {number}": average([[(0, 0.1), (1, 0.2)]], validation_size=64) for number in range(9)}
    lines["_$5"] = average([[(0, 0.1)], [(0, 0.2)]])
    figure = draw({SOURCE: lines}, AXES["steps"], "100 $ of compute")
    drawn = figure.axes[0].get_lines()
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 10
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0] == "method of number 0 (1 seed)" and texts[-1].strip() == r"_\$5 (2 seeds)"
    title = " ".join(legend.get_title().get_text().split())
    assert title == "bands: one seed: ± binomial standard error (64 problems); ± standard error over seeds"
    figure.canvas.draw()
    box, width = legend.get_window_extent(), figure.bbox.width
    assert box.x0 >= 0 and box.x1 <= width, "the legend is cut off"


def test_the_command_writes_pictures_and_points(tmp_path, capsys):
    one = log(tmp_path / "1.jsonl", {0: 0.2, 2: 0.4}, tokens=100)
    two = log(tmp_path / "2.jsonl", {0: 0.2, 2: 0.6}, tokens=200)
    other = log(tmp_path / "3.jsonl", {0: 0.2, 2: 0.5})
    arguments = ["curves", f"SPO={one}", f"GRPO={other}", f"SPO={two}", "--x", "all", "--validation-size", "400"]
    assert main([*arguments, "--title", "t", "--out", str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        f"accuracy_{axis}.{suffix}" for axis in AXES for suffix in ("png", "svg", "csv")
    }
    assert (tmp_path / "new/accuracy_steps.png").read_bytes().startswith(b"\x89PNG")
    steps = rows(tmp_path / "new/accuracy_steps.csv")
    assert [(row["label"], row["steps"], row["seeds"]) for row in steps] == [
        ("SPO", "0.0", "2"),
        ("SPO", "2.0", "2"),
        ("GRPO", "0.0", "1"),
        ("GRPO", "2.0", "1"),
    ]
    assert float(steps[1]["mean"]) == pytest.approx(0.5)
    assert float(steps[1]["high"]) == pytest.approx(0.6)  # deviation .1414 / sqrt 2
    assert float(steps[3]["high"]) == pytest.approx(0.525)
    tokens = [row for row in rows(tmp_path / "new/accuracy_tokens.csv") if row["label"] == "SPO"]
    assert [float(row["tokens"]) for row in tokens] == [0, 200]
    assert float(tokens[1]["mean"]) == pytest.approx(0.4)  # .4, and half the way from .2 to .6
    assert "SPO is drawn for the tokens that all its seeds have; 1 validation beyond" in capsys.readouterr().err
    before = (tmp_path / "new/accuracy_time.svg").read_bytes()
    assert main([*arguments, "--title", "t", "--out", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new/accuracy_time.svg").read_bytes() == before, "the same input, the same file"


def test_several_sources_have_a_panel_each(tmp_path):
    one = log(tmp_path / "1.jsonl", {0: 0.2, 2: 0.4}, sources=("a", "b"))
    two = log(tmp_path / "2.jsonl", {0: 0.2, 2: 0.6}, sources=("b",))
    sizes = ["--validation-size", "a=100", "--validation-size", "b=400"]
    assert main(["curves", f"x={one}", f"y={two}", *sizes, "--out", str(tmp_path)]) == 0
    points = rows(tmp_path / "accuracy_steps.csv")
    assert {(row["source"], row["label"]) for row in points} == {("a", "x"), ("b", "x"), ("b", "y")}
    widths = {row["source"]: float(row["high"]) - float(row["mean"]) for row in points if row["mean"] == "0.2"}
    assert widths == pytest.approx({"a": 0.04, "b": 0.02})
    assert main(["curves", f"x={one}", f"x={two}", "--source", "b", "--out", str(tmp_path)]) == 0
    assert {row["source"] for row in rows(tmp_path / "accuracy_steps.csv")} == {"b"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{good}"], "is not LABEL=metrics.jsonl"),
        (["={good}"], "is not LABEL=metrics.jsonl"),
        (["a={dir}/none.jsonl"], "none.jsonl (of 'a') is not a file"),
        (["a={bad}"], "bad.jsonl, line 2: not JSON"),
        (["a={unvalidated}"], "holds no validation accuracy"),
        (["a={good}", "a={good}"], "stands twice under 'a'"),
        (["a={good}", "a={elsewhere}"], "were validated on different data"),
        (["a={good}", "--source", "z"], "was not validated on 'z', but on s/math"),
        (["a={good}", "b={elsewhere}", "--validation-size", "9"], "say of which data source, as s/math=9"),
        (["a={good}", "--validation-size", "z=9"], "no run was validated on z"),
        (["a={untimed}", "--x", "time"], "untimed.jsonl: training steps 1 did not log timing_s/step"),
        (["a={good}", "a={late}"], "'a' against steps: the seeds have no x in common"),
    ],
)
def test_input_that_cannot_be_drawn_is_one_line(tmp_path, capsys, arguments, complaint):
    files = {"good": log(tmp_path / "good.jsonl", {0: 0.1, 1: 0.2}), "dir": tmp_path}
    files["elsewhere"] = log(tmp_path / "elsewhere.jsonl", {0: 0.1, 1: 0.2}, sources=("t",))
    files["late"] = log(tmp_path / "late.jsonl", {5: 0.1, 6: 0.2})
    files |= {name: tmp_path / f"{name}.jsonl" for name in ("bad", "unvalidated", "untimed")}
    files["bad"].write_text('{"step": 0, "data": {}}\n{"step": 1 "data": {}}\n')
    files["unvalidated"].write_text('{"step": 1, "data": {"loss": 1.0}}\n')
    files["untimed"].write_text('{"step": 1, "data": {"loss": 1.0, "val-core/s/acc/mean@1": 0.5}}\n')
    out = tmp_path / "out"
    assert main(["curves", *(word.format(**files) for word in arguments), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.startswith("error: ") and error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("size", ["0", "many", "a=", "-3"])
def test_a_size_that_is_none_is_refused(size, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["curves", "a=b", f"--validation-size={size}"])
    assert exit.value.code == 2 and "is not N or SOURCE=N" in capsys.readouterr().err


def test_lines_of_a_panel_differ_in_colour_and_all_differ_in_colour_or_marker():
    methods = [f"m{number}" for number in range(7)]
    variations = [f"v{number}" for number in range(4)]
    styles = styles_of({"methods": methods, "variations": ["m2", *variations]})
    assert list(styles) == methods + variations
    for panel in (methods, ["m2", *variations]):
        assert len({styles[label][0] for label in panel}) == len(panel)
    assert len(set(styles.values())) == len(styles)
    # More lines than colours: markers tell them apart.
    many = styles_of({"all": [str(number) for number in range(56)]})
    assert len(set(many.values())) == 56
    assert [style[0] for style in list(many.values())[:7]] == list(COLORS)
