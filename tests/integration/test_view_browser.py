"""The viewer's page in a headless browser: what it shows is what was dumped, and text stays text."""

from __future__ import annotations

import json
import random
import statistics
import time

import pytest

from recipe.spo.dump import TREES, read_dump
from recipe.spo.viewer.command import main
from tests.browser import NoBrowser, browser, without_browser
from tests.dumped import chain, recorded, tree
from tests.unit.test_view_page import HOSTILE, hostile_decode

pytestmark = [pytest.mark.integration, pytest.mark.slow]
#: Every node's line clicked in turn, and what the page then says of it.
ALL_NODES = """(() => {
  const shown = {};
  for (const line of document.querySelectorAll("[role=treeitem]")) {
    line.click();
    const number = (name) => document.querySelector(`#detail dd.${name}`)?.textContent ?? null;
    shown[line.dataset.node] = {
      line: [line.querySelector(".advantage")?.textContent ?? null, line.querySelector(".value").textContent],
      advantage: number("advantage"), value: number("value"), ending: number("ending"),
      tokens: [...document.querySelectorAll("#detail .here .token")].map(
        (token) => [token.lastChild.textContent, token.dataset.mask ?? null, token.classList[1] ?? ""]),
    };
  }
  return shown;
})()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    try:
        folder = tmp_path_factory.mktemp("browser")
        with browser(folder / "log") as started:
            # So that no test measures the start of the browser.
            (folder / "empty.html").write_text("<!DOCTYPE html><title>empty</title>")
            started.open(folder / "empty.html")
            yield started
    except NoBrowser as reason:
        without_browser(reason)


@pytest.fixture
def opened(chromium, tmp_path):
    """Writes the page of what was recorded in `tmp_path`, and opens it."""

    def open_page() -> float:
        assert main([str(tmp_path)]) == 0
        return chromium.open(tmp_path / "view.html")

    return open_page


def nodes_of(record: dict) -> list[dict]:
    """The nodes of a dumped tree, parents before children, each with its parent's value."""

    def walk(node, before):
        yield {**node, "before": before}
        for child in node["children"]:
            yield from walk(child, node["value"])

    return list(walk(record["root"], None))


def number(shown: str) -> float:
    return float(shown.replace("−", "-"))


def selected(chromium) -> str:
    return chromium.run("document.querySelector('[aria-selected=true]').dataset.node")


def test_a_tree_of_258_nodes_is_shown_as_it_was_dumped_and_soon(chromium, opened, tmp_path):
    recorded(tmp_path, tree(random.Random(0), (6, 6, 6), tokens=30))
    milliseconds = opened()
    assert milliseconds < 2000
    (record,) = read_dump(tmp_path, TREES)
    nodes = nodes_of(record)
    assert len(nodes) == 259
    assert chromium.run("document.querySelectorAll('[role=treeitem]').length") == 259
    assert chromium.run("document.querySelectorAll('#overview .cell').length") == 259
    assert chromium.run("[...document.querySelectorAll('[role=treeitem]')].every((line) => line.offsetHeight > 0)")
    shown = chromium.run(ALL_NODES)
    assert [token[0] for token in shown["0"]["tokens"]] == record["prompt_texts"]
    for index, node in enumerate(nodes[1:], 1):
        seen = shown[str(index)]
        assert number(seen["value"]) == number(seen["line"][1]) == pytest.approx(node["value"], abs=6e-4)
        assert number(seen["advantage"]) == number(seen["line"][0]) == pytest.approx(node["advantages"][0], abs=6e-4)
        assert number(seen["advantage"]) == pytest.approx(node["value"] - node["before"], abs=6e-4)
        assert [token[0] for token in seen["tokens"]] == node["texts"]
        assert [int(token[1]) for token in seen["tokens"]] == node["mask"]
        states = [("trained" if node["row"] else "idle") if bit else "masked" for bit in node["mask"]]
        assert [token[2] for token in seen["tokens"]] == states
        assert seen["ending"] == (None if node["reward"] is None else f"{node['verdict']} {node['reward']:g}")


def test_moving_in_a_tree_of_258_nodes_does_not_lag(chromium, opened, tmp_path):
    recorded(tmp_path, tree(random.Random(0), (6, 6, 6), tokens=30))
    opened()
    steps = """(() => {
      const outline = document.getElementById("outline"), times = [];
      for (let i = 0; i < 50; i++) {
        const begun = performance.now();
        outline.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true}));
        document.body.offsetHeight;
        times.push(performance.now() - begun);
      }
      return times;
    })()"""
    assert statistics.median(chromium.run(steps)) < 50
    assert selected(chromium) == "50"


