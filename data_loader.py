"""Tasks: where the rows of a task are, row -> Example, and the prompts of each answer type.

    python data_loader.py --task aqua --from PATH --to data/aqua     # official raw files -> files that are read here

A new task is one entry of TASKS, or only flags: --task_name mytask --train_file a.jsonl --answer_type number.
"""

import csv
import dataclasses
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from lta_thinker.answers import ANSWER_TYPES, NUMBER, PLAIN_SPELLINGS, extract_answer

ROOT = Path(__file__).resolve().parent
SPLITS = ("train", "dev", "test", "sample")
DEV_SHARE, DEV_SEED = 0.05, 41  # the dev rows of a task never depend on a run's --seed
DATE_STRING = "26 Jul 2024"  # for templates that print today's date
OWN_HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
LETTERS = "ABCDEFGHIJ"  # of options
SKEWED = 0.8  # share of one letter among the golds of a choice task that is worth a warning

# ---------------------------------------------------------------------------------------------------------------------
# Prompts

PROMPTS = {
    "number": {
        "problem": "Solve the problem step by step. Put the final answer in \\boxed{}.\n\nProblem: {question}",
        "thoughts": "\n\nHint: {thoughts}",
        "generator": "Read the problem and prepare hints for solving it.\n\nProblem: {question}",
    },
}
PROMPTS["latex"] = PROMPTS["number"]
PROMPTS["choice"] = PROMPTS["number"] | {
    "problem": "Answer the question step by step. Put the right option's letter in \\boxed{}.\n\nQuestion: {question}",
}
PROMPTS["boolean"] = PROMPTS["number"] | {
    "problem": "Answer the question step by step. Put yes or no in \\boxed{}.\n\nQuestion: {question}",
}
PLACEHOLDERS = {"problem": "{question}", "thoughts": "{thoughts}", "generator": "{question}"}
PLACEHOLDER = re.compile(r"(?:\\[A-Za-z]+|[\^_])(?:\{[^{}]*\})+|(\{\s*[A-Za-z_][^{}]*\})")  # \boxed{answer} is LaTeX


class InputError(Exception):
    """Something that the user gave is wrong: the message is the one line that says what, where and what to do."""


def read_prompts(path: str, prompts: dict[str, str]) -> dict[str, str]:
    """--prompt_file, a JSON object: `prompts` with those that it has in their place.

    Raises InputError for what is no such file, and for a placeholder that is unknown, missing or there twice.
    """
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"--prompt_file {path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"--prompt_file {path}: not JSON ({error})") from None
    if not isinstance(given, dict) or not all(isinstance(prompt, str) for prompt in given.values()):
        raise InputError(f"--prompt_file {path}: not a JSON object of texts ({', '.join(PLACEHOLDERS)})")
    for name, prompt in given.items():
        if name not in PLACEHOLDERS:
            raise InputError(f"--prompt_file {path}: no such prompt {name!r}; there are {', '.join(PLACEHOLDERS)}")
        known, found = PLACEHOLDERS[name], list(filter(None, PLACEHOLDER.findall(prompt)))
        for unknown in (placeholder for placeholder in found if placeholder != known):
            raise InputError(f"--prompt_file {path}: {name} has the unknown placeholder {unknown}; it takes {known}")
        if not found.count(known) == prompt.count(known) == 1:
            raise InputError(f"--prompt_file {path}: {name} must have {known} once, as an argument of no command")
        if not is_text(prompt):
            raise InputError(f"--prompt_file {path}: {name} has half a character (a lone surrogate)")
    return prompts | given


# ---------------------------------------------------------------------------------------------------------------------
# Tasks


@dataclass(frozen=True)
class Example:
    """One question with its written solution; `index` counts its source's rows, `answer` is the canonical gold.

    `options` of a choice question, without letters; they stand in `question` too.
    """

    index: int
    question: str
    steps: tuple[str, ...]
    answer: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fields:
    """Names of a row's fields. Without `steps` they are in `answer`, before "####": the published GSM-style layout."""

    question: str = "question"
    steps: str | None = None
    answer: str = "answer"
    options: str = "options"


