"""Laws of the manifests, over the base and, where kustomize or kubectl is there, over each overlay."""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from serving import guard, process
from tests.manifests.kinds import HOME, base, problems, rendered, renderer
from tests.monitoring.ab_logs import write_experiment
from uniscale.cli import app

ROOT = HOME.parent
OVERLAYS = ("staging", "production")
WRITERS = ("uniscale-ranker", "uniscale-experiment")  # of the claim
GUIDE = (ROOT / "docs" / "kubeflow.md").read_text()
NEEDS_RENDERER = pytest.mark.skipif(renderer() is None, reason="neither kustomize nor kubectl is installed")


@pytest.fixture(scope="module", params=["base", *(pytest.param(name, marks=NEEDS_RENDERER) for name in OVERLAYS)])
def objects(request):
    return base() if request.param == "base" else rendered(request.param)


def of(objects, kind, name=None):
    return [one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])]


def pods(objects):
    """Name of each workload: its pod template."""
    templates = {}
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet"):
            templates[one["metadata"]["name"]] = one["spec"]["template"]
        elif one["kind"] == "CronJob":
            templates[one["metadata"]["name"]] = one["spec"]["jobTemplate"]["spec"]["template"]
    return templates


def containers(objects):
    return [(name, one) for name, pod in pods(objects).items() for one in pod["spec"]["containers"]]


def chosen(selector, objects):
    """Names of the workloads whose pods a label selector chooses."""
    wanted = selector.get("matchLabels", {} if "matchExpressions" in selector else selector).items()
    return {name for name, pod in pods(objects).items() if wanted and wanted <= pod["metadata"]["labels"].items()}


def port_names(objects, workloads):
    return {p["name"] for name, one in containers(objects) if name in workloads for p in one.get("ports", ())}


def ranker(objects):
    return pods(objects)["uniscale-ranker"]["spec"]


def test_every_object_is_what_kubernetes_knows(objects):
    assert [found for one in objects for found in problems(one)] == []
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names) == 13


def test_the_check_sees_faults():
    good = of(base(), "Service", "redis")[0]
    assert problems(good) == []
    for fault, said in (
        ({"selectors": {}}, "spec.selectors: unknown"),
        ({"ports": [{"name": "x"}]}, "port"),
        ({"clusterIP": 1}, "1 is no str"),
        ({"ports": {}}, "is no list"),
    ):
        found = problems({**good, "spec": {**good["spec"], **fault}})
        assert len(found) == 1 and said in found[0], found


