"""The picture is the graph: small pipelines drawn by hand, and pages of the repository drawn from the present IR."""

from pathlib import Path

import pytest
from kfp import compiler, dsl

from components.image import step
from pipelines.catalogue import PIPELINES
from pipelines.picture import mermaid, redraw

ROOT = Path(__file__).resolve().parents[2]


@step
def make(out: dsl.Output[dsl.Artifact], count: int = 0) -> str:
    """Make something."""
    return "yes"


@step
def use(made: dsl.Input[dsl.Artifact], also: dsl.Input[dsl.Artifact], out: dsl.Output[dsl.Artifact]) -> None:
    """Use it."""


@step
def combine(made: dsl.Input[dsl.Artifact], also: dsl.Input[dsl.Artifact]) -> None:
    """Use both."""


@step
def several() -> list[str]:
    """Name several things."""
    return []


@step
def tell_one(what: str) -> None:
    """Say it."""


@step
def gather(made: dsl.Input[list[dsl.Artifact]]) -> None:
    """Use all of them."""


@step
def tell() -> None:
    """Wait for nothing."""


def drawn(pipeline, folder):
    compiler.Compiler().compile(pipeline, str(folder / "ir.yaml"))
    first, *lines = mermaid(folder / "ir.yaml").splitlines()
    assert first == "flowchart TD"
    return [line.strip() for line in lines]


def test_arrows_are_artifacts_and_orders_and_an_implied_one_is_left_out(tmp_path) -> None:
    @dsl.pipeline(name="small")
    def small() -> None:
        made = make().outputs["out"]
        used = use(made=made, also=made)
        combine(made=used.outputs["out"], also=made)
        tell().after(used)

    # make -> combine follows from make -> use -> combine
    assert drawn(small, tmp_path) == ["make --> use", "use --> combine", "use --> tell"]


def test_branches_hang_on_their_decision_and_the_exit_handler_on_the_last_steps(tmp_path) -> None:
    @dsl.pipeline(name="small")
    def small() -> None:
        with dsl.ExitHandler(tell()):
            decided = make()
            with dsl.If(decided.outputs["Output"] == "yes"):
                use(made=decided.outputs["out"], also=decided.outputs["out"])
            with dsl.Else():
                use(made=decided.outputs["out"], also=decided.outputs["out"])

    assert drawn(small, tmp_path) == [
        'make{"make"}',
        'make -. "not yes" .-> use',
        'make -. "yes" .-> use',
        'use -. "always" .-> tell',
    ]


def test_a_loop_is_a_box_and_its_values_come_from_their_step(tmp_path) -> None:
    @dsl.pipeline(name="small")
    def small() -> None:
        with dsl.ParallelFor(several().output, name="item") as item:
            made = make(count=1).after(tell())
            tell_one(what=item)
        gather(made=dsl.Collected(made.outputs["out"]))

    assert drawn(small, tmp_path) == [
        'subgraph each_item["each item"]',
        "make",
        "tell",
        "tell-one",
        "end",
        "make --> gather",
        "several --> tell-one",
        "tell --> make",
    ]


def test_a_page_of_pipelines_gets_each_below_its_own_heading(tmp_path) -> None:
    pages = ""
    for name in ("uniscale-a", "uniscale-b"):

        @dsl.pipeline(name=name, description=f"About {name}")
        def small() -> None:
            tell()

        compiler.Compiler().compile(small, str(tmp_path / f"{name}.yaml"))
        pages = redraw(pages, tmp_path / f"{name}.yaml")
    assert pages.index("## uniscale-a") < pages.index("## uniscale-b") and pages.count("```mermaid") == 2
    older = pages.replace("flowchart TD\n  tell\n```\n", "flowchart TD\n  old\n```\n")
    assert older.count("old") == 2
    once = redraw(older, tmp_path / "uniscale-b.yaml")
    assert once.index("old") < once.index("## uniscale-b") and once.count("old") == 1
    assert redraw(once, tmp_path / "uniscale-a.yaml") == pages


def test_redrawing_replaces_the_first_picture_and_nothing_else(tmp_path) -> None:
    @dsl.pipeline(name="small", description="A small one")
    def small() -> None:
        tell()

    compiler.Compiler().compile(small, str(tmp_path / "ir.yaml"))
    picture = "```mermaid\nflowchart TD\n  tell\n```"
    page = "# A\n\n```mermaid\nold\n```\n\ntext\n\n```mermaid\nkept\n```\n"
    assert redraw(page, tmp_path / "ir.yaml") == page.replace("```mermaid\nold\n```", picture)
    assert redraw("", tmp_path / "ir.yaml") == f"## small\n\nA small one.\n\n{picture}\n"


@pytest.mark.parametrize(
    ("page", "pipeline"), [("README.md", "training"), *(("docs/pipelines.md", name) for name in PIPELINES)]
)
def test_the_pictures_in_the_repository_are_the_present_graph(page, pipeline, compiled) -> None:
    text = (ROOT / page).read_text()
    remedy = f"draw it again: uniscale compile --pipeline {pipeline} --graph {page}"
    assert redraw(text, compiled(pipeline)) == text, remedy
