"""A picture of a pipeline, drawn from its IR: the steps, what flows between them, branches and loops, as Mermaid."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines.tasks import step_of

Scope = Mapping[str, str]  # input of a component: the step that produces it
BLOCK = re.compile(r"```mermaid\n.*?```", re.DOTALL)
LISTED = re.compile(r"^## uniscale-", re.MULTILINE)
ALWAYS = "always"


class Arrow(NamedTuple):
    """From one step to another; the label is what a decision said, or `always` for the exit handler."""

    source: str
    target: str
    label: str


def mermaid(package: Path) -> str:
    """Mermaid's text for IR YAML.

    A solid arrow is an artifact, a value, or an order that was asked for; one that a chain of others implies is left
    out. Dotted ones are conditions, and the exit handler's. Branches that end with the same steps share them. A box
    holds the steps that run for each of several values.
    """
    ir = _read(package)
    arrows = dict.fromkeys(_arrows(ir["root"], ir["components"], {}, None))  # a set that keeps its order
    steps = sorted({arrow.target for arrow in arrows} | {arrow.source for arrow in arrows if arrow.source})
    known = {arrow for arrow in arrows if arrow.source}
    lines = [f'{step}{{"{step}"}}' for step in steps if _decides(step, known)]
    lines += _boxes(ir["root"], ir["components"])
    drawn = {step for arrow in known for step in (arrow.source, arrow.target)}
    lines += [step for step in steps if step not in drawn]
    for arrow in sorted(known):
        if arrow.label:
            lines.append(f'{arrow.source} -. "{arrow.label}" .-> {arrow.target}')
        elif not _implied(arrow, known):
            lines.append(f"{arrow.source} --> {arrow.target}")
    return "\n".join(["flowchart TD", *(f"  {line}" for line in lines)]) + "\n"


def _read(package: Path) -> Any:
    return next(yaml.load_all(Path(package).read_text(), yaml.CSafeLoader))


def redraw(page: str, package: Path) -> str:
    """A Markdown page with the picture of a pipeline replaced, or added.

    It is the first Mermaid block below the heading of the pipeline's name; on a page that is not a list of pipelines,
    the first block.
    """
    block = f"```mermaid\n{mermaid(package)}```"
    info = _read(package)["pipelineInfo"]
    title = f"## {info['name']}\n"
    if title in page or not LISTED.search(page):
        before, _, after = page.rpartition(title) if title in page else ("", "", page)
        if BLOCK.search(after):
            kept = before + title if title in page else ""
            return kept + BLOCK.sub(lambda _: block, after, count=1)
    heading = f"{title}\n{info.get('description', '')}.\n\n"
    return "\n\n".join(filter(None, [page.rstrip(), heading + block])) + "\n"


def _decides(step: str, arrows: set["Arrow"]) -> bool:
    return any(arrow.source == step and arrow.label not in ("", ALWAYS) for arrow in arrows)


def _implied(arrow: "Arrow", arrows: set["Arrow"]) -> bool:
    """Whether there is another way from its source to its target."""
    following: dict[str, set[str]] = {}
    for other in arrows - {arrow}:
        following.setdefault(other.source, set()).add(other.target)
    seen: set[str] = set()
    left = [arrow.source]
    while left:
        for step in following.get(left.pop(), set()) - seen:
            seen.add(step)
            left.append(step)
    return arrow.target in seen


def _arrows(
    component: Mapping[str, Any], components: Mapping[str, Any], given: Scope, gate: tuple[str, str] | None
) -> Iterator[Arrow]:
    """Arrows between a component's tasks; one without a source stands for a task that waits for nothing.

    Args:
        given: producers of the component's own inputs.
        gate: who decides whether the component runs, and what it has to say; its first tasks hang on that.
    """
    tasks = component["dag"]["tasks"]
    produced = {name: _producers(name, task, components) for name, task in tasks.items()}
    for name, task in tasks.items():
        inner = components[task["componentRef"]["name"]]
        flows = dict(_flows(task, produced, given))
        loop = task.get("parameterIterator", {})
        if (values := loop.get("items", {}).get("inputParameter")) in flows:
            flows[loop["itemInput"]] = flows[values]
        if "dag" in inner:
            yield from _arrows(inner, components, flows, _gate(task, flows) or gate)
            continue
        yield Arrow("", step_of(name), "")
        waited = task.get("dependentTasks", [])
        if task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED":
            for last in sorted({step for other in waited for step in _last(components, tasks[other])}):
                yield Arrow(last, step_of(name), ALWAYS)
            continue
        for source in {*flows.values(), *(step for other in waited for step in produced[other].values())}:
            yield Arrow(source, step_of(name), "")
        if gate and not waited:
            yield Arrow(gate[0], step_of(name), gate[1])


def _boxes(component: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Mermaid for every loop: its name and the steps inside."""
    for task in component["dag"]["tasks"].values():
        inner = components[task["componentRef"]["name"]]
        if "dag" not in inner:
            continue
        if "parameterIterator" in task:
            name = task["taskInfo"]["name"]
            yield f'subgraph each_{name}["each {name}"]'
            yield from (f"  {step}" for step in sorted(map(step_of, inner["dag"]["tasks"])))
            yield "end"
        yield from _boxes(inner, components)


