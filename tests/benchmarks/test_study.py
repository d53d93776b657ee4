"""The study: fair to every contestant, resumable, and its tables follow from the stored JSON alone."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import warm
from helpers import ROOT

from benchmarks import study, study_pages, study_report, study_runs, study_worlds
from benchmarks.study_runs import Study, file_of
from benchmarks.study_worlds import ARITHMETIC, ASDIV, CONTESTANTS, MAIN, Run, sampled
from toy import build_broad


def write(folder, run: Run, dev: float, hits=(), votes="", label="test-x2", **training) -> None:
    """A run's line, as far as the tables read it."""
    figures = {
        "sampling": {"num_return_sequences": 2},
        "hits": study_runs.as_digits(hits),
        "votes": votes,
        "seconds": 1.0,
    }
    figures |= {"no_answer": 0.0, "cut_off": 0.0, "tokens_per_sample": 3.0, "thought_variance": None}
    training = {"best_sft_loss": dev, "trained_parameters": 10, "seconds": 2.0} | training
    Study(folder).save(run, training=training, evaluations={label: figures} if votes else {})


BEST = study_worlds.LEARNING_RATES[1]


def tune(on: Study, best: dict[str, float] | None = None, world=ARITHMETIC) -> None:
    """Tuning runs: the rate BEST is best, and the contestant's loss there is `best`'s."""
    for run, _ in on.tuning(world):
        rate = dict(run.options)["learning_rate"]
        write(on.folder, run, (best or {}).get(run.contestant, 1.0) + (rate != BEST))


def test_contestants_differ_in_own_flags(tmp_path):
    """A world's contestants differ in their own flags and the learning rate, and in nothing else. On the real LLM all
    that read a small LM read as many of its layers."""
    on = Study(tmp_path)
    own = {name for contestant in CONTESTANTS.values() for name in contestant.flags or ()}
    own |= {"learning_rate", "output_name", "seed"}
    for world in (ARITHMETIC, ASDIV):
        tune(on, world=world)
        pairs = on.main(world, on.seeds, MAIN)
        assert len(pairs) == len(world.contestants) * 5 and all(evaluations == [MAIN] for _, evaluations in pairs)
        trained = [run for run, _ in pairs if CONTESTANTS[run.contestant].flags is not None]
        flags = [run.train_flags("study") for run in trained]
        common = {
            tuple((name, value) for name, value in one.items() if name not in own | {"reader_layers"}) for one in flags
        }
        assert len(common) == 1 and {one["learning_rate"] for one in flags} == {BEST}
        readers = [one for one in flags if one["thought_generator"] in ("small", "small_block")]
        assert len({one.get("reader_layers") for one in readers}) == 1 and len(readers) < len(flags)
        assert sum("reader_layers" in one for one in flags) == (len(readers) if world == ASDIV else 0)


def test_ablations_start_from_best_contestant(tmp_path):
    """The ablations start from the LTA contestant that is best on dev, whatever the others reach."""
    on = Study(tmp_path)
    tune(on, {"softcot": 0.1, "block-sft": 0.5})
    assert on.best_lta("arithmetic") == "block-sft"
    assert {run.contestant for run, _ in on.losses()} == {"block-sft"}


def test_study_runs_have_own_names(tmp_path):
    """No two runs of the study share a name, and every name can be an --output_name."""
    from lta_thinker.flags import RUN_NAME

    on = Study(tmp_path)
    tune(on)
    for world in (study_worlds.BROAD[0], ASDIV):
        for run, _ in on.tuning(world):
            write(on.folder, run, 1.0)
    runs = {run for title, stage in on.stages().items() for run, _ in stage()}
    assert all(on.ready(title) for title in on.stages())
    assert len({run.name for run in runs}) == len(runs) > 150
    assert all(RUN_NAME.fullmatch(f"study.{run.name}") for run in runs)


