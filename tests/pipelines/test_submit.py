"""Submission by the real client to an API on loopback: upload once, follow to the end, and say what went wrong."""

import socket
from contextlib import ExitStack, contextmanager

import pytest
from kfp import compiler, dsl
from typer.testing import CliRunner

from components.preflight import preflight
from pipelines import connection
from pipelines import follow as following
from pipelines.catalogue import PIPELINES
from pipelines.connection import Unreachable, connect
from pipelines.follow import follow
from pipelines.submit import Asked, start_run, submit_run, upload
from pipelines.training import STEPS
from tests.pipelines.kfp_server import PipelinesApi, serving
from uniscale.cli import app
from uniscale.config import load_config
from uniscale.errors import ConfigError, UniscaleError
from uniscale.preflight import required_variables
from uniscale.profile import load_profile

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def package(tmp_path):
    """IR of a pipeline of one step that needs a secret."""

    @dsl.pipeline(name="small")
    def small() -> None:
        preflight(required=required_variables({"s3": {"key": "UNISCALE_TEST_KEY"}}), state="")

    compiler.Compiler().compile(small, str(tmp_path / "small.yaml"))
    return tmp_path / "small.yaml"


@pytest.fixture
def training(compiled):
    """IR of the training pipeline for a cluster."""
    return compiled("training", "laptop")


def started(host, package, token=None):
    client = connect(host, token)
    return client, start_run(client, host, upload(client, host, package, "small"), "tests", "small")


def followed(host, package, **options):
    said: list[str] = []
    client, run_id = started(host, package)
    end = follow(client, host, run_id, **{"timeout_seconds": 60, "poll_seconds": 0.01} | options, show=said.append)
    return end, said


def test_the_training_pipeline_is_uploaded_as_a_version_once_and_run_from_it() -> None:
    api = PipelinesApi(["SUCCEEDED"])
    config, profile = load_config(), load_profile("laptop")
    with serving(api) as host:
        client = connect(host, None)
        for _ in range(2):
            run_id = submit_run(client, host, Asked(config, profile), "uniscale")
    assert [pipeline["display_name"] for pipeline in api.pipelines.values()] == ["uniscale-training"]
    used = [run["pipeline_version_reference"]["pipeline_version_id"] for run in api.runs.values()]
    assert len(used) == 2 and len(set(used)) == 1
    assert "uniscale-training" in api.ir[used[0]] and "kubernetes:" in api.ir[used[0]]
    assert api.runs[run_id]["experiment_id"] in api.experiments


def test_states_and_steps_are_told_as_they_change(package) -> None:
    script = [
        "PENDING",
        ("RUNNING", {"train": "RUNNING"}),
        ("RUNNING", {"train": "RUNNING"}),
        ("SUCCEEDED", {"train": "SUCCEEDED", "promote": "SUCCEEDED"}),
    ]
    with serving(PipelinesApi(script)) as host:
        end, said = followed(host, package)
    assert said == [
        "run r0: PENDING",
        "run r0: RUNNING",
        "  train: RUNNING",
        "run r0: SUCCEEDED",
        "  train: SUCCEEDED in 42 s",
        "  promote: SUCCEEDED in 42 s",
    ]
    assert (end.exit_code, "is the champion now" in end.message) == (following.PROMOTED, True)


@pytest.mark.parametrize(
    ("last", "code", "message"),
    [
        (("SUCCEEDED", {"reject": "SUCCEEDED", "promote": "SKIPPED"}), following.REJECTED, "was rejected"),
        (("FAILED", {"train": "FAILED"}), following.FAILED, "out of memory"),
        ("FAILED", following.FAILED, "see the log"),
        ("CANCELED", following.CANCELED, "ended CANCELED"),
    ],
)
def test_the_exit_code_is_the_outcome(package, last, code, message) -> None:
    with serving(PipelinesApi(["RUNNING", last], error="out of memory")) as host:
        end, said = followed(host, package)
    assert end.exit_code == code and message in end.message
    if "out of memory" in end.message:
        assert f"    log: {host}/k8s/pod/logs?podname=pod-train&runid=r0" in said


