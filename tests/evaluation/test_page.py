"""report.html: it holds what the report is about, as text; in a browser it filters, searches, and shows the samples."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import Browser, browser, find_browser
from helpers import line_of, write_evaluation

from lta_thinker.evaluation import page
from lta_thinker.evaluation.compare import Evaluated, compare
from lta_thinker.evaluation.page import page_text, report_page, write_comparison, write_page
from lta_thinker.evaluation.samples import SampleLine

HOSTILE = "</script><!-- <script>document.title = 'ran'</script> <b>bold</b> &amp; \u2028 é 答"
LINES = [
    line_of(0, ["18", "18", "7"]),  # right
    line_of(1, ["7", "7", "18"]),  # wrong
    line_of(2, ["7", "18", None]),  # tied, one without an answer; the scores are the same, so the first wins
    replace(line_of(3, ["18", "18", "18"]), question=f"Zebra? {HOSTILE}", responses=3 * [f"{HOSTILE} So $18.00."]),
    line_of(4, ["1800", None, None], gold="1800", finished=False),  # cut off
]
LINES[4] = replace(LINES[4], responses=["Is it 1,800? It is \\boxed{1,800}. Not 21,800.", "Hm.", "Hm."])


def evaluation(folder: Path, lines: list[SampleLine], **settings) -> Evaluated:
    return Evaluated.read(write_evaluation(folder, lines, **settings))


class Parts(HTMLParser):
    """The tags of a page with their attributes, and the texts of its scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def data_of(text: str) -> dict:
    """What a page's block of JSON holds."""
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    return json.loads(block)


def test_page_holds_every_sample_as_text(tmp_path):
    """The page's block has each question, gold answer, text, answer, vote, score and length; what a text says is no
    HTML, wherever it stands; nothing is loaded from anywhere."""
    found = evaluation(tmp_path / "<i>a", LINES, checkpoint={"name": HOSTILE, "run": None, "dev": None})
    text = page_text(report_page(found, tmp_path))
    questions = data_of(text)["questions"]
    for line, question, graded in zip(LINES, questions, found.graded, strict=True):
        (side,) = question["sides"]
        own = (line.index, line.question, line.gold)
        assert (question["number"], question["question"], question["reference"]) == own
        assert (side["texts"], side["tokens"], side["scores"]) == (line.responses, line.num_tokens, line.scores)
        assert (side["answers"], side["vote"], side["correct"]) == (graded.answers, graded.vote.answer, graded.correct)
        assert (side["tied"], side["hits"]) == (graded.vote.tied, graded.hits)
    parts = Parts(text)
    assert [tag for tag, _ in parts.tags].count("script") == 2 and ("b", {}) not in parts.tags
    assert len(parts.scripts) == 2 and json.loads(parts.scripts[0])["questions"] == questions
    addresses = [value for _, given in parts.tags for name, value in given.items() if name in ("src", "href")]
    assert addresses == [] and "http://www.w3.org/2000/svg" in text and text.count("http") == 2  # http-equiv
    assert page_text(report_page(found, tmp_path)) == text


def test_page_shows_figures_and_settings(tmp_path):
    """The tables have the report's figures, the flags that are not their defaults, and every setting."""
    sampling = {"num_return_sequences": 3, "seed": 41, "temperature": 0.5, "greedy": False}
    found = evaluation(tmp_path / "a", LINES, split="test", sampling=sampling)
    made = report_page(found, tmp_path)
    tables = {table.heading: dict(table.rows) for table in made.tables}
    assert tables["Figures"]["vote of 3, % right"] == found.report.vote_accuracy.percent
    chosen = tables["Settings that are not the flags' defaults"]
    assert chosen["temperature"] == "0.5" and chosen["num_return_sequences"] == "3"
    assert not {"split", "seed", "greedy"} & chosen.keys()
    assert tables["All settings"]["sampling.seed"] == "41"
    maj, passes = made.charts[0].series
    vote = found.report.vote_accuracy
    assert maj.points[-1] == pytest.approx((3, 100 * vote.value, 100 * vote.low, 100 * vote.high))
    assert [point[1] for point in passes.points] == [100 * value for value in found.report.pass_at_k.values()]


