"""What a user has just done, by hand; and the text that Feast keeps of it computes the same."""

from pathlib import Path

import numpy as np
import pytest

from features.on_demand import user_moments

NOW = 1_000_000.0


def test_idleness_and_the_last_hour_by_hand():
    histories = [[NOW - 7200, NOW - 1800, NOW - 900], [NOW - 1800, NOW, NOW + 5], [NOW - 40 * 86_400], [], None]
    found = user_moments(histories, np.full(5, NOW))
    assert found["user_idle_hours"].tolist() == [0.25, 0.5, 720, 720, 720]
    assert found["user_behaviours_1h"].tolist() == [2, 1, 0, 0, 0]


def test_nobody_asks():
    assert {name: len(values) for name, values in user_moments([], np.zeros(0)).items()} == {
        "user_idle_hours": 0,
        "user_behaviours_1h": 0,
    }


@pytest.mark.parametrize("asked", [NOW, NOW + 0.5])
def test_what_the_registry_keeps_computes_the_same(asked):
    """Feast runs the text of the function, in a namespace of its own."""
    import pandas as pd
    from feast.transformation.udf_rehydrate import rehydrate_udf_from_source

    from features.store.repo.definitions import definitions
    from tests.features.test_catalogue import spec

    (moments,) = (one for one in definitions(spec(), Path("tables")) if one.name == "user_moments")
    kept = rehydrate_udf_from_source(moments.feature_transformation.udf_string)
    histories = [[NOW - 60, NOW], []]
    found = kept(pd.DataFrame({"behaviour_ts": histories, "asked": [asked, asked]}))
    expected = user_moments(histories, np.array([asked, asked]))
    assert {name: found[name].tolist() for name in found} == {name: each.tolist() for name, each in expected.items()}
