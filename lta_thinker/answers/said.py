"""Where a text says its answer: the same for all answer types (docs/answers.md).

    places("It is 5. The answer is 6, not 7.", finished=True)   ->   (" 6, not 7.", "mark"), ("It is ... 7.", "end")

The last box or mark ("the answer is", "Answer:", "####", `<answer>`) comes first, the end of the text last. What is
asked, denied, supposed or said by others is no mark, nor is one before a "wait". A text that was cut off has no end,
and no mark in its last sentence.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

MAX_MARKS = 50  # boxes and marks that are read, from the end of a text; more is a model in a loop
MAX_PLACE = 1000  # characters that are read behind a mark
MAX_CONCLUSION = 5000  # characters at a text's end

# One spelling for full-width letters and digits, quotes, dashes, spaces, fractions and signs
CHARACTERS: dict = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
CHARACTERS |= str.maketrans("’‘“”−–‐‑⁄∕、\u3000\u00a0\u2009\u202f", "''\"\"----//,    ")
CHARACTERS |= {ord(one): f" {unicodedata.normalize('NFKC', one).replace('⁄', '/')}" for one in "½⅓⅔¼¾⅕⅖⅗⅘⅛"}
CHARACTERS |= str.maketrans(
    {"。": ". ", "²": "^2", "³": "^3", "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "≤": r"\le "}
)
CHARACTERS |= str.maketrans({"≥": r"\ge ", "≈": r"\approx ", "×": r"\times ", "√": r"\sqrt", "∅": r"\emptyset "})
EMPHASIS = re.compile(r"\*\*|__|`|</answer>")
END_OF_TURN = re.compile(
    r"(?!\A)(?:<\|(?:im_|eot_|end|start_|user)\w*\|>|<end_of_turn>|\n\n(?:Question|Problem|Q|Human|User)\b[^\n]{0,9}:)"
)
BETWEEN_BOXES = r"(?:[\s$,;&()\[\]{}\\和或及]|[a-z](?:_\d)?\s*=|\b(?:and|or|und|oder|et|ou|y|o|text|quad)\b){0,40}"
_CONTENT = r"[^{}\\]|\\(?!boxed|fbox)"  # of a box: no other box; braces in braces
for _ in range(6):
    _CONTENT = rf"(?:[^{{}}\\]++|\\(?!boxed|fbox)|\{{{_CONTENT}\}})*+"
BOX = re.compile(rf"\\(?:boxed|fbox)\s*\{{({_CONTENT})\}}")
BOXES = re.compile(rf"{BOX.pattern}(?:{BETWEEN_BOXES}{BOX.pattern})*")  # joined by commas or "and"
_NOUN = (
    r"(?<![\w-])(?:answers?|ans|(?:correct|right|best|closest|final)\s(?:option|choice|one|letter|statement)|antwort|réponse"
    r"|respuesta|resposta|risposta|jawaban(?:nya)?|ответ)\b|答案|答え|正解|정답|답"
)
MARK = re.compile(  # "Answer: 5", "answer = 5", "Answer\n5", "the answer to this is 5", "Result: 5", "#### 5"
    rf"(?i)(?:{_NOUN})(?:[*_\s\"')]{{0,5}}(?:[=→]|->|-\s|\.(?=\s?[\d($]|[A-J]\b)|(?<=\n)|(?-i:(?<=\s)(?=\(?[A-J]\b(?!'))))"
    r"|[^.:=!?\n]{0,60}?(?:\b(?:is|are|be|ist|lautet|est|es|é|è|adalah)\b|[:是为為は은는]))"
    r"|(?:\b(?:results?|solutions?|output|lösung|ergebnis|résultat|resultado|solución|hasil)\b|结果|結果)\s?:"
    r"|####(?!#)(?-i:(?![^\w\n]{0,8}(?:[A-Z][a-z]+:?(?:\s\w|\s*\n)|\d{1,2}[.)]\s)))"
    r"|<answer>|[故所以应因此]选(?:择)?[:是]?|选项是?"
)
DENIED = re.compile(  # in the clause before an answer: "if the answer is 5", "some think it is B", "not B but C"
    r"(?i)n't\b|\b(?:not|cannot|(?<!or )no(?! doubt)|never|neither|nor|if|whether|unless|assum\w+|suppose|wrong"
    r"|incorrect|false|tempting|possible|common|others?|another|people|students|some|they|thought|guessed|initial|previous"
    r"|says|express|than|unlike|(?<!no )doubt|eliminate|rules? out|anything but|(?<!I )(?:would|could|might|may))\b"
)
CORRECTION = re.compile(
    r"(?i)[.!?…;,\n—-][\s\"')\]]{0,5}(?:(?:but|oh|um|and|hmm)[,.…]{0,3}\s)?(?:wait|hmm+|oops|hold on|scratch that"
    r"|(?:that|this)(?:'s| is| was) (?:wrong|incorrect|not right)|I (?:made|was wrong)|(?<=[.!?…\n]\s)actually)\b"
)
AFTERWORD = re.compile(
    r"(?i)\b(?:let me know|hope (?:this|that|it)|feel free|happy to|please|thank)\b|\A\W*(?:note|source)\b|\?\W*\Z"
)
BEHIND = re.compile(  # a heading: what follows it is behind the conclusion
    r"(?i)(?<=\w)\W*\n[^\w\n]{0,9}(?:key points?|explanation|verification|check|notes?|source)\b[^\w\n]{0,5}(?::|\n)"
)
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!Rs\.)[^\w\s]{0,4}\s+|\n")
WHOLE_SENTENCES = re.compile(r"\A.*[.!?]\s|\A.*\n", re.DOTALL)


def places(text: str, finished: bool) -> Iterator[tuple[str, str]]:
    """Where a text may say its answer, the best place first: what stands there, and "box", "mark" or "end"."""
    _, thought, turn = text.rpartition("</think>")
    if "<think>" in turn and not thought and not finished:  # cut off while it was thinking
        return
    turn = END_OF_TURN.split(turn, maxsplit=1)[0].translate(CHARACTERS)
    text = EMPHASIS.sub("", turn)
    corrected, found = len(text) - len(CORRECTION.split(text)[-1]), []
    for box in list(BOXES.finditer(text))[-1:]:
        found.append((box.end(), "box", ", ".join(dict.fromkeys(map(str.strip, BOX.findall(box[0]))))))
    if not finished:
        text = "".join(WHOLE_SENTENCES.findall(text))
    for mark in list(MARK.finditer(text, corrected))[-MAX_MARKS:]:
        clause = re.split(r"[.,;:!?\n]", text[max(0, mark.start() - 60) : mark.start()])[-1]
        if not DENIED.search(clause + mark[0]):
            found.append((mark.end(), "mark", text[mark.end() :][:MAX_PLACE]))
    yield from ((place, where) for _, where, place in sorted(found, reverse=True))
    if finished:
        yield CORRECTION.split(turn)[-1], "end"


def conclusion(turn: str) -> Iterator[str]:
    """The sentences at the end of a text, the last one first, without those of an afterword; what
    stands behind a heading like "Explanation:" comes after what stands before it."""
    for text in BEHIND.split(turn[-MAX_CONCLUSION:], maxsplit=1):
        sentences = [one for one in SENTENCE_END.split(text) if one.strip()]
        while len(sentences) > 1 and AFTERWORD.search(sentences[-1]):
            sentences.pop()
        yield from reversed(sentences)


def spelled(text: str, spellings: Iterable[tuple[str, str | Callable[[re.Match], str]]]) -> str:
    """A text with each of these patterns replaced, in their order."""
    for pattern, spelling in spellings:
        text = re.sub(pattern, spelling, text)
    return text