def test_hostile_text_is_shown_and_executes_nothing(chromium, opened, tmp_path):
    recorded(tmp_path, tree(random.Random(0), (3, 3), tokens=len(HOSTILE)), decode=hostile_decode, uid=HOSTILE[0])
    for file in tmp_path.glob("*.jsonl"):  # in the fields that no tokenizer made, too
        (record,) = read_dump(tmp_path, TREES)
        record |= {"method": HOSTILE[3], "index": HOSTILE[1], "truth": HOSTILE[6]}
        record["root"]["children"][0]["children"][0]["verdict"] = HOSTILE[0]
        file.write_text(json.dumps(record) + "\n")
    opened()
    shown = chromium.run(ALL_NODES)
    point = "new PointerEvent('pointerover', {bubbles: true})"
    chromium.run(f"document.querySelectorAll('.token').forEach((token) => token.dispatchEvent({point}))")
    nodes = nodes_of(record)
    for index, node in enumerate(nodes[1:], 1):
        texts = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in node["texts"]]
        found = [
            token[0].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            for token in shown[str(index)]["tokens"]
        ]
        assert found == texts
    assert HOSTILE[3] in chromium.run("document.getElementById('title').textContent")
    assert shown["2"]["ending"].startswith(HOSTILE[0])
    assert chromium.run("[typeof pwned, document.images.length, document.querySelectorAll('svg, a').length]") == [
        *("undefined", 0, 0)
    ]
    seen = chromium.seen()
    assert seen["dialogs"] == seen["console"] == []
    assert seen["requests"] == [(tmp_path / "view.html").as_uri()]


def test_even_markup_that_got_in_would_do_nothing(chromium, opened, tmp_path):
    """The policy is what stands behind the text: here the page's own protection is gone around."""
    recorded(tmp_path, tree(random.Random(0), (2,)))
    opened()
    chromium.run("""(() => {
      document.body.insertAdjacentHTML("beforeend", "<img src='/x.png' onerror='window.pwned = 1'>");
      const script = document.createElement("script");
      script.textContent = "window.pwned = 2";
      document.body.append(script);
      fetch("https://example.org/").then(() => { window.pwned = 3; }, () => { window.refused = true; });
      return 1;
    })()""")
    deadline = time.monotonic() + 20
    while chromium.run("typeof refused") == "undefined" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert chromium.run("[typeof pwned, typeof refused]") == ["undefined", "boolean"]
    seen = chromium.seen()
    assert seen["requests"] == [(tmp_path / "view.html").as_uri()]
    assert sum("Content Security Policy" in message for message in seen["console"]) >= 3


def test_keys_move_fold_and_unfold(chromium, opened, tmp_path):
    recorded(tmp_path, tree(random.Random(0), (2, 3)))
    opened()
    visible = "[...document.querySelectorAll('[role=treeitem]')].filter((line) => line.offsetHeight).length"
    walked = []
    for key in ("Down", "Down", "Down", "Shift+Up", "Up", "Left", "Down", "Left", "Right", "Right", "End", "Home"):
        chromium.press(key)
        walked.append((selected(chromium), chromium.run(visible)))
    assert walked == [
        *[("1", 9), ("2", 9), ("3", 9), ("2", 9), ("1", 9), ("1", 6)],  # folded
        *[("5", 6), ("5", 3), ("5", 6), ("6", 6), ("8", 6), ("0", 6)],
    ]
    chromium.press("e")
    assert chromium.run(visible) == 9
    chromium.press("End", "c")
    assert (selected(chromium), chromium.run(visible)) == ("5", 3)
    (record,) = read_dump(tmp_path, TREES)
    advantages = [node["advantages"][0] for node in nodes_of(record)[1:]]
    for key, extreme in (("b", max(advantages)), ("w", min(advantages))):
        chromium.press(key)
        assert number(chromium.run("document.querySelector('#detail .advantage').textContent")) == pytest.approx(
            extreme, abs=6e-4
        )


