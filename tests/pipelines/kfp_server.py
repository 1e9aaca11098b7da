"""A Kubeflow Pipelines API on loopback, as much of /apis/v2beta1 as the real `kfp.Client` uses here.

A run goes through scripted states, one a look; or its uploaded IR is executed by the local runner (`execute`).
"""

import contextlib
import io
import json
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.pipelines.hollow import Answer, hollow

State = str | tuple[str, dict[str, str]]  # of the run, or with those of its steps


class PipelinesApi:
    """State of the server.

    Args:
        states: what the runs go through, one entry a look.
        token: bearer token asked for.
        error: message of every step that the script lets fail.
        execute: folder for the local runner, which then executes runs when they are posted.
        answers: execute them hollow (tests.pipelines.hollow), with these answers of their steps.
    """

    def __init__(
        self,
        states: list[State],
        token: str | None = None,
        error: str = "step failed",
        execute: Path | None = None,
        answers: dict[str, Answer] | None = None,
    ):
        self.states, self.token, self.error, self.execute = list(states), token, error, execute
        self.answers = answers
        self.experiments: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.schedules: dict[str, dict[str, Any]] = {}
        self.ir: dict[str, str] = {}
        self.out_of_order = 0  # looks that are answered 503
        self.speaking = threading.Event()  # cleared: requests wait for their answer
        self.speaking.set()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Accept requests in the block and answer them only after it."""
        self.speaking.clear()
        try:
            yield
        finally:
            self.speaking.set()

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and JSON for a request."""
        parts = urlsplit(url)
        path, asked = parts.path.removeprefix("/apis/v2beta1/"), parse_qs(parts.query)
        kind, _, rest = path.partition("/")
        if path == "healthz":
            return 200, {"multi_user": False}
        if path.startswith("pipelines/upload"):
            return 200, self._upload(path, asked, body)
        given = json.loads(body) if body else {}
        if kind == "experiments":
            return self._collection(method, self.experiments, "experiment", given, asked)
        if kind == "pipelines" and rest.endswith("/versions"):
            of = [v for v in self.versions.values() if v["pipeline_id"] == rest.removesuffix("/versions")]
            return 200, {"pipeline_versions": of}
        if kind == "pipelines":
            return self._collection(method, self.pipelines, "pipeline", given, asked)
        if kind == "recurringruns" and rest:
            return self._schedule(method, rest)
        if kind == "recurringruns":
            return self._collection(method, self.schedules, "recurring_run", given, asked)
        if kind == "runs":
            return self._run(method, rest, given)
        return 404, {"error": f"no {method} {path} here"}

    def _collection(
        self, method: str, kept: dict[str, Any], name: str, given: dict[str, Any], asked: dict[str, list[str]]
    ) -> tuple[int, dict[str, Any]]:
        if method == "POST":
            made = {**given, f"{name}_id": f"{name[0]}{len(kept)}"}
            kept[made[f"{name}_id"]] = made
            return 200, made
        found = list(kept.values())
        for rule in json.loads(asked.get("filter", ["{}"])[0]).get("predicates", []):
            wanted = rule.get("stringValue") or rule.get("string_value")
            found = [one for one in found if one["display_name"] == wanted]
        return 200, {"recurringRuns" if name == "recurring_run" else f"{name}s": found}

    def _upload(self, path: str, asked: dict[str, list[str]], body: bytes) -> dict[str, Any]:
        text = re.split(rb"\r\n--", body.split(b"\r\n\r\n", 1)[1])[0].decode()
        pipeline_id = asked.get("pipelineid", [f"p{len(self.pipelines)}"])[0]
        if path.endswith("upload"):
            self.pipelines[pipeline_id] = {"pipeline_id": pipeline_id, "display_name": asked["name"][0]}
        version_id = f"v{len(self.versions)}"
        version = {"pipeline_id": pipeline_id, "pipeline_version_id": version_id, "display_name": asked["name"][0]}
        self.versions[version_id], self.ir[version_id] = version, text
        return version if path.endswith("version") else self.pipelines[pipeline_id]

    def _schedule(self, method: str, rest: str) -> tuple[int, dict[str, Any]]:
        schedule_id, _, action = rest.partition(":")
        if schedule_id not in self.schedules:
            return 404, {"error": f"recurring run {schedule_id} not found"}
        if method == "DELETE":
            del self.schedules[schedule_id]
            return 200, {}
        if action:
            self.schedules[schedule_id]["mode"] = action.upper()
        return 200, self.schedules[schedule_id]

    def _run(self, method: str, rest: str, given: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if not rest:
            run = {**given, "run_id": f"r{len(self.runs)}", "state": "PENDING"}
            self.runs[run["run_id"]] = run
            if self.execute:
                self._execute(run)
            return 200, run
        run_id, _, action = rest.partition(":")
        if run_id not in self.runs:
            return 404, {"error": f"run {run_id} not found"}
        run = self.runs[run_id]
        if action == "terminate":
            self.states = ["CANCELING", "CANCELED"]
            return 200, {}
        if action == "retry":
            if run["state"] != "FAILED":
                return 400, {"error": f"run {run_id} cannot be retried, it is {run['state']}"}
            run["state"] = "PENDING"
            return 200, {}
        if self.out_of_order:
            self.out_of_order -= 1
            return 503, {"error": "upstream connect error"}
        if self.states:
            entry = self.states.pop(0)
            state, tasks = entry if isinstance(entry, tuple) else (entry, {})
            self._set(run, state, tasks, dict.fromkeys(tasks, self.error))
        return 200, run

    def _set(self, run: dict[str, Any], state: str, tasks: dict[str, str], errors: dict[str, str]) -> None:
        run["state"] = state
        details = [
            {
                "task_id": f"t-{name}",
                "display_name": name,
                "state": of,
                "start_time": "2026-01-05T10:00:00Z",
                "end_time": "2026-01-05T10:00:42Z",
                "pod_name": f"pod-{name}",
                **({"error": {"code": 13, "message": errors[name]}} if of == "FAILED" else {}),
            }
            for name, of in tasks.items()
        ]
        run["run_details"] = {"task_details": details}

    def _execute(self, run: dict[str, Any]) -> None:
        from kfp import components, local

        from pipelines.console import StepConsole, error_of

        ir = self.ir[run["pipeline_version_reference"]["pipeline_version_id"]]
        if self.answers is not None:
            ir = hollow(ir, self.answers)
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(self.execute))
        console = StepConsole(io.StringIO(), lambda line: None)
        state = "SUCCEEDED"
        try:
            with contextlib.redirect_stdout(console), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # resources mean nothing to the local runner
                components.load_component_from_text(ir)(**run.get("runtime_config", {}).get("parameters", {}))
        except RuntimeError:
            state = "FAILED"
        records = console.records.values()
        tasks = {record.name: "SUCCEEDED" if record.status == "done" else "FAILED" for record in records}
        self._set(run, state, tasks, {record.name: error_of(record) for record in records if record.status != "done"})


@contextmanager
def serving(api: PipelinesApi) -> Iterator[str]:
    """Serve an API state on a free loopback port; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            api.speaking.wait()
            if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
                status, answer = 401, {"error": "unauthenticated"}
            else:
                status, answer = api.answer(self.command, self.path, body)
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more for what came after a silence
                self.wfile.write(payload)

        do_GET = do_POST = do_DELETE = _handle

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
