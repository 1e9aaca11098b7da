"""Step: the features of served requests, as the service had them and as they are recomputed."""

from kfp import dsl

from components.image import step


@step
def skew(serving_log: str, offline: str, compared: dsl.Output[dsl.Artifact]) -> None:
    """Compare hashes of model inputs.

    Args:
        serving_log: folder of the serving log.
        offline: Parquet file with request_id and features_hash, recomputed; empty where nobody recomputes them.
        compared: skew.json.
    """
    from pathlib import Path

    from monitoring.skew import hash_skew
    from uniscale.artifacts import write_json

    found = hash_skew(Path(serving_log), Path(offline)) if offline else {"requests": 0, "differing": 0, "share": None}
    write_json(Path(compared.path) / "skew.json", found)