def _producers(name: str, task: Mapping[str, Any], components: Mapping[str, Any]) -> dict[str, str]:
    """Output of a task: the step behind it (the step itself, or one inside a component)."""
    inner = components[task["componentRef"]["name"]]
    if "dag" not in inner:
        return {"": step_of(name), **dict.fromkeys(_outputs(inner), step_of(name))}
    found = {}
    for kind in ("artifacts", "parameters"):
        for output, selector in inner["dag"].get("outputs", {}).get(kind, {}).items():
            choices = selector.get("artifactSelectors") or [selector.get("valueFromParameter", {})]
            found[output] = step_of(choices[0].get("producerSubtask", name))
    return found


def _outputs(component: Mapping[str, Any]) -> list[str]:
    definitions = component.get("outputDefinitions", {})
    return [*definitions.get("artifacts", {}), *definitions.get("parameters", {})]


def _flows(task: Mapping[str, Any], produced: Mapping[str, Scope], given: Scope) -> Iterator[tuple[str, str]]:
    """Input of a task and the step it comes from; pipeline parameters come from none."""
    for kind, output, own in (
        ("artifacts", "taskOutputArtifact", "componentInputArtifact"),
        ("parameters", "taskOutputParameter", "componentInputParameter"),
    ):
        for name, source in task.get("inputs", {}).get(kind, {}).items():
            if output in source:
                asked = source[output]
                key = asked.get("outputArtifactKey") or asked.get("outputParameterKey")
                yield name, produced[asked["producerTask"]].get(key, step_of(asked["producerTask"]))
            elif source.get(own) in given:
                yield name, given[source[own]]


def _gate(task: Mapping[str, Any], flows: Scope) -> tuple[str, str] | None:
    """What decides whether a branch runs, and what it has to say."""
    condition = task.get("triggerPolicy", {}).get("condition", "")
    asked = re.search(r"parameter_values\['(.+?)'\]\s*==\s*'(.+?)'", condition)
    if asked is None or asked[1] not in flows:
        return None
    return flows[asked[1]], f"not {asked[2]}" if condition.startswith("!") else asked[2]


def _last(components: Mapping[str, Any], task: Mapping[str, Any]) -> list[str]:
    """Steps of a component that nothing inside it waits for."""
    inner = components[task["componentRef"]["name"]]
    if "dag" not in inner:
        return []
    tasks = inner["dag"]["tasks"]
    waited = {name for other in tasks.values() for name in other.get("dependentTasks", [])}
    found = []
    for name, other in tasks.items():
        if name not in waited:
            found += _last(components, other) or [step_of(name)]
    return sorted(set(found))
