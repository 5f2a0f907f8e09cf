"""What the user of the bench can mend."""

from __future__ import annotations


class LearningError(ValueError):
    """Input or a folder that cannot be used: the message names it and says what to do."""


class NothingToReport(LearningError):
    """No run is finished."""
