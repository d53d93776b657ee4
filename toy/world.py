"""The toy world "who and when": arithmetic word problems in GSM8K's socratic layout, made from a seed.

    python toy/world.py --seed 1 --rows 3        # print a few rows

The story tells two or three transfers between the teller and a partner, always from the teller's side ("I gave Ann 5
pens"). Then comes one person's count, at the start or at the end of the story, and the question asks for the same
person's count at the other time. Only by naming that time does it tell which is which:

    who    the teller, or the partner (for whom "gave" means "got")
    when   the start is known and the end asked, or the end is known and the start asked (transfers have to be undone)

The method is `keep` (gave is minus, got is plus) or `flip` (the other way round):
flip = (the partner is asked for) XOR (the start is asked for).
Every count stays in 0..99 under both methods, so that a solution by the wrong method looks just as fine.
A problem's split is a hash of its numbers and directions: no problem of one split is in another, in whatever words.
"""

import argparse
import hashlib
import json
import random
import re

NAMES = "Tom Ann Ben Eva Sam Mia Leo Zoe Max Ida Tim Amy".split()
ITEMS = "pens cups nuts caps balls cards coins books".split()
GAVE = ["I gave {name} {n} {items}.", "I sent {name} {n} {items}.", "I gave {n} {items} to {name}."]
GOT = ["I got {n} {items} from {name}.", "I took {n} {items} from {name}."]
LINKS = ["Then ", "Later ", ""]
ASKED = {"start": ["at first", "before that"], "end": ["in the end", "after that"]}
METHODS = ["keep", "flip"]
SPLITS = {
    "test": range(0, 20),
    "dev": range(20, 25),
    "sample": range(25, 26),
    "train": range(26, 100),
}  # of 100 hash values
MAX_NUMBER = 9


def split_of(known, moves):
    """The split of a problem: by its numbers and directions only, so that wording, names, who and when never matter."""
    value = int(hashlib.sha256(repr((known, moves)).encode()).hexdigest(), 16) % 100
    return next(split for split, values in SPLITS.items() if value in values)


def draw_numbers(rng, split, lengths=(2, 3)):
    """(known count, changes of the teller's count) of this split; all counts stay in 0..99 by either method."""
    while True:
        known = rng.randint(1, 98)
        moves = [rng.choice((-1, 1)) * rng.randint(1, MAX_NUMBER) for _ in range(rng.choice(lengths))]
        sums = [sum(moves[: i + 1]) for i in range(len(moves))]
        fits = all(0 <= known + sign * s <= 99 for s in sums for sign in (-1, 1))
        if fits and sums[-1] != 0 and split_of(known, moves) == split:
            return known, moves


def draw_problem(rng, split, lengths=(2, 3)):
    """One problem with so many transfers: {"question", "who", "asked", "method" (the right one), "known", "moves"}."""
    known, moves = draw_numbers(rng, split, lengths)
    name, items = rng.choice(NAMES), rng.choice(ITEMS)
    partner, end_known = rng.random() < 0.5, rng.random() < 0.5
    story = [
        (rng.choice(LINKS) if i else "")
        + rng.choice(GOT if move > 0 else GAVE).format(name=name, n=abs(move), items=items)
        for i, move in enumerate(moves)
    ]
    asked = "start" if end_known else "end"
    count = f"{name if partner else 'I'} had {known} {items}."
    return {
        "question": " ".join([*story, count, f"How many {rng.choice(ASKED[asked])}?"]),
        "who": "partner" if partner else "teller",
        "asked": asked,
        "method": METHODS[partner ^ end_known],
        "known": known,
        "moves": moves,
    }


def solve(problem, method):
    """The socratic answer by `method`, right or wrong: its first step names the method, then one step a transfer."""
    count, lines = problem["known"], [f"Which method? ** {method}"]
    for move in problem["moves"]:
        change = move if method == "keep" else -move
        sum_ = f"{count}{'+' if change > 0 else '-'}{abs(change)}"
        count += change
        lines.append(f"{'Got' if move > 0 else 'Gave'} {abs(move)}? ** {sum_}=<<{sum_}={count}>>{count}")
    return "\n".join(lines + [f"#### {count}"])


def solved_wrongly(row):
    """The row with the answer by the wrong method."""
    known = int(re.search(r"had (\d+)", row["question"])[1])
    moves = [int(n) if did == "Got" else -int(n) for did, n in re.findall(r"(Got|Gave) (\d+)\?", row["answer"])]
    other = "flip" if "** keep\n" in row["answer"] else "keep"
    return row | {"answer": solve({"known": known, "moves": moves}, other)}


def rows(split, n, seed, lengths=(2, 3)):
    """n rows {"question", "answer"} with the right answers, no two with the same numbers."""
    rng, seen, out = random.Random(f"{seed} {split}"), set(), []
    while len(out) < n:
        problem = draw_problem(rng, split, lengths)
        key = (problem["known"], tuple(problem["moves"]))
        if key not in seen:
            seen.add(key)
            out.append({"question": problem["question"], "answer": solve(problem, problem["method"])})
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=5)
    parser.add_argument("--split", choices=list(SPLITS), default="train")
    args = parser.parse_args()
    for row in rows(args.split, args.rows, args.seed):
        print(json.dumps(row))
