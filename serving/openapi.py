"""The OpenAPI document, from the schemas that check requests: complete where BentoML's own is not.

BentoML's lacks `requestBody.required`, drops null from optional fields, and describes refusals in a shape they do not
have; the refusals of the guard it cannot know.
"""

from typing import Any

from pydantic.json_schema import models_json_schema

from serving.schemas import RankBatchRequest, RankBatchResponse, RankRequest, RankResponse, Shares

REFUSALS = {
    "400": "the body is no valid request; the message says why",
    "401": "the API key is missing or wrong",
    "403": "no API key is set, and the client is not on this machine",
    "408": "the body took too long to arrive",
    "409": "the shares or the mode cannot change so; the message says why (/experiment alone)",
    "413": "the body is too large",
    "415": "the content type is not application/json",
    "429": "as many requests are in work as are accepted: come back after Retry-After seconds",
    "503": "the service is starting or stopping",
}
REF = "#/components/schemas/{model}"
ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def document(version: str, max_candidates: int) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a deployment."""
    pairs = [(RankRequest, "validation"), (RankBatchRequest, "validation"), (Shares, "validation")]
    answers = [(RankResponse, "serialization"), (RankBatchResponse, "serialization")]
    _, schemas = models_json_schema([*pairs, *answers], ref_template=REF)  # type: ignore[list-item]
    definitions = {**schemas["$defs"], "Refusal": ERROR}
    definitions["RankRequest"]["properties"]["item_ids"]["maxItems"] = max_candidates
    one = {"user_id": "u17", "query": "red running shoes", "item_ids": ["i3", "i14"], "top_k": 2}
    return {
        "openapi": "3.1.0",
        "info": {"title": "uniscale ranker", "version": version},
        "paths": {
            "/rank": _operation("Order candidates for a user and a query", RankRequest, RankResponse, one),
            "/rank_batch": _operation(
                "Order several lists, one after the other; each has its own status",
                RankBatchRequest,
                RankBatchResponse,
                {"requests": [one, {"user_id": "u18", "item_ids": ["i3"]}]},
            ),
            "/experiment": {
                "put": _operation(
                    "Change the variants' shares of the users, or the mode; 409 where they cannot change",
                    Shares,
                    Shares,
                    {"weights": {"champion": 0.5, "candidate": 0.5}},
                )["post"]
            },
            "/healthz": _page("What is loaded and how it does", "application/json"),
            "/readyz": _page("200 when requests can be answered", "application/json", {"503": "not yet, and why"}),
            "/metrics": _page(
                "Prometheus' text format", "text/plain", {"401": REFUSALS["401"], "403": REFUSALS["403"]}
            ),
        },
        "components": {
            "schemas": definitions,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _operation(summary: str, request: type, response: type, example: dict[str, Any]) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": _json(request.__name__, example)},
            "responses": {
                "200": {"description": "the answer", "content": _json(response.__name__)},
                **{status: {"description": text, "content": _json("Refusal")} for status, text in REFUSALS.items()},
            },
        }
    }


def _page(summary: str, kind: str, others: dict[str, str] | None = None) -> dict[str, Any]:
    responses = {"200": {"description": summary, "content": {kind: {}}}}
    responses |= {status: {"description": text, "content": {}} for status, text in (others or {}).items()}
    return {"get": {"summary": summary, "responses": responses, "security": [{}]}}


def _json(schema: str, example: dict[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=schema)}}
    return {"application/json": content | ({"example": example} if example else {})}
