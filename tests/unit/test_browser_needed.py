"""Tests in a browser are never left out unseen: make's targets need one, and say why there is none."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.browser import NoBrowser, without_browser
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(("required", "end"), [("1", pytest.fail.Exception), (None, pytest.skip.Exception)])
def test_without_a_browser_a_test_fails_where_one_is_required(monkeypatch, required, end):
    monkeypatch.delenv("SPO_REQUIRE_BROWSER", raising=False)
    if required:
        monkeypatch.setenv("SPO_REQUIRE_BROWSER", required)
    with pytest.raises(end, match="libnss3.so"):
        without_browser(NoBrowser("libnss3.so: cannot open shared object file"))


@pytest.mark.parametrize("target", ["test-browser", "test-slow"])
def test_make_installs_a_browser_and_requires_it(target):
    # An environment without a browser is taken for made; these tests may run in make.
    of_its_own = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    command = ["make", "-n", "VENV=none", "-o", "none/.spo-cpu", target]
    done = subprocess.run(command, cwd=REPOSITORY, env=of_its_own, capture_output=True, text=True, check=True)
    install, *_, last = [line for line in done.stdout.splitlines() if "python -m p" in line]
    assert "pip install" in install and "[browser]" in install and "||" not in install
    assert last.startswith("SPO_REQUIRE_BROWSER=1 ")