def test_evaluation_writes_its_page(run, checkpoints):
    """evaluate.py writes report.html beside report.json and says where; --regrade writes one where there is none; the
    words that --inspect found are in it."""
    said = run("--checkpoint", checkpoints / "small", "--num_return_sequences", "2", "--output_dir", "out")
    assert said.splitlines()[-3:-1] == ["  out/report.json", "  out/report.html"]
    path = Path("out/report.html")
    text = path.read_text(encoding="utf-8")
    assert text == page_text(report_page(Evaluated.read(Path("out/report.json")), path.parent))
    path.unlink()
    run("--regrade", "out", data=False)
    assert path.read_text(encoding="utf-8") == text
    words = [[[{"row": 1, "word": " pen", "cosine": 0.5}, {"row": 2, "word": "x", "cosine": 0.25}]]]
    Path("out/inspection.json").write_text(json.dumps({"questions": [2], "nearest_words": words}))
    run("--regrade", "out", data=False)
    questions = data_of(path.read_text(encoding="utf-8"))["questions"]
    assert [question.get("words") for question in questions] == [None, None, [["' pen' 0.50", "'x' 0.25"]], None]
    Path("out/inspection.json").write_text('{"questions": 7}')
    assert run("--regrade", "out", data=False).startswith("error: out/inspection.json: questions: is 7")


OTHER = [line_of(0, ["18", "18", "18"]), line_of(1, ["18", "18", "18"]), line_of(2, ["18", "7", "7"])]
OTHER += [replace(LINES[3], responses=3 * ["It is 9."]), LINES[4]]


def test_comparison_writes_its_page(run, tmp_path):
    """--compare writes a page into results/, or --output_dir, with the paired difference, both sides' samples of each
    question, and links to the pages of the two where there are some; --rank one with all votes, without the texts."""
    a, b = (write_evaluation(tmp_path / "eval-x" / name, lines) for name, lines in {"a": LINES, "b": OTHER}.items())
    b.with_name("report.html").write_text("")
    said = run("--compare", a, b, data=False).splitlines()
    assert said[-1] == "  results/compare-eval-x-a-eval-x-b.html"
    text = Path(said[-1].strip()).read_text()
    (row,) = [line for line in said if "B - A" in line]
    (shown,) = re.findall(r"<tr><th scope=\"row\">B - A, paired</th>(.*?)</tr>", text)
    assert re.findall(r">([^<]+)</td>", shown) == re.split(r"  +", row.strip())[1:]
    assert [given["href"] for tag, given in Parts(text).tags if tag == "a"] == ["../eval-x/b/report.html"]
    for question, one, other in zip(data_of(text)["questions"], LINES, OTHER, strict=True):
        assert [side["texts"] for side in question["sides"]] == [one.responses, other.responses]
    said = run("--rank", a, b, "--output_dir", "out", data=False).splitlines()
    assert said[-1] == "  out/rank-eval-x-a-eval-x-b.html"
    data = data_of(Path(said[-1].strip()).read_text())
    sides = [[side["correct"] for side in question["sides"]] for question in data["questions"]]
    assert sides == [[True, True], [True, False], [False, False], [False, True], [True, True]]  # b is the best
    assert not any(side["texts"] for question in data["questions"] for side in question["sides"])
    Path("file").write_text("")
    assert run("--compare", a, b, "--output_dir", "file", data=False).startswith("error: file: cannot be made here")


@pytest.fixture(scope="session")
def large(tmp_path_factory) -> Path:
    """The page of 1,319 questions of 10 samples of 1,000 characters, which are 250 tokens."""
    line = line_of(0, 10 * ["18"])
    text = ("She sells <<9*2=18>>18 eggs a day. \\(x^2\\)\n" * 30)[:1000]
    folder = tmp_path_factory.mktemp("large")
    found = evaluation(folder / "a", [line])
    (one,) = found.graded
    lines = [replace(line, index=i, responses=10 * [text]) for i in range(1319)]
    made = report_page(Evaluated(found.report, [replace(one, line=line) for line in lines]), folder)
    write_page(folder / "page.html", made)
    return folder / "page.html"


def test_page_of_gsm8k_is_small(large):
    """1,319 questions of 10 samples of 250 tokens are less than 30 MB."""
    assert 13e6 < large.stat().st_size < 30e6


