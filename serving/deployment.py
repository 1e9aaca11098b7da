"""What a deployment folder declares: tag, variants with weights and versions, limits, and whose clock counts.

The folder holds `deployment.json` (a `Deployment`), `models/<version>/` (model.json and float16 model.safetensors),
`features/` (spec, items, text encoder, Feast store), and beside them the Bento that was built from it.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from uniscale.artifacts import read_json, write_json
from uniscale.errors import ServingError
from uniscale.samples import SampleSpec
from uniscale.sections import Mode, ServingConfig

FILE, EXAMPLES = "deployment.json", "examples.json"


class Deployment(BaseModel):
    """The manifest of a deployment; written once by `serving.deploy.package`, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tag: str = Field(description="name:version of the Bento")
    versions: dict[str, str] = Field(description="variant: version of its model, the folder below models/")
    weights: dict[str, float] = Field(description="variant: share of users")
    mode: Mode = Field(description="split: a variant for each user; interleave: both draft everyone's list")
    salt: str = Field(description="of the hash that assigns users to variants")
    domain: str = Field(description="the domain that is served")
    scenarios: list[str] = Field(description="scenarios the models know")
    tasks: list[str] = Field(description="the primary task first: its probability is the score")
    services: list[str] = Field(description="feature services that are read: one a model, and the fallback's")
    views: list[str] = Field(description="feature views that these hold")
    popularity: str = Field(description="the item feature that orders a fallback")
    source_hash: str = Field(description="of the code the Bento carries")
    serving: ServingConfig

    def looks_up(self, offered: SampleSpec) -> SampleSpec:
        """What of the features folder's spec the service reads."""
        return offered.without(set(offered.views) - set(self.views))

    def save(self, folder: Path) -> None:
        """Write `deployment.json`."""
        write_json(Path(folder) / FILE, self.model_dump())

    @classmethod
    def load(cls, folder: Path) -> "Deployment":
        """Read `deployment.json`.

        Raises:
            ServingError: the file is missing, or was written by another version of the code.
        """
        path = Path(folder) / FILE
        if not path.exists():
            raise ServingError(f"no {FILE} in {folder}: give a folder that `uniscale package` wrote")
        raw: Any = read_json(path)
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            where = ", ".join(".".join(str(part) for part in problem["loc"]) for problem in error.errors())
            raise ServingError(f"{path} does not fit this version of the code ({where}): package again") from None


class Examples(BaseModel):
    """Some users and queries that the online store knows, for requests that are like real ones."""

    users: list[str]
    queries: list[str]

    def save(self, folder: Path) -> None:
        """Write `examples.json`."""
        write_json(Path(folder) / EXAMPLES, self.model_dump())

    @classmethod
    def load(cls, folder: Path) -> "Examples":
        """Read `examples.json`."""
        return cls.model_validate(read_json(Path(folder) / EXAMPLES))