def test_stage_waits_for_its_tuning(tmp_path):
    """A stage is not ready before its tuning is done."""
    assert Study(tmp_path).ready("tuning") and not Study(tmp_path).ready("main")


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def test_intervals_cover_seeds_and_questions():
    """Where values depend on the seed alone, the interval is that of resampled seeds. Where they depend on the
    question, it is that of questions, and of equal values it is a point."""
    assert study_report.interval(np.full((5, 40), 7.0)) == pytest.approx((7.0, 7.0, 7.0))
    seeds = np.repeat([[0.0], [100.0]], 40, axis=1)
    assert study_report.interval(seeds) == pytest.approx((50.0, 0.0, 100.0))
    questions = np.tile([0.0, 100.0], (3, 200))  # 400 questions, half right
    mean, low, high = study_report.interval(questions)
    assert mean == 50 and low == pytest.approx(50 - 1.96 * 50 / 20, abs=0.3) and high == pytest.approx(54.9, abs=0.3)


def test_difference_pairs_seeds_and_questions(tmp_path):
    """A difference pairs runs by seed and by question. A seed that one of them lacks is left out."""
    on = Study(tmp_path)
    for seed, hits, votes in ((1, [2, 0, 1], "100"), (2, [2, 2, 2], "111")):
        write(tmp_path, Run("w", "none", seed), 1.0, hits, votes)
        write(tmp_path, Run("w", "softcot", seed), 1.0, [h - (i == 0) for i, h in enumerate(hits)], votes)
    write(tmp_path, Run("w", "softcot", 3), 1.0, [0, 0, 0], "000")  # a seed that the other does not have
    bare = [on.record(Run("w", "none", seed)) for seed in (1, 2)]
    softcot = [on.record(Run("w", "softcot", seed)) for seed in (3, 2, 1)]
    told = study_report.difference(softcot, bare, "test-x2", "one sample")
    assert (
        told.startswith("-16.7 [") and study_report.difference(softcot, bare, "test-x2", "vote") == "+0.0 [+0.0, +0.0]"
    )


def test_variants_compare_with_plain_run(tmp_path):
    """A variant is compared with its contestant's plain run alone, whatever the order of the runs."""
    on, rate = study_report.Report(Study(tmp_path)), ("learning_rate", 0.1)
    runs = {options: Run("w", "softcot", 1, (*options, rate)) for options in ((), (("k_shot", 9),))}
    write(tmp_path, runs[()], 1.0, [2, 2], "11")
    write(tmp_path, runs[(("k_shot", 9),)], 1.0, [0, 2], "01")
    evaluation = [sampled("test", 2)]
    for order in (list(runs.values()), list(runs.values())[::-1]):
        lines = on.variants([(run, evaluation) for run in order], "test-x2").splitlines()[2:]
        plain, varied = (
            next(line for line in lines if ("k shot 9" in line) == is_varied) for is_varied in (False, True)
        )
        assert "-50.0 [" in varied and "-50.0" not in plain


def test_variants_compare_with_a_baseline(tmp_path):
    """With a baseline every other row is compared with it, also where no run is plain."""
    on, options = study_report.Report(Study(tmp_path)), (("learning_rate", 0.1), ("max_steps", 9))
    runs = [Run("w", name, 1, options) for name in ("softcot", "prompt")]
    for run, hits in zip(runs, ([2, 2], [0, 2]), strict=True):
        write(tmp_path, run, 1.0, hits, "11")
    softcot, prompt = on.variants([(run, [sampled("test", 2)]) for run in runs], "test-x2", "prompt").splitlines()[2:]
    assert "+50.0 [" in softcot and "+50.0" not in prompt


def test_contestants_are_compared_per_option(tmp_path):
    """Two contestants are compared under each of a stage's options."""
    on, rates = study_report.Report(Study(tmp_path)), {"prompt": 0.1, "softcot": 0.2}
    runs = [
        Run("w", name, 1, (("learning_rate", rate), *options))
        for name, rate in rates.items()
        for options in ((), (("max_steps", 9),))
    ]
    for run, hits in zip(runs, ([2, 2], [2, 0], [2, 0], [2, 0]), strict=True):
        write(tmp_path, run, 1.0, hits, "11")
    table = on.versus([(run, [sampled("test", 2)]) for run in runs], "test-x2", "prompt", "softcot")
    plain, longer = table.splitlines()[2:]
    assert plain.startswith("| plain | 1 | +50.0 [") and longer.startswith("| max steps 9 | 1 | +0.0 [")


