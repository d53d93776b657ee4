"""The house: an import goes only to a lower layer, and no two modules import each other in a circle."""

import ast
from pathlib import Path

from helpers import ROOT

LAYERS = (
    {"common", "names", "progress", "losses"},
    {"answers", "estimate"},
    {"rows", "llm"},
    {"data_loader"},
    {"model", "usage"},
    {"weights", "config", "parser", "console"},
    {"checkpoint", "flags"},
    {"build", "generation"},
    {"training", "evaluation"},
    {"train", "evaluate", "api", "lm_eval", "data"},
    {"commands", "from_rows"},
)
LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}


def is_main(node: ast.AST) -> bool:
    """`if __name__ == "__main__"` and `if TYPE_CHECKING`: a script of its own, and what only type checkers read."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")


def imported(node: ast.AST) -> list[str]:
    """The modules of this project that are imported in a node or below, without the package's name."""
    if is_main(node):
        return []
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they go"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    below = [name for child in ast.iter_child_nodes(node) for name in imported(child)]
    return [name.removeprefix("lta_thinker.") for name in names if name.startswith("lta_thinker.")] + below


def imports(root: Path) -> dict[str, set[str]]:
    """Of each module of the package ("rows.layout"), the modules of the package that it imports."""
    package = root / "lta_thinker"
    files = [*package.rglob("*.py"), *(package / "data").glob("*.py")]
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__"): path for path in files
    }
    modules.pop("__init__")
    found = {}
    for module, path in modules.items():
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        # "rows.layout.Layout" is a name in rows.layout, "rows.layout" that module
        found[module] = {name if name in modules else name.rpartition(".")[0] for name in names}
    return found


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports that do not go to a lower layer; within a room they may go anywhere."""
    wrong = []
    for module, targets in graph.items():
        for target in targets:
            here, there = module.split(".")[0], target.split(".")[0]
            if here != there and LAYER[there] >= LAYER[here]:
                wrong.append(f"{module} -> {target}")
    return sorted(wrong)


def circles(graph: dict[str, set[str]]) -> set[str]:
    """Modules that a chain of imports leads back to."""
    left = dict(graph)
    while free := [module for module, targets in left.items() if not targets & left.keys() - {module}]:
        for module in free:
            del left[module]
    return set(left)


def test_imports_go_to_lower_layers_only():
    """Every module is in a layer, imports lower ones or its own room, and none is in a circle."""
    graph = imports(ROOT)
    assert len(graph) > 35 and {"model", "rows.layout", "data.convert"} < graph.keys()
    assert upward(graph) == [] and circles(graph) == set()


def test_one_upward_import_is_found():
    """The check fails where a module of rows imports the model, or two modules of a room import each other."""
    graph = imports(ROOT)
    assert upward(graph | {"rows.batch": {"model"}}) == ["rows.batch -> model"]
    assert upward(graph | {"training.rows": {"evaluation.plan"}}) == ["training.rows -> evaluation.plan"]
    assert {"rows.layout", "rows.batch"} <= circles(graph | {"rows.layout": {"rows.batch"}})