@dataclass(frozen=True)
class Task:
    """One task. `sources` of a split: file names in `folders` of --data_dir, at last perhaps the hub's
    "hub:owner/name:config:split"; the first found is read. Without `dev` it is a seeded 5 % of train.

    A row is read by the first of `fields` whose answer it has. `separator` stands between written steps.
    """

    name: str
    answer_type: str
    sources: dict[str, tuple[str, ...]]
    fields: tuple[Fields, ...] = (Fields(),)
    folders: tuple[str, ...] = ()
    separator: str = "\n"
    missing: str = ""  # what to do, or why, where a split is nowhere


TASKS = {
    task.name: task
    for task in (
        Task(
            "gsm8k",
            "number",
            {
                "train": ("train_socratic.jsonl", "train.jsonl", "hub:openai/gsm8k:socratic:train"),
                "test": ("test_socratic.jsonl", "test.jsonl", "hub:openai/gsm8k:socratic:test"),
            },
        ),
        Task(
            "strategyqa",
            "boolean",
            {
                "train": ("strategyqa_train.jsonl", "train.jsonl", "hub:ChilleD/StrategyQA::train"),
                "test": (
                    "strategyqa_test.jsonl",
                    "strategyqa_dev.jsonl",
                    "test.jsonl",
                    "hub:ChilleD/StrategyQA::test",
                ),
            },
            (Fields(steps="facts"),),
            folders=("strategyqa", "strategy-qa"),
        ),
        Task(
            "math",
            "latex",
            {
                "train": ("train.jsonl", "hub:DigitalLearningGmbH/MATH-lighteval::train"),
                "test": ("math-500-test.jsonl", "test.jsonl", "hub:HuggingFaceH4/MATH-500::test"),
            },
            (Fields("problem", "solution", "solution"), Fields()),
            folders=("math", "math-500"),
            separator="\n\n",
        ),
        Task(
            "asdiv-aug",
            "number",
            {
                "train": ("aug-train.jsonl", "train.jsonl", "hub:xuyige/ASDiv-Aug::train"),
                "test": ("aug-dev.jsonl", "test.jsonl", "hub:xuyige/ASDiv-Aug::test"),
            },
        ),
        Task(
            "asdiv",
            "number",
            {"train": ("train.jsonl",), "test": ("test.jsonl",)},
            missing="python data_loader.py --task asdiv --from ASDiv.xml --to data/asdiv makes test.jsonl; "
            "ASDiv has no train rows of its own",
        ),
        Task(
            "aqua",
            "choice",
            {
                "train": ("gsm_style_train.jsonl", "train.jsonl", "train.json", "hub:deepmind/aqua_rat:raw:train"),
                "dev": ("gsm_style_dev.jsonl", "dev.jsonl", "dev.json", "hub:deepmind/aqua_rat:raw:validation"),
                "test": ("gsm_style_test.jsonl", "test.jsonl", "test.json", "hub:deepmind/aqua_rat:raw:test"),
            },
            (Fields(steps="rationale", answer="correct"), Fields()),
            folders=("aqua", "AQuA-master"),
        ),
        Task(
            "du",
            "choice",
            {"test": ("test.jsonl", "date_understanding_gsm_style.json")},
            missing="BIG-bench's date understanding is for evaluation only, its file asks never to be trained on; "
            "python data_loader.py --task du --from task.json --to data/du makes test.jsonl",
        ),
        Task(
            "arithmetic",
            "number",
            {"train": ("train.jsonl",), "dev": ("dev.jsonl",), "test": ("test.jsonl",)},
            missing="python toy/build.py --data makes it",
        ),
    )
}


def get_task(name: str) -> Task:
    """A task of the table; InputError for another name."""
    if name not in TASKS:
        raise InputError(
            f"--task_name {name}: no such task; there are {', '.join(TASKS)}; a task of your own takes "
            "--answer_type and --train_file or --test_file"
        )
    return TASKS[name]


