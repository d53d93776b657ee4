"""The broad world: short word problems of three answer types, made from a seed, in which nothing but difficulty hurts.

    python toy/broad.py --family boolean --seed 1 --rows 3        # print a few rows

    number    stories, comparisons, prices, working hours, dates in May; the answer is a number of 0..99
    boolean   orderings with hops, dates, sums compared, odd and even, more than a number; half of them are true
    choice    most and fewest, ranks, weekdays, and the problems of `number`; five options, the right one anywhere

Mostly two to four steps lead to an answer. Sentences stand in any order where that is possible, and most problems have
numbers, people or things that are not asked for. Rows are written as GSM8K's, StrategyQA's and AQuA's.
A problem's split is a hash of its calculations (of who stands next to whom in an ordering): no calculation of one split
is the whole of a problem in another, in whatever words, names, order or family.
"""

import argparse
import hashlib
import itertools
import json
import random
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from toy.world import ITEMS, NAMES  # noqa: E402

SPLITS = {"test": range(0, 15), "dev": range(15, 20), "train": range(20, 100)}  # of 100 hash values
WEEK = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ORDERS = [("older", "younger", "oldest"), ("taller", "shorter", "tallest"), ("faster", "slower", "fastest")]
EXAMS = {"+": "{b}'s exam is {n} days after {a}'s.", "-": "{b}'s exam is {n} days before {a}'s."}
TREES = {  # largest number, how the first person's is told, how another's from it
    "date": (31, "{a}'s exam is on May {n}.", EXAMS),
    "days": (31, "{a}'s exam is in {n} days.", EXAMS),
    "age": (
        99,
        "{a} is {n} years old.",
        {"+": "{b} is {n} years older than {a}.", "-": "{b} is {n} years younger than {a}."},
    ),
    "count": (
        99,
        "{a} has {n} {items}.",
        {
            "+": "{b} has {n} more {items} than {a}.",
            "-": "{b} has {n} fewer {items} than {a}.",
            "*": "{b} has {n} times as many {items} as {a}.",
        },
    ),
}


class Unfit(Exception):
    """What was drawn is no problem of this world: draw again."""


def calculate(steps, who, a, sign, b, largest=99):
    """The result, which is written as a step; all results stay in 0..largest."""
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    if not 0 <= result <= largest:
        raise Unfit
    steps.append(f"{who}: {a}{sign}{b}={result}")
    return result


def is_more(steps, a, b):
    """Whether a > b, which is written as a step."""
    if a == b:
        raise Unfit
    steps.append(f"{a}{'>' if a > b else '<'}{b}")
    return a > b


def tell(rng, steps):
    """(sentences, name, items, count at the end) of a story of one person's count, often with something beside it."""
    (name, other), (items, things) = rng.sample(NAMES, 2), rng.sample(ITEMS, 2)
    count = rng.randint(5, 40)
    told = [f"{name} has {count} {items}."]
    for move in rng.sample("+-b*", rng.choice((2, 2, 3))):
        n, size = 2 if move == "*" else rng.randint(2, 20 if move in "+-" else 6), rng.randint(2, 9)
        told.append(
            {
                "+": f"{name} finds {n} {items}.",
                "-": f"{name} gives {n} {items} to {other}.",
                "b": f"{name} buys {n} bags of {size} {items}.",
                "*": f"Then the {items} of {name} double.",
            }[move]
        )
        n = calculate(steps, "bags", n, "*", size) if move == "b" else n
        count = calculate(steps, name, count, move.replace("b", "+"), n)
    if rng.random() < 0.7:
        owner, owned = rng.choice(((other, items), (name, things)))
        told.insert(rng.randrange(len(told)), f"{owner} has {rng.randint(2, 40)} {owned}.")
    return told, name, items, count


def tree(rng, kind, size):
    """(sentences in any order, people, items, (steps, person) -> the person's number) of numbers told by others'."""
    largest, first_told, links = TREES[kind]
    people, items, links_of = rng.sample(NAMES, size), rng.choice(ITEMS), {}
    numbers = {people[0]: rng.randint(1, min(40, largest))}
    told = [first_told.format(a=people[0], n=numbers[people[0]], items=items)]
    for i, person in enumerate(people[1:], 1):
        base, sign = rng.choice(people[:i]), rng.choice(list(links))
        n = rng.randint(2, 4 if sign == "*" else 20)
        links_of[person] = base, sign, n
        numbers[person] = calculate([], person, numbers[base], sign, n, largest)
        if kind == "date" and numbers[person] == 0:
            raise Unfit
        told.append(links[sign].format(a=base, b=person, n=n, items=items))
    rng.shuffle(told)

    def number(steps, person):
        if person in links_of:  # not yet written
            base, sign, n = links_of.pop(person)
            calculate(steps, person, number(steps, base), sign, n)
        return numbers[person]

    return told, people, items, number


