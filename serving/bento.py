"""Builds the Bento of a prepared context folder; run as a process of its own, because BentoML reads its home at import.

Called by `serving.deploy.package` as `python -m serving.bento VERSION CONTAINERFILE` in the context folder, which
holds the packages and `deployment/`; the tag is printed as the last line.
"""

import sys
from importlib.metadata import version as installed
from pathlib import Path

import bentoml

RUNTIME = (  # what the worker imports; pinned to what is installed here
    "bentoml",
    "duckdb",
    "feast",
    "httptools",
    "numpy",
    "prometheus-client",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "redis",
    "safetensors",
    "scikit-learn",
    "scipy",
    "starlette",
    "torch",
    "uvicorn",
    "xxhash",
)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # where torch's +cpu wheels are


def build(version: str, containerfile: Path) -> str:
    """Build the Bento of the working folder and write its Containerfile; returns the tag."""
    requirements = [f"{package}=={installed(package)}" for package in RUNTIME]
    cpu = any(requirement.endswith("+cpu") for requirement in requirements)
    bento = bentoml.build(
        service="serving.service:RankingService",
        version=version,
        include=["*"],
        python={
            "packages": requirements,
            "lock_packages": False,  # the pins above are the lock; resolving again would ask the network
            **({"extra_index_url": [CPU_INDEX]} if cpu else {}),
        },
        build_ctx=".",
    )
    bentoml.container.get_containerfile(str(bento.tag), output_path=str(containerfile))
    return str(bento.tag)


if __name__ == "__main__":
    print(build(sys.argv[1], Path(sys.argv[2])))