def own_task(name: str, answer_type: str, files: dict[str, str], fields: dict[str, str]) -> Task:
    """A task of the user's own, from flags: `files` by split, local paths or "hub:owner/name[:config[:split]]".

    Raises InputError where it cannot be one.
    """
    if name in TASKS:
        raise InputError(
            f"--task_name {name}: a task of this project; --answer_type, files and fields are for one of your own, "
            "under another name"
        )
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"--task_name {name}: letters, digits, '.', '_' and '-' only")
    if answer_type not in ANSWER_TYPES:
        raise InputError(f"--answer_type {answer_type}: one of {', '.join(ANSWER_TYPES)}")
    sources = {}
    for split, file in files.items():
        if file.startswith("hub:"):
            if not re.fullmatch(r"hub:[^:\s]+(:[^:\s]*){0,2}", file):
                raise InputError(f"--{split}_file {file}: hub:owner/name[:config[:split]]")
            there, config, split_there = (*file.split(":")[1:], "", "")[:3]
            file = f"hub:{there}:{config}:{split_there or OWN_HUB_SPLITS[split]}"
        sources[split] = (file,)
    return Task(name, answer_type, sources, (Fields(**fields),))


# ---------------------------------------------------------------------------------------------------------------------
# Rows


@dataclass(frozen=True)
class Split:
    """The examples of one split, and what a report says of them: the source, how many rows it had, how many were bad,
    and a warning ("" for none)."""

    examples: list[Example]
    source: str
    read: int
    bad: int
    warning: str = ""


def load_split(task: Task, split: str, data_dir: str, skip_bad_rows: bool = False) -> Split:
    """Examples of one split of a task, from its files, else from the hub (`sample`: from this repository).

    Raises InputError for an unknown split, for data that is nowhere to be found, and for a bad row (file:line and the
    reason), unless `skip_bad_rows` leaves such rows out and counts them.
    """
    if split not in SPLITS:
        raise InputError(f"--split {split}: no such split; there are {', '.join(SPLITS)}")
    if split == "sample" and task.name not in TASKS:
        raise InputError(f"--split sample: only this project's tasks have a sample, {task.name} has none")
    if split == "sample":
        path = ROOT / "data" / task.name / "sample.jsonl"
        return _parse_rows(task, str(path), read_rows(str(path)), skip_bad_rows)
    if split in task.sources or split == "test":
        whole = _load_source(task, split, data_dir, skip_bad_rows)
        return _dev_share(whole, train_rows=True) if split == "train" and "dev" not in task.sources else whole
    return _dev_share(_load_source(task, "train", data_dir, skip_bad_rows), train_rows=False)


def _load_source(task: Task, split: str, data_dir: str, skip_bad_rows: bool) -> Split:
    source = find_source(task, split, data_dir)
    try:
        rows = read_rows(source)
    except InputError as error:
        if task.name not in TASKS:
            raise InputError(f"--{split}_file {error}") from None
        if not source.startswith("hub:"):
            raise
        folder, names = Path(data_dir) / task.name, " or ".join(task.sources[split][:-1])
        raise InputError(
            f"{folder}: no {names} there, and {error}; put {names} into {folder}, or point --data_dir to a folder that "
            f"has {task.name}/{task.sources[split][0]}"
        ) from None
    return _parse_rows(task, source, rows, skip_bad_rows)


def _dev_share(whole: Split, train_rows: bool) -> Split:
    examples = whole.examples
    held_out = set(random.Random(DEV_SEED).sample(range(len(examples)), max(1, round(DEV_SHARE * len(examples)))))
    kept = [example for i, example in enumerate(examples) if (i in held_out) != train_rows]
    return dataclasses.replace(whole, examples=kept)


def find_source(task: Task, split: str, data_dir: str) -> str:
    """The path or "hub:..." that a split is read from. InputError where it has none."""
    own = task.name not in TASKS
    if split not in task.sources:
        reason = f"--{split}_file names its file" if own else task.missing
        raise InputError(f"--task_name {task.name}: no {split} split ({reason})")
    if own:
        return task.sources[split][0]
    *names, last = task.sources[split]
    names += [] if last.startswith("hub:") else [last]
    folders = [Path(data_dir) / folder for folder in task.folders or (task.name,)]
    for path in (folder / name for folder in folders for name in names):
        if path.is_file():
            return str(path)
    if last.startswith("hub:"):
        return last
    raise InputError(f"{folders[0]}: no {' or '.join(names)} there ({task.missing}); --data_dir looks elsewhere")