def test_texts_without_room_are_cut(tmp_path, monkeypatch):
    """Where all texts are too long for a page, each is shown by its end, and a note says so; answers and votes stay."""
    found = evaluation(tmp_path / "a", LINES)
    whole = report_page(found, tmp_path)
    monkeypatch.setattr(page, "MOST_TEXT", 15 * 10)
    cut = report_page(found, tmp_path)
    assert whole.notes == [] and "of each text the last 10 characters are here" in cut.notes[0]
    texts = [side["texts"] for question in cut.questions for side in question["sides"]]
    assert texts[0] == ["…er is 18.\n", "…er is 18.\n", "…wer is 7.\n"] and texts[2][2] == "Hm."
    assert [side | {"texts": None} for question in cut.questions for side in question["sides"]] == [
        side | {"texts": None} for question in whole.questions for side in question["sides"]
    ]


# ---------------------------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture(scope="session")
def tab(tmp_path_factory) -> Iterator[Browser]:
    """A tab of a headless Chromium."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium in PATH (apt install chromium)")
    with browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def shown(tab, tmp_path) -> Browser:
    """A tab in which the page of LINES is open. It must end without an error or a request."""
    path = tmp_path / "report.html"
    write_page(path, report_page(evaluation(tmp_path / "a", LINES), tmp_path))
    tab.open(path)
    yield tab
    assert tab.errors() == [] and tab.requests() == [path.as_uri()]


ROWS = "[...document.querySelectorAll('#rows tbody .number')].map(one => Number(one.textContent))"
READER = "document.getElementById('reader')"


def press_filter(tab: Browser, label: str) -> list[int]:
    """The questions that are shown behind a filter's button."""
    buttons = "[...document.querySelectorAll('#filters button')]"
    tab.run(f"{buttons}.find(one => one.textContent.replace(/ \\d+$/, '') === {label!r}).click()")
    return tab.run(ROWS)


def test_filters_and_search(shown):
    """Each filter shows the questions that it names; the search looks through questions, answers and texts, within the
    filter."""
    filters = {
        **{"all": [0, 1, 2, 3, 4], "right": [0, 3, 4], "wrong": [1, 2], "tied": [2]},
        **{"without an answer": [2, 4], "cut off": [4]},
    }
    assert {label: press_filter(shown, label) for label in filters} == filters
    labels = shown.run("[...document.querySelectorAll('#filters button')].map(one => one.textContent)")
    assert labels == [f"{label} {len(rows)}" for label, rows in filters.items()]
    press_filter(shown, "right")
    shown.press("/")
    shown.write("zEBRA")
    assert shown.run(ROWS) == [3]
    assert shown.run("document.getElementById('shown').textContent") == "1 of 5 questions"
    assert press_filter(shown, "wrong") == []
    for words, rows in {"answer is 7": [0, 1, 2], "1800": [4], "script>document": [3]}.items():
        press_filter(shown, "all")
        shown.run(f"byId('search').value = {words!r}; select()")
        assert shown.run(ROWS) == rows


def test_filters_of_a_comparison(tab, tmp_path):
    """What changed between A and B is found, and which of the two is right; a question opens with both sides."""
    paths = [write_evaluation(tmp_path / name, lines) for name, lines in {"a": LINES, "b": OTHER}.items()]
    tab.open(write_comparison(compare(*paths), paths, str(tmp_path)))
    filters = {
        **{"all": [0, 1, 2, 3, 4], "all right": [0, 4], "all wrong": [2], "changed": [1, 3]},
        **{"only A right": [3], "only B right": [1], "tied": [2]},
    }
    assert {label: press_filter(tab, label) for label in filters} == filters
    press_filter(tab, "only B right")
    tab.run("document.querySelector('#rows tbody tr').click()")
    votes = tab.run(f"[...{READER}.querySelectorAll('h3')].map(one => one.textContent)")
    assert votes == ["Gold answer: 18", "A: vote 7, wrong", "B: vote 18, right"]
    assert tab.run(f"{READER}.querySelectorAll('.sample').length") == 6 and tab.errors() == []


