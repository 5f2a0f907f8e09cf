"""Questions as one HTML page that needs nothing else: no network, no server, no other file.

What a model wrote is data to the page, never markup: it travels as JSON in script elements that do
not run, with every character escaped that HTML could take for the element's end, and the page's
script inserts it as text. Beside that, a content security policy allows this page's own script and
style by their hashes, and nothing else: neither other scripts nor any request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from recipe.spo.viewer.questions import Question, Shown

#: In the order in which they see each other.
SCRIPTS = ("model.js", "overview.js", "outline.js", "detail.js", "search.js", "main.js")
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&'\u2028\u2029"}


def page(questions: Sequence[Question]) -> str:
    """The page as HTML, for a file in UTF-8.

    Args:
        questions: at least one; the first is shown first.
    """
    script = "(() => {\n" + "\n".join(_resource(name) for name in SCRIPTS) + "\n})();"
    parts = {"STYLE": _resource("page.css"), "SCRIPT": script}
    parts["POLICY"] = policy(parts["STYLE"], script)
    parts["DATA"] = "\n".join(
        _data(name, content)
        for name, content in [
            ("questions", [summary(question) for question in questions]),
            *((f"question-{index}", page_data(question)) for index, question in enumerate(questions)),
        ]
    )
    # In one go, so that nothing that a part holds is taken for a place.
    return re.sub(r"@(STYLE|SCRIPT|POLICY|DATA)@", lambda place: parts[place[1]], _resource("page.html"))


def policy(style: str, script: str) -> str:
    """The content security policy: this style and this script, nothing from anywhere else."""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def page_data(question: Question) -> dict[str, Any]:
    """What the page knows of a question, as plain values."""
    return {
        "uid": question.uid,
        "step": question.step,
        "index": question.index,
        "method": question.method,
        "threshold": question.threshold,
        "truth": question.truth,
        "nodes": [_node(node) for node in question.nodes],
    }


def summary(question: Question) -> dict[str, Any]:
    """A question's entry in the list."""
    return {
        "step": question.step,
        "index": question.index,
        "method": question.method,
        "value": question.nodes[0].value,
        "nodes": len(question.nodes) - 1,
        "text": " ".join(question.prompt.split())[:160],
    }


def _node(node: Shown) -> dict[str, Any]:
    return {
        "label": node.label,
        "kind": node.kind,
        "parent": node.parent,
        "ids": node.tokens.ids,
        "texts": node.tokens.texts,
        "p": [float(f"{probability:.6g}") for probability in node.tokens.probabilities],
        "mask": node.tokens.mask,
        "advantage": node.advantage,
        "value": node.value,
        "row": node.row,
        "finished": node.finished,
        "reward": node.reward,
        "verdict": node.verdict,
        "same": node.same_state,
    }


def embedded(content: Any) -> str:
    """JSON that can stand in a script element, whatever its strings hold."""
    # ASCII alone, so that half a surrogate pair, which UTF-8 cannot hold, is escaped too.
    return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(_ESCAPED)


def _data(name: str, content: Any) -> str:
    return f'<script type="application/json" id="{name}">{embedded(content)}</script>'


def _resource(name: str) -> str:
    return (files("recipe.spo.viewer") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
