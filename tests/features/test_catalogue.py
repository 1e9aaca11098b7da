"""The catalogue offers what a description supplies, nothing else, and never a tell-tale."""

from dataclasses import replace

import pytest

from features.catalogue import missing_value, raw_column, sample_spec
from tests.features.log_folder import DESCRIPTION
from uniscale.config import load_config

CONFIG = load_config(overrides=["features.windows_days=[1, 7, 30]"]).features


def spec(**changes):
    return sample_spec(CONFIG, replace(DESCRIPTION, **changes), content_dim=4)


def names(found):
    return {feature.name for feature in found.features}


def test_a_full_dataset_has_every_block():
    assert {feature.block for feature in spec().features} == {"user", "query", "context", "item", "behaviour"}
    assert {
        "user_id_hash",
        "user_gender",
        "user_clicks_7d",
        "user_mean_price_30d",
        "query_hash",
        "query_searches_1d",
    } <= (names(spec()))
    assert {"context_device", "context_hour", "item_hash", "item_ctr_30d", "item_rating", "item_colour"} <= names(
        spec()
    )
    assert (spec().content_dim, spec().text_dim, spec().tasks) == (4, CONFIG.text_dim, ("click", "conversion"))


def test_names_are_unique_and_ids_have_a_table():
    features = spec().features
    assert len(names(spec())) == len(features)
    assert all(bool(feature.table) == (feature.kind == "id") for feature in features)


def test_items_and_behaviours_share_their_tables():
    tables = {feature.name: feature.table for feature in spec().features}
    for item, behaviour in (("item_hash", "behaviour_item"), ("item_brand", "behaviour_brand")):
        assert tables[item] == tables[behaviour]
    for level in (1, 2, 3):
        assert tables[f"item_category_{level}"] == tables[f"behaviour_category_{level}"]


def test_without_users_there_is_no_history_but_a_profile():
    found = spec(has_users=False)
    assert {feature.name for feature in found.features if feature.block == "user"} == {"user_gender"}
    assert not found.select("behaviour")


def test_without_text_or_embeddings_the_widths_are_zero():
    found = spec(has_text=False, has_embeddings=False)
    assert (found.text_dim, found.content_dim) == (0, 0)


def test_without_clicks_nothing_counts_them():
    found = names(spec(tasks={"conversion": "purchase"}))
    assert "item_cvr_30d" in found and not any("click" in name or "ctr" in name for name in found)


@pytest.mark.parametrize("word", ["position", "score", "sampling", "source", "rule", "random", "exposed"])
def test_no_feature_tells_how_a_sample_was_made(word):
    assert not any(word in name.replace("item_exposures", "") for name in names(spec()))


def test_a_missing_count_is_zero_a_missing_rate_the_prior_and_a_missing_fact_unknown():
    features = {feature.name: feature for feature in spec().features}
    assert missing_value(features["user_clicks_7d"]) == 0.0
    assert missing_value(features["item_ctr_30d"]) == 0.05
    assert missing_value(features["item_rating"]) is None and missing_value(features["item_price"]) is None


def test_raw_columns():
    features = {feature.name: feature for feature in spec().features}
    assert raw_column(features["user_id_hash"]) == "user_id" and raw_column(features["item_brand"]) == "item_brand"
    assert raw_column(features["behaviour_item"]) == "behaviour_item_id"