def test_question_opens_by_mouse_and_keys(shown):
    """A click and Enter open a question, arrows turn to the next, Escape leads back to its row; the text is text, and
    the answer is marked where it stands last."""
    shown.run("document.querySelectorAll('#rows tbody tr')[2].click()")
    assert shown.run(f"{READER}.open") and "Question 2 (3 of 5)" in shown.run(f"{READER}.textContent")
    shown.press("ArrowRight")
    text = shown.run(f"{READER}.querySelector('.question').textContent")
    assert text == LINES[3].question
    assert shown.run(f"[...{READER}.querySelectorAll('.sample pre')].map(one => one.textContent)") == LINES[3].responses
    assert shown.run(f"[...{READER}.querySelectorAll('mark')].map(one => one.textContent)") == 3 * ["18.00"]
    assert shown.run(f"{READER}.querySelectorAll('b').length") == 0 and shown.run("document.title") == "a"
    shown.press("ArrowRight")
    shown.press("ArrowRight")  # there is none behind the last one
    (facts, *_) = shown.run(f"[...{READER}.querySelectorAll('.sample p')].map(one => one.textContent)")
    assert facts == "sample 0 · votes with 1 of 3 · wins · score -0.5 · 5 tokens · cut off"
    (before,) = shown.run(f"[...{READER}.querySelectorAll('mark')].map(one => one.previousSibling.textContent)")
    assert before == "Is it 1,800? It is \\boxed{"
    closes = "new Promise(done => byId('reader').addEventListener('close', done, {once: true}))"
    shown.run(f"globalThis.closes = {closes}; 0")
    shown.press("Escape")
    shown.run("closes.then(() => 0)")
    assert not shown.run(f"{READER}.open")
    assert shown.run("document.activeElement.querySelector('.number').textContent") == "4"
    shown.press("ArrowUp")
    shown.press("Enter")
    assert "Question 3 (4 of 5)" in shown.run(f"{READER}.textContent")


@pytest.mark.parametrize(
    ("answer_type", "answer", "marked"),
    [
        ("number", "18", "of 118, 18, 18.5 and »18«."),
        ("number", "1234567.5", "12,345 and 1,234,567 are »1,234,567.50«."),
        ("number", "-3", "»-3« is 0-3, 3-3 is 0"),
        ("choice", "B", "B is Bob's, so (»B«)"),
        ("boolean", "yes", "Yes, the answer is »YES«, eyes"),
        ("latex", "\\frac{1}{2}", "it is »\\frac{1} {2}« here"),
        ("latex", "\\frac{1}{2}", "it is one half"),
    ],
)
def test_answer_is_found_in_its_text(shown, answer_type, answer, marked):
    """The place of an answer is the last one where its text stands by itself, with a number's commas and zeros."""
    text = marked.replace("»", "").replace("«", "")
    shown.run(f"data.answer_type = {answer_type!r}")
    place = shown.run(f"placeOf({json.dumps(text)}, {json.dumps(answer)})")
    found = f"{text[: place[0]]}»{text[slice(*place)]}«{text[place[1] :]}" if place else text
    assert found == marked


def test_page_fits_a_phone_and_the_dark(shown):
    """On a phone nothing is wider than the screen; the colours follow the system's, dark on light and light on dark."""
    shown.send("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=2, mobile=True)
    assert shown.run("document.documentElement.scrollWidth") == 360
    colours = []
    for scheme in ("light", "dark"):
        shown.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        found = [shown.run(f"getComputedStyle(document.body).{of}") for of in ("backgroundColor", "color")]
        colours.append([sum(map(int, re.findall(r"\d+", colour))) for colour in found])
    (light_paper, light_ink), (dark_paper, dark_ink) = colours
    assert light_paper > 700 > 150 > light_ink and dark_ink > 600 > 150 > dark_paper
    shown.send("Emulation.clearDeviceMetricsOverride")


def test_rows_are_made_as_they_come_into_view(tab, large):
    """A large page begins with a hundred rows; more are made at its end, and for the keyboard."""
    tab.open(large)
    assert tab.run("document.querySelectorAll('#rows tbody tr').length") == 100
    body = "byId('rows').tBodies[0]"
    tab.run(
        f"globalThis.more = new Promise(done => new MutationObserver(done).observe({body}, {{childList: true}})); 0"
    )
    tab.run("scrollTo(0, document.body.scrollHeight); more.then(() => 0)")
    assert 200 <= tab.run("document.querySelectorAll('#rows tbody tr').length") < 1319
    tab.run("focusRow(1318)")
    tab.press("Enter")
    assert "Question 1318 (1319 of 1319)" in tab.run(f"{READER}.textContent")