def test_a_run_that_does_not_end_in_time_can_be_followed_again(package) -> None:
    with serving(PipelinesApi(["RUNNING"])) as host:
        end, _ = followed(host, package, timeout_seconds=0.05)
    assert end.exit_code == following.STILL_RUNNING and "--run-id r0" in end.message


def test_a_run_is_executed_from_its_ir_and_a_missing_secret_is_said_within_seconds(
    package, tmp_path, monkeypatch
) -> None:
    with serving(PipelinesApi([], execute=tmp_path / "out")) as host:
        failed, said = followed(host, package)
        monkeypatch.setenv("UNISCALE_TEST_KEY", "x")
        passed, _ = followed(host, package)
    assert failed.exit_code == following.FAILED
    assert "not set: UNISCALE_TEST_KEY (key key of secret s3); create the secret" in failed.message
    assert "  preflight: FAILED in 42 s" in said
    assert passed.exit_code == following.PROMOTED


@pytest.mark.parametrize(
    ("answers", "code", "ran", "not_run"),
    [
        ({"gate": "promote"}, following.PROMOTED, "promote", "reject"),
        ({"gate": "reject"}, following.REJECTED, "reject", "promote"),
        ({"train": ValueError("out of memory")}, following.FAILED, "finish", "gate"),
    ],
)
def test_the_submitted_graph_executes_to_its_outcome_and_its_exit_handler(
    training, tmp_path, answers, code, ran, not_run
) -> None:
    api = PipelinesApi([], execute=tmp_path / "out", answers=answers)
    with serving(api) as host:
        end, _ = followed(host, training)
    assert end.exit_code == code, end
    states = {task["display_name"]: task["state"] for task in api.runs["r0"]["run_details"]["task_details"]}
    assert states[ran] == states["finish"] == "SUCCEEDED" and not_run not in states
    if code == following.FAILED:
        assert end.message.endswith("out of memory")
    else:
        assert set(states) == set(STEPS) - {not_run}


def test_a_short_absence_of_the_api_is_sat_out_and_a_long_one_ends_with_what_to_do(package) -> None:
    api = PipelinesApi(["RUNNING", "SUCCEEDED"])
    with serving(api) as host:
        client, run_id = started(host, package)
        api.out_of_order = 3
        end = follow(client, host, run_id, 60, lambda line: None, poll_seconds=0.01)
        assert end.exit_code == following.PROMOTED
        api.out_of_order = 10**6
        with pytest.raises(UniscaleError, match=r"503 .*for 0\.05 s; the run goes on: .* --run-id r0"):
            follow(client, host, run_id, 60, lambda line: None, poll_seconds=0.01, patience_seconds=0.05)
    with pytest.raises(UniscaleError, match="lost Kubeflow Pipelines"):
        follow(client, host, run_id, 60, lambda line: None, poll_seconds=0.01, patience_seconds=0.0)


def submit(host, *arguments):
    return CliRunner().invoke(app, ["submit", "--host", host, *arguments])


def test_a_run_is_canceled_and_a_failed_one_retried_by_its_id(package) -> None:
    api = PipelinesApi(["RUNNING"])
    with serving(api) as host:
        started(host, package)
        done = submit(host, "--run-id", "r0", "--cancel", "--timeout-seconds", "0")
        assert done.exit_code == following.STILL_RUNNING and "CANCELING" in done.output
        assert submit(host, "--run-id", "r0").exit_code == following.CANCELED
        assert "cannot be retried, it is CANCELED" in str(submit(host, "--run-id", "r0", "--retry").exception)
        api.runs["r0"]["state"], api.states = "FAILED", ["SUCCEEDED"]
        assert submit(host, "--run-id", "r0", "--retry").exit_code == following.PROMOTED


