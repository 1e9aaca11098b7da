"""A samples folder that shares another's rows: with fewer behaviours, or with its newest training days alone."""

from pathlib import Path

from uniscale.artifacts import atomic_folder, read_json, write_json
from uniscale.samples import SampleSpec


def training_days(samples: Path) -> list[str]:
    """Days of the training split that have rows, ISO, oldest first."""
    first, last = read_json(Path(samples) / "manifest.json")["splits"]["train"]
    days = sorted(path.name.removeprefix("day=") for path in (Path(samples) / "rows").glob("day=*"))
    return [day for day in days if first <= day <= last]


def write_view(samples: Path, first: str, spec: SampleSpec, out: Path) -> None:
    """Write a samples folder whose training split begins on `first` and whose rows are read by `spec`."""
    samples = Path(samples)
    manifest = read_json(samples / "manifest.json")
    with atomic_folder(Path(out)) as scratch:
        for name in ("rows", "items.parquet"):
            (scratch / name).symlink_to((samples / name).resolve())
        spec.save(scratch)
        splits = {**manifest["splits"], "train": [first, manifest["splits"]["train"][1]]}
        write_json(scratch / "manifest.json", {**manifest, "splits": splits})
