"""What is not a ranking request is refused by the schema, with the field that is wrong."""

import pytest
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


def test_context_is_bounded():
    with pytest.raises(ValidationError):
        RankRequest(user_id="u1", item_ids=["i1"], context={f"c{number}": 1 for number in range(CONTEXT_KEYS + 1)})


def test_any_script_is_welcome():
    request = RankRequest.model_validate_json('{"user_id": "ユーザー", "query": "רגלים 👟", "item_ids": ["é"]}')
    assert request.query == "רגלים 👟"
