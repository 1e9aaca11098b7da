"""The model registry: immutable versions in MLflow, a champion that only a passed gate can seat, and a way back.

MLflow keeps versions, tags and the aliases `champion` and `challenger`, and each version's training as a run with its
curves; model files and gate records are copied to a folder; every decision is an entry of `PromotionLog`, which says
who is champion. MLflow is made to follow the log, so reading needs none, and a process killed in the middle or a lost
database leaves nothing that the next change does not mend.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit, urlunsplit

from uniscale.artifacts import atomic_folder, content_hash, read_json, source_hash, write_json
from uniscale.errors import RegistryError
from uniscale.mlflow_mirror import Mirror
from uniscale.promotion_log import Entry, PromotionLog, champions
from uniscale.version_record import gate_tags, plain

T = TypeVar("T")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


@dataclass(frozen=True)
class Version:
    """A registered model: its number, its files, what it was made from, and what the gate said."""

    number: str
    folder: Path  # the model folder; read only
    run_id: str
    data_hash: str
    data_version: str  # what DVC and git know of the data; empty where they know nothing
    source_hash: str
    content_hash: str  # of the model folder
    verdict: str | None  # "promote", "reject", or None without a gate record
    decision: Path | None  # the gate record, decision.json
    config: Path | None  # the configuration of its run
    registered_at: str  # ISO 8601, UTC


class Registry:
    """Versions of one model name.

    Args:
        uri: a folder (sqlite and files live in it), `sqlite:///…`, or a server such as
            `https://mlflow:5000?artifacts=/mnt/models`, whose `artifacts` is a folder that all who promote share.
        name: the registered model.
        artifacts: the folder of model files and of the log; by default beside the database.
        wait_seconds: how long a change waits for another one to finish.
    """

    def __init__(self, uri: str | Path, name: str = "ranker", artifacts: Path | None = None, wait_seconds: float = 60):
        if not re.fullmatch(r"[\w.-]+", name):
            raise RegistryError(f"model name {name!r}: use letters, digits, '.', '_' and '-'")
        self.uri, folder = _resolve(str(uri), artifacts)
        self.name, self.wait_seconds = name, wait_seconds
        self.folder = folder / name
        self.log = PromotionLog(self.folder)
        self._mlflow: Any = None

    def register(
        self,
        model: Path,
        run_id: str,
        decision: Path | None = None,
        data_hash: str = "",
        data_version: str = "",
        source: str = "",
        config: Mapping[str, Any] | None = None,
        by: str = "",
    ) -> Version:
        """Copy a model folder and its gate record into the registry under a new number.

        The same model, record and run register once: asking again gives the same version.

        Args:
            model: the model folder.
            run_id: the run that made it.
            decision: `decision.json` of the gate; without one the version can only be promoted by force.
            data_hash: what the run read.
            data_version: what DVC and git know of it.
            source: hash of the code; by default that of the installed project.
            config: configuration of the run.
            by: who registers; by default the user and host.

        Raises:
            RegistryError: the model folder or the record is missing, or MLflow cannot be reached.
        """
        model = Path(model)
        if not (model / "model.json").exists():
            raise RegistryError(f"{model} has no model.json: give the folder that training or evaluation wrote")
        record = read_json(decision) if decision is not None else None
        verdict = record.get("verdict") if isinstance(record, dict) else None
        if decision is not None and verdict not in ("promote", "reject"):
            raise RegistryError(
                f"{decision} is no gate record, its verdict is {verdict!r}: give decision.json of `gate`"
            )
        model_hash = content_hash(model)
        key = "-".join([model_hash, content_hash(decision) if decision else "unjudged", plain(run_id)])
        with self._changing():
            for version in self.versions():
                if version.folder.parent.name == key:
                    return version
            place = self.folder / "models" / key
            if not place.exists():
                with atomic_folder(place) as scratch:
                    shutil.copytree(model, scratch / "model")
                    if decision is not None:
                        shutil.copy(decision, scratch / "decision.json")
                    if config is not None:
                        write_json(scratch / "config.json", config)
            lineage = {
                "run_id": run_id,
                "data_hash": data_hash,
                "data_version": data_version,
                "source_hash": source or source_hash(),
                "content_hash": model_hash,
                "verdict": verdict,
            }
            tags = lineage | gate_tags(record)
            number = self._call(lambda client: Mirror(client, self.name, self.folder).add(place, tags))
            failed = ", ".join(record["failed"]) if verdict == "reject" and isinstance(record, dict) else ""
            why = {None: "no gate record", "promote": "passed the gate"}.get(verdict, f"failed {failed}")
            self.log.append("register", number, why, by, details=lineage | {"key": key})
            return self.version(number)

    def promote(self, number: str, force: bool = False, reason: str = "", by: str = "") -> Version:
        """Seat a version as champion; a no-op where it is already.

        Refused without a record of a passed gate, and when that record judged it against another champion than the
        present one: of two promotions at once the first wins and the second is told. `force` overrules both and
        needs a reason, which is kept.

        Raises:
            RegistryError: unknown version, refused, no reason given, or MLflow cannot be reached.
        """
        if force and not reason.strip():
            raise RegistryError("a forced promotion needs a reason, which is kept on record: give --reason")
        with self._changing():
            version, now = self.version(number), self.champion()
            if now is not None and now.number == version.number:
                return version
            objection = self._objection(version, now)
            if objection and not force:
                raise RegistryError(f"version {number} of {self.name} is not promoted: {objection}")
            why = reason or "passed the gate"
            self.log.append("promote", number, why, by, now.number if now else None, forced=bool(objection))
            return version

    def rollback(self, reason: str = "", by: str = "") -> Version:
        """Give the seat back to the champion before the present one; asked again, to the one before that.

        Raises:
            RegistryError: no champion, or none before it.
        """
        with self._changing():
            entries = self.log.entries()
            stack = champions(entries)
            if len(stack) < 2:
                raise RegistryError(
                    f"{self.name} has no earlier champion to go back to: promote another version instead"
                )
            self.log.append("rollback", stack[-2], reason or "no reason given", by, stack[-1])
            return self.version(stack[-2])

    def tag(self, number: str, key: str, value: str) -> None:
        """Attach a tag to a version in MLflow, e.g. the Bento built from it."""
        with self._changing():
            self.version(number)
            self._call(lambda client: client.set_model_version_tag(self.name, number, key, value))

    def champion(self) -> Version | None:
        """The present champion, None before the first promotion."""
        stack = champions(self.log.entries())
        return self.version(stack[-1]) if stack else None

    def versions(self) -> list[Version]:
        """Every registered version, oldest first."""
        found = {entry.version: self._version(entry) for entry in self.log.entries() if entry.action == "register"}
        return list(found.values())

    def version(self, number: str) -> Version:
        """One version by number.

        Raises:
            RegistryError: no such version.
        """
        versions = self.versions()
        for version in versions:
            if version.number == str(number):
                return version
        known = ", ".join(version.number for version in versions) or "none"
        raise RegistryError(f"{self.name} has no version {number!r} in {self.folder}; registered: {known}")

    def find(self, reference: str) -> Version:
        """A version by what is known of it: its number, `champion`, its run, or the first digits of its content hash.

        Raises:
            RegistryError: nothing, or more than one version, fits.
        """
        if reference == "champion":
            champion = self.champion()
            if champion is None:
                raise RegistryError(f"{self.name} has no champion yet: promote a version first")
            return champion
        versions = self.versions()
        exact = [version for version in versions if reference == version.number]
        fitting = exact or [
            version
            for version in versions
            if reference == version.run_id or (len(reference) >= 6 and version.content_hash.startswith(reference))
        ]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            numbers = ", ".join(version.number for version in fitting)
            raise RegistryError(f"{reference!r} fits the versions {numbers} of {self.name}: give a number")
        return self.version(reference)

    def history(self) -> list[Entry]:
        """Every decision, oldest first: what was registered, promoted, forced, rolled back, by whom, when and why."""
        return self.log.entries()

    def fetch(self, number: str, out: Path) -> Path:
        """Copy a version's model folder to `out`, checked against the hash it was registered with.

        Raises:
            RegistryError: no such version, or its files have changed.
        """
        version = self.version(number)
        if not version.folder.exists() or content_hash(version.folder) != version.content_hash:
            raise RegistryError(
                f"the files of version {number} in {version.folder} are gone or not those that were registered: "
                "restore them from a backup, or roll back"
            )
        with atomic_folder(Path(out)) as scratch:
            shutil.copytree(version.folder, scratch, dirs_exist_ok=True)
        return Path(out)

    def _version(self, entry: Entry) -> Version:
        place, details = self.folder / "models" / entry.details["key"], entry.details
        return Version(
            number=entry.version,
            folder=place / "model",
            run_id=details["run_id"],
            data_hash=details["data_hash"],
            data_version=details.get("data_version", ""),
            source_hash=details["source_hash"],
            content_hash=details["content_hash"],
            verdict=details["verdict"],
            decision=place / "decision.json" if details["verdict"] else None,
            config=place / "config.json" if (place / "config.json").exists() else None,
            registered_at=entry.at,
        )

    def _objection(self, version: Version, now: Version | None) -> str:
        if version.decision is None:
            return "it has no gate record; evaluate and gate it, or force it with a reason"
        record = read_json(version.decision)
        if record["verdict"] != "promote":
            return (
                f"its gate record failed {', '.join(record['failed'])}; the champion stays, or force it with a reason"
            )
        judged = record.get("champion")
        if now is None and judged is None:
            return ""
        if now is not None and judged is not None and judged.get("hash") == now.content_hash:
            return ""
        seated = f"version {now.number} is champion" if now else "there is no champion"
        against = f"champion {judged.get('hash')}" if judged else "no champion"
        return f"it was judged against {against}, but {seated} now; evaluate it against the present one"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """The lock, with the aliases set from the log before (after a kill) and after the change."""
        with self.log.lock(self.wait_seconds):
            if self.log.entries():
                self._point()
            yield
            self._point()

    def _point(self) -> None:
        """Let MLflow show what the log says."""
        entries = self.log.entries()
        if not entries:
            return
        (champion,) = champions(entries)[-1:] or (None,)
        (challenger,) = [v.number for v in self.versions() if v.verdict == "promote"][-1:] or (None,)

        registered = {entry.version: entry for entry in entries if entry.action == "register"}

        def point(client: Any) -> None:
            mirror = Mirror(client, self.name, self.folder)
            mirror.restore(registered, lambda number: self._kept(registered[number]))
            mirror.point({"champion": champion, "challenger": challenger if challenger != champion else None})

        self._call(point)

    def _kept(self, entry: Entry) -> tuple[Path, dict[str, Any]]:
        """The folder and the tags of a version."""
        version = self._version(entry)
        lineage = {key: value for key, value in entry.details.items() if key != "key"}
        record = read_json(version.decision) if version.decision else None
        return version.folder.parent, lineage | gate_tags(record)

    def _call(self, operation: Callable[[Any], T]) -> T:
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        for logger in ("mlflow", "alembic"):
            logging.getLogger(logger).setLevel(logging.ERROR)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError  # what MLflow lets through of a database that cannot be read

        logging.getLogger("mlflow").setLevel(logging.ERROR)  # its import sets it back
        try:
            if self._mlflow is None:
                if self.uri.startswith("sqlite:///"):
                    Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
                self._mlflow = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            return operation(self._mlflow)
        except (MlflowException, SQLAlchemyError) as error:
            first = str(error).strip().splitlines()[0]
            raise RegistryError(
                f"MLflow at {self.uri}: {first}; mend that and try again (what `history` shows is on record; a damaged "
                "database may be moved away, the next change makes it anew)"
            ) from error


def names(uri: str | Path) -> list[str]:
    """The models that a registry holds."""
    _, folder = _resolve(str(uri), None)
    return sorted(log.parent.name for log in folder.glob("*/log"))


def _resolve(uri: str, artifacts: Path | None) -> tuple[str, Path]:
    """MLflow's URI and the folder of files that belong to a registry URI."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        given = parse_qs(parts.query).get("artifacts", [])
        folder = artifacts or (Path(given[0]) if given else None)
        if folder is None:
            raise RegistryError(f"registry {uri}: name the shared folder of model files, {uri}?artifacts=/mnt/models")
        return urlunsplit(parts._replace(query="")), Path(folder)
    if parts.scheme == "sqlite":
        return uri, Path(artifacts or Path(uri.removeprefix("sqlite:///")).parent)
    if parts.scheme:
        raise RegistryError(f"registry {uri}: use a folder, sqlite:///path, or an http(s) URL")
    root = Path(uri).resolve()
    return f"sqlite:///{root / 'mlflow.db'}", Path(artifacts or root)
