"""The pages: links lead somewhere, and the commands in code blocks do what the page says.

A code block's info string says what becomes of it: `sh`, `python` and `json` are run or read here, with tiny models in
the places of the real ones; `sh gpu`, `sh long` and `python gpu` need more than a test has; `text` has no commands.
"""

import contextlib
import functools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from lta_thinker import evaluate, train
from lta_thinker.generation import samplers

ROOT = Path(__file__).resolve().parents[2]
LISTING = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
NAMES = subprocess.run(LISTING, capture_output=True, text=True, check=True).stdout.split()
PAGES = sorted(name for name in NAMES if (ROOT / name).is_file())
RECORDS = ("RESULTS.md", "docs/results/")  # their commands stand beside the figures that they made: hours of work
MARKED = [name for name in PAGES if not name.startswith(RECORDS)]  # pages whose code blocks say their kind
KINDS = {"sh", "sh gpu", "sh long", "python", "python gpu", "json", "text"}
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
SHORT = {  # appended to a page's command: flags that come last win
    "train.py": "--max_steps 2 --k_shot 8 --max_new_tokens 4 --disable_tqdm True",
    "evaluate.py": "--max_new_tokens 4",
    "examples/new_task.py": "--steps 1 --questions 1",
}
# flags of evaluate.py that ask no split: --test_k does not go with them
NO_SPLIT = {"--ask", "--compare", "--rank", "--plot", "--inspect"}


@dataclass(frozen=True)
class Block:
    """A code block: the page, its first line there, the info string, the text."""

    page: str
    line: int
    kind: str
    text: str


@functools.cache
def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_of(page: str) -> list[Block]:
    text = text_of(page)
    return [Block(page, text[: found.start()].count("\n") + 1, found[1], found[2]) for found in FENCE.finditer(text)]


# ---------------------------------------------------------------------------------------------------------------------
# Links, sizes, the two READMEs


def anchors_of(page: str) -> set[str]:
    """The #names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_resolves(page):
    """Files and #headings that a page links to are there; addresses of the web are not looked up."""
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text_of(page)))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{link}: no such file"
        if anchor:
            there = os.path.relpath(target.resolve(), ROOT)
            assert anchor in anchors_of(there), f"{link}: no such heading"


def test_readme_is_short():
    assert len(text_of("README.md").split()) < 1800


def commands(page: str) -> list[str]:
    """The lines of a page's commands, without comments."""
    lines = [line for block in blocks_of(page) if block.kind != "text" for line in block.text.splitlines()]
    return [line for line in (line.partition("  #")[0].rstrip() for line in lines) if line]


def test_both_readmes_have_the_same_commands():
    assert commands("README.zh-CN.md") == commands("README.md")


def test_flag_tables_are_up_to_date(monkeypatch):
    run_command("python docs/flag_tables.py --check", monkeypatch)


@pytest.mark.parametrize("page", MARKED)
def test_every_code_block_says_its_kind(page):
    """No command is on a page without a mark: blocks are fenced, with one of the known info strings."""
    for block in blocks_of(page):
        assert block.kind in KINDS, f"{page}:{block.line}: ```{block.kind}"
    prose = FENCE.sub("", text_of(page))
    assert "```" not in prose
    assert re.findall(r"(?:\A|\n\n)(?: {4}|\t)\S.*", prose) == [], "an indented code block"


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def run_command(command: str, monkeypatch) -> None:
    """A line of the shell: Python's scripts in this process (torchrun's as one process), all else in bash."""
    command = os.path.expandvars(command)
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        if name != "CUDA_VISIBLE_DEVICES":  # whatever GPUs a page names, there are none here
            monkeypatch.setenv(name, value)
    if not words:
        return
    if words[0] not in ("python", "torchrun"):
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True)
        return
    at = next(i for i, word in enumerate(words) if word.endswith(".py"))
    script, flags = words[at], words[at + 1 :]
    flags += shortening(script, flags)
    monkeypatch.setattr(sys, "argv", [script, *flags])
    try:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{command}: {end.code}"


