"""The package: what a wheel holds, what works once it is installed, far from any checkout; and one name a module."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import torch
import warm
from helpers import PROGRAMS, ROOT, cache_with
from packaging.requirements import Requirement

from lta_thinker import LatentThoughtModel

MODULES = sorted(path.stem for path in ROOT.glob("*.py"))
QUESTION = "How many pens are there?"


def pip(*arguments) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *map(str, arguments)], check=True)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built with what is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel's package in it, as site-packages would have it."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def test_dependencies_match_the_requirements_files():
    """The package's dependencies are those of the requirements files: name and range of each."""

    def wanted(name: str) -> list[str]:
        lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
        return sorted(str(Requirement(line)) for line in lines if line and not line.startswith("-r "))

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"requirements.txt": project["dependencies"]}
    extras = ("lora", "vllm", "lm-eval")
    lists |= {f"requirements-{name}.txt": project["optional-dependencies"][name] for name in extras}
    for name, texts in lists.items():
        assert sorted(str(Requirement(text)) for text in texts) == wanted(name)


def test_wheel_holds_one_package(wheel):
    """The wheel holds all modules, samples and the page's parts in one package, and nothing else at the top."""
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    samples = {f"lta_thinker/{path.relative_to(ROOT)}" for path in ROOT.glob("data/*/sample.jsonl")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "lta_thinker").rglob("*.py")}
    assert {f"lta_thinker/{name}.py" for name in MODULES} < modules
    page = {f"lta_thinker/evaluation/page.{end}" for end in ("html", "css", "js")}
    assert inside == {*modules, *page, "lta_thinker/data/convert.py", *samples}
    assert len(samples) == 8 and MODULES == ["data_loader", "evaluate", "losses", "model", "train"]


def all_modules() -> list[str]:
    modules = [*(ROOT / "lta_thinker").rglob("*.py"), ROOT / "lta_thinker" / "data" / "convert.py"]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules]
    return sorted(set(names) - {"lta_thinker"})


# where each module is, by the import system: importing them, and torch with them, takes seconds
SPECS = """
import importlib.util, json, lta_thinker, pkgutil
names = [module.name for module in pkgutil.walk_packages(lta_thinker.__path__, "lta_thinker.")]
print(json.dumps({name: importlib.util.find_spec(name).origin for name in [*names, "lta_thinker.data.convert"]}))
"""


def said_by(folder: Path, *command: Path | str):
    """What a Python program says there in its last line."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_checkout_gives_the_same_imports(tmp_path):
    """In the checkout each module is imported under one name, once."""
    said = said_by(tmp_path, warm.python(), PROGRAMS / "import_all.py")
    assert said == {"modules": all_modules(), "file": f"{ROOT}/lta_thinker/__init__.py"}


def test_editable_install_gives_the_same_imports(tmp_path):
    """After pip install -e . in a fresh virtual environment, far from the checkout, each module is found under one
    name, in the checkout. (That it is imported once the test above says, and of pip install . that of the installed
    package.)"""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    outer = site / "outer.pth"  # the libraries, but not lta-thinker, are those of this environment
    outer.write_text(f"{Path(torch.__file__).parent.parent}\n")
    pip("--python", python, "install", "--no-build-isolation", "--no-deps", "--no-index", "-e", ROOT)
    files = said_by(tmp_path, python, "-c", SPECS)
    own = {name: ROOT.joinpath(*name.split(".")) for name in all_modules()}
    assert files == {
        name: str(path / "__init__.py" if path.is_dir() else path.with_suffix(".py")) for name, path in own.items()
    }


def test_both_commands_are_installed(installed):
    """Installing the wheel installs both commands."""
    assert {path.name for path in (installed / "bin").iterdir()} == {"lta-train", "lta-evaluate"}


def test_installed_package_works_without_checkout(installed, trained, tmp_path):
    """Installed, in a fresh process far from the checkout, both commands start, and train.py's folder and a hub id
    solve a question as here. An `import evaluate` finds none of our modules, and each module is imported under one
    name, once."""
    home, elsewhere = cache_with(trained, tmp_path / "home" / "hub", "owner/thoughts").parent, tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = os.environ | {"PYTHONPATH": str(installed), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(PROGRAMS / "use_installed.py"), QUESTION, str(trained), "owner/thoughts"]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["package"] == str(installed / "lta_thinker") and said["at_the_top"] == []
    assert said["modules"] == all_modules()
    here = LatentThoughtModel.from_pretrained(trained).solve(QUESTION, num_samples=3, max_new_tokens=8)
    assert said["solutions"] == [vars(here)] * 2
    assert "--num_thought_tokens" in said["lta-train"] and "--ask" in said["lta-evaluate"]
    assert os.listdir(elsewhere) == []


def test_no_import_by_bare_name():
    """No file imports a module by its bare name: in the checkout it would make a second copy with classes of its own,
    installed it would fail."""
    listing = ["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"]
    files = [ROOT / name for name in subprocess.run(listing, capture_output=True, text=True).stdout.splitlines()]
    assert ROOT / "train.py" in files
    bare, found = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(MODULES)})\b"), []
    for path in (path for path in files if path.suffix in (".sh", ".md") and path.is_file()):
        found += [(path.name, line) for line in path.read_text(encoding="utf-8").splitlines() if bare.match(line)]
    for path in (path for path in files if path.suffix == ".py" and path.is_file()):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "."] if node.level == 0 else ["."]  # relative ones are no way either
            found += [(path.name, name) for name in names if name.split(".")[0] in {*MODULES, ""}]
    assert found == []


def test_make_targets_run_existing_files():
    """`make` alone lists its targets, and no recipe names a file that is not in the repository."""
    targets = ["setup", "demo", "test", "lint", "bench"]
    make = ["make", "--no-print-directory", "-C", str(ROOT)]
    listed = subprocess.run(make, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["make", target] for target in targets]
    recipes = subprocess.run([*make, "--dry-run", *targets], capture_output=True, text=True, check=True).stdout
    files = re.findall(r"[-\w/.]+\.(?:py|sh|txt)\b", recipes)
    assert len(files) == 6 and all((ROOT / name).is_file() for name in files)
    assert recipes.count("ruff") == 2
