"""The broad world: its rows are right by another reading of their text, balanced, and in one split only."""

import random
import re
from collections import Counter

import pytest

from lta_thinker.data_loader import load_split
from lta_thinker.rows.examples import parse_row
from toy import broad, build_broad

UP = {"older": "younger", "taller": "shorter", "faster": "slower"}


def read_numbers(text):
    """{(name, thing): number}: plain sentences first, what happens in order, then numbers told by others'."""
    numbers, exam = {}, r"(?P<a>\w+)'s exam is (?:on May |in )?(?P<n>\d+)( days)?\."
    for a, n, thing in re.findall(r"(\w+) has (\d+) (\w+)\.", text):
        numbers[a, thing] = int(n)
    numbers |= {(a, ""): int(n) for a, n in re.findall(r"(\w+) is (\d+) years old\.", text)}
    numbers |= {(m["a"], ""): int(m["n"]) for m in re.finditer(exam, text)}
    for m in re.finditer(r"Then the (\w+) of (\w+) double|(\w+) (finds|gives|buys|had) (\d+) (.*?)\.", text):
        thing, owner, name, verb, n, rest = m.groups()
        if thing:
            numbers[owner, thing] *= 2
        elif verb == "had":
            thing, change, m = re.fullmatch(r"(\w+) and (got|lost) (\d+)", rest).groups()
            numbers[name, thing] = int(n) + int(m) * (1 if change == "got" else -1)
        elif bags := re.fullmatch(r"bags of (\d+) (\w+)", rest):
            numbers[name, bags[2]] += int(n) * int(bags[1])
        elif " and " not in rest and (name, rest.split()[0]) in numbers:
            numbers[name, rest.split()[0]] += int(n) * (1 if verb == "finds" else -1)
    for name, n, size, thing in re.findall(r"(\w+) has (\d+) bags of (\d+) (\w+)", text):
        numbers[name, thing] = int(n) * int(size)
    links = re.findall(
        r"(\w+)(?:'s exam)? (?:has|is) (\d+) (?:years |days )?(more|fewer|times|older|younger|after|before)\b"
        r"(?: as many)? ?([a-z]*) ?(?:than|as)? ?([A-Z]\w+)",
        text,
    )
    for _ in links:
        for name, n, how, thing, base in links:
            thing = thing if how in ("more", "fewer", "times") else ""
            if (base, thing) in numbers:
                other, n = numbers[base, thing], int(n)
                later = how in ("more", "older", "after")
                numbers[name, thing] = other * n if how == "times" else other + (n if later else -n)
    return numbers


def answer(question):
    """The answer by a reading of the text that shares nothing with the generators."""
    text, asked = re.fullmatch(r"(.*\.) (.*\?)", question).groups()
    numbers = read_numbers(text)
    names = re.findall("|".join(broad.NAMES), asked)
    thing = next(iter(set(asked[:-1].split()) & set(broad.ITEMS)), "")
    ages = [numbers.get((name, thing)) for name in names]
    if than := re.findall(r"(\w+) is (\w+) than (\w+)\.", text):
        below = {a: b for a, word, b in than if word in UP} | {b: a for a, word, b in than if word not in UP}
        line = list(set(below) - set(below.values()))
        while line[-1] in below:
            line.append(below[line[-1]])
        if asked.startswith("Who"):
            return line[["second", "third"].index(asked.split()[3]) + 1]
        return (line.index(names[0]) < line.index(names[1])) == any(f" {word} " in asked for word in UP)
    if asked.startswith("How many dollars"):
        cost = {thing.lower(): int(n) for thing, n in re.findall(r"(\w+) cost (\d+)", text)}
        m, one, n, two = re.search(rf"{names[0]} buys (\d+) (\w+) and (\d+) (\w+)", text).groups()
        paid = int(m) * cost[one] + int(n) * cost[two]
        return paid if "pay" in asked else numbers[names[0], "dollars"] - paid
    if asked.startswith("How many hours"):
        work = re.search(rf"{names[0]} works from (\d+) to (\d+) with (\d+) hours of rest, on (\d+) days", text)
        start, end, rest, days = map(int, work.groups())
        return (end - start - rest) * days
    if asked.startswith("Who has"):
        pick = max if "most" in asked else min
        return pick((n, name) for (name, its), n in numbers.items() if its == thing)[1]
    if day := re.match(r"Today is (\w+)\.", text):
        return broad.WEEK[(broad.WEEK.index(day[1]) + ages[0]) % 7]
    if "even?" in asked:
        return ages[0] % 2 == 0
    if bound := re.search(r"more than (\d+)", asked):
        return ages[0] > int(bound[1])
    if "together have more" in asked:
        return ages[0] + ages[1] > ages[2]
    if "before" in asked or "after" in asked:
        return ages[0] < ages[1] if "before" in asked else ages[0] > ages[1]
    return sum(ages) if "together" in asked else ages[0] - sum(ages[1:])


