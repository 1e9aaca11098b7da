"""One deployment for all tests over HTTP: building it takes most of their time."""

import pytest

from tests.serving.live import build


@pytest.fixture(scope="session")
def packaged(tmp_path_factory):
    """Configuration, and a folder with features, two models and their deployment."""
    return build(tmp_path_factory.mktemp("packaged"))