def test_dev_losses_are_compared_row_by_row(tmp_path):
    """Dev losses are compared with the constant prompt's of the same seed, row by row, and the information is that of
    the best step."""
    on = Study(tmp_path)
    tune(on, world=ASDIV)
    curve = [
        {"step": step, "eval_information": value, "eval_information_low": value - 1, "eval_information_high": value + 1}
        for step, value in ((1, 7.0), (2, 0.5))
    ]
    by_row = {"prompt": [2.0, 4.0, 6.0], "softcot": [1.75, 3.75, 5.75]}
    runs = [on.tuned(ASDIV.name, name, 41) for name in by_row]
    for run in runs:
        found = {"dev_losses": by_row[run.contestant], "best_step": 2, "dev_curve": curve}
        write(tmp_path, run, 1.0, **found | ({"dev_curve": [{"step": 2}]} if run.contestant == "prompt" else {}))
    table = study_report.Report(Study(tmp_path)).dev_figures([(run, []) for run in runs])
    prompt, softcot = (line.split(" | ") for line in table.splitlines()[2:])
    assert prompt[-2:] == ["", "– |"]
    assert softcot[-2:] == ["-0.25 [-0.25, -0.25]", "+0.50 [-0.50, +1.50] |"]


def test_headroom_chooses_on_other_seed(tmp_path):
    """The headroom chooses the better LM of a question by one seed and scores it on the other."""
    on = study_report.Report(Study(tmp_path))
    runs = [Run("w", "none", seed) for seed in (1, 2)]
    for run, large, small in zip(runs, ([2, 0, 1], [2, 0, 1]), ([0, 2, 2], [0, 2, 0]), strict=True):
        write(tmp_path, run, 1.0, large, "000", label="large")
        write(tmp_path, run, 1.0, small, "000", label="small")
    (row,) = on.headroom([(run, []) for run in runs], "large", "small").splitlines()[2:]
    _, world, large, small, best, gain, _ = (cell.strip().partition(" ")[0] for cell in row.split("|"))
    # third question: seed 1 says small (2 > 1), which on seed 2 has 0; seed 2 says large, which on seed 1 has 1
    assert (world, large, small, best, gain) == ("w", "50.0", "50.0", "75.0", "+25.0")


def test_odd_words_break_no_table():
    """A word with a line break or a bar does not break its table."""
    assert [study_report.code(word) for word in (" keep", "'s", "\n", "a|b")] == [" keep", "'s", "\\n", "a\\|b"]


def test_equal_values_share_their_rank():
    """Equal values share the mean of their ranks."""
    assert study_report.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]


def test_diverged_rate_is_no_candidate(tmp_path):
    """A learning rate whose run diverged is no candidate. The others are."""
    on = Study(tmp_path)
    tune(on)
    best = json.dumps({"learning_rate": BEST}, separators=(",", ":"))
    path = tmp_path / "arithmetic.jsonl"
    kept = [line for line in path.read_text().splitlines() if not ('"softcot"' in line and best in line)]
    path.write_text("\n".join(kept) + "\n")
    assert on.ready("main") and dict(on.tuned("arithmetic", "softcot", 41).options)["learning_rate"] != BEST


def test_table_stands_between_its_marks(tmp_path, monkeypatch):
    """A table is written between its marks and nothing else changes. A mark that is missing is named."""
    path = tmp_path / "RESULTS.md"
    path.write_text("a\n<!-- study: main -->\nold\n<!-- end -->\nb\n<!-- study: other -->\nkept\n<!-- end -->\n")
    study_pages.fill(path, {"main": "| new \\1 |"})
    kept = "b\n<!-- study: other -->\nkept\n<!-- end -->\n"
    assert path.read_text() == "a\n<!-- study: main -->\n| new \\1 |\n<!-- end -->\n" + kept
    monkeypatch.setattr(study_pages, "PAGES", ("RESULTS.md",))
    with pytest.raises(SystemExit, match="nothere"):
        study_pages.fill_all(tmp_path, {"nothere": "", "main": ""})


