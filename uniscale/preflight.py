"""What a run needs of its cluster, checked by its first step: secrets in the environment, a folder that takes files."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from uniscale.errors import ConfigError


def required_variables(secrets: Mapping[str, Mapping[str, str]]) -> str:
    """The pipeline's parameter for `check`: every variable and the secret it comes from, as JSON.

    Args:
        secrets: secret: key: environment variable, as a profile has them.
    """
    found = {
        variable: f"key {key} of secret {secret}" for secret, keys in secrets.items() for key, variable in keys.items()
    }
    return json.dumps(found)


def check(required: str, state: str, environment: Mapping[str, str] = os.environ) -> None:
    """Check variables and folder.

    Args:
        required: see `required_variables`.
        state: the folder; empty for none.
        environment: where the variables should be.

    Raises:
        ConfigError: a variable is not set, or the folder takes no file.
    """
    absent = [f"{name} ({source})" for name, source in json.loads(required).items() if not environment.get(name)]
    if absent:
        raise ConfigError(
            f"not set: {', '.join(absent)}; create the secret in the run's namespace, or take it out of the profile"
        )
    if not state:
        return
    probe = Path(state) / f".preflight-{uuid.uuid4().hex[:8]}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"the state folder {state} takes no file ({error}): mount a volume there that all steps can write"
        ) from None
