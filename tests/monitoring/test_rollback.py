"""The life of an experiment: ramp, roll-back over real HTTP and in the registry, post-mortem, index, verbs."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from monitoring.definition import definition_from, load_definition
from monitoring.experiment_book import ExperimentBook, shared
from monitoring.experiment_index import write_index
from monitoring.interleaving import analyse_interleaving
from monitoring.rollback import HttpTraffic, act_on
from tests.monitoring.ab_logs import START, write_experiment
from tests.monitoring.test_interleaving import write as write_lists
from uniscale.artifacts import read_json, write_json
from uniscale.assignment import assign
from uniscale.cli import app
from uniscale.errors import ConfigError, DataError, ServingError
from uniscale.registry import Registry

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "search_ab.yaml"
INTERLEAVED = EXAMPLE.with_name("search_interleaving.yaml")
DEFINITION = load_definition(EXAMPLE)
NOW = datetime(2026, 3, 2, tzinfo=UTC)
RESULT = {
    "verdict": "roll back",
    "headline": "A guardrail is breached",
    "reason": "CTR is beyond its margin.",
    "guardrails": [{"metric": "ctr", "status": "breach", "statement": "CTR is beyond its margin."}],
    "variants": {"control": {"users": 990}, "treatment": {"users": 10, "versions": ["2"]}},
}


class StandIn:
    """A service that keeps and answers the weights it is given; `broken` makes it refuse."""

    def __init__(self):
        self.asked, self.broken, self.keys = [], False, set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.asked.append((self.path, body))
                text = json.dumps({"weights": body["weights"], "mode": body["mode"]}).encode()
                owner.keys.add(self.headers["Authorization"])
                self.send_response(503 if owner.broken else 200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service():
    found = StandIn()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def book(tmp_path):
    found = ExperimentBook(tmp_path / "book")
    found.start(DEFINITION, NOW)
    return found


def test_the_ramp_ascends_to_its_end_and_no_further(book):
    shares = [book.steps("search-ab")[-1].weights["candidate"]]
    for _ in range(4):
        shares.append(book.ramp("search-ab", NOW).weights["candidate"])
    assert shares == pytest.approx([0.01, 0.05, 0.1, 0.25, 0.5])
    with pytest.raises(ConfigError, match="end of its ramp"):
        book.ramp("search-ab", NOW)
    assert [step.action for step in book.steps("search-ab")] == ["start"] + ["ramp"] * 4


def test_a_growing_share_keeps_its_users():
    users = [f"u{n}" for n in range(4000)]
    groups = [
        {user for user in users if assign(user, "s", shared(DEFINITION, share)) == "candidate"}
        for share in (0, 0.05, 0.25)
    ]
    assert not groups[0] and groups[1] < groups[2] and len(groups[2]) == pytest.approx(1000, abs=110)


def test_an_experiment_ends_once_and_its_name_is_taken(book):
    assert book.end("search-ab", NOW, "done").weights == {"champion": 1.0, "candidate": 0.0}
    assert book.status("search-ab") == "stopped"
    for change in (book.ramp, lambda name, at: book.end(name, at, "")):
        with pytest.raises(ConfigError, match="is stopped"):
            change("search-ab", NOW)
    with pytest.raises(ConfigError, match="started before"):
        book.start(DEFINITION, NOW)
    with pytest.raises(DataError, match="did you mean search-ab"):
        book.definition("search-a")


def test_two_experiments_do_not_share_a_salt(book):
    other = definition_from(yaml.safe_load(EXAMPLE.read_text()) | {"name": "other"})
    with pytest.raises(ConfigError, match="search-ab is running with the salt"):
        book.start(other, NOW)


def seated(folder):
    """A registry whose champion is version 2, after version 1."""
    store = Registry(folder)
    for name in ("one", "two"):
        write_json(folder / name / "model.json", {"name": name})
        version = store.register(folder / name, run_id=name)
        store.promote(version.number, force=True, reason="test")
    return store


def test_a_breach_takes_the_treatment_out_of_service_and_registry(book, service, tmp_path, empty_registry):
    store = seated(empty_registry(tmp_path / "registry"))
    path = act_on(book, "search-ab", RESULT, HttpTraffic(service.url), store, NOW)
    told = {"salt": DEFINITION.salt, "weights": {"champion": 1.0, "candidate": 0.0}, "mode": "split"}
    assert service.asked == [("/experiment", told)]
    assert store.champion().number == "1" and "CTR is beyond" in store.history()[-1].why
    record = read_json(path)
    assert record["registry"] == "champion 2 gave way to 1" and record["exposed"]["treatment"] == 10
    assert record["guardrails"] == RESULT["guardrails"] and book.status("search-ab") == "rolled back"
    again = read_json(act_on(book, "search-ab", RESULT, HttpTraffic(service.url), store, NOW))
    assert store.champion().number == "1" and "unchanged" in again["registry"] and len(book.steps("search-ab")) == 2


def test_a_service_that_does_not_confirm_is_an_error_on_record_and_can_be_tried_again(book, service):
    service.broken = True
    with pytest.raises(ServingError, match="answered 503"):
        act_on(book, "search-ab", RESULT, HttpTraffic(service.url), None, NOW)
    assert "FAILED" in read_json(book.folder / "search-ab" / "post_mortem.json")["service"]
    service.broken = False
    assert "everyone" in read_json(act_on(book, "search-ab", RESULT, HttpTraffic(service.url), None, NOW))["service"]
    with pytest.raises(ServingError, match="is the service up"):
        HttpTraffic("http://127.0.0.1:9").set_weights("s", {"a": 1.0}, "split")


@pytest.mark.parametrize("verdict", ["ship", "keep running", "underpowered", "invalid"])
def test_no_other_verdict_acts(book, service, verdict):
    assert act_on(book, "search-ab", RESULT | {"verdict": verdict}, HttpTraffic(service.url), None, NOW) is None
    assert not service.asked and book.status("search-ab") == "running"


def test_the_index_shows_every_experiment(book):
    text = write_index(book).read_text()
    assert "search-ab" in text and "running" in text and "1%" in text and "not analysed" in text
    row = {"name": "clicks_per_user", "label": "Clicks per user", "lift": 0.1, "interval": [0.02, 0.18]}
    row |= {"withheld": None}
    check = {"name": "sample ratio", "status": "warn", "statement": ""}
    result = {"verdict": "ship", "headline": "Better", "primary": row["name"], "metrics": [row], "checks": [check]}
    write_json(book.folder / "search-ab" / "analysis" / "experiment.json", result)
    text = write_index(book).read_text().replace("\u202f", " ")
    assert "+10.0 %" in text and "Clicks per user, +2.0 % to +18.0 %" in text and "sample ratio warning" in text
    write_json(
        book.folder / "search-ab" / "analysis" / "experiment.json",
        result | {"metrics": [row | {"lift": None, "interval": None, "withheld": "a variant has no users"}]},
    )
    assert "Clicks per user: a variant has no users" in write_index(book).read_text()


def test_the_verbs_from_start_to_an_automatic_roll_back(service, tmp_path):
    paths = write_experiment(tmp_path / "data", users=900, lift=-0.7, seed=71)
    paths["serving_log"].rename(tmp_path / "data" / "serving_log")
    raw = yaml.safe_load(EXAMPLE.read_text()) | {"ramp": []}
    (tmp_path / "ab.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    shared_options = ["--service", service.url, "--book", str(tmp_path / "book")]

    def verb(*arguments):
        return CliRunner().invoke(app, ["experiment", *arguments], env={"UNISCALE_API_KEY": "a key"})

    begun = verb("start", "--config", str(tmp_path / "ab.yaml"), *shared_options)
    assert begun.exit_code == 0, begun.output
    first = tmp_path / "book" / "search-ab" / "log" / "000001.json"
    write_json(first, read_json(first) | {"at": START.isoformat()})  # the logs are of an earlier day
    found = verb("check", "search-ab", "--data", str(tmp_path / "data"), *shared_options)
    assert found.exit_code == 4 and "rolled back" in found.output, found.output
    assert service.asked[-1][1]["weights"] == {"champion": 1.0, "candidate": 0.0}
    assert service.keys == {"Bearer a key"}
    said = verb("status", "--book", str(tmp_path / "book"))
    assert "search-ab: rolled back" in said.output and (tmp_path / "book" / "index.html").exists()


def test_an_interleaved_experiment_drafts_from_start_to_stop_and_its_preference_is_in_the_index(service, tmp_path):
    lists, logs = write_lists(tmp_path / "data", 900, lambda rng, item, place: item in "de")
    rows, definition = pq.read_table(lists).to_pylist(), load_definition(INTERLEAVED)
    names = {"old": "champion", "new": "candidate"}
    for n, row in enumerate(rows):  # a week of lists, and those of an experiment before it
        row |= {"ts": START + timedelta(days=n % 7), "teams": [names[team] for team in row["teams"]]}
    rows += [row | {"request_id": f"b-{row['request_id']}", "ts": START - timedelta(days=1)} for row in rows]
    (day := tmp_path / "data" / "serving_log" / "day=2026-03-02").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), day / "part-0.parquet")
    options = ["--service", service.url, "--book", str(tmp_path / "book")]

    def verb(*arguments):
        return CliRunner().invoke(app, ["experiment", *arguments])

    begun = verb("start", "--config", str(INTERLEAVED), *options)
    assert begun.exit_code == 0, begun.output
    assert service.asked[-1][1] == {"salt": definition.salt, "weights": definition.weights, "mode": "interleave"}
    first = tmp_path / "book" / definition.name / "log" / "000001.json"
    write_json(first, read_json(first) | {"at": START.isoformat()})
    said = verb("check", definition.name, "--data", str(tmp_path / "data"), *options)
    assert said.exit_code == 0 and "search-interleaving: preferred. candidate goes into an A/B" in said.output, (
        said.output
    )
    found = read_json(tmp_path / "book" / definition.name / "analysis" / "interleaving.json")
    alone = analyse_interleaving(lists, logs, "new")
    assert (found["share"], found["days"], sum(found["requests"].values())) == (alone["share"], 7, 900)
    assert f"{found['share']:.1%}" in (tmp_path / "book" / "index.html").read_text()
    assert verb("stop", definition.name, *options).exit_code == 0
    assert service.asked[-1][1]["weights"] == {"champion": 1.0, "candidate": 0.0}
    assert service.asked[-1][1]["mode"] == "split"