def test_pages_follow_from_stored_runs(tmp_path, monkeypatch):
    """docs/results/study.md and real.md have every table and RESULTS.md the main one; the plots come out too."""
    stored, copy = ROOT / "benchmarks" / "study", tmp_path / "benchmarks" / "study"
    shutil.copytree(stored, copy, ignore=shutil.ignore_patterns("*.svg"))
    for page in study_pages.PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["study.py", "--report"])
    monkeypatch.chdir(tmp_path)
    study.main()
    for page in study_pages.PAGES:
        assert (tmp_path / page).read_text() == (ROOT / page).read_text()
    plots = {path.name for path in stored.glob("*.svg")}
    assert plots and plots == {path.name for path in copy.glob("*.svg")}


def test_stored_runs_are_sorted_lines(tmp_path):
    """A new part of a run leaves the other parts and the other lines as they are."""
    runs = [Run("w", "softcot", seed, (("learning_rate", 0.1),)) for seed in (2, 1)]
    for run in runs:
        write(tmp_path, run, 1.0, [2, 0], "10")
    one, two = (tmp_path / "w.jsonl").read_text().splitlines()
    write(tmp_path, runs[0], 0.5, [1, 1], "11", label="other")
    after = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert [record["seed"] for record in after] == [1, 2] and after[0] == json.loads(one)
    assert after[1]["training"]["best_sft_loss"] == 0.5
    assert after[1]["evaluations"] == json.loads(two)["evaluations"] | {"other": after[1]["evaluations"]["other"]}
    for path in (ROOT / "benchmarks" / "study").glob("*.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        names = [Run.of(record).name for record in records]
        assert names == sorted(set(names)) and {file_of(record) for record in records} == {path.name}


# ---------------------------------------------------------------------------------------------------------------------
# Running


def test_study_runs_only_what_is_missing(tmp_path, monkeypatch):
    """The study runs the two scripts, keeps a record of each run, and then does only what is missing."""
    for name in ("toy", "data", "train.py", "evaluate.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    tiny = replace(ARITHMETIC, steps=2, test_k=4, max_new_tokens=8)
    monkeypatch.setitem(study_worlds.WORLDS, "arithmetic", tiny)
    monkeypatch.setattr(sys, "executable", warm.python())
    on = Study(tmp_path / "json")
    run = Run("arithmetic", "prompt", 41, (("k_shot", 20), ("learning_rate", 0.01)))
    bare, two = Run("arithmetic", "none", 41), sampled("test", 2)
    runner = study.StudyRunner(on, jobs=1)
    runner.stage("a", [(run, [two]), (bare, [two])])
    assert runner.failed == [] and on.by_name("arithmetic").keys() == {run.name, bare.name}
    record = on.record(run)
    assert record["training"]["trained_parameters"] == 8 * 128 and len(record["training"]["dev_curve"]) == 1
    assert len(record["evaluations"]["test-x2"]["hits"]) == len(record["evaluations"]["test-x2"]["votes"]) == 4
    assert "training" not in on.record(bare)

    asked = []
    monkeypatch.setattr(runner, "script", lambda name, flags, log: asked.append((name, flags)) or "")
    runner.stage("b", [(run, [two]), (bare, [two])])
    assert asked == []
    one = sampled("test", 1)
    runner.stage("c", [(run, [two, one])])  # the weights are still there
    assert [name for name, _ in asked] == ["evaluate"] and asked[0][1]["num_return_sequences"] == 1
    asked.clear()
    shutil.rmtree(tmp_path / "ckpt")
    runner.stage("d", [(run, [two, one])])  # JSON without weights: trained again for what is missing
    assert asked[0][0] == "train" and runner.failed


def test_bare_llm_with_worked_examples_is_asked_with_them(tmp_path, monkeypatch):
    """The bare LLM with worked examples is evaluate.py with --num_fewshot, and nothing else differs from it without."""
    runner, asked = study.StudyRunner(Study(tmp_path), jobs=1), []
    monkeypatch.setattr(runner, "script", lambda name, flags, log: asked.append((name, flags)))
    monkeypatch.setattr(study, "evaluated", lambda folder: {})
    for name in ("none", "fewshot"):
        runner.evaluate(Run(ASDIV.name, name, 41), MAIN)
    (one, bare), (other, fewshot) = asked
    del bare["output_dir"], fewshot["output_dir"]
    assert (one, other) == ("evaluate", "evaluate") and fewshot == bare | {"num_fewshot": 4}


def test_one_world_alone(tmp_path, monkeypatch, capsys):
    """--world takes that world's stages alone. Where its LLM is not there, one line says how it is made, and the runs
    count as failed."""
    monkeypatch.setattr(study, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["study.py", "--list", "--world", ASDIV.name])
    monkeypatch.chdir(tmp_path)
    study.main()
    titles = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert len(titles) > 3 and all(title.endswith(f" {ASDIV.name}") for title in titles)
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.setattr(build_broad, "ROWS", dict.fromkeys(build_broad.ROWS, 5))  # whose rows take seconds
    (tmp_path / "toy" / "broad").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["study.py", "--world", ASDIV.name, "--stages", f"tuning {ASDIV.name}"])
    with pytest.raises(SystemExit, match="error: 28 runs failed: asdiv-smollm2.prompt"):
        study.main()
    told = capsys.readouterr().out
    assert "  left out 28 runs: no folder models/smollm2-135m; python toy/real.py makes it\n" in told
    monkeypatch.setattr(sys, "argv", ["study.py", "--world", ASDIV.name, "--stages", "main"])
    with pytest.raises(SystemExit, match="error: --stages main: none of --world asdiv-smollm2"):
        study.main()


def test_failing_runs_are_named(tmp_path, monkeypatch):
    """A run whose script fails is named, and the others go on."""
    (tmp_path / "toy").symlink_to(ROOT / "toy")
    monkeypatch.chdir(tmp_path)
    runner = study.StudyRunner(Study(tmp_path / "json"), jobs=1)

    def script(name, flags, log):
        if "thought_generator" in flags and flags["thought_generator"] == "none":
            raise RuntimeError("evaluate.py failed")
        return ""

    monkeypatch.setattr(runner, "script", script)
    runner.stage("a", [(Run("arithmetic", "none", 41), [MAIN]), (Run("arithmetic", "none", 42), [MAIN])])
    assert runner.failed == ["arithmetic.none.s41", "arithmetic.none.s42"]


def test_stored_digits_come_back():
    """Counts of right samples, of up to 35 a question, are stored as a digit each."""
    assert study_runs.from_digits(study_runs.as_digits([*range(36), 0])) == [*range(36), 0]
    assert study_runs.as_digits([10, 0, 20]) == "a0k"


def test_stored_lines_hold_what_tables_read(tmp_path):
    """Of --inspect no similarities are stored, and of each thought one word; floats have six significant digits."""
    words = [[[{"word": " keep", "cosine": 0.9}, {"word": " flip", "cosine": 0.8}]] * 2]
    found = {"nearest_words": words, "similarity": [[1.0]], "accuracy": {"own": 0.123456789}}
    (tmp_path / "inspection.json").write_text(json.dumps(found))
    on, run = Study(tmp_path), Run("arithmetic", "prompt", 41)
    on.save(run, evaluations={"inspect": study.inspected(tmp_path)})
    kept = Study(tmp_path).record(run)["evaluations"]["inspect"]
    assert kept == {"nearest_words": [[words[0][0][0]["word"]] * 2], "accuracy": {"own": 0.123457}}
