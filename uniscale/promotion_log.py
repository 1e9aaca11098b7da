"""The log of a registry: one numbered JSON file a decision (who, what, when, why), from which the champion follows.

The log is written before anything points at its outcome, so a process killed between the two leaves a log that is
right and pointers that the next operation mends. Champions are a stack: promote pushes, rollback pops.
"""

import fcntl
import getpass
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from uniscale.artifacts import read_json, write_json
from uniscale.errors import RegistryError

Action = Literal["register", "promote", "rollback"]


@dataclass(frozen=True)
class Entry:
    """One decision on record."""

    number: int
    action: Action
    version: str
    previous: str | None  # champion before a promotion or a rollback
    by: str
    at: str  # ISO 8601, UTC
    why: str
    forced: bool = False
    details: dict[str, Any] = field(default_factory=dict)  # register: lineage and the folder of the version


class PromotionLog:
    """The entries below one folder, and the lock that serialises their writers on one file system."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def entries(self) -> list[Entry]:
        """All decisions, oldest first.

        Raises:
            RegistryError: a number is missing, so a decision was deleted.
        """
        files = sorted((self.folder / "log").glob("[0-9]*.json"))
        entries = [Entry(**read_json(file)) for file in files]
        for expected, entry in enumerate(entries, start=1):
            if entry.number != expected:
                raise RegistryError(
                    f"{self.folder}/log has no entry {expected}: restore it, decisions are never deleted"
                )
        return entries

    def append(
        self,
        action: Action,
        version: str,
        why: str,
        by: str = "",
        previous: str | None = None,
        forced: bool = False,
        details: dict[str, Any] | None = None,
    ) -> Entry:
        """Write the next entry, whole or not at all; call it inside `lock`."""
        number = len(self.entries()) + 1
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(number, action, version, previous, by or _whoami(), at, why, forced, details or {})
        write_json(self.folder / "log" / f"{number:06d}.json", asdict(entry))
        return entry

    @contextmanager
    def lock(self, wait_seconds: float) -> Iterator[None]:
        """Hold the log for writing; the system frees the lock of a process that dies.

        Raises:
            RegistryError: another process held it for all of `wait_seconds`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as file:
            deadline = time.monotonic() + wait_seconds
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        file.seek(0)
                        raise RegistryError(
                            f"{self.folder} has been changed by {file.read().strip() or 'another process'} for "
                            f"{wait_seconds:g} s: wait for it, or end it, and try again"
                        ) from None
                    time.sleep(0.05)
            file.truncate(0)
            file.write(f"{_whoami()}, process {os.getpid()}")
            file.flush()
            yield


def champions(entries: list[Entry]) -> list[str]:
    """Versions that hold or would get back the seat, the present champion last."""
    stack: list[str] = []
    for entry in entries:
        if entry.action == "promote":
            stack.append(entry.version)
        elif entry.action == "rollback":
            stack.pop()
    return stack


def _whoami() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