def gold(row):
    if "correct" in row:
        return row["options"]["ABCDE".index(row["correct"])][2:]
    return row["answer"] if "facts" in row else row["answer"].rpartition("#### ")[2]


@pytest.mark.parametrize("family", broad.FAMILIES)
def test_broad_answers_and_calculations_are_right(family):
    """Answers and written calculations of the broad world are right, by a reader of the text that shares nothing with
    the generators."""
    for row in broad.rows(family, "train", 400, 5):
        assert str(answer(row["question"])) == str(gold(row)), row
        steps = (
            "\n".join(row.get("facts", [])) + row.get("rationale", "") + str(row["answer"] if "answer" in row else "")
        )
        for a, sign, b, result in re.findall(r"(\d+)([-+*])(\d+)=(\d+)", steps):
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(result) <= 99
        for a, sign, b in re.findall(r"(\d+)([<>])(\d+)", steps):
            assert (int(a) > int(b)) == (sign == ">") and a != b


def test_broad_splits_share_no_problem():
    """No problem of one split is in another split, in any family."""
    rng, seen = random.Random(0), {}
    for family in broad.FAMILIES:
        for split in broad.SPLITS:
            for _ in range(75):
                key, _ = broad.draw_row(rng, family, split)
                assert seen.setdefault(repr(key), split) == split


def test_broad_answers_are_balanced(tmp_path, monkeypatch):
    """The written files are read as tasks of a user's own, and their answers are so balanced that guessing gains
    nothing."""
    monkeypatch.setattr(build_broad, "ROWS", {"train": 5, "dev": 5, "test": 500})
    build_broad.write_data(tmp_path)
    tests = {
        family: load_split(build_broad.task_of(family, tmp_path), "test", "").examples for family in broad.FAMILIES
    }
    assert all(len(examples) == 500 and all(len(e.steps) >= 2 for e in examples) for examples in tests.values())
    counts = {family: Counter(example.answer for example in examples) for family, examples in tests.items()}
    assert 220 <= counts["boolean"]["yes"] <= 280 and set(counts["boolean"]) == {"yes", "no"}
    assert all(65 <= counts["choice"][letter] <= 135 for letter in "ABCDE")
    assert max(counts["number"].values()) <= 40
    numeric = [e for e in tests["choice"] if e.options[0].isdigit()]
    ranks = Counter(sorted(e.options, key=int).index(e.options["ABCDE".index(e.answer)]) for e in numeric)
    assert all(0.1 <= ranks[rank] / len(numeric) <= 0.3 for rank in range(5))


def test_broad_seed_makes_same_rows():
    """A seed makes the same rows again, and no problem twice. Another seed makes other rows."""
    rows = broad.rows("choice", "dev", 100, 41)
    assert rows == broad.rows("choice", "dev", 100, 41) != broad.rows("choice", "dev", 100, 42)
    assert len({row["question"] for row in rows}) == 100


def test_pretraining_text_ends_in_written_answer():
    """A text of the pretraining has the question as the task reads it, and its solution is the written facts and the
    boxed answer."""
    rng, task = random.Random(2), build_broad.task_of("boolean", build_broad.ROOT)
    _, row = broad.draw_row(random.Random(2), "boolean", "train")
    question, solution = build_broad.draw_solved(rng, "boolean")
    assert question == parse_row(task, row)[0]
    assert solution.split("\n") == [*row["facts"], f"The answer is \\boxed{{{'yes' if row['answer'] else 'no'}}}."]
