"""Which row goes into which optimiser step and to which data-parallel rank.

The rollout gives a different number of rows each iteration; the optimiser takes K steps all the
same. verl pads the batch to a multiple of K * ranks, sorts it by length for the ranks and then cuts
each rank's share into K pieces, so that all padding would end up in the last step, which would then
move the policy as far as the others on a fraction of the tokens. Here padding is dealt out evenly.

Pure: neither verl, vLLM nor Ray is imported here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def arrival_order(arrived: Sequence[str], now: Sequence[str]) -> list[int]:
    """How to put a batch that was padded and balanced back into the order that its rows came in, padding last.

    Args:
        arrived: keys of the rows, in the order that they came in.
        now: the same keys and those of padding rows, in any order.

    Returns:
        Positions in `now`.
    """
    places = {key: place for place, key in enumerate(arrived)}
    return sorted(range(len(now)), key=lambda i: (places.get(now[i], len(places)), now[i]))


def optimizer_step_order(
    lengths: Sequence[int],
    is_padding: Sequence[bool],
    ranks: int,
    steps: int,
    seed: int,
    unit: int = 1,
    kin: Sequence[tuple[str, str]] | None = None,
) -> list[int]:
    """Order a padded batch so that contiguous cutting gives even optimiser steps and even ranks.

    Which step a row goes into follows from `seed` and the order of the real rows alone, not from ranks or
    padding: the same rows give the same optimiser steps on any number of GPUs.

    Row `i` of the result is trained by rank `i // (n / ranks)`, in that rank's step
    `(i % (n / ranks)) // (n / ranks / steps)`. Real rows are spread over the steps at random (their
    number differs by one at most), so that no step is dominated by one tree; within a step rows are
    dealt to the ranks longest first, in snake order, so that ranks get about the same tokens; or, with `kin`,
    in the order of kinship, each rank its piece, so that rows which share a prefix meet on a rank.

    Args:
        lengths: tokens of each row, context included; n entries.
        is_padding: whether the row is synthetic padding; n entries.
        ranks: number of data-parallel ranks.
        steps: K, optimiser steps an iteration; n must be a multiple of `ranks * steps * unit`.
        seed: seeds the assignment of rows to steps.
        unit: rows of a micro-batch, where its size is fixed; the batch was padded to a multiple of
            `ranks * steps * unit`.
        kin: question and path of each row, near in order for rows that share a prefix; n entries.

    Returns:
        A permutation of `range(n)`.

    Raises:
        ValueError: n is not a positive multiple of `ranks * steps * unit`, or there are more padding rows
            than a batch padded to the next multiple can have.
    """
    n = len(lengths)
    if n == 0 or n % (ranks * steps * unit):
        raise ValueError(f"{n} rows do not divide into {steps} optimiser steps of {unit} rows on {ranks} ranks")
    padding = [i for i in range(n) if is_padding[i]]
    if len(padding) >= ranks * steps * unit:
        raise ValueError(f"{len(padding)} padding rows where fewer than {ranks * steps * unit} are enough")
    real = [i for i in range(n) if not is_padding[i]]
    random.Random(seed).shuffle(real)

    together = kin is not None and unit == 1
    rows_per_step, rows_per_rank = n // steps, n // ranks
    per_step = rows_per_step // ranks
    spare = iter(padding)
    order: list[int] = [-1] * n
    for step in range(steps):
        members = real[step::steps]
        members += [next(spare) for _ in range(rows_per_step - len(members))]
        if together:
            members.sort(key=lambda i: (is_padding[i], kin[i]))
        elif unit == 1:  # micro-batches of a fixed number of rows are to be random ones
            members.sort(key=lambda i: (-lengths[i], i))
        for position, row in enumerate(members):
            if together:
                rank, lap = divmod(position, per_step)
            else:
                lap, offset = divmod(position, ranks)
                rank = offset if lap % 2 == 0 else ranks - 1 - offset
            order[rank * rows_per_rank + step * per_step + lap] = row
    return order