def test_every_selector_chooses_its_pods(objects):
    for one in objects:
        name, spec = one["metadata"]["name"], one.get("spec", {})
        if one["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            assert chosen(spec["selector"], objects) == {name}
            assert "serviceName" not in spec or of(objects, "Service", spec["serviceName"])
        elif one["kind"] == "Service":
            assert chosen(spec["selector"], objects) == {name}
            assert {port["targetPort"] for port in spec["ports"]} <= port_names(objects, {name})
        elif one["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            (scaled,) = of(objects, target["kind"], target["name"])
            assert "replicas" not in scaled["spec"], "two would decide on the number of pods"
            assert 1 <= spec["minReplicas"] < spec["maxReplicas"]
        elif one["kind"] == "ServiceMonitor":
            services = [s for s in of(objects, "Service") if spec["selector"]["matchLabels"].items() <= labels(s)]
            assert services
            for endpoint in spec["endpoints"]:
                assert all(endpoint["port"] in {p["name"] for p in s["spec"]["ports"]} for s in services)
                assert endpoint["path"] in guard.PAGES


def labels(one):
    return one["metadata"]["labels"].items()


def test_the_network_lets_in_and_out_what_exists(objects):
    policies = {one["metadata"]["name"]: one["spec"] for one in of(objects, "NetworkPolicy")}
    assert set(policies) == {"uniscale-ranker", "redis"}
    for name, spec in policies.items():
        assert chosen(spec["podSelector"], objects) == {name}
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
        assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} == port_names(objects, {name})
    told, asked = policies["redis"]["ingress"][0]["from"], policies["uniscale-ranker"]["egress"][0]
    assert chosen(told[0]["podSelector"], objects) == {"uniscale-ranker"}
    assert chosen(asked["to"][0]["podSelector"], objects) == {"redis"}
    assert [port["port"] for port in asked["ports"]] == ["redis"]


def test_everything_that_a_pod_refers_to_exists(objects):
    claims, configs = (
        {one["metadata"]["name"] for one in of(objects, kind)} for kind in ("PersistentVolumeClaim", "ConfigMap")
    )
    for pod in pods(objects).values():
        for volume in pod["spec"].get("volumes", ()):
            (kind,) = volume.keys() - {"name"}
            known = {"secret": documented_secrets(), "persistentVolumeClaim": claims, "configMap": configs}
            if kind != "emptyDir":
                (target,) = (volume[kind][key] for key in ("secretName", "claimName", "name") if key in volume[kind])
                assert target in known[kind], f"no {kind} {target}"
    for name, pod in pods(objects).items():
        own = [one["spec"] for one in of(objects, "StatefulSet", name)]
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
        volumes |= {claim["metadata"]["name"] for spec in own for claim in spec["volumeClaimTemplates"]}
        mounted = {mount["name"] for one in pod["spec"]["containers"] for mount in one["volumeMounts"]}
        assert mounted == volumes, f"{name} mounts {sorted(mounted)} of {sorted(volumes)}"


def documented_secrets():
    """Secret: its keys, as the guide creates them."""
    created = re.findall(r"create secret (?:generic|docker-registry) (\S+)(.*)", GUIDE)
    return {name: set(re.findall(r"--from-literal=(\S+?)=", rest)) for name, rest in created}


def test_every_secret_is_one_that_the_guide_creates(objects):
    secrets = documented_secrets()
    for pod in pods(objects).values():
        assert {one["name"] for one in pod["spec"].get("imagePullSecrets", ())} <= set(secrets)
    (volume,) = [volume["secret"] for volume in ranker(objects)["volumes"] if "secret" in volume]
    (endpoint,) = of(objects, "ServiceMonitor")[0]["spec"]["endpoints"]
    scraped = endpoint["authorization"]["credentials"]
    file = Path(environment(ranker(objects)["containers"][0])["UNISCALE_API_KEY_FILE"])
    assert volume["secretName"] == scraped["name"] and file.name == scraped["key"]
    assert file.name in secrets[volume["secretName"]]


def environment(container):
    return {one["name"]: one["value"] for one in container["env"]}


def test_no_image_moves_under_its_tag(objects):
    for _, one in containers(objects):
        _, colon, tag = one["image"].rpartition(":")
        assert colon and "/" not in tag and tag != "latest", one["image"]


def test_containers_may_do_little_and_have_limits(objects):
    for name, pod in pods(objects).items():
        own = pod["spec"]["securityContext"]
        assert own["runAsNonRoot"] is True and own["runAsUser"] > 0, name
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
    for name, one in containers(objects):
        context = one["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], name
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= one["resources"]["requests"].keys() & one["resources"]["limits"].keys()


def test_the_users_are_those_of_the_images(objects):
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"USER {pods(objects)['uniscale-experiment']['spec']['securityContext']['runAsUser']}\n" in dockerfile
    groups = {pods(objects)[name]["spec"]["securityContext"]["fsGroup"] for name in WRITERS}
    assert len(groups) == 1, "who writes to the claim shares its group"


def test_every_probe_names_a_port_of_its_container(objects):
    for name, one in containers(objects):
        probes = [one[key] for key in one if key.endswith("Probe")]
        asked = {probe[how]["port"] for probe in probes for how in ("httpGet", "tcpSocket") if how in probe}
        assert asked <= {port["name"] for port in one.get("ports", ())}, name


def test_probes_ask_for_pages_that_carry_no_key(objects):
    (one,) = ranker(objects)["containers"]
    probes = {name: one[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
    for probe in probes.values():
        assert probe["httpGet"]["path"] in guard.OPEN_PATHS
    assert probes["readiness"]["httpGet"]["path"] == "/readyz", "only this page asks the online store"
    assert probes["liveness"]["httpGet"]["path"] == "/healthz", "a store that is away is no reason to restart"
    assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] >= process.START_SECONDS


def test_a_pod_has_the_time_to_finish_what_it_accepted(objects):
    (one,) = ranker(objects)["containers"]
    _, seconds = one["lifecycle"]["preStop"]["exec"]["command"]
    assert ranker(objects)["terminationGracePeriodSeconds"] >= int(seconds) + process.STOP_SECONDS


def test_the_environment_is_the_services_own(objects, monkeypatch):
    (one,) = ranker(objects)["containers"]
    given, names = environment(one), re.findall(r"UNISCALE_[A-Z_]+", (ROOT / "serving/service.py").read_text())
    assert {name for name in given if name.startswith("UNISCALE_")} <= set(names)
    for name in list(process.os.environ):
        monkeypatch.delenv(name)
    home = Path(given["BENTOML_HOME"])
    expected = process.environment(home)
    assert {name: given[name] for name in expected if name != "PATH"} == {
        name: value for name, value in expected.items() if name != "PATH"
    }
    writable = [Path(m["mountPath"]) for m in one["volumeMounts"] if not m.get("readOnly")]
    for name in ("UNISCALE_SERVING_LOG", "UNISCALE_ROUTING", "BENTOML_HOME", "HOME"):
        path = Path(given[name])
        assert any(path.is_relative_to(folder) for folder in writable), f"{name}={path} cannot be written"


def test_the_alert_rules_are_those_of_monitoring(objects):
    (rule,) = of(objects, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text()), "run make manifests"


def test_the_analysis_runs_as_the_job_calls_it(tmp_path):
    (one,) = pods(base())["uniscale-experiment"]["spec"]["containers"]
    (config,) = of(base(), "ConfigMap")
    paths = write_experiment(tmp_path, users=300, days=2, seed=3)
    paths["serving_log"].rename(tmp_path / "serving_log")
    ((name, text),) = config["data"].items()
    (tmp_path / name).write_text(text)
    mounts = {mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]}
    folders = {mounts["experiment"]: tmp_path, mounts["serving"]: tmp_path}
    args = [*one["command"][1:], *one["args"]]
    for mount, folder in folders.items():
        args = [re.sub(f"^{mount}(?=/|$)", str(folder), arg) for arg in args]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "monitoring" / "experiment" / "experiment.html").exists()


@NEEDS_RENDERER
def test_an_overlay_changes_size_place_and_image_alone():
    plain = {(one["kind"], one["metadata"]["name"]): one for one in base()}
    for overlay in OVERLAYS:
        for one in rendered(overlay):
            old = plain[one["kind"], one["metadata"]["name"]]
            assert one["metadata"] == {**old["metadata"], "namespace": f"uniscale-{overlay}"}
            if one["kind"] in ("NetworkPolicy", "ServiceMonitor", "PrometheusRule", "Service", "CronJob", "ConfigMap"):
                assert one == {**old, "metadata": one["metadata"]}
    sizes = [of(rendered(name), "HorizontalPodAutoscaler")[0]["spec"]["maxReplicas"] for name in OVERLAYS]
    assert sizes[0] < sizes[1]
