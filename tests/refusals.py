"""A command of ours that refuses its arguments: one line, exit status 2, and vLLM not yet loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable


def refusal(main: Callable[[list[str]], int], arguments: Iterable[object], capsys) -> str:
    """What a command printed on stderr as it refused its arguments."""
    loaded = "vllm" in sys.modules  # by another test of the same process
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2, error
    assert loaded or "vllm" not in sys.modules
    return error