def test_search_finds_text_unfolds_and_marks_it(chromium, opened, tmp_path):
    rollout = tree(random.Random(0), (2, 3), tokens=3)
    for leaf in rollout.children:
        for child in leaf.children:
            child.token_ids = [0, 1, 2]
    rollout.children[0].children[1].token_ids = [0, 13, 13]
    rollout.children[1].children[2].token_ids = [13, 13, 2]
    for child in rollout.children:
        child.token_ids = [2, 2, 2]
    recorded(tmp_path, rollout)
    opened()
    chromium.press("c", "/", *"APPLES", "Return")
    found = "document.getElementById('matches').textContent"
    assert (selected(chromium), chromium.run(found)) == ("3", "1 of 2")
    assert (
        chromium.run("[...document.querySelectorAll('.here .found')].map((token) => token.textContent)")
        == [" apples"] * 2
    )
    chromium.press("Return")
    assert (selected(chromium), chromium.run(found)) == ("8", "2 of 2")
    chromium.press("Escape", "Shift+N")
    assert selected(chromium) == "3"


def test_questions_are_chosen_from_a_list_and_by_keys(chromium, opened, tmp_path):
    recorded(tmp_path, tree(random.Random(0), (2, 2)), step=1)
    recorded(tmp_path, chain(random.Random(0)), step=11)
    opened()
    title = "document.getElementById('title').textContent"
    assert chromium.run(title) == "SPO-chain, step 11, question 7"
    assert chromium.run("document.querySelectorAll('[role=treeitem]').length") == 1 + 2 * 5 + 2 * 4 * 3
    chromium.press("]")
    assert chromium.run(title) == "SPO-tree, step 1, question 7"
    chromium.run("document.querySelectorAll('nav button')[0].click()")
    assert chromium.run(title) == "SPO-chain, step 11, question 7"


def test_a_chain_shows_cuts_and_folds_continuations(chromium, opened, tmp_path):
    recorded(tmp_path, chain(random.Random(0)))
    opened()
    lines = "[...document.querySelectorAll('[role=treeitem]')].filter((line) => line.offsetHeight)"
    kinds = f"{lines}.map((line) => line.classList[0])"
    assert chromium.run(kinds) == ["prompt", *(["uncut"] + ["segment"] * 4) * 2]
    chromium.press("Down", "Right")
    assert chromium.run(kinds)[:5] == ["prompt", "uncut", "continuation", "continuation", "continuation"]
    chromium.press("Down", "Down", "Down", "Down", "Down")
    assert chromium.run("document.querySelector('#detail h2').textContent") == "Segment 0.2"
    cuts = "[...document.querySelectorAll('#detail .cut')].map((cut) => cut.dataset.tip)"
    assert [cut.split("=")[0].split(";")[0] for cut in chromium.run(cuts)] == ["cut", "cut: V ", "cut: V "]


def test_the_pointer_shows_a_tokens_probability(chromium, opened, tmp_path):
    rollout = tree(random.Random(0), (2,), tokens=2)
    rollout.children[0].log_probs = [-0.6931471805599453, 0.0]
    recorded(tmp_path, rollout)
    opened()
    chromium.press("Down")
    tips = chromium.run("""[...document.querySelectorAll(".here .token")].map((token) => {
      token.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
      return document.getElementById("tip").textContent;
    })""")
    assert "p = 0.5000" in tips[0] and "p = 1.000\nmasked: p ≥ 0.9" in tips[1]


def test_dark_and_light_as_the_system_or_the_user_says(chromium, opened, tmp_path):
    recorded(tmp_path, tree(random.Random(0), (2,)))
    opened()
    assert themes(chromium) == {"system": "light", "dark": "dark", "light": "light"}
    with browser(tmp_path / "log", dark=True) as of_a_dark_system:
        of_a_dark_system.open(tmp_path / "view.html")
        assert themes(of_a_dark_system) == {"system": "dark", "dark": "dark", "light": "light"}


def themes(opened_in) -> dict[str, str]:
    """Whether text is lighter than its ground, by what the button says."""
    found = {}
    for _ in range(3):
        ground, text = (
            sum(opened_in.run(f"getComputedStyle(document.body).{what}.match(/\\d+/g).slice(0, 3).map(Number)"))
            for what in ("backgroundColor", "color")
        )
        assert abs(ground - text) > 450
        name = opened_in.run("document.getElementById('theme').textContent").removeprefix("theme: ")
        found[name] = "dark" if ground < text else "light"
        opened_in.press("t")
    return found
