"""A rough estimate of the memory that a GPU needs; nobody has measured it on one yet.

While training, with FSDP2 over N ranks (GiB = 2^30 bytes, P parameters, t of them trained, T tokens of
a micro-batch on one GPU):

    weights      4 P / N                        float32 shards
    gradients    4 t / N                        float32 shards
    AdamW        8 t / N                        two float32 moments
    gathered     2 (outside + 2 layers)         bfloat16: embeddings, the layer at work and the next one
    activations  2 T h L + 4 T (8 h + 4 i)      bfloat16: each layer's input; one layer computed again, with its
                                                gradients (h hidden, i intermediate size, L layers)
    logits       10 T V                         bfloat16: logits, their copy at the temperature, the log-softmax,
                                                and the gradients of the first two (V vocabulary)

With FSDP2's offload policy the first three are in host memory. PPO's critic is a second model, trained as a whole
with LoRA too. Without gradient checkpointing every layer keeps 2 T (8 h + 4 i). While sampling, vLLM takes its share
of the card beside what the trainer keeps there. Not counted: padding (use_remove_padding=False) or, without it, the
mask of packed rows (2 T T), the allocator's gaps, NCCL and CUDA contexts (a few GiB), and the reference policy, which
FSDP2 keeps in host memory.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipe.spo.model_shape import ModelShape

GIB = 2**30


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """What decides on memory beside the model.

    Attributes:
        ranks: GPUs that share the shards.
        tokens: of a micro-batch on one GPU (`ppo_max_token_len_per_gpu`).
        trained_parameters: of LoRA's adapters; `None`: all of the model.
        gradient_checkpointing: layers keep their inputs only.
        keeps_parameters, keeps_optimizer: what stays on the card while the engine samples.
        tensor_parallel: GPUs that share the engine's weights.
        critic: a second model of the same size trains too.
        shards_on_host: FSDP2's offload policy: weights, gradients and AdamW's moments never stay on the card.
    """

    ranks: int
    tokens: int
    trained_parameters: int | None = None
    gradient_checkpointing: bool = True
    keeps_parameters: bool = True
    keeps_optimizer: bool = True
    tensor_parallel: int = 1
    critic: bool = False
    shards_on_host: bool = False


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """GiB on one GPU; see the module's head for the formulas."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    logits: float
    kept_while_sampling: float
    engine_weights: float

    @property
    def training(self) -> float:
        """The peak while training."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations + self.logits

    def fits(self, card: float, share: float) -> bool:
        """Whether a card has room for both phases.

        Args:
            card: its memory, in GiB.
            share: `gpu_memory_utilization`, of the card, for the engine.
        """
        sampling = share * card + self.kept_while_sampling <= card and self.engine_weights < share * card
        return self.training <= card and sampling


def estimate_memory(model: ModelShape, options: MemoryOptions) -> MemoryEstimate:
    """Estimate what one GPU needs."""
    critic = model.parameters if options.critic else 0
    everything, trained = model.parameters + critic, model.parameters + critic
    if options.trained_parameters is not None:
        trained = options.trained_parameters + critic
    if options.shards_on_host:
        everything = trained = 0
    hidden, tokens = model.hidden_size, options.tokens
    one_layer = tokens * (8 * hidden + 4 * model.intermediate_size)
    if options.gradient_checkpointing:
        activations = 2 * tokens * hidden * model.layers + 4 * one_layer
    else:
        activations = 2 * one_layer * model.layers + 2 * one_layer
    weights, optimizer = 4 * everything / options.ranks, 8 * trained / options.ranks
    kept = weights * options.keeps_parameters + optimizer * options.keeps_optimizer
    return MemoryEstimate(
        weights=weights / GIB,
        gradients=4 * trained / options.ranks / GIB,
        optimizer=optimizer / GIB,
        gathered=2 * (model.parameters_outside_layers + 2 * model.layer_parameters) / GIB,
        activations=activations / GIB,
        logits=10 * tokens * model.vocabulary / GIB,
        kept_while_sampling=kept / GIB,
        engine_weights=2 * model.parameters / options.tensor_parallel / GIB,
    )
