"""Answers of one word, the letter of an option or yes and no: which of those that a text names is its answer.

    extract_answer("So (B) fails. The answer is (C).", "choice")           ->  "C"
    extract_answer("The answer is 18 km.", "choice", ("6 km", "18 km"))    ->  "B"
    extract_answer("Is it true? I doubt that it is.", "boolean")           ->  None

First each word that can be an answer is spelled as ⟨C⟩ or ⟨yes⟩, and an option's text, or its number, as ⟨~C⟩. Those
that are denied, asked, supposed, called wrong or said by others do not count. Of the rest those count that are
concluded ("so ⟨C⟩"), else that begin a sentence, else that are named in the last one, an option's text only at its end
or behind "so"; where two of these differ there is no answer. A yes or no that is only named does not count.
"""

import re
from functools import lru_cache

from lta_thinker.answers.number import value_of
from lta_thinker.answers.said import CHARACTERS, DENIED, MAX_CONCLUSION, MAX_MARKS, SENTENCE_END, conclusion, spelled

ANSWER = re.compile(r"⟨~?(\w*)⟩(?:(?:[ :.=,()-]|option|choice){0,5}⟨~?\1⟩)*")  # also "C) 15 km": ⟨C⟩) ⟨~C⟩
ANOTHER = re.compile(  # behind the answer: "A or B", "A, B", "Yes... or no", "15 (option C)"
    r"(?:[ ),:=(/&+*-]{0,5}|[\s).…,]{0,5}(?:or|and)\s)(?:option\s)?(?:⟨~?(\w*)⟩|[A-HJ](?![\w']))"
)
CLAUSE = re.compile(r"[.!?;:,\n—]|(?<!anything )\bbut\b")
CALLED_WRONG = re.compile(  # behind the answer: "A is clearly wrong", "A, which is too small", "yes, if", "yes?"
    r"(?i)[ )\"':]{0,4}(?:\?|(?:if|unless|though|would)\b|(?:,\swhich\s)?"
    r"(?:(?:is|was|are|can|could|does|looks|seems)\b\s?)?(?:\w{2,9}ly\s)?"
    r"(?:(?:not|never|cannot|\w{2,5}n't|too|out|ruled)\b|wrong|incorrect|false|impossible|eliminated))"
)
CALLED_RIGHT = r"\s(?:is|must be)\s(?:\w{2,8}ly\s)?(?:the\s)?(?:only\s)?(?:correct|right|answer|best)\b"
CONCLUDING = "so|thus|hence|therefore|also|donc|jadi|conclusion|choose|pick|select|go(?:ing)? with|leav(?:es|ing)"
FILLERS = (  # "The answer is most likely"; not "partially true"
    r"(?:(?:the|answer|option|choice|statement|claim|given|it|it's|that|that's|this|is|must|be|most|a|definite|clear|well"
    r"|in short|however|but|verdict|(?!part)\w{2,12}ly|die|aussage|das|ist|c'est|es|这是)\b[\s:,]{0,3}){0,6}"
    r"[^\w\n]{0,3}\Z"
)
BEGINS = re.compile(rf"(?:\n|[.!?]\s)[^\w\n]{{0,9}}{FILLERS}", re.IGNORECASE)
CONCLUDES = re.compile(rf"(?i)\b(?:{CONCLUDING}|match(?:es)?|I(?:'d| would)? (?:say|think))\b[\s:,…—-]{{0,3}}{FILLERS}")
ENDS = re.compile(  # behind a letter that begins a sentence: "C", "C) 15 km", "C, because"; not "Option A says 8 km"
    rf"\s?[^\w\s⟨]|\s*(?:\n|\Z)|\s(?:because|since|as|which)\b|{CALLED_RIGHT}"
)
ENDS_SENTENCE = re.compile(  # behind an option's text: "it is 20 dollars.", "it is Venus, not Mars."
    r"(?:\s?[^\W\d]+)?(?:,\snot\b[^.!?\n]{0,50})?(?:[.!?][^\w\s]?(?=\s|\Z)|\s*(?:\n|\Z))"
)