def line_up(rng, length):
    """(sentences in any order, people with the greatest first, the words) of an ordering told by its neighbours."""
    words, line = rng.choice(ORDERS), rng.sample(NAMES, length)
    told = [
        rng.choice((f"{a} is {words[0]} than {b}.", f"{b} is {words[1]} than {a}."))
        for a, b in itertools.pairwise(line)
    ]
    rng.shuffle(told)
    return told, line, words


# ---------------------------------------------------------------------------------------------------------------------
# Problems: (sentences, question, steps, value). The value is a number, or whether it is so, or (right, wrong options)


def story(rng):
    steps = []
    told, name, items, count = tell(rng, steps)
    return told, f"How many {items} does {name} have now?", steps, count


def compare(rng):
    kind, steps = rng.choice(("count", "count", "age", "date")), []
    told, people, items, number = tree(rng, kind, rng.choice((3, 4)))
    a, b = rng.sample(people, 2)
    value = number(steps, a)
    if kind == "date":
        return told, f"On which day of May is {a}'s exam?", steps, value
    if kind == "count" and rng.random() < 0.5:
        value = calculate(steps, "together", value, "+", number(steps, b))
        return told, f"How many {items} do {a} and {b} have together?", steps, value
    value = calculate(steps, "more", value, "-", number(steps, b))
    more = f"How many more {items} does {a} have" if kind == "count" else f"How many years is {a} older"
    return told, f"{more} than {b}?", steps, value


def prices(rng):
    (name, other), things, steps, money = rng.sample(NAMES, 2), rng.sample(ITEMS, 3), [], rng.randint(20, 99)
    price, many = ([rng.randint(2, 9) for _ in range(3)] for _ in range(2))
    told = [f"{thing.capitalize()} cost {n} each." for thing, n in zip(things, price, strict=True)]
    told = told[: rng.choice((2, 3))]
    told.append(f"{name} has {money} dollars.")
    rng.shuffle(told)
    told.append(f"{name} buys {many[0]} {things[0]} and {many[1]} {things[1]}.")
    if rng.random() < 0.5:
        told.append(f"{other} buys {many[2]} {rng.choice(things[:2])}.")
    paid = [calculate(steps, things[i], many[i], "*", price[i]) for i in (0, 1)]
    value = calculate(steps, "all", paid[0], "+", paid[1])
    if rng.random() < 0.5:
        return told, f"How many dollars does {name} pay?", steps, value
    return told, f"How many dollars has {name} left?", steps, calculate(steps, "left", money, "-", value)


def hours(rng):
    (name, other), steps = rng.sample(NAMES, 2), []
    start, end, pause, days = rng.randint(6, 12), rng.randint(14, 22), rng.randint(2, 4), rng.randint(2, 7)
    length = calculate(steps, name, calculate(steps, name, end, "-", start), "-", pause)
    told = [
        f"{name} works from {start} to {end} with {pause} hours of rest, on {days} days.",
        f"{other} works {rng.randint(2, 9)} hours on {rng.randint(2, 7)} days.",
    ]
    rng.shuffle(told)
    return told, f"How many hours does {name} work?", steps, calculate(steps, name, length, "*", days)


def order(rng):
    hops = rng.randint(2, 4)
    told, line, words = line_up(rng, rng.randint(hops + 1, 6))
    start, way = rng.randrange(len(line) - hops), rng.randrange(2)
    path = line[start : start + hops + 1][:: -1 if way else 1]
    asked = rng.randrange(2)
    steps = [f"{a} is {words[way]} than {b}." for a, b in [*itertools.pairwise(path), (path[0], path[-1])]]
    return told, f"Is {path[0]} {words[asked]} than {path[-1]}?", steps, asked == way


def dates(rng):
    told, people, _, number = tree(rng, "date", rng.choice((3, 4)))
    (a, b), steps, asked = rng.sample(people, 2), [], rng.choice(("before", "after"))
    later = is_more(steps, number(steps, a), number(steps, b))
    return told, f"Is {a}'s exam {asked} {b}'s?", steps, later == (asked == "after")


def sums(rng):
    told, people, items, number = tree(rng, "count", rng.choice((3, 4)))
    (a, b, c), steps = rng.sample(people, 3), []
    numbers = [number(steps, person) for person in (a, b, c)]
    value = is_more(steps, calculate(steps, "together", numbers[0], "+", numbers[1]), numbers[2])
    return told, f"Do {a} and {b} together have more {items} than {c}?", steps, value


def level(rng):
    steps = []
    told, name, items, count = tell(rng, steps)
    if rng.random() < 0.5:
        steps.append(f"{count} is {('even', 'odd')[count % 2]}.")
        return told, f"Is the number of {items} that {name} has now even?", steps, count % 2 == 0
    bound = count + rng.choice((-1, 1)) * rng.randint(1, 9)
    return told, f"Does {name} have more than {bound} {items} now?", steps, is_more(steps, count, bound)


