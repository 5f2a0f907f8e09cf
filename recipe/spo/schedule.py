"""The context schedule: how long prompt and response together may be, stage by stage.

The authors train R1-Distill-Qwen-1.5B with 2048 tokens first and 4096 later. There `context` counts
the prompt too, so in a stage a question's response has min(data.max_response_length,
context - prompt tokens) tokens.

The stage is a function of the training step alone: a run that is resumed past a switch, or across one, is in the
same stage as a run that never stopped. Validation has the context of the step after which it is
done (step 0, before training: of the first stage), as the authors evaluate at the training context.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps that share a context.

    Attributes:
        from_step: first training step of the stage, from 1.
        context: most tokens of prompt and response together.
        segment_length: replaces `tree.segment_length` in this stage; `None` keeps it.
    """

    from_step: int
    context: int
    segment_length: int | tuple[int, ...] | None = None

    def response_budget(self, prompt_tokens: int, response_length: int) -> int:
        """Most tokens of a response.

        Args:
            prompt_tokens: of the question.
            response_length: `data.max_response_length`, which no stage exceeds.

        Raises:
            ValueError: the prompt fills the context.
        """
        if prompt_tokens >= self.context:
            raise ValueError(f"a prompt of {prompt_tokens} tokens leaves nothing of a context of {self.context}")
        return min(response_length, self.context - prompt_tokens)


@dataclass(frozen=True, slots=True)
class ContextSchedule:
    """Stages in the order of their steps, the first one from step 1.

    Raises:
        ValueError: no stage, or steps that do not rise strictly from 1.
    """

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        steps = [stage.from_step for stage in self.stages]
        if not steps or steps[0] != 1 or any(a >= b for a, b in zip(steps, steps[1:], strict=False)):
            raise ValueError(f"stages must begin at strictly rising steps from 1, not {steps}")

    def stage_at(self, step: int) -> Stage:
        """The stage of a training step; step 0 (validation before training) counts to the first.

        Raises:
            ValueError: a negative step.
        """
        if step < 0:
            raise ValueError(f"there is no training step {step}")
        begun = [stage for stage in self.stages if stage.from_step <= max(step, 1)]
        return begun[-1]
