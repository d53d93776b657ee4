"""How well answers are read out of texts: right, wrong and none, for each source and type.

    python benchmarks/answers.py --shared ../shared
    python benchmarks/answers.py --shared ../shared --against COMMIT --show 5   # the code of a commit before this one's
    python benchmarks/answers.py --golds math-500-test.jsonl                    # more LaTeX golds: rows with `answer`

wrong    an answer other than the expected one, or any answer where none is expected: the figure that counts
none     no answer where one is expected

cases              texts as models write them; "policy": what is expected is a matter of policy
own cases          the same, of answers.jsonl: by one who had not read the rules (a third after seeing what they miss)
gsm8k              written solutions: whole; without their #### line; cut off in the middle, which say no answer
aqua, du           rationales; the label, or the text of the right option, behind "Answer:" and the like
strategyqa, asdiv  facts or formula, and then the label; facts alone, which say no answer
golds              LaTeX golds (of the cases, of data/math/sample.jsonl, of --golds) in each of FRAMES
unlike golds       pairs of them: right where the two are kept apart

Texts and expected answers come from the files alone. The code under test reads the answers, and the expected ones as an
evaluation does, in a process of its own (`--read FOLDER`: rows on stdin, verdicts on stdout).
"""

import argparse
import inspect
import itertools
import json
import random
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRAMES = ("Answer: {}", "**Answer:** {}", "The answer is {}.", "Final Answer: ${}$", "\\boxed{{{}}}")
PLAIN_FRAMES = FRAMES[:3]  # of what is no LaTeX
MOST_PAIRS, SEED = 3000, 41  # unlike pairs; of more that many are drawn
WIDTH = 100  # of a printed text's end


@dataclass(frozen=True)
class Row:
    """One text and what it says.

    expected: None where it says no answer; options: of a choice question; finished: whether the text was written to its
    end; unlike: text and expected are two golds that must be kept apart.
    """

    source: str
    answer_type: str
    text: str
    expected: str | None
    options: tuple[str, ...] = ()
    finished: bool = True
    unlike: bool = False


# ---------------------------------------------------------------------------------------------------------------------
# Sources: a file -> rows


def json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def read_cases(path: Path) -> Iterator[Row]:
    """cases.jsonl: text, answer_type, expected, perhaps options and policy."""
    for case in json_lines(path):
        source = "cases, policy" if case.get("policy") else "cases"
        yield Row(source, case["answer_type"], case["text"], case["expected"], tuple(case.get("options", ())))


def read_own_cases(path: Path) -> Iterator[Row]:
    """answers.jsonl beside this file: written for this project by one who had not read the rules. Besides what
    read_cases reads, `finished` false, and in place of `expected` an `unequal_to`: a formula that it must not equal."""
    for case in json_lines(path):
        source = "own cases, policy" if case.get("policy") else "own cases"
        kind, options, finished = case["answer_type"], tuple(case.get("options", ())), case.get("finished", True)
        if "unequal_to" in case:
            yield Row("own cases, unlike", kind, case["text"], case["unequal_to"], unlike=True)
        else:
            yield Row(source, kind, case["text"], case["expected"], options, finished)


