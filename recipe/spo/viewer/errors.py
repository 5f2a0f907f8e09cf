"""The error of a viewer's user."""

from __future__ import annotations


class ViewError(ValueError):
    """Something the user can mend: the message names the file and the field, or the option."""