def most(rng):
    people, items, steps, told, counts = rng.sample(NAMES, 5), rng.choice(ITEMS), [], [], {}
    for name, sign in zip(people, rng.choices("+-*", k=3) + ["", ""], strict=True):
        a, n = rng.randint(10, 40) if sign != "*" else rng.randint(2, 9), rng.randint(2, 20 if sign != "*" else 9)
        counts[name] = calculate(steps, name, a, sign, n) if sign else a
        forms = {
            "+": f"{name} had {a} {items} and got {n}.",
            "-": f"{name} had {a} {items} and lost {n}.",
            "*": f"{name} has {a} bags of {n} {items}.",
        }
        told.append(forms.get(sign, f"{name} has {a} {items}."))
    best = rng.choice(("most", "fewest"))
    ranked = sorted(people, key=counts.get, reverse=best == "most")
    if counts[ranked[0]] == counts[ranked[1]]:
        raise Unfit
    rng.shuffle(told)
    steps.append(f"{best}: {ranked[0]} {counts[ranked[0]]}")
    return told, f"Who has the {best} {items}?", steps, (ranked[0], ranked[1:])


def rank(rng):
    told, line, words = line_up(rng, 5)
    place = rng.choice((1, 2))
    steps = [f"{i}: {name}" for i, name in enumerate(line[: place + 1], 1)]
    question = f"Who is the {('second', 'third')[place - 1]} {words[2]}?"
    return told, question, steps, (line[place], line[:place] + line[place + 1 :])


def weekday(rng):
    told, people, _, number = tree(rng, "days", 3)
    steps, person, today = [], rng.choice(people), rng.randrange(7)
    days = number(steps, person)
    if days >= 7:
        days = calculate(steps, "weeks", days, "-", days // 7 * 7)
    right, *wrong = WEEK[(today + days) % 7 :] + WEEK[: (today + days) % 7]
    steps.append(f"{WEEK[today]}+{days}: {right}")
    return [f"Today is {WEEK[today]}.", *told], f"On what day is {person}'s exam?", steps, (right, rng.sample(wrong, 4))


def reckon(rng):
    told, question, steps, value = rng.choice(FAMILIES["number"])(rng)
    below = rng.randint(0, 4)  # so many wrong options: the right one is in the middle no more often than at an end
    wrong = [value - n for n in rng.sample(range(1, 13), below)]
    wrong += [value + n for n in rng.sample(range(1, 13), 4 - below)]
    if not all(0 <= option <= 99 for option in wrong):
        raise Unfit
    return told, question, steps, (value, wrong)


FAMILIES = {
    "number": [story, compare, prices, hours],
    "boolean": [order, dates, sums, level],
    "choice": [most, rank, weekday, reckon],
}

# ---------------------------------------------------------------------------------------------------------------------
# Rows


def key_of(told, steps):
    """What makes a problem another one: its calculations, or the neighbours that it tells where it has none."""
    sums_done = sorted(re.findall(r"\d+[-+*]\d+=\d+", "\n".join(steps)))
    return sums_done or sorted(sorted(re.findall(r"[A-Z]\w+", sentence)) for sentence in told)


def split_of(key):
    value = int(hashlib.sha256(repr(key).encode()).hexdigest(), 16) % 100
    return next(split for split, values in SPLITS.items() if value in values)


def draw_row(rng, family, split):
    """(key, row) of one problem of this split."""
    generate, wanted = rng.choice(FAMILIES[family]), rng.random() < 0.5
    while True:
        try:
            told, question, steps, value = generate(rng)
        except Unfit:
            continue
        key = key_of(told, steps)
        if len(steps) > 1 and split_of(key) == split and (family != "boolean" or value == wanted):
            break
    row = {"question": " ".join([*told, question])}
    if family == "number":
        return key, row | {"answer": "\n".join([*steps, f"#### {value}"])}
    if family == "boolean":
        return key, row | {"answer": value, "facts": steps}
    options = rng.sample([value[0], *value[1]], 5)
    labelled = [f"{letter}){option}" for letter, option in zip("ABCDE", options, strict=True)]
    return key, row | {
        "options": labelled,
        "rationale": "\n".join(steps),
        "correct": "ABCDE"[options.index(value[0])],
    }


def rows(family, split, n, seed):
    """n rows, no two of the same problem."""
    rng, found = random.Random(f"{seed} {family} {split}"), {}
    while len(found) < n:
        key, row = draw_row(rng, family, split)
        found.setdefault(repr(key), row)
    return list(found.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=list(FAMILIES), default="number")
    parser.add_argument("--split", choices=list(SPLITS), default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=5)
    args = parser.parse_args()
    for row in rows(args.family, args.split, args.rows, args.seed):
        print(json.dumps(row))