SPELLINGS = (  # of LaTeX and Markdown around words, in this order
    (r"\*\*\s?\(?([A-J])\)?[.:]?\s?\*\*", r"(\1)"),  # I would say **C** here
    (r"\\[dtc]?frac\{(\d+)\}\{(\d+)\}", r"\1/\2"),
    (r"\\(?:text\w*|math[a-z]+)\s*\{([^{}]*)\}|<([A-J])>|\{(,)\}", r"\1\2\3"),
    (r"\\[()\[\]]|\\?\$|[*`_⟨⟩]|<[^<>]{1,20}>", ""),
)
_BEFORE = rf"{CONCLUDING}|is|be|as|than|not|but|out|say|think|it's|\w{{2,12}}ly|us|es|est|ist|é|è|adalah|la|le|el"
_BEHIND = rf"\W*\Z|[.:;,!?](?!\w)|\s*[\n(]|\s?[^\x00-\x7f]|\s(?:because|since|which|as|and|or)\b|{CALLED_RIGHT}"
_LABEL = r"\b(?i:option|choice|letter|opción|lettre|letra|alternativa|answer|antwort)[\s:]{1,2}|[选選項项肢]"
LETTERS = (
    r"(?a)(\n[^\w\n(]{0,9})([A-Ja-j](?=[^\w\n]*(?:\n|\Z)|\)\s)|[A-Jb-j](?=[.:]\s))",  # a line "c", "c) 12", "c. 12"
    rf"(?a)((?:{_LABEL})[(\"']?)([A-Ja-j])(?![\w'])",  # option (c), 选项C
    r"(?a)((?<![\w)\\]))(?:[(\[{]|[\"'](?=[A-J]))([A-Ja-j])[)\]}\"'](?!\w)",  # (c)
    r"(?a)(\s)([A-J])(?=\))",  # C) 12
    rf"(?a)(\b(?i:{_BEFORE})\s|(?<=[^\w \t'\\^⟨+*/<-])\s?)([A-HJ])(?={_BEHIND})",  # it is C.
)
# The options said again are no answers: "A) 12 B) 15 C) 18", also a line each; not "A fails. B is right. C fails."
_LISTED = r"\W{1,3}(?:[^⟨⟩.!?]|[.!?](?!\s)){1,100}"
LISTED = re.compile(rf"⟨A⟩{_LISTED}⟨B⟩{_LISTED}⟨C⟩[^\n]*(?:\n\W{{0,9}}⟨[D-J]⟩[^\n]*)*")
NUMBER = r"(?<![\w⟨.,/-])-?\d+(?:[.,/]\d+)*"
WITH_UNIT = re.compile(rf"\A(?:\w\s?=\s?)?({NUMBER})\s?([^\W\d]?)[^\d()]*\Z")  # and the first letter of the unit

_YES = (
    "yes|yep|yeah|true|correct|ja|wahr|richtig|oui|vrai|s[íì]|verdader[oa]|sim|ya|benar|да|верно|是的|是|对的?|正确|肯定的?"
    "|はい|正しい|네|예"
)
_NO = (
    "no way|nope|no|false|incorrect|wrong|(?:probably|definitely|certainly|absolutely) not|not (?:necessarily|really)"
    "|nein|falsch|non|faux|fausse|fals[oa]|não|tidak|bukan|salah|нет|неверно|不是的?|不能|否|否定的?|不对|不正确|错误的?|いいえ"
    "|아니(?:요|오)"
)
WORD = re.compile(  # "no" not before a noun
    r"(?i)(?<![^\W是])(?<!\w['-])(?P<nots>(?:(?:not|isn't|wasn't|nicht|cannot be|can't be)\s[\"']?){0,3})"
    rf"(?:(?P<yes>{_YES})|{_NO})(?=[\"'\])}}」]{{0,2}}(?:\s?\Z|\s?[,;:!?/…–—\n]|\s-\s|\.(?!\s?\d)|です|입니다"
    r"|\s(?:that|because|since|as|but|and|or|so|it|he|she|they|you|we|i|there|this|these|those|the|wait)\b))"
)

QUOTED = re.compile(r'"[^"\n]{1,200}\s[^"\n]{1,200}"')  # "Max is red" is false.


def read_choice(place: str, where: str, options: tuple[str, ...]) -> str | None:
    """The letter of A to J that a place says; "" for a doubt, as is one beyond the options."""
    return _answer(_letters(place[-MAX_CONCLUSION:], options), where)


def read_boolean(place: str, where: str, options: tuple[str, ...] = ()) -> str | None:
    """The yes or no that a place says; "" for a doubt."""
    return _answer(WORD.sub(_yes_or_no, "\n" + QUOTED.sub("it", spelled(place[-MAX_CONCLUSION:], SPELLINGS))), where)


