"""The picture is the graph: small pipelines drawn by hand, and pages of the repository drawn from the present IR."""

from pathlib import Path

import pytest
from kfp import compiler, dsl

from components.image import step
from pipelines.graph import mermaid, redraw
from pipelines.submit import compile_to
from uniscale.config import load_config

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


def test_redrawing_replaces_the_first_picture_and_nothing_else(tmp_path) -> None:
    @dsl.pipeline(name="small", description="A small one")
    def small() -> None:
        tell()

    compiler.Compiler().compile(small, str(tmp_path / "ir.yaml"))
    picture = "```mermaid\nflowchart TD\n  tell\n```"
    page = "# A\n\n```mermaid\nold\n```\n\ntext\n\n```mermaid\nkept\n```\n"
    assert redraw(page, tmp_path / "ir.yaml") == page.replace("```mermaid\nold\n```", picture)
    assert redraw("", tmp_path / "ir.yaml") == f"## small\n\nA small one.\n\n{picture}\n"


@pytest.mark.parametrize("page", ["README.md", "docs/pipelines.md"])
def test_the_pictures_in_the_repository_are_the_present_graph(page, tmp_path) -> None:
    compile_to(load_config(), tmp_path / "training.yaml")
    text = (ROOT / page).read_text()
    remedy = f"draw it again: uniscale compile --graph {page}"
    assert redraw(text, tmp_path / "training.yaml") == text, remedy
