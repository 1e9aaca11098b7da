"""The verbs behind a served model, on folders: publish, next day, retrain, off-policy, interleaving."""

import threading
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from benchmarks.simulated_users import drawn_orders
from monitoring.gauges import gauges, skew_gauges
from monitoring.publish import publish
from monitoring.retraining import Policy, choose_from
from tests.monitoring import test_counterfactual, test_interleaving
from tests.monitoring.ab_logs import START, write_experiment
from tests.monitoring.test_watch import RESULT, SKEW
from uniscale.artifacts import write_json
from uniscale.cli import app
from uniscale.config import load_config
from uniscale.errors import DataError, ServingError
from uniscale.registry import Registry


def verb(*arguments, code=0):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def measured(folder, until, verdict="drift", late=()):
    windows = {"reference": ["2026-01-01", "2026-01-07"], "current": [until, until]}
    result = RESULT | {"windows": windows, "reason": "", "drifted": [], "verdict": verdict, "late_labels": list(late)}
    write_json(folder / "drift.json", result)
    (folder / "drift.prom").write_text(gauges(RESULT | {"verdict": verdict}, 0.0))
    return folder


def test_gauges_reach_the_textfile_folder_whole_and_the_history_grows(tmp_path):
    for day in ("2026-03-02", "2026-03-03"):
        drift = measured(tmp_path / day, day)
        said = verb(
            *("monitor", "publish", "--drift", drift, "--history", tmp_path / "kept"), "--textfiles", tmp_path / "node"
        )
        assert "history.html" in said
    assert [file.name for file in (tmp_path / "node").iterdir()] == ["uniscale_drift.prom"]
    assert (tmp_path / "node" / "uniscale_drift.prom").read_text() == (drift / "drift.prom").read_text()
    assert (tmp_path / "kept" / "history.html").read_text().count("<circle") == 2 * len(RESULT["measures"])
    with pytest.raises(DataError, match="give the folder"):
        publish(tmp_path, tmp_path / "kept")


def test_gauges_replace_those_of_the_job_in_a_pushgateway(tmp_path):
    taken = {}

    class Gateway(BaseHTTPRequestHandler):
        def do_PUT(self):
            taken[self.path] = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(400 if "broken" in self.path else 200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, drift = f"http://127.0.0.1:{server.server_port}", measured(tmp_path / "drift", "2026-03-02")
    try:
        publish(drift, tmp_path / "kept", gateway=url + "/")
        assert taken == {"/metrics/job/uniscale_drift": (drift / "drift.prom").read_text()}
        write_json(tmp_path / "skew" / "skew.json", SKEW)
        publish(drift, tmp_path / "kept", gateway=url, skew=tmp_path / "skew")
        assert taken["/metrics/job/uniscale_skew"] == skew_gauges(SKEW)
        with pytest.raises(ServingError, match="answered 400"):
            publish(drift, tmp_path / "kept", gateway=f"{url}/broken")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(ServingError, match="is the Pushgateway up"):
        publish(drift, tmp_path / "kept", gateway=url)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    paths = write_experiment(folder, users=40, days=4, seed=83)
    pq.write_table(pa.table({"user_id": [f"u83-{n}" for n in range(40)]}), paths["logs"] / "users.parquet")
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(8)]}), paths["logs"] / "items.parquet")
    return paths


def test_served_days_become_training_days_and_ask_for_a_training(live, tmp_path, empty_registry):
    given = ("--serving-log", live["serving_log"], "--logs", live["logs"], "--out", tmp_path / "days")
    said = verb("monitor", "next-day", *given, "--now", f"{START + timedelta(days=5):%Y-%m-%d}")
    assert said.startswith("2 days written, 2026-03-02 to 2026-03-03") and "2026-03-04, 2026-03-05" in said
    asked = ("monitor", "retrain", "--days", tmp_path / "days", "--history", tmp_path / "kept")
    registry = ("--registry", empty_registry(tmp_path / "registry"))
    assert "train: no model was trained yet" in verb(*asked, *registry, "--now", "2026-03-07")
    write_json(tmp_path / "model" / "model.json", {"name": "one"})
    Registry(tmp_path / "registry").register(tmp_path / "model", run_id="one")
    said = verb(*asked, *registry, code=3)
    assert said.startswith("do not train: nothing asks for it: 0 days old")


POLICY = Policy(**load_config().retraining.model_dump())


def test_what_folders_say_decides(tmp_path):
    trained, today = [date(2026, 3, 1)], date(2026, 3, 20)
    for day in ("2026-02-26", "2026-02-27", "2026-02-28", "2026-03-02", "2026-03-03"):
        (tmp_path / "days" / "requests" / f"day={day}").mkdir(parents=True)

    def decided(today=today, **more):
        return choose_from(POLICY, today, trained, tmp_path / "kept", tmp_path / "days", 3, **more)

    assert decided().train and "19 days old" in decided().why
    assert not decided(date(2026, 3, 6)).train and "drift in the last 0" in decided(date(2026, 3, 6)).why
    for day, verdict in (("2026-02-20", "drift"), ("2026-03-03", "drift"), ("2026-03-04", "drift")):
        publish(measured(tmp_path / day, day, verdict), tmp_path / "kept")
    assert "drift in the last 2" in decided(date(2026, 3, 6)).why  # the verdict before the training does not count
    assert "experiment is running" in decided(experiment_running=True).why
    publish(measured(tmp_path / "late", "2026-03-05", late=[{"task": "click", "days": 2}]), tmp_path / "kept")
    assert not decided().train and "feed is late" in decided().why
    trained[0] = date(2026, 3, 7)  # all but the last two days were mature before it: 3 March is seen, 4 March is not
    publish(measured(tmp_path / "in", "2026-03-08"), tmp_path / "kept")
    assert "0 new mature days" in decided(date(2026, 3, 30)).why


def test_off_policy_and_interleaving_have_verbs(tmp_path):
    draws = drawn_orders(np.random.default_rng(8), 1500, 200)
    test_counterfactual.write(tmp_path / "a", draws)
    asked = ("experiment", "off-policy", "--data", tmp_path / "a", "--shadow", "next")
    said = verb(*asked, "--positions", 2, "--out", tmp_path / "judged.json")
    assert "effective requests" in said and "DR:" in said and "no weight is clipped" in said
    assert "biased towards less" in verb(*asked, "--positions", 2, "--clip", 3)
    lists, logs = test_interleaving.write(tmp_path / "b", 400, lambda rng, item, place: rng.random() < 0.4)
    said = verb("experiment", "interleaving", "--lists", lists, "--logs", logs, "--treatment", "new")
    assert "preferred" in said and "won" in said
