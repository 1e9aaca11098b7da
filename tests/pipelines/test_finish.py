"""The exit handler leaves a report whatever happened, and a notification that fails changes nothing."""

import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from kfp import dsl, local

from components.finish import finish
from components.image import step
from uniscale.artifacts import read_json, write_json
from uniscale.outcome import notify, record_outcome
from uniscale.sections import NotifyConfig

NOBODY = NotifyConfig(command=[], url="", timeout_seconds=5)
OUTCOME = {"run": "r1", "state": "FAILED"}


@step
def breaking(fails: bool) -> None:
    """Fail where asked."""
    if fails:
        raise ValueError("no logs for 2026-01-05")


@pytest.mark.parametrize(("fails", "state"), [(True, "FAILED"), (False, "SUCCEEDED")])
def test_the_exit_handler_of_a_run_leaves_a_report(tmp_path, fails, state) -> None:
    told = tmp_path / "told.json"
    keep = [sys.executable, "-c", f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read())"]
    hook = NotifyConfig(command=keep, url="", timeout_seconds=30)

    @dsl.pipeline(name="small")
    def small() -> None:
        last = finish(seed=7, notify=hook.model_dump_json(), runs=str(tmp_path), run_id="r1")
        with dsl.ExitHandler(last):
            breaking(fails=fails)

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "out"), raise_on_error=False)
    small()
    outcome = read_json(tmp_path / "r1" / "outcome.json")
    assert outcome["state"] == state and bool(outcome["error"]) == fails
    assert outcome["notified"] == ""
    assert json.loads(told.read_text())["run"] == "r1"
    assert (tmp_path / "r1" / "report.html").read_text().lower().startswith("<!doctype html")


def test_a_completed_run_keeps_its_own_report_and_tells_the_decision(tmp_path) -> None:
    gate = {"decision": "reject", "failed": ["floor:click.auc"]}
    write_json(tmp_path / "r1" / "summary.json", {"gate": gate})
    (tmp_path / "r1" / "report.html").write_text("its own")
    outcome = record_outcome(NOBODY, tmp_path, "r1", "SUCCEEDED", "")
    assert (outcome["decision"], outcome["failed"], outcome["notified"]) == ("reject", ["floor:click.auc"], None)
    assert (tmp_path / "r1" / "report.html").read_text() == "its own"


def test_a_failed_run_gets_a_page_with_its_latest_error_escaped(tmp_path) -> None:
    record_outcome(NOBODY, tmp_path, "r1", "FAILED", "an earlier one")
    record_outcome(NOBODY, tmp_path, "r1", "FAILED", "no <table> here")
    page = (tmp_path / "r1" / "report.html").read_text()
    assert "r1: failed" in page and "earlier" not in page and "no &lt;table&gt; here" in page


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/no/such/program"], "No such file"),
        ([sys.executable, "-c", "import sys; sys.exit('the pager is down')"], "ended with 1: the pager is down"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "timed out"),
    ],
)
def test_a_command_that_fails_is_on_record_and_nothing_more(tmp_path, command, said) -> None:
    hook = NotifyConfig(command=command, url="", timeout_seconds=2)
    outcome = record_outcome(hook, tmp_path, "r1", "SUCCEEDED", "")
    assert said in outcome["notified"]
    assert read_json(tmp_path / "r1" / "outcome.json") == outcome


@contextmanager
def webhook(status):
    """A web server that answers with a status; yields its URL and the bodies it gets."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format, *args):
            """Keep the tests' output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(("status", "said"), [(204, ""), (500, "answered 500")])
def test_a_webhook_gets_the_outcome(status, said) -> None:
    with webhook(status) as (url, got):
        result = notify(NotifyConfig(command=[], url=url, timeout_seconds=5), OUTCOME)
    assert got == [OUTCOME]
    assert result == "" if status == 204 else said in result


def test_a_webhook_that_is_not_there_is_on_record() -> None:
    assert "ConnectError" in notify(NotifyConfig(command=[], url="http://127.0.0.1:9", timeout_seconds=5), OUTCOME)