def test_a_verb_without_waiting_prints_the_page_of_the_run() -> None:
    with serving(PipelinesApi([])) as host:
        done = submit(host, "--no-wait")
        assert done.exit_code == 0 and f"{host}/#/runs/details/r0" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--token", "wrong"], "refused the connection: 401 .*check the token"),
        (["--token", "right", "--run-id", "r7"], "404 .*run r7 not found; check the id"),
        (["--token", "right", "--profile", "cluster-gup"], "no profile 'cluster-gup'; did you mean cluster-gpu"),
        (["--token", "right", "--cancel"], "with --run-id"),
    ],
)
def test_what_is_wrong_is_one_message(arguments, message) -> None:
    with serving(PipelinesApi([], token="right")) as host:
        done = submit(host, *arguments)
    assert isinstance(done.exception, UniscaleError)
    with pytest.raises(UniscaleError, match=message):
        raise done.exception


def test_a_dead_host_is_said_at_once() -> None:
    with pytest.raises(UniscaleError, match=r"cannot reach Kubeflow Pipelines .* asked once for its health, 3 s to"):
        connect(DEAD, None)


def test_a_network_that_swallows_everything_is_said_after_a_few_short_attempts(package, monkeypatch) -> None:
    assert (
        connection.ATTEMPTS * connection.CONNECT_SECONDS < 15 > connection.CONNECT_SECONDS + connection.HEALTH_SECONDS
    )
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.1)
    with serving(PipelinesApi([])) as host, full_queue() as silent:
        client = connect(host, None)
        client._run_api.api_client.configuration.host = silent
        with pytest.raises(Unreachable, match=r"ConnectTimeoutError in each of 4 attempts of up to 0\.1 s"):
            upload(client, silent, package, "small")
        with pytest.raises(Unreachable, match=r"timed out; asked once .* 0\.1 s to connect"):
            connect(silent, None)


