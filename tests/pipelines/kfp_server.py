"""A Kubeflow Pipelines API on loopback, as much of /apis/v2beta1 as the real `kfp.Client` uses to submit and follow."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class PipelinesApi:
    """State of the server: what was posted, and the states that a run goes through, one a poll."""

    def __init__(self, states: list[str], token: str | None = None):
        self.states, self.token = list(states), token
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON for a request."""
        path = path.split("?")[0].removeprefix("/apis/v2beta1/")
        if path == "healthz":
            return 200, {"multi_user": False}
        if path == "experiments":
            if method == "POST":
                experiment = {"experiment_id": f"e{len(self.experiments)}", "display_name": body["display_name"]}
                self.experiments[experiment["experiment_id"]] = experiment
                return 200, experiment
            return 200, {"experiments": list(self.experiments.values())}
        if path == "runs" and method == "POST":
            run = {**body, "run_id": f"r{len(self.runs)}", "state": "PENDING"}
            self.runs[run["run_id"]] = run
            return 200, run
        if path.startswith("runs/"):
            run = self.runs[path.split("/")[1]]
            run["state"] = self.states.pop(0) if self.states else run["state"]
            return 200, run
        return 404, {"error": f"no {method} {path} here"}


@contextmanager
def serving(api: PipelinesApi) -> Iterator[str]:
    """Serve an API state on a free loopback port; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
                status, answer = 401, {"error": "unauthenticated"}
            else:
                status, answer = api.answer(self.command, self.path, body)
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = _handle

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
