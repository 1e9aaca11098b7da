"""Reads manifests and holds each object to the models of Kubernetes' own Python client, unknown fields included."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes.client.models as models
import yaml

HOME = Path(__file__).resolve().parents[2] / "manifests"
RENDERERS = {"kustomize": ["kustomize", "build"], "kubectl": ["kubectl", "kustomize"]}
MODELS = {
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("v1", "Service"): "V1Service",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("batch/v1", "CronJob"): "V1CronJob",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
}
OPERATOR = "monitoring.coreos.com/v1"  # Prometheus' operator; the client has no models of its objects
OPERATOR_SPECS = {"ServiceMonitor": {"selector", "endpoints"}, "PrometheusRule": {"groups"}}
SCALARS = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": (str, int, dict, list)}

Object = dict[str, Any]


def base() -> list[Object]:
    """The objects of the base, in the files that its kustomization names; it only lists them, so this renders it."""
    files = yaml.safe_load((HOME / "base" / "kustomization.yaml").read_text())["resources"]
    return [one for name in files for one in yaml.safe_load_all((HOME / "base" / name).read_text())]


def renderer() -> list[str] | None:
    """The command that renders an overlay, where this machine has one."""
    return next((command for tool, command in RENDERERS.items() if shutil.which(tool)), None)


@cache
def rendered(overlay: str) -> list[Object]:
    """The objects of an overlay."""
    command = renderer()
    assert command is not None
    done = subprocess.run([*command, str(HOME / overlay)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def problems(one: Object) -> list[str]:
    """What is wrong with an object: an unknown kind or field, a missing field, a value of another type."""
    key = (one["apiVersion"], one["kind"])
    if key[0] == OPERATOR:
        allowed = OPERATOR_SPECS.get(key[1], set())
        return [] if set(one["spec"]) == allowed else [f"{key[1]}: spec has {sorted(one['spec'])}"]
    return _walk(one, MODELS[key], key[1]) if key in MODELS else [f"no model of {key}"]


def _walk(value: Any, kind: str, where: str) -> list[str]:
    if container := re.fullmatch(r"(list\[|dict\(str, )(.+)[\])]", kind):
        expected, inner = (list if container[1] == "list[" else dict), container[2]
        if not isinstance(value, expected):
            return [f"{where}: {value!r} is no {expected.__name__}"]
        pairs = enumerate(value) if isinstance(value, list) else value.items()
        return [found for key, item in pairs for found in _walk(item, inner, f"{where}.{key}")]
    if kind in SCALARS:
        fits = isinstance(value, SCALARS[kind]) and isinstance(value, bool) <= (kind in ("bool", "object"))
        return [] if fits else [f"{where}: {value!r} is no {kind}"]
    model = getattr(models, kind)
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no {kind}"]
    names = {shown: name for name, shown in model.attribute_map.items()}
    found = [f"{where}.{key}: unknown to {kind}" for key in value if key not in names]
    known = {names[key]: item for key, item in value.items() if key in names}
    try:
        model(**known)
    except ValueError as error:
        found.append(f"{where}: {error}")
    for name, item in known.items():
        found += _walk(item, model.openapi_types[name], f"{where}.{model.attribute_map[name]}")
    return found
