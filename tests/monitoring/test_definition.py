from pathlib import Path

import pytest
import yaml

from monitoring.definition import definition_from, load_definition, pipeline_definition
from monitoring.metrics import BY_NAME
from uniscale.config import load_config
from uniscale.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def raw(**changes):
    return yaml.safe_load((EXAMPLES / "search_ab.yaml").read_text()) | changes


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_loads(path):
    definition = load_definition(path)
    assert definition.metric(definition.primary).label
    assert definition.control not in definition.treatments


def test_a_bare_name_is_the_built_in_metric():
    found = definition_from(raw(metrics=["ctr", "clicks_per_user", "latency_p99_ms"]))
    assert found.metrics == tuple(BY_NAME[name] for name in ("ctr", "clicks_per_user", "latency_p99_ms"))
    assert [metric.name for metric in found.means] == ["ctr", "clicks_per_user"]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"hypotesis": "x"}, "unknown key hypotesis; did you mean hypothesis"),
        ({"metrics": ["ctrr"]}, "unknown metric 'ctrr'; did you mean ctr"),
        ({"primary": "clicks_per_usr"}, "primary: unknown metric 'clicks_per_usr'; did you mean clicks_per_user"),
        ({"guardrails": {"latency": 0.5}}, "guardrails: unknown metric 'latency'; did you mean latency_p99_ms"),
        ({"weights": {"champion": 0.5, "candidate": 0.4}}, "sum 1; got"),
        ({"weights": {"champion": 1.0, "candidate": 0.0}}, "positive weight"),
        ({"control": "champ"}, "control: unknown variant 'champ'; did you mean champion"),
        ({"ramp": [0.1, 0.05]}, "ramp: shares ascend"),
        ({"ramp": [0.1, 0.7]}, "ramp: shares ascend"),
        ({"stop": {"days": 0, "early": "harm"}}, "stop.days"),
        ({"stop": {"days": 3, "early": "whenever"}}, "stop.early"),
        ({"source": {"kind": "counts", "arm": "a", "trials": "n", "where": {}}}, "need logs"),
        ({"source": {"kind": "guess"}}, "source"),
        ({"mode": "mixed"}, "mode"),
        ({"mode": "interleave", "guardrails": {}}, "no guardrails and no ramp"),
        ({"mode": "interleave", "ramp": []}, "no guardrails and no ramp"),
    ],
)
def test_a_mistake_is_named_with_its_path(changes, said):
    with pytest.raises(ConfigError, match=said):
        definition_from(raw(**changes))


def test_a_metric_with_an_unknown_field_is_refused():
    metric = {"name": "a", "label": "A", "numerator": "a", "better": "higher", "unit": "count", "meaning": "A."}
    assert definition_from(raw(metrics=[metric], primary="a", guardrails={})).metric("a").denominator is None
    with pytest.raises(ConfigError, match=r"unknown key metrics\.0\.denominatr"):
        definition_from(raw(metrics=[metric | {"denominatr": "b"}], primary="a", guardrails={}))


def test_a_missing_key_and_a_missing_file_are_named(tmp_path):
    incomplete = raw()
    del incomplete["stop"]
    with pytest.raises(ConfigError, match="missing key stop"):
        definition_from(incomplete)
    with pytest.raises(ConfigError, match=r"no experiment .*absent\.yaml"):
        load_definition(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(ConfigError, match="holds list"):
        load_definition(tmp_path / "list.yaml")


def test_the_pipelines_section_is_an_experiment_too():
    config = load_config().experiment
    found = pipeline_definition(config, "champion", "candidate")
    assert (found.days, found.primary, dict(found.weights)) == (config.days, config.primary, config.weights)
    assert {metric.name for metric in found.metrics} == set(BY_NAME)
