"""The one verl release that this package is written against, and how it is checked."""

from __future__ import annotations

from importlib import metadata

from recipe.spo import VERL_VERSION


class VersionError(RuntimeError):
    """The installed verl is missing or is another release than the pinned one."""


def check_verl_version() -> None:
    """Refuse to run on another verl than the pinned one.

    The package comes in through plug-in points, some of them private, that other releases move.

    Raises:
        VersionError: verl is not installed, or is another release.
    """
    remedy = f"install the pinned one: pip install 'verl=={VERL_VERSION}' (or run `make setup`)"
    try:
        found = metadata.version("verl")
    except metadata.PackageNotFoundError:
        raise VersionError(f"verl is not installed; {remedy}") from None
    if found != VERL_VERSION:
        raise VersionError(f"verl {found} is installed, but recipe/spo needs verl {VERL_VERSION}; {remedy}")
