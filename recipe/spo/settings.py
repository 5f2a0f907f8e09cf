"""`algorithm.spo` as a typed object. Every key is explained in `config/spo_trainer.yaml`; what is legal,
`recipe.spo.parsing` knows.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from recipe.spo.schedule import ContextSchedule


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """Shape of the tree.

    Attributes:
        branch_factors: children of a node at depth 0, 1, ...; its length is the tree's depth.
        segment_length: most tokens of a segment at every level but the last, which runs to the end
            of the response budget; one number, or one for each of those levels.
        partition: what ends a segment before that: nothing (`fixed_length`), its
            `cut_interval`-th improbable token (`low_probability`), or a line's end (`lines`).
        cut_interval: improbable tokens a segment, for `low_probability`.
    """

    branch_factors: tuple[int, ...]
    segment_length: int | tuple[int, ...]
    partition: str = "fixed_length"
    cut_interval: int | None = None

    @property
    def depth(self) -> int:
        return len(self.branch_factors)

    @property
    def segment_lengths(self) -> tuple[int, ...]:
        """Token budget of each level but the last."""
        if isinstance(self.segment_length, int):
            return (self.segment_length,) * (self.depth - 1)
        return self.segment_length

    def segment_budget(self, depth: int, used: int, response_length: int) -> int:
        """Most tokens of a segment that leaves a node at `depth` with `used` response tokens."""
        left = response_length - used
        return left if depth == self.depth - 1 else min(self.segment_lengths[depth], left)

    @property
    def max_nodes(self) -> int:
        """Segments of a full tree, e.g. 6 + 36 + 216 = 258 for 6-6-6."""
        total, width = 0, 1
        for factor in self.branch_factors:
            width *= factor
            total += width
        return total


@dataclass(frozen=True, slots=True)
class ChainSettings:
    """SPO-chain: responses, where they are cut, and how often each cut is continued.

    Attributes:
        trajectories: responses a question, the rows that train.
        continuations: K, fresh samples from each distinct cut, which give its value.
        partition: where to cut; see `recipe.spo.partition`, or your own as `package.module:function`.
        cut_interval: `low_probability`: every how many improbable tokens.
        segment_length: `fixed_length`: tokens a segment.
        parts: `equal_parts`: how many.
        max_steps: `lines` and `sentences`: most steps, the last one runs to the end; null: all.
    """

    trajectories: int
    continuations: int
    partition: str
    cut_interval: int | None = None
    segment_length: int | None = None
    parts: int | None = None
    max_steps: int | None = None


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Whole responses, credited as one segment each (GRPO, RLOO) or token by token (PPO).

    Attributes:
        responses: a question.
    """

    responses: int


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """Which rows of the last steps a step trains.

    Attributes:
        rows_per_step: most rows a step trains; null: all there are.
        rows_per_question: most rows of one question in one step; null: no limit.
        max_age: steps that a left-over row may wait; 0: rows that do not train at once are dropped.
    """

    rows_per_step: int | None
    rows_per_question: int | None
    max_age: int


@dataclass(frozen=True, slots=True)
class DumpSampleSettings:
    """Which questions `dump_dir` gets.

    Attributes:
        every_steps: of which steps: the first, and every so many after it.
        questions: of each of those steps, drawn at random from (`data.seed`, step).
        max_mib: most of all files together; a question for which there is no room is left out, and counted.
    """

    every_steps: int
    questions: int
    max_mib: float


@dataclass(frozen=True, slots=True)
class SPOSettings:
    """`algorithm.spo`. See `config/spo_trainer.yaml` for what each key means."""

    method: str
    tree: TreeSettings | None
    chain: ChainSettings | None
    group: GroupSettings | None
    credit: str | None
    shrinkage: float | None
    normalize: str
    cut_threshold: float
    mask_threshold: float | None
    mask_source: str
    keep_zero_advantage: bool
    unfinished_reward: float
    stop: tuple[str, ...]
    optimizer_steps: int
    replay: ReplaySettings
    context_schedule: ContextSchedule | None
    token_budget: int | None
    expect_responses: int | str | None
    keep_best: str | bool | None
    share_prefixes: str
    as_published_code: bool
    deterministic: bool
    dump_dir: str | None
    dump_sample: DumpSampleSettings | None

    @property
    def tree_shape(self) -> TreeSettings:
        """The tree to sample; a group is a tree of depth one.

        Raises:
            ValueError: the method is a chain.
        """
        if self.group is not None:
            return TreeSettings((self.group.responses,), ())
        if self.tree is None:
            raise ValueError(f"method {self.method} does not sample a tree")
        return self.tree

    def tree_at(self, step: int) -> TreeSettings:
        """The tree to sample in a training step: `tree_shape`, with the segment length of the step's stage.

        Raises:
            ValueError: the method is a chain.
        """
        shape = self.tree_shape
        stage = self.context_schedule.stage_at(step) if self.context_schedule else None
        if stage is None or stage.segment_length is None:
            return shape
        return replace(shape, segment_length=stage.segment_length)

    def response_budget(self, step: int, prompt_tokens: int, response_length: int) -> int:
        """Most tokens of a question's response in a training step.

        Args:
            step: the training step; of validation, the step after which it is done.
            prompt_tokens: of the question.
            response_length: `data.max_response_length`.

        Raises:
            ValueError: the prompt fills the stage's context.
        """
        if self.context_schedule is None:
            return response_length
        return self.context_schedule.stage_at(step).response_budget(prompt_tokens, response_length)

    def context_at(self, step: int, full: int) -> int:
        """Most tokens of prompt and response together in a training step.

        Args:
            step: the training step.
            full: `data.max_prompt_length` + `data.max_response_length`, the context without a schedule.
        """
        return full if self.context_schedule is None else self.context_schedule.stage_at(step).context

    @property
    def rollout_mask_threshold(self) -> float | None:
        """Threshold of the mask that rows are made with; `None` where the trainer masks, or nothing does.

        PPO's advantages need whole responses, so its mask, if asked for, comes after them.
        """
        return None if self.mask_source == "trainer" or self.method == "ppo" else self.mask_threshold

    @property
    def trainer_masks(self) -> bool:
        """Whether the trainer makes the mask."""
        return self.mask_threshold is not None and self.rollout_mask_threshold is None

    @property
    def dumps_all(self) -> bool:
        """Whether every rollout and every trained row is written."""
        return self.dump_dir is not None and self.dump_sample is None

    @property
    def max_samples(self) -> int:
        """Most rows that a question can give."""
        return self.chain.trajectories if self.chain is not None else self.tree_shape.max_nodes
