import pytest
import torch

from tests.models.small import small_samples


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    """A small samples folder, read only."""
    return small_samples(tmp_path_factory.mktemp("samples") / "rows")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)