def read_gsm8k(path: Path) -> Iterator[Row]:
    """Solutions that end in "#### label"."""
    for row in json_lines(path):
        solution, _, label = row["answer"].rpartition("####")
        label, unmarked = label.strip(), re.sub(r"<<.*?>>", "", solution).strip()
        yield Row("gsm8k", "number", row["answer"], label)
        yield Row("gsm8k, no ####", "number", unmarked, label)
        yield Row("gsm8k, cut off", "number", unmarked[: len(unmarked) // 2], None, finished=False)


def read_strategyqa(path: Path) -> Iterator[Row]:
    """Facts, which say no answer, and a label."""
    for number, row in enumerate(json_lines(path)):
        label = "yes" if row["answer"] else "no"
        yield Row("strategyqa", "boolean", f"{row['facts']}\n{plainly(number, label)}", label)
        yield Row("strategyqa, facts alone", "boolean", row["facts"], None)


def read_aqua(path: Path) -> Iterator[Row]:
    """Rationales, which mostly end in the letter, and the right option."""
    for number, row in enumerate(json_lines(path)):
        letter, options = row["correct"], tuple(option[2:].strip() for option in row["options"])
        yield Row("aqua", "choice", row["rationale"], letter, options)
        right = options["ABCDE".index(letter)]
        if options.count(right) == 1:
            yield Row("aqua, option's text", "choice", plainly(number, right), letter, options)


def read_du(path: Path) -> Iterator[Row]:
    """Options with a score each: 1 for the right one."""
    for number, example in enumerate(json.loads(path.read_text(encoding="utf-8"))["examples"]):
        options = tuple(example["target_scores"])
        right = max(options, key=lambda option: example["target_scores"][option])
        letter = "ABCDEF"[options.index(right)]
        yield Row("du, letter", "choice", plainly(number, f"({letter})"), letter, options)
        yield Row("du, option's text", "choice", plainly(number, right), letter, options)


def read_asdiv(path: Path) -> Iterator[Row]:
    """Formulas, and labels that are one number with a unit in brackets."""
    for number, problem in enumerate(ElementTree.parse(path).iter("Problem")):
        label, formula = problem.findtext("Answer", "").strip(), problem.findtext("Formula", "")
        if found := re.fullmatch(r"(\d[\d,]*(?:\.\d+)?)(?: ?\([^()\d]*\))?", label):
            yield Row("asdiv", "number", f"{formula}\n{plainly(number, label)}", found[1])


def plainly(number: int, label: str) -> str:
    """The label in one of PLAIN_FRAMES, each in its turn."""
    return PLAIN_FRAMES[number % len(PLAIN_FRAMES)].format(label)


SOURCES: dict[str, Callable[[Path], Iterator[Row]]] = {
    "answers/cases.jsonl": read_cases,
    "data/gsm8k/train.jsonl": read_gsm8k,
    "data/gsm8k/test.jsonl": read_gsm8k,
    "data/gsm8k/test_socratic.jsonl": read_gsm8k,
    "data/strategyqa/strategyqa_train.jsonl": read_strategyqa,
    "data/strategyqa/strategyqa_dev.jsonl": read_strategyqa,
    "data/aqua/dev.json": read_aqua,
    "data/aqua/test.json": read_aqua,
    "data/du/task.json": read_du,
    "data/asdiv/ASDiv.xml": read_asdiv,
}


def read_sources(shared: Path, golds: Sequence[str], own: Path) -> list[Row]:
    """The rows of all sources, of the file of `own` cases too. What is not there is named and left out."""
    rows: list[Row] = []
    files = {shared / name: read for name, read in SOURCES.items()} | {own: read_own_cases}
    for path, read in files.items():
        if path.is_file():
            rows += read(path)
        else:
            print(f"note: {path} is not there, and is left out")
    cases = [row for row in rows if row.source.startswith("cases") and row.answer_type == "latex"]
    return [*rows, *gold_rows(sorted({row.expected for row in cases if row.expected is not None} | {*golds}))]


# ---------------------------------------------------------------------------------------------------------------------
# LaTeX golds


def gold_rows(golds: Sequence[str]) -> Iterator[Row]:
    """Each gold in each frame, and pairs of golds."""
    for frame in FRAMES:
        source = f"golds, {frame.format('X')}"
        yield from (Row(source, "latex", frame.format(gold), gold) for gold in golds)
    pairs = [(a, b) for a, b in itertools.combinations(golds, 2) if plain_value(a) != plain_value(b)]
    drawn = random.Random(SEED).sample(pairs, min(MOST_PAIRS, len(pairs)))
    yield from (Row("unlike golds", "latex", a, b, unlike=True) for a, b in drawn)


def plain_value(gold: str) -> str | Fraction:
    """What makes two golds alike without any mathematics: spaces, commas of thousands, a name before "=", and how
    fractions and decimals are written."""
    text = re.sub(r"^[A-Za-z]=", "", re.sub(r"\s|(?<=\d),(?=\d{3}\b)|\\\$|\\left|\\right", "", gold))
    fraction = re.fullmatch(r"(-?)\\[dt]?frac(?:\{(\d+)\}|(\d))(?:\{(\d+)\}|(\d))", text)
    if fraction:
        sign, *digits = fraction.groups()
        above, below = filter(None, digits)
        return Fraction(int(sign + above), int(below))
    return Fraction(text) if re.fullmatch(r"-?\d*\.?\d+", text) else text


# ---------------------------------------------------------------------------------------------------------------------
# Verdicts


def judge(rows: Iterable[Row]) -> list[tuple[str | None, str]]:
    """Of each row the answer that the code under test reads, and "right", "wrong" or "none"."""
    from lta_thinker.answers import answers_equal, extract_answer
    from lta_thinker.rows.examples import gold_answer

    knows_ends = "finished" in inspect.signature(extract_answer).parameters  # commits before it do not

    def gold(text: str, row: Row) -> str | None:
        try:
            return gold_answer(text, row.answer_type, row.options)
        except ValueError:  # the code reads no answer in it
            return None

    def verdict(row: Row) -> tuple[str | None, str]:
        if row.unlike:
            answer = gold(row.text, row)
        else:
            end = {"finished": row.finished} if knows_ends else {}
            answer = extract_answer(row.text, row.answer_type, row.options, **end)
        if row.expected is None:
            return answer, "right" if answer is None else "wrong"
        if answer is None:
            return None, "none"
        equal = answers_equal(answer, gold(row.expected, row), row.answer_type)
        return answer, "right" if equal != row.unlike else "wrong"

    return [verdict(row) for row in rows]


def judge_with(code: Path, rows: Sequence[Row]) -> list[tuple[str | None, str]]:
    """`judge` with the package in another folder, in a process of its own."""
    command = [sys.executable, __file__, "--read", str(code)]
    sent = json.dumps([asdict(row) for row in rows])
    done = subprocess.run(command, input=sent, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    if done.returncode:
        sys.exit(f"error: the code in {code} has failed, see above")
    return [(answer, verdict) for answer, verdict in json.loads(done.stdout)]


def answer_rows(code: str) -> None:
    """--read: what judge_with starts."""
    sys.path.insert(0, code)
    rows = [Row(**values | {"options": tuple(values["options"])}) for values in json.load(sys.stdin)]
    print(json.dumps(judge(rows)))


def export(commit: str, folder: Path) -> None:
    """The package of a commit into a folder. Ends with one line where git has no such commit."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "lta_thinker"], capture_output=True)
    if archive.returncode:
        sys.exit(f"error: --against {commit}: {archive.stderr.decode().strip().splitlines()[-1]}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


# ---------------------------------------------------------------------------------------------------------------------
# The table


def figures(verdicts: Iterable[str]) -> str:
    """The cells of a side: % right, wrong, none."""
    counts = Counter(verdicts)
    return f"{100 * counts['right'] / counts.total():7.2f} {counts['wrong']:6d} {counts['none']:6d}"


def print_table(rows: Sequence[Row], sides: dict[str, list[tuple[str | None, str]]]) -> None:
    """A line for each source and type, and for all types of a source that has several."""
    lines: dict[tuple[str, str], list[int]] = {}
    for source in dict.fromkeys(row.source for row in rows):
        of_source = [i for i, row in enumerate(rows) if row.source == source]
        types = sorted({rows[i].answer_type for i in of_source})
        for name in types:
            lines[source, name] = [i for i in of_source if rows[i].answer_type == name]
        if len(types) > 1:
            lines[source, "all"] = of_source
    print(f"{'':43s}" + "".join(f" | {side:21.21s}" for side in sides))
    print(f"{'source':28s} {'type':8s}{'rows':>6s}" + len(sides) * f" | {'% right':>7s} {'wrong':>6s} {'none':>6s}")
    for (source, name), places in lines.items():
        cells = [figures(verdicts[i][1] for i in places) for verdicts in sides.values()]
        print(f"{source:28s} {name:8s}{len(places):6d}" + "".join(f" | {cell}" for cell in cells))


def print_wrong(rows: Sequence[Row], verdicts: Sequence[tuple[str | None, str]], most: int) -> None:
    """--show: of each source up to `most` rows that are not right, wrong ones before those without an answer."""
    for source in dict.fromkeys(row.source for row in rows):
        found = [(row, *of) for row, of in zip(rows, verdicts, strict=True) if row.source == source]
        wrong, without = ([one for one in found if one[2] == verdict] for verdict in ("wrong", "none"))
        for row, answer, verdict in [*wrong, *without][:most]:
            print(f"\n{source}: {verdict}: {answer!r}, expected {row.expected!r} ({row.answer_type})")
            print(f"  {json.dumps(row.text[-WIDTH:], ensure_ascii=False)}")


def read_arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with answers/ and data/")
    parser.add_argument("--own", type=Path, default=Path(__file__).with_suffix(".jsonl"), help="own cases")
    parser.add_argument("--golds", type=Path, nargs="*", default=[], help="jsonl files of rows with a LaTeX `answer`")
    parser.add_argument("--against", metavar="COMMIT", help="also the code of this commit, side by side")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N wrong rows of each source")
    parser.add_argument("--read", metavar="FOLDER", help="only judge the rows on stdin with the package in FOLDER")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    args = read_arguments(argv)
    if args.read:
        answer_rows(args.read)
        return
    if absent := [path for path in args.golds if not path.is_file()]:
        sys.exit(f"error: --golds {absent[0]}: no such file")
    files = [ROOT / "data" / "math" / "sample.jsonl", *args.golds]
    rows = read_sources(args.shared, [row["answer"] for path in files for row in json_lines(path)], args.own)
    sides = {}
    if args.against:
        with tempfile.TemporaryDirectory() as folder:
            export(args.against, Path(folder))
            sides[f"before: {args.against}"] = judge_with(Path(folder), rows)
    after = sides["after" if args.against else "now"] = judge_with(ROOT, rows)
    print_table(rows, sides)
    print_wrong(rows, after, args.show)


if __name__ == "__main__":
    main(sys.argv[1:])