def shortening(script: str, flags: list[str]) -> list[str]:
    more = SHORT.get(script, "").split()
    if "--coconut_stages" in flags:
        more += "--max_steps -1 --n_epochs 3 --coconut_stages 1 --epochs_per_stage 1".split()
    if script == "evaluate.py" and not NO_SPLIT & {*flags}:
        more += ["--test_k", "2"]
    if "--inspect" in flags:
        more += ["--inspect", "2"]
    return more


@pytest.fixture(scope="session")
def world(tiny_pair, gsm8k_data, tmp_path_factory) -> Path:
    """A folder in which the names of the pages exist: model ids, rows, a run, a checkpoint, two reports."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(gsm8k_data, folder / "data")
    for name, target in {
        "Qwen/Qwen3-8B": tiny_pair / "large",
        "Qwen/Qwen3-0.6B": tiny_pair / "small",
        "toy": ROOT / "toy",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(target)
    (folder / "data" / "arithmetic").mkdir()
    for split in ("train", "dev", "test"):  # 3,000 rows of training take seconds
        lines = (ROOT / "data" / "arithmetic" / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / "data" / "arithmetic" / f"{split}.jsonl").write_text("".join(lines[:20]))
    write_rows(folder)
    with contextlib.chdir(folder):
        train.run("--output_name RUN --num_thought_tokens 4 --max_steps 2 --disable_tqdm True".split())
        (checkpoint,) = Path("ckpt").iterdir()
        Path("ckpt/NAME").symlink_to(checkpoint.name)
        short = "--test_k 4 --max_new_tokens 4 --num_return_sequences 2 --output_dir".split()
        evaluate.main(["--thought_generator", "none", *short, "results/A"])
        evaluate.main(["--checkpoint", "ckpt/NAME", *short, "results/B"])
    return folder


def write_rows(folder: Path) -> None:
    """The pages' own rows: a task of yes and no, and AQuA as its authors publish it."""
    for name, numbers in {"primes.jsonl": range(2, 42), "primes-test.jsonl": range(42, 46)}.items():
        rows = [{"question": f"Is {n} above 20?", "steps": "I look.", "answer": n > 20} for n in numbers]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "downloads" / "AQuA").mkdir(parents=True)
    row = {"question": "2 + 3?", "options": ["A)4", "B)5"], "rationale": "2 + 3 = 5", "correct": "B"}
    (folder / "downloads" / "AQuA" / "test.json").write_text(json.dumps(row) + "\n")


@pytest.fixture
def place(world, tmp_path, monkeypatch) -> Path:
    """A copy of the world, as the current folder. Python's blocks take no flags that make them short: no answer is
    longer than four tokens."""
    decode = samplers.decode

    def shortly(llm, settings, *args):
        return decode(llm, replace(settings, max_new_tokens=min(4, settings.max_new_tokens)), *args)

    monkeypatch.setattr(samplers, "decode", shortly)
    here = tmp_path / "world"
    shutil.copytree(world, here, symlinks=True)
    monkeypatch.chdir(here)
    return here


def pages_with(*kinds: str) -> list[str]:
    """Pages with a block of such a kind; README.zh-CN.md has README.md's."""
    pages = [page for page in MARKED if page != "README.zh-CN.md"]
    return [page for page in pages if any(block.kind in kinds for block in blocks_of(page))]


@pytest.mark.parametrize("page", pages_with("sh", "python"))
def test_a_page_does_what_it_says(page, place, monkeypatch):
    """Commands and Python of a page run, one block after another: what a page makes, it can use further down."""
    names: dict = {}
    for block in blocks_of(page):
        if block.kind == "sh":
            for command in block.text.replace("\\\n", " ").splitlines():
                run_command(command, monkeypatch)
        elif block.kind == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)


@pytest.mark.parametrize("page", pages_with("json"))
def test_json_on_a_page_is_json(page):
    for block in blocks_of(page):
        for line in block.text.splitlines() if block.kind == "json" else []:
            json.loads(line)
