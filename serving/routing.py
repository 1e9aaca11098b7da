"""Who sees which model: a small mutable file beside an immutable deployment, replaced whole and polled by every worker.

Where the file is missing, a deployment's own variants answer. What is named here is loaded and checked before it
answers (`serving.switch`), so writing this file is a request, and the health page says what became of it:

    {"variants": {"champion": {"weight": 0.9, "target": {"version": "7", "folder": "/models/7"}},
                  "candidate": {"weight": 0.1, "target": {"version": "1", "folder": "models/1"}}},
     "mode": "split",
     "shadows": {"next": {"version": "8", "folder": "/models/8"}}}
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.deployment import Deployment
from uniscale.artifacts import content_hash, read_json, write_json
from uniscale.assignment import assign
from uniscale.errors import ServingError
from uniscale.sections import Mode
from uniscale.serving_log import INTERLEAVED

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Target(BaseModel):
    """A version of a model and the folder that holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Name
    folder: str = Field(description="model folder, absolute or below the deployment")
    content_hash: str | None = Field(default=None, description="of the folder, checked before it is loaded")

    @classmethod
    def of(cls, version: str, folder: Path) -> "Target":
        """A target bound to what the folder holds now."""
        return cls(version=version, folder=str(Path(folder).resolve()), content_hash=content_hash(folder))


class Variant(BaseModel):
    """A share of the users and the model they see."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Target
    weight: float = Field(ge=0, le=1, description="share of users; all weights sum to 1")


class Routing(BaseModel):
    """Variants that answer, and shadows that are scored and logged but never shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variants: dict[Name, Variant] = Field(min_length=1)
    mode: Mode = Field(
        default="split", description="interleave: everyone's list is drafted by the two variants, the control first"
    )
    shadows: dict[Name, Target] = {}

    @model_validator(mode="after")
    def _agrees(self) -> "Routing":
        total = math.fsum(self.weights.values())
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the weights sum to {total:g}, not 1")
        if self.mode == "interleave" and len(self.variants) != 2:
            raise ValueError(f"interleaved lists are drafted by two variants, not by {sorted(self.variants)}")
        if INTERLEAVED in self.variants:
            raise ValueError(f"{INTERLEAVED!r} is what an answer of two variants is called: take another name")
        if both := sorted(self.variants.keys() & self.shadows.keys()):
            raise ValueError(f"{both} are variants and shadows at once")
        found: dict[str, Target] = {}
        for target in self._all():
            if found.setdefault(target.version, target) != target:
                raise ValueError(f"version {target.version} names two models")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Variant: share of users, in the file's order, which the assignment goes by."""
        return {name: variant.weight for name, variant in self.variants.items()}

    @property
    def versions(self) -> dict[str, str]:
        """Variant: version."""
        return {name: variant.target.version for name, variant in self.variants.items()}

    def of_user(self, user_id: str, salt: str) -> tuple[str, ...]:
        """The variants that answer a user: that of the assignment, or both where lists are interleaved.

        A variant whose share is 0 drafts nothing: a roll-back, which takes the treatment's share, ends the drafting.
        """
        weights = self.weights
        both = self.mode == "interleave" and min(weights.values()) > 0
        return tuple(weights) if both else (assign(user_id, salt, weights),)

    def named(self, variants: Sequence[str]) -> tuple[str, str]:
        """Variant and version that an answer of these variants carries."""
        versions = self.versions
        return variants[0] if len(variants) == 1 else INTERLEAVED, "+".join(versions[name] for name in variants)

    @property
    def targets(self) -> dict[str, Target]:
        """Version: its target, of variants and shadows."""
        return {target.version: target for target in self._all()}

    def _all(self) -> list[Target]:
        return [*(variant.target for variant in self.variants.values()), *self.shadows.values()]

    def pointed(self, variant: str, target: Target) -> "Routing":
        """The same shares with another model behind one variant."""
        if variant not in self.variants:
            raise ServingError(f"no variant {variant!r} in the routing; it has {sorted(self.variants)}")
        changed = Variant(target=target, weight=self.variants[variant].weight)
        return self.checked({name: changed if name == variant else old for name, old in self.variants.items()})

    def shared(self, weights: Mapping[str, float], mode: Mode | None = None) -> "Routing":
        """The same models with other shares of the users and another mode, in this routing's order of variants.

        Raises:
            ServingError: shares outside [0, 1] or that do not sum to 1.
        """
        try:
            changed = {n: Variant(target=old.target, weight=weights[n]) for n, old in self.variants.items()}
            return self.checked(changed, mode=mode)
        except ValidationError as error:
            raise ServingError(f"{dict(weights)} are no shares: {error.errors()[0]['msg']}") from None

    def checked(
        self,
        variants: Mapping[str, Variant] | None = None,
        shadows: Mapping[str, Target] | None = None,
        mode: Mode | None = None,
    ) -> "Routing":
        """A copy with other variants, shadows or mode, validated."""
        return Routing(
            variants=dict(self.variants if variants is None else variants),
            mode=mode or self.mode,
            shadows=dict(self.shadows if shadows is None else shadows),
        )

    @classmethod
    def of(cls, deployment: Deployment) -> "Routing":
        """What a deployment declares for itself."""
        return cls(
            variants={
                name: Variant(
                    target=Target(version=version, folder=f"models/{version}"), weight=deployment.weights[name]
                )
                for name, version in deployment.versions.items()
            },
            mode=deployment.mode,
        )

    def save(self, path: Path) -> None:
        """Replace the routing file atomically."""
        write_json(Path(path), self.model_dump())

    @classmethod
    def load(cls, path: Path) -> "Routing":
        """Read a routing file.

        Raises:
            ServingError: its content does not fit.
            DataError: it is missing or not JSON.
        """
        try:
            return cls.model_validate(read_json(Path(path)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise ServingError(f"{path} is no routing: {where}: {first['msg']}") from None
