"""Both connectors pass singer-sdk's standard suites on its newest 0.55 pre-release too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

PRERELEASE = "0.55.0b7"
STANDARD = ["tests/targets/test_target_parquet_standard.py", "tests/taps/tap_files/test_standard_suite.py"]
NEEDED = ["pytest", "duckdb", "polars", "pytz", "hypothesis"]

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.xdist_group("prerelease")]


def test_standard_suites_pass_on_the_prerelease(
    new_environment: Callable[[str], Any],
    find_python: Callable[[str], str],
    checkout_copy: Callable[[Sequence[str]], Path],
    root: Path,
) -> None:
    """With the pre-release in an environment of its own, singer-sdk's own tests of a tap and a target pass."""
    environment = new_environment(find_python("3.11"))
    checkout = checkout_copy(["LICENSE", "shared", "taps", "targets", "tests", "pyproject.toml"])
    pins = [
        line
        for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("singer-sdk")
    ]
    (checkout / "constraints.txt").write_text("\n".join(pins), encoding="utf-8")
    environment.install(
        "--constraint", "constraints.txt", f"singer-sdk[testing]=={PRERELEASE}", *NEEDED,
        "./shared", "./taps/tap-files", "./targets/target-parquet", cwd=checkout,
    )  # fmt: skip
    assert environment.packages()["singer-sdk"] == PRERELEASE
    output = environment.run("pytest", "-q", "-p", "no:cacheprovider", *STANDARD, cwd=checkout).decode()
    assert " passed" in output
    assert "skipped" not in output