@contextmanager
def full_queue():
    """URL of a socket that lets no further connection in: what is sent there goes unanswered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_api_that_falls_silent_after_it_was_healthy_is_said_in_time(package, monkeypatch) -> None:
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 1)
    api = PipelinesApi([])
    with serving(api) as host:
        client = connect(host, None)
        with api.silent(), pytest.raises(UniscaleError, match=r"lost Kubeflow .*ReadTimeoutError; sent once, 1 s"):
            upload(client, host, package, "small")


def test_an_answer_that_is_none_of_this_api_is_said(package) -> None:
    api = PipelinesApi([])
    api.answer = lambda method, url, body: (200, {})  # what a proxy may say to everything
    with serving(api) as host, pytest.raises(UniscaleError, match=r"does not understand .*check the URL"):
        upload(connect(host, None), host, package, "small")


def schedule(host, *arguments):
    done = CliRunner().invoke(app, ["schedule", *arguments, "--host", host])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_schedule_is_made_listed_paused_resumed_and_deleted() -> None:
    api = PipelinesApi([])
    with serving(api) as host:
        schedule(host, "create", "--cron", "0 3 * * *", "--name", "nightly")
        (kept,) = api.schedules.values()
        assert kept["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
        assert (kept["mode"], kept["max_concurrency"], kept["no_catchup"]) == ("ENABLE", 1, True)
        assert kept["pipeline_version_reference"]["pipeline_version_id"] in api.versions
        with pytest.raises(UniscaleError, match="there is a schedule 'nightly'"):
            schedule(host, "create", "--cron", "0 3 * * *", "--name", "nightly")
        schedule(host, "pause", "nightly")
        assert "paused" in schedule(host, "list")
        schedule(host, "resume", kept["recurring_run_id"])
        assert '"state": "active"' in schedule(host, "list", "--json")
        schedule(host, "delete", "nightly")
        assert api.schedules == {}
        with pytest.raises(UniscaleError, match="'nightly' is no schedule; there are: none"):
            schedule(host, "pause", "nightly")


def test_a_cron_of_three_fields_is_refused() -> None:
    with serving(PipelinesApi([])) as host, pytest.raises(ConfigError, match="has 3 fields"):
        schedule(host, "create", "--cron", "0 3 *")


RUNS = [
    ("continuous", {}, {"gate": "promote"}, {"reject"}),
    ("monitoring", {}, {"retrain": "train", "served": ["2026-02-01"]}, set()),
    ("monitoring", {}, {"retrain": "wait"}, {"start"}),
    ("sweep", {"systems": ["hhsft@search", "mdl@search"], "base": "dcnv2@search"}, {}, set()),
    ("backfill", {"first": "2026-02-01"}, {"days": ["2026-02-01", "2026-02-02"]}, set()),
]


@pytest.mark.parametrize(("pipeline", "parameters", "answers", "not_run"), RUNS)
def test_every_pipeline_executes_from_its_ir_with_its_own_parameters(
    compiled, tmp_path, pipeline, parameters, answers, not_run
) -> None:
    api, definition = PipelinesApi([], execute=tmp_path / "out", answers=answers), PIPELINES[pipeline]
    package = compiled(pipeline, "laptop")
    with serving(api) as host:
        client = connect(host, None)
        uploaded = upload(client, host, package, definition.name)
        run_id = start_run(client, host, uploaded, "tests", definition.name, parameters)
        end = follow(client, host, run_id, 60, lambda line: None, poll_seconds=0.01)
    assert end.exit_code == following.PROMOTED, end
    assert api.runs[run_id]["runtime_config"]["parameters"] == parameters
    states = {task["display_name"]: task["state"] for task in api.runs[run_id]["run_details"]["task_details"]}
    assert set(states) == set(definition.steps) - not_run and set(states.values()) == {"SUCCEEDED"}


def test_a_loop_runs_its_steps_once_for_each_value(compiled, tmp_path) -> None:
    for systems in (["hhsft@search"], ["hhsft@search", "mdl@search", "dcnv2@search"]):
        api = PipelinesApi([], execute=tmp_path / str(len(systems)), answers={})
        with serving(api) as host:
            client = connect(host, None)
            uploaded = upload(client, host, compiled("sweep", "laptop"), "uniscale-sweep")
            start_run(client, host, uploaded, "tests", "uniscale-sweep", {"systems": systems})
        assert len(list((tmp_path / str(len(systems))).rglob("trial*/**/executor_output.json"))) == len(systems)


def test_a_pipeline_and_its_parameters_are_checked_before_anything_is_sent() -> None:
    for arguments, message in (
        (["--pipeline", "swep"], "no pipeline 'swep'; did you mean sweep"),
        (["--pipeline", "sweep", "--param", "sytems=[a@search]"], "unknown parameter sytems; did you mean systems"),
        (["--pipeline", "sweep", "--param", "systems=hhsft"], r"parameter systems = 'hhsft' is no List\[String\]"),
        (["--pipeline", "sweep", "--param", "systems"], "--param takes name=value"),
    ):
        api = PipelinesApi([])
        with serving(api) as host:
            done = submit(host, *arguments)
        with pytest.raises(ConfigError, match=message):
            raise done.exception
        assert not api.runs and not api.pipelines


def test_a_schedule_of_another_pipeline_keeps_its_name_and_parameters() -> None:
    api = PipelinesApi([])
    with serving(api) as host:
        schedule(host, "create", "--cron", "30 * * * *", "--pipeline", "monitoring", "--param", "service=http://r:3000")
    (kept,) = api.schedules.values()
    assert kept["display_name"] == "uniscale-monitoring"
    assert kept["runtime_config"]["parameters"] == {"service": "http://r:3000"}
    assert [pipeline["display_name"] for pipeline in api.pipelines.values()] == ["uniscale-monitoring"]