def read_rows(source: str) -> Iterable[tuple[str, bytes | dict]]:
    """(place, row) of a source: jsonl (lines, unparsed), json (a list, or lines), csv, parquet, or the hub.

    Raises InputError where it cannot be read.
    """
    path, kind = Path(source), Path(source).suffix.lower()
    if source.startswith("hub:"):
        name, config, split = source.split(":")[1:]
        arguments, kwargs = (name, config or None), {"split": split}
    elif not path.is_file():
        raise InputError(f"{path}: no such file")
    elif kind in (".jsonl", ".json"):
        return _read_json_rows(path)
    elif kind == ".csv":
        return _read_csv_rows(path)
    elif kind == ".parquet":
        arguments, kwargs = ("parquet",), {"data_files": str(path), "split": "train"}
    else:
        raise InputError(f"{path}: rows are read from .jsonl, .json, .csv and .parquet files")
    try:
        import datasets  # imported here: machines that only read JSON files need not have it

        rows = datasets.load_dataset(*arguments, **kwargs)
    except Exception as error:  # the hub's clients raise errors of several unrelated libraries
        reason = str(error.__cause__ or error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{source}: cannot be loaded ({reason})") from None
    return ((f"{source}: row {number}", row) for number, row in enumerate(rows, 1))


def _read_json_rows(path: Path) -> Iterable[tuple[str, bytes | dict]]:
    # bytes: a line that is not UTF-8 is a bad row, not the end of the file
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not content.lstrip().startswith(b"["):
        return ((f"{path}:{number}", line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip())
    try:
        return ((f"{path}: row {number}", row) for number, row in enumerate(json.loads(content), 1))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON list ({error})") from None


def _read_csv_rows(path: Path) -> Iterable[tuple[str, dict]]:
    """All cells as they are written: `datasets` makes a number of "007" and nothing of "NA"."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                yield f"{path}:{reader.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}:{reader.line_num}: not csv ({error})") from None


def _parse_rows(task: Task, source: str, rows: Iterable[tuple[str, bytes | dict]], skip_bad_rows: bool) -> Split:
    examples, read, bad = [], 0, 0
    for place, row in rows:
        read += 1
        try:
            parsed = parse_row(task, row)
        except ValueError as error:
            if not skip_bad_rows:
                raise InputError(f"{place}: {error}; mend the row, or leave such rows out: --skip_bad_rows") from None
            bad += 1
            continue
        examples.append(Example(read - 1, *parsed))
    if not examples:
        raise InputError(f"{source}: no usable row")
    return Split(examples, source, read, bad, _skew(task, source, examples))


def _skew(task: Task, source: str, examples: list[Example]) -> str:
    if task.answer_type != "choice":
        return ""
    [(letter, count)] = Counter(example.answer for example in examples).most_common(1)
    if len(examples) < 20 or count < SKEWED * len(examples):
        return ""
    return f"{source}: {count} of {len(examples)} golds are option {letter}: always {letter} would look good here"


def parse_row(task: Task, row: bytes | dict) -> tuple[str, tuple[str, ...], str, tuple[str, ...]]:
    """A row -> (question with its options, steps, gold answer, options); ValueError says what is wrong with it."""
    if isinstance(row, bytes):
        try:
            row = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    fields = next((fields for fields in task.fields if fields.answer in row), task.fields[-1])
    question, final = _text(row, fields.question).strip(), _text(row, fields.answer)
    labels, options = read_options(row.get(fields.options)) if task.answer_type == "choice" else ((), ())
    if fields.steps is None:
        steps, final = _split_solution(final, task)
    else:
        steps, final = _steps(row, fields.steps, task.separator), final.rpartition("####")[2]
    if final.strip() in labels:
        final = LETTERS[labels.index(final.strip())]
    question = with_options(question, options)
    if not is_text("".join([question, *steps, final])):
        raise ValueError("half a character (a lone surrogate)")
    return question, tuple(steps), gold_answer(final, task.answer_type, options), options


def with_options(question: str, options: tuple[str, ...]) -> str:
    """A choice question as it is asked, its options lettered behind it."""
    if not options:
        return question
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, "", "Options:", *lines])


def is_text(text: str) -> bool:
    """Whether a text has no half of a character (a lone surrogate)."""
    return not re.search("[\ud800-\udfff]", text)


def _text(row: dict, field: str) -> str:
    value = row.get(field)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, int | float) and value == value:  # not nan: an empty cell of a table
        value = format(Decimal(repr(value)), "f")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'field "{field}" is missing or not a text')
    return value


def _steps(row: dict, field: str, separator: str) -> list[str]:
    """Written steps; none where the row does not have the field: evaluation needs none."""
    value = row.get(field) or ""
    if isinstance(value, str):
        value = re.split(r"\n\s*\n" if separator == "\n\n" else "\n", value)
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise ValueError(f'field "{field}" is neither a text nor a list of texts')
    return [step.strip() for step in value if step.strip()]


def _split_solution(answer: str, task: Task) -> tuple[list[str], str]:
    """GSM-style "step\\nstep\\n#### answer" -> (steps, answer); the answer alone is one too.

    `<<16-3=13>>` and ` ** ` (socratic sub-question ** step) are mark-up; a line of mark-up alone keeps its inside.
    """
    solution, mark, final = answer.rpartition("####")
    if not mark and "\n" in answer.strip():
        raise ValueError(f'no final answer: no line "#### <{task.answer_type}>"')
    if not final.strip():
        raise ValueError("no final answer: nothing after ####")
    steps = _steps({"steps": solution}, "steps", task.separator)
    if task.answer_type == "number":
        bare = [re.fullmatch(r"<<(.*)>>", step) for step in steps]
        steps = [
            alone[1].strip() if alone else re.sub(r"\s\*\*(?:\s|$)", " ", re.sub(r"<<.*?>>", "", step)).strip()
            for step, alone in zip(steps, bare, strict=True)
        ]
    return [step for step in steps if step], final


def read_options(value) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(labels that the row itself gives, texts without letters) of the options; none where the row has no such field.

    A list of texts, {"A": text, ...}, or {"label": [...], "text": [...]} as several hub tasks have it.
    ValueError says what is wrong with them.
    """
    labels = ()
    if isinstance(value, str) and value.lstrip().startswith("["):  # a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the options are not a JSON list ({error})") from None
    if isinstance(value, dict) and {"label", "text"} <= value.keys():
        labels, value = value["label"], value["text"]
    elif isinstance(value, dict):
        labels, value = list(value), list(value.values())
    if value is None or value == "":
        return (), ()
    if not isinstance(value, list) or not all(isinstance(option, str | int | float) for option in value):
        raise ValueError("the options are not a list of texts")
    if labels and (not isinstance(labels, list) or len(labels) != len(value)):
        raise ValueError("the options' labels are not a list as long as their texts")
    if not 2 <= len(value) <= len(LETTERS):
        raise ValueError(f"{len(value)} options: from 2 to {len(LETTERS)} are supported")
    texts = [str(option).strip() for option in value]
    lettered = [
        re.match(rf"(?:\(?{letter}\s*[).:]\s*)+", text, re.I) for letter, text in zip(LETTERS, texts, strict=False)
    ]
    if all(lettered):
        texts = [text[match.end() :] for text, match in zip(texts, lettered, strict=True)]
    if not all(texts):
        raise ValueError("an option is empty")
    return tuple(map(str, labels or ())), tuple(texts)


def gold_answer(text: str, answer_type: str, options: tuple[str, ...] = ()) -> str:
    """The canonical gold answer that a row's answer says; ValueError where it says none."""
    if answer_type == "boolean":
        text = {"0": "no", "1": "yes"}.get(text.strip(), text)  # as tables say it
    if answer_type == "latex":  # MATH has some of each
        text = re.sub(r"\\boxed\s*([^\s{])", r"\\boxed{\1}", text.replace("\\fbox", "\\boxed"))
    boxed = text if "\\boxed" in text else f"\\boxed{{{text.strip()}}}"
    if answer_type == "number" and boxed is not text:
        plain = text
        for pattern, spelling in PLAIN_SPELLINGS:
            plain = pattern.sub(spelling, plain)
        if len(NUMBER.findall(plain)) > 1:
            raise ValueError(f'no final answer: "{_last_line(text)}" is more than one number')
    answer = extract_answer(boxed, answer_type, options)
    if answer is None:
        raise ValueError(f'no final answer: "{_last_line(text)}" is not a {answer_type} answer')
    return answer


def _last_line(text: str) -> str:
    return text.strip().split("\n")[-1][:60]


def write_text(path: Path, text: str) -> None:
    """The whole file or, when killed, none of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    from lta_thinker import convert  # imported here: it imports this module

    convert.main(sys.argv[1:])
