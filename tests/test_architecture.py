"""The arrows between packages, and the one home of each framework, hold over every import in the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "uniscale",
    "features",
    "models",
    "serving",
    "monitoring",
    "simulation",
    "components",
    "pipelines",
    "benchmarks",
)
MAY_IMPORT = {
    "uniscale": set(),
    "features": {"uniscale"},
    "models": {"uniscale"},
    "monitoring": {"uniscale"},
    "simulation": {"uniscale"},
    "serving": {"uniscale", "models", "features"},
    "components": {"uniscale", "features", "models", "serving", "monitoring", "simulation"},
    "pipelines": {"uniscale", "components"},
    "benchmarks": {"uniscale", "features", "models", "serving", "monitoring", "simulation"},
}
# A verb of the command line is a door to a component or a pipeline, opened inside the verb.
DOORS = {
    f"uniscale/cli/{verbs}.py"
    for verbs in ("data", "local", "kubeflow", "service", "steps", "studies", "experiments", "monitoring")
}
HOMES = {
    "torch": ("models/", "serving/", "benchmarks/"),
    "pyspark": ("features/",),
    "feast": ("features/store/", "serving/online_features.py"),
    "kfp": ("components/", "pipelines/", "uniscale/cli/steps.py"),
    "evidently": ("monitoring/",),
    "bentoml": ("serving/",),
    "mlflow": ("uniscale/registry.py", "uniscale/mlflow_mirror.py"),
    "dvc": ("uniscale/artifacts.py",),
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Top-level names a file imports, with the nesting depth of the statement."""
    found = []

    def visit(node: ast.AST, depth: int) -> None:
        for child in ast.iter_child_nodes(node):
            inside = depth + isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                found.extend((alias.name.split(".")[0], depth) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0:
                found.append((child.module.split(".")[0], depth))
            visit(child, inside)

    visit(ast.parse(path.read_text()), 0)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way_and_frameworks_stay_at_home(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    package = name.split("/")[0]
    for imported, depth in imports_of(path):
        if imported in PACKAGES and imported != package and not (name in DOORS and depth):
            assert imported in MAY_IMPORT[package], (
                f"{name} imports {imported}: arrows go {package} -> {MAY_IMPORT[package]}"
            )
        if imported in HOMES:
            assert name.startswith(HOMES[imported]), f"{name} imports {imported}, whose home is {HOMES[imported]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_opens_with_its_subject_and_stays_readable(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no docstring that states its subject"
    assert text.count("\n") <= 400, f"{path.relative_to(ROOT)} has over 400 lines: split it by subject"


def test_the_walk_sees_imports_inside_functions() -> None:
    inside = imports_of(ROOT / "uniscale" / "cli" / "local.py")
    assert ("pipelines", 1) in inside and ("typer", 0) in inside


def test_components_only_wire() -> None:
    """A component is one function that calls others: no class, no loop, no nested function."""
    for path in (ROOT / "components").glob("*.py"):
        if path.name in ("__init__.py", "image.py"):
            continue
        body = ast.parse(path.read_text()).body
        functions = [node for node in body if isinstance(node, ast.FunctionDef)]
        assert [function.name for function in functions] == [path.stem], (
            f"{path.name}: one function named like the file"
        )
        forbidden = (ast.ClassDef, ast.For, ast.While, ast.FunctionDef)
        inner = [node for node in ast.walk(functions[0]) if isinstance(node, forbidden) and node is not functions[0]]
        assert not inner, f"{path.name} holds logic: {[type(node).__name__ for node in inner]}"
