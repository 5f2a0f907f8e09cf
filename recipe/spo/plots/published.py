"""The paper's numbers on long chains of thought: published by its authors, not measured by us.

Segment Policy Optimization (arXiv 2505.23564), the long-CoT table in the README of the authors' code,
which agrees with the result files there. DeepSeek-R1-Distill-Qwen-1.5B and models trained from it, one
sample a question at temperature 0.6 and top-p 0.95, context (prompt and response) of 2,048, 4,096 and
32,768 tokens. AIME 2024 has 30 questions: one question is 3.3 points.
"""

from __future__ import annotations

from recipe.spo.plots.results import Cell

SOURCE = "arXiv 2505.23564, long-CoT table of the authors' README"
GRADER = "lighteval, the authors' tasks"
CONTEXTS = (2048, 4096, 32768)
QUESTIONS = {"MATH-500": 500, "AIME 2024": 30}
MARK = " (published)"

#: model -> data set -> accuracy at each of CONTEXTS
LONG_COT = {
    "DeepSeek-R1-Distill-Qwen-1.5B": {"MATH-500": (0.566, 0.740, 0.838), "AIME 2024": (0.067, 0.167, 0.267)},
    "GRPO": {"MATH-500": (0.620, 0.752, 0.840), "AIME 2024": (0.033, 0.200, 0.333)},
    "SPO-tree": {"MATH-500": (0.736, 0.828, 0.848), "AIME 2024": (0.100, 0.200, 0.333)},
    "DeepScaleR": {"MATH-500": (0.538, 0.744, 0.878), "AIME 2024": (0.000, 0.167, 0.333)},
    "STILL-3": {"MATH-500": (0.662, 0.794, 0.846), "AIME 2024": (0.067, 0.133, 0.233)},
}


def published() -> list[Cell]:
    """The published table as cells; their models are marked as published.

    Returns:
        One cell for each model, data set and context, without a standard error: none is published there.
    """
    return [
        Cell(
            model=model + MARK,
            data=data,
            context=context,
            mean=mean,
            standard_error=None,
            questions=QUESTIONS[data],
            n=1,
            temperature=0.6,
            top_p=0.95,
            grader=GRADER,
            source=SOURCE,
            published=True,
        )
        for model, by_data in LONG_COT.items()
        for data, means in by_data.items()
        for context, mean in zip(CONTEXTS, means, strict=True)
    ]
