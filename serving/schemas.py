"""What the ranking service takes and answers: strict types, no unknown keys, bounded strings."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from uniscale.logs import MAX_ID, MAX_TEXT
from uniscale.sections import Mode

Identifier = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
ContextValue = Annotated[str, Field(max_length=MAX_ID)] | bool | Whole | Finite | None
# An integer of JSON Schema may be written as 2.0, which strict validation takes for a float.
Count = Annotated[int, Field(ge=1), BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)]
# Within these, no conversion between time zones or to nanoseconds can overflow.
EARLIEST, LATEST = datetime(1970, 1, 2, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
BATCH = 32  # requests of one batch
CONTEXT_KEYS, SCENARIOS = 64, 32  # far above any real request; they bound what one body can make us hash


class RankRequest(BaseModel):
    """One ranking request: who asks, what for, and the candidates' ids. Features are looked up, never sent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    request_id: Identifier | None = Field(default=None, description="made by the service when left out")
    user_id: Identifier = Field(description="an unknown user is a normal one without history", examples=["u17"])
    query: str | None = Field(default=None, max_length=MAX_TEXT, examples=["red running shoes"])
    scenario: list[Identifier] = Field(default=[], max_length=SCENARIOS, description="names the model knows")
    context: dict[Identifier, ContextValue] = Field(default={}, max_length=CONTEXT_KEYS, examples=[{"device": "phone"}])
    item_ids: list[Identifier] = Field(
        min_length=1,
        description="the candidates, each once",
        examples=[["i3", "i14"]],
        json_schema_extra={"uniqueItems": True},
    )
    top_k: Count | None = Field(default=None, description="answer only the best; all of them when left out")
    ts: Annotated[AwareDatetime, Field(ge=EARLIEST, le=LATEST)] | None = Field(
        default=None,
        description="when the user asked; only where the deployment accepts its clients' clock",
        json_schema_extra={"pattern": r"^(197[1-9]|19[89]\d|20\d\d|21\d\d)-"},  # within EARLIEST and LATEST
    )

    @field_validator("item_ids")
    @classmethod
    def _each_once(cls, item_ids: list[str]) -> list[str]:
        if len(set(item_ids)) != len(item_ids):
            raise ValueError(f"{len(item_ids) - len(set(item_ids))} item ids are repeated: send each candidate once")
        return item_ids


class RankedItem(BaseModel):
    """One item of an answer; `score` is the calibrated probability of the primary task, null for an unknown item."""

    item_id: str
    score: float | None


class RankResponse(BaseModel):
    """The candidates in the order to show, and everything needed to know where that order came from."""

    request_id: str
    variant: str
    version: str
    items: list[RankedItem] = Field(description="best first; items unknown to the catalogue come last")
    unknown_items: list[str] = Field(description="candidates the catalogue does not have")
    fallback: str | None = Field(description="why the order is popularity and not the model's, null when it is")
    latency_ms: float


class RankBatchRequest(BaseModel):
    """Several ranking requests in one body; they are answered one after the other."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    requests: list[RankRequest] = Field(min_length=1, max_length=BATCH)


class BatchAnswer(BaseModel):
    """What `POST /rank` would have answered to one request of a batch."""

    status: int
    answer: RankResponse | None = Field(description="where status is 200")
    error: str | None = Field(description="where it is not")


class RankBatchResponse(BaseModel):
    """Answers in the order of the requests."""

    answers: list[BatchAnswer]


class Shares(BaseModel):
    """Shares of the users that the variants get, all of them named."""

    model_config = ConfigDict(extra="forbid", strict=True)

    salt: str | None = Field(default=None, description="of the assignment; refused where it is not the service's")
    weights: dict[Identifier, float]
    mode: Mode | None = Field(default=None, description="as it is when left out; interleave: two variants draft lists")


def error_body(message: str, **detail: Any) -> dict[str, Any]:
    """The one shape of every refusal: `{"error": message, ...}`."""
    return {"error": message, **detail}
