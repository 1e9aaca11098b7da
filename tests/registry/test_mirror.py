"""What was lost of MLflow's versions comes back under its old numbers, wherever an attempt was cut off."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from uniscale.mlflow_mirror import Mirror

NUMBERS = ("1", "2", "4", "5")  # 3 was cut off


def kept(number):
    return Path(f"/models/{number}"), {"run_id": "run"}


class Client:
    """MLflow's numbering: one after the greatest so far, deleted ones included; dies after some versions."""

    def __init__(self, patience):
        self.patience, self.last, self.sources, self.known = patience, 0, {}, False

    def search_registered_models(self, _):
        return [self] if self.known else []

    def create_registered_model(self, _):
        self.known = True

    def search_model_versions(self, _):
        return [SimpleNamespace(version=number, source=source) for number, source in self.sources.items()]

    def create_model_version(self, _, source, **options):
        if self.last == self.patience:
            raise KeyboardInterrupt
        self.last += 1
        self.sources[self.last] = source
        return SimpleNamespace(version=self.last)

    def delete_model_version(self, _, number):
        del self.sources[int(number)]


@pytest.mark.parametrize("patience", range(5))
def test_a_restoration_that_was_cut_off_goes_on(patience):
    client = Client(patience)
    mirror = Mirror(client, "ranker", Path("/models"))
    with pytest.raises(KeyboardInterrupt):
        mirror.restore(NUMBERS, kept)
    client.patience = None
    mirror.restore(NUMBERS, kept)
    assert client.sources == {int(number): f"file:///models/{number}" for number in NUMBERS}
    assert mirror.add(*kept("new")) == "6"


def test_nothing_is_asked_where_nothing_is_missing():
    mirror = Mirror(Client(None), "ranker", Path("/models"))
    mirror.restore(NUMBERS, kept)
    mirror.restore(NUMBERS, {}.__getitem__)
