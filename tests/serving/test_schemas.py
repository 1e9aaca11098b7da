"""What is not a ranking request is refused by the schema, with the field that is wrong."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.schemas import CONTEXT_KEYS, RankRequest

GOOD = '{"user_id": "u1", "item_ids": ["i1"]}'


def test_the_least_request():
    request = RankRequest.model_validate_json(GOOD)
    assert (request.query, request.scenario, request.context, request.top_k, request.ts) == (None, [], {}, None, None)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"item_ids": ["i1"]}', "user_id"),
        ('{"user_id": "u1"}', "item_ids"),
        ('{"user_id": "", "item_ids": ["i1"]}', "user_id"),
        ('{"user_id": 1, "item_ids": ["i1"]}', "user_id"),
        ('{"user_id": null, "item_ids": ["i1"]}', "user_id"),
        ('{"user_id": "u1", "item_ids": []}', "item_ids"),
        ('{"user_id": "u1", "item_ids": "i1"}', "item_ids"),
        ('{"user_id": "u1", "item_ids": ["i1", 2]}', "item_ids"),
        ('{"user_id": "u1", "item_ids": ["i1", "i1"]}', "item_ids"),
        ('{"user_id": "u1", "item_ids": ["i1"], "boost": 1}', "boost"),
        ('{"user_id": "u1", "item_ids": ["i1"], "top_k": 0}', "top_k"),
        ('{"user_id": "u1", "item_ids": ["i1"], "top_k": "2"}', "top_k"),
        ('{"user_id": "u1", "item_ids": ["i1"], "top_k": 1.5}', "top_k"),
        ('{"user_id": "u1", "item_ids": ["i1"], "context": {"x": NaN}}', "context"),
        ('{"user_id": "u1", "item_ids": ["i1"], "context": {"x": [1]}}', "context"),
        ('{"user_id": "u1", "item_ids": ["i1"], "context": 3}', "context"),
        ('{"user_id": "u1", "item_ids": ["i1"], "ts": "2026-01-05T00:00:00"}', "ts"),
        ('{"user_id": "u1", "item_ids": ["i1"], "ts": "yesterday"}', "ts"),
        ('{"user_id": "u1", "item_ids": ["i1"], "ts": "0001-01-01T00:00:00+14:00"}', "ts"),
        ('{"user_id": "u1", "item_ids": ["i1"], "context": {"x": 1%s}}' % ("0" * 400), "context"),
        ('{"user_id": "u1", "item_ids": ["i1"], "query": "%s"}' % ("x" * 10_000), "query"),
        ('{"user_id": "%s", "item_ids": ["i1"]}' % ("x" * 257), "user_id"),
    ],
)
def test_a_wrong_field_is_named(body, field):
    with pytest.raises(ValidationError) as refusal:
        RankRequest.model_validate_json(body)
    assert refusal.value.errors()[0]["loc"][0] == field


@pytest.mark.parametrize("body", ["", "{", "[]", "null", "NaN", '"u1"', '{"user_id": "\\ud800", "item_ids": ["i1"]}'])
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(ValidationError):
        RankRequest.model_validate_json(body)


@given(number=st.floats() | st.integers() | st.floats(min_value=0, max_value=5000).map(round).map(float))
def test_top_k_is_what_json_schema_calls_a_positive_integer(number):
    """Found by schemathesis: 2.0 is an integer of JSON Schema."""
    body = json.dumps({"user_id": "u1", "item_ids": ["i1"], "top_k": number})
    if math.isfinite(number) and number == int(number) >= 1:
        assert RankRequest.model_validate_json(body).top_k == int(number)
    else:
        with pytest.raises(ValidationError):
            RankRequest.model_validate_json(body)
    schema = RankRequest.model_json_schema()["properties"]["top_k"]["anyOf"][0]
    assert schema == {"type": "integer", "minimum": 1}


def test_context_is_bounded():
    with pytest.raises(ValidationError):
        RankRequest(user_id="u1", item_ids=["i1"], context={f"c{number}": 1 for number in range(CONTEXT_KEYS + 1)})


def test_any_script_is_welcome():
    request = RankRequest.model_validate_json('{"user_id": "ユーザー", "query": "רגלים 👟", "item_ids": ["é"]}')
    assert request.query == "רגלים 👟"