def _yes_or_no(match: re.Match) -> str:
    if match["yes"] and not match["nots"] and match.string.startswith(" that", match.end()):
        return match[0]  # "it is true that" concedes
    turned = len(re.findall("not|n't|nicht", match["nots"].lower())) % 2 == 1
    return "⟨yes⟩" if bool(match["yes"]) != turned else "⟨no⟩"


def _letters(text: str, options: tuple[str, ...]) -> str:
    """A text with ⟨C⟩ for each letter that names the option C, ⟨⟩ for one beyond the options, ⟨~C⟩ for its text."""

    def letter(match: re.Match) -> str:
        return f"{match[1]}⟨{match[2].upper() if match[2].upper() in letters else ''}⟩"

    def option(match: re.Match) -> str:
        letter = keys.get(_key(match[0]))
        other = match[1] and units.get(letter) and match[1].casefold() != units[letter]  # 18 miles is not 18 km
        return f"⟨~{letter}⟩" if letter and not other else match[0]

    text, letters = "\n" + spelled(text, SPELLINGS), "ABCDEFGHIJ"[: len(options) or 10]
    for pattern in LETTERS:
        text = re.sub(pattern, letter, text)
    keys, units, named = _named(options)
    text = LISTED.sub("", text)
    return named.sub(option, text) if options else text


@lru_cache
def _named(options: tuple[str, ...]) -> tuple[dict[str, str], dict[str | None, str], re.Pattern]:
    """The letter of each text, and of each number of one, that no other option has; by letter how the number's unit
    begins; and what may be an option in a text."""
    texts = [spelled(option.translate(CHARACTERS), SPELLINGS).rstrip(" .,;:!") for option in options]
    found = list(zip("ABCDEFGHIJ", texts, map(WITH_UNIT.match, texts), strict=False))
    keys = {(_key(text), letter) for letter, text, _ in found}
    keys |= {(_key(number[1]), letter) for letter, _, number in found if number}
    units: dict[str | None, str] = {letter: number[2].casefold() for letter, _, number in found if number}
    only = {key: letter for key, letter in keys if sum(key == other for other, _ in keys) == 1}
    patterns = [r"\s*".join(map(re.escape, "".join(text.split()))) for text in texts if text[1:]]
    texts_of_all = "|".join(sorted(patterns, key=len, reverse=True)) or "(?!)"
    number = rf"{NUMBER}(?=\s?([^\W\d]?))"
    return only, units, re.compile(rf"(?<![\w.,⟨-])(?:{texts_of_all})(?![\w⟩]|[.,/]\d)|{number}", re.IGNORECASE)


def _key(text: str) -> str:
    """The same for two spellings of an option."""
    value = value_of(text)
    return "".join(text.casefold().split()) if value is None else str(value)


def _answer(text: str, where: str) -> str | None:
    """The answer that counts of those that the first sentence of a place names, or the end of a text."""
    place, last = where != "end", -1
    if place:
        text = "\n" + SENTENCE_END.split(text.strip())[0]
    else:
        last = text.rfind(next(conclusion(text), ""))
    concluded, begun, named, sure = [], [], [], False
    for match in list(ANSWER.finditer(text))[-MAX_MARKS:]:
        before, after = text[max(0, match.start() - 100) : match.start()], text[match.end() : match.end() + 100]
        if DENIED.search(CLAUSE.split(before)[-1]) or CALLED_WRONG.match(after):
            continue
        another, concludes, begins = ANOTHER.match(after), CONCLUDES.search(before), BEGINS.search(before)
        answer = "" if another and another[1] != match[1] else match[1]
        yes_or_no = match[1] in ("yes", "no")
        if not place and match[0].count("⟨") == match[0].count("~"):
            named += [answer] if match.start() >= last else []
            sure = sure or bool(concludes or begins and before.endswith("is ") or ENDS_SENTENCE.match(after))
        elif concludes:
            concluded.append(answer)
        elif begins and (place or yes_or_no or match[0].count("⟨") > 1 or ENDS.match(after)):
            begun.append(answer)
        elif match.start() >= last and not yes_or_no:
            named.append(answer)
            sure = True
    found = concluded or begun or (named if sure else [""] * len(named))
    return None if not found else found[0] if len(set(found)) == 1 else ""
