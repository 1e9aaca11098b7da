"""Shared by all tests: telemetry off before any dependency is imported, and a count of the GPU tests not run."""

import os

import pytest

from uniscale.cli import ENVIRONMENT

os.environ.update(ENVIRONMENT)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip GPU tests where there is no device; torch is imported only if one was collected."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many GPU tests were not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum("needs a CUDA device" in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(f"GPU tests not run: {count}")
