"""Checkpoints: what is written is read again, what does not fit is refused in one line, nothing is half-written."""

import json
import pickle
import shutil

import pytest
import torch
from helpers import N, evaluation_thoughts, one_line, prompt_batch, record_of

from lta_thinker import checkpoint
from lta_thinker.checkpoint import META_FILE, TrainingRecord, save_checkpoint
from lta_thinker.common import InputError
from lta_thinker.data_loader import OwnTask
from lta_thinker.model import Design, Sizes
from lta_thinker.weights import (
    ATT_FILE,
    PARAMS_FILE,
    GeneratorWeights,
    check_weights,
    infer_generator,
    load_weights,
    read_weights,
)

SIZES = Sizes(N, 16, 32, 64, 1e-6)
PUBLISHED_BLOCK = {
    "self_attn.in_proj_weight": (96, 32),
    "self_attn.in_proj_bias": (96,),
    "self_attn.out_proj.weight": (32, 32),
    "self_attn.out_proj.bias": (32,),
    "linear1.weight": (64, 32),
    "linear1.bias": (64,),
    "linear2.weight": (32, 64),
    "linear2.bias": (32,),
    "norm1.weight": (32,),
    "norm2.weight": (32,),
}


def published(kind):
    """Plain state dicts with the published names and shapes, as float32."""
    torch.manual_seed(7)
    d_in = 32 if kind == "block" else 16
    projection = {"weight": torch.randn(32, d_in), "bias": torch.randn(32)}
    block = {name: torch.randn(shape) for name, shape in PUBLISHED_BLOCK.items()}
    return GeneratorWeights(projection, None if kind == "small" else block)


def test_checkpoint_round_trip_keeps_weights(tiny_models, tmp_path, kind, capsys):
    """A checkpoint has the published names and shapes, its two formats hold the same tensors, and loading it gives the
    saved weights back."""
    model, folder = tiny_models.model(kind, seed=1), tmp_path / "ckpt" / "run-0.5"
    record = record_of(
        model, task_name="½", dev={"step": 5, "epoch": 1.0, "eval_sft_loss": 0.1}, own_task=OwnTask({}, {}, "number")
    )
    save_checkpoint(folder, model, record)
    files = {PARAMS_FILE, META_FILE} | (set() if kind == "small" else {ATT_FILE})
    assert {path.name for path in folder.iterdir()} == files and TrainingRecord.read(folder) == record
    projection = read_weights(folder / PARAMS_FILE, "--params_file_name")
    assert {name: tuple(t.shape) for name, t in projection.items()} == {
        "weight": (32, 32 if kind == "block" else 16),
        "bias": (32,),
    }
    block = None
    if kind != "small":
        block = read_weights(folder / ATT_FILE, "--att_file_name")
        assert {name: tuple(t.shape) for name, t in block.items()} == PUBLISHED_BLOCK | {"prior": (N, 32)}
    read = GeneratorWeights(projection, block)
    check_weights(kind, model.sizes, read)
    other = tiny_models.model(kind, seed=2)
    load_weights(other, read)
    assert capsys.readouterr().out == ""
    wanted = model.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    "kind, design",
    [("prompt", Design()), ("prompt", Design(num_chains=2)), ("small_block", Design(num_blocks=2, num_chains=2))]
    + [
        ("small", Design(distinct_slot_ids=True, standardize_states=True)),
        ("small_block", Design(standardize_states=True, num_chains=2)),
        ("small_block", Design(projection="after")),
        ("block", Design(projection="before", match_scale=True)),
        ("block", Design(reader_layers=1, block_positions=True)),
        ("block", Design(reader_layers=0)),
    ],
)
def test_other_designs_survive_round_trip(tiny_models, tmp_path, kind, design):
    """Checkpoints of other designs give the saved weights back. More chains, more blocks and a projection after the
    block do not fit the published design."""
    model = tiny_models.model(kind, seed=1, design=design)
    if design.standardize_states:
        model.generator.states.fit(torch.randn(9, 16), torch.randn(5, design.num_chains * model.num_thoughts, 16))
    save_checkpoint(tmp_path / "run", model, record_of(model))
    assert TrainingRecord.read(tmp_path / "run").design == design
    paths = {flag: tmp_path / "run" / file for flag, file in (("-p", PARAMS_FILE), ("-a", ATT_FILE))}
    weights = GeneratorWeights(*(read_weights(path, flag) if path.exists() else None for flag, path in paths.items()))
    assert (weights.projection is None) == (kind == "prompt")
    check_weights(kind, model.sizes, weights, design)
    other = tiny_models.model(kind, seed=2, design=design)
    load_weights(other, weights)
    wanted = model.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in other.state_dict().items())
    other_shapes = design.num_chains > 1 or design.num_blocks > 1 or design.projection == "after"
    if other_shapes or design.standardize_states:
        with pytest.raises(InputError):
            check_weights(kind, model.sizes, weights)


def test_checkpoint_is_replaced_as_a_whole(tiny_models, tmp_path):
    """A save replaces the whole checkpoint and clears up what killed saves left."""
    folder = tmp_path / "run"
    first, second = tiny_models.model("small_block"), tiny_models.model("small")
    save_checkpoint(folder, first, record_of(first))
    for end in ("partial", "old"):  # what kills leave behind
        shutil.copytree(folder, tmp_path / f".run.{end}")
    save_checkpoint(folder, second, record_of(second))
    assert TrainingRecord.read(folder) == record_of(second) and not (folder / ATT_FILE).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_published_files_load_without_prior(tiny_models, tmp_path, kind, capsys):
    """Published files load in any float dtype. A note says that they have no learnable prior, and the prior keeps its
    first rows."""
    projection, block = published(kind)
    torch.save({name: t.bfloat16() for name, t in projection.items()}, tmp_path / PARAMS_FILE)
    projection = read_weights(tmp_path / PARAMS_FILE, "--params_file_name")
    assert all(t.dtype == torch.float32 for t in projection.values())
    check_weights(kind, SIZES, GeneratorWeights(projection, block))
    model = tiny_models.model(kind)
    rows = None if kind == "small" else model.generator.prior.clone()
    load_weights(model, GeneratorWeights(projection, block))
    assert torch.equal(model.generator.projection.weight, projection["weight"])
    note = capsys.readouterr().out
    if kind == "small":
        assert note == ""
    else:
        assert torch.equal(model.generator.prior, rows) and note.count("\n") == 1 and "no learnable prior" in note
        assert torch.equal(model.generator.block.linear1.weight, block["linear1.weight"])
    assert evaluation_thoughts(model, prompt_batch(tiny_models, kind))[1].isfinite().all()


@pytest.mark.parametrize(
    "kind, change, parts",
    [
        ("small_block", lambda p, b: (p, None), ("--att_file_name", "needs")),
        ("small", lambda p, b: (p, published("block")[1]), ("--att_file_name", "takes no")),
        ("small_block", lambda p, b: ({"weight": p["weight"]}, b), ("--params_file_name", "no tensor bias")),
        ("block", lambda p, b: (p, b | {"norm3.weight": b["norm1.weight"]}), ("--att_file_name", "unknown", "norm3")),
        ("block", lambda p, b: (p, {k: v for k, v in b.items() if k != "norm2.weight"}), ("no tensor norm2.weight",)),
        ("block", lambda p, b: (published("small")[0], b), ("--params_file_name", "(32, 16)", "(32, 32)")),
        (
            "block",
            lambda p, b: (p, b | {"linear1.weight": torch.ones(48, 32)}),
            ("linear1.weight", "(48, 32)", "(64, 32)"),
        ),
        ("small_block", lambda p, b: (p, b | {"prior": torch.ones(9, 32)}), ("prior", "(9, 32)", "(4, 32)")),
    ],
)
def test_weights_that_misfit_are_refused(kind, change, parts):
    """Weights that do not fit the generator are refused in one line that names the flag, the tensor and the sizes."""
    with pytest.raises(InputError) as error:
        check_weights(kind, SIZES, GeneratorWeights(*change(*published(kind))))
    one_line(error, *parts)


def test_infinite_weights_are_refused(tiny_models):
    """Weights that are not finite are refused, and the tensor is named."""
    model = tiny_models.model("small")
    projection = model.generator.projection.state_dict()
    projection["bias"] = torch.full_like(projection["bias"], float("nan"))
    with pytest.raises(InputError, match="--params_file_name: tensor bias holds values that are not finite"):
        check_weights("small", model.sizes, GeneratorWeights(projection, None))


PLAIN = torch.ones(32, 16)


@pytest.mark.parametrize(
    "tensor, part",
    [
        (PLAIN.long(), "tensor weight is int64, not plain floating-point numbers"),
        (PLAIN.bool(), "tensor weight is bool"),
        (PLAIN.cfloat(), "tensor weight is complex64"),
        (PLAIN.to_sparse(), "tensor weight is float32, sparse, quantised or without values"),
        (PLAIN.to("meta"), "tensor weight is float32, sparse, quantised or without values"),
        (torch.quantize_per_tensor(PLAIN, 1.0, 0, torch.qint8), "tensor weight is qint8, sparse, quantised"),
        (PLAIN * 0, "tensor weight holds nothing but zeros"),
        (PLAIN * float("inf"), "tensor weight holds values that are not finite"),
        (PLAIN * float("nan"), "tensor weight holds values that are not finite"),
    ],
)
def test_weights_that_are_no_weights_are_refused(tmp_path, tensor, part):
    """Tensors of integers, complex numbers, zeros alone, infinities, and those that are not plain are refused by their
    name, whatever lies beside them."""
    torch.save({"weight": tensor, "bias": torch.zeros(32)}, tmp_path / PARAMS_FILE)
    with pytest.raises(InputError) as error:
        weights = read_weights(tmp_path / PARAMS_FILE, "--params_file_name")
        check_weights("small", SIZES, GeneratorWeights(weights, None))
    one_line(error, "--params_file_name", part)


def test_prompt_of_zeros_is_refused_and_a_prior_of_zeros_is_not():
    """small_block's prior starts at zero, and may stay there; a prompt's says everything."""
    with pytest.raises(InputError, match="tensor prior holds nothing but zeros"):
        check_weights("prompt", SIZES, GeneratorWeights(None, {"prior": torch.zeros(N, 32)}))
    projection, block = published("small_block")
    check_weights("small_block", SIZES, GeneratorWeights(projection, block | {"prior": torch.zeros(N, 32)}))


def test_weights_are_those_of_their_record(tiny_models, tmp_path):
    """thoughts.json has the digests of its weight files; other weights beside it, or none, are named."""
    model, path = tiny_models.model("small_block"), tmp_path / "run" / ATT_FILE
    save_checkpoint(tmp_path / "run", model, record_of(model))
    record = TrainingRecord.read(tmp_path / "run")
    assert record.files is not None and record.files.keys() == {PARAMS_FILE, ATT_FILE}
    record.check_files(tmp_path / "run")
    state = torch.load(path)
    torch.save({name: value * 2 for name, value in state.items()}, path)
    with pytest.raises(InputError) as error:
        record.check_files(tmp_path / "run")
    one_line(error, f"{path}: not the file that {META_FILE} was written with")
    path.unlink()
    with pytest.raises(InputError, match=f"{ATT_FILE}: no such file; the checkpoint had it"):
        record.check_files(tmp_path / "run")


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "place, name, error",
    [
        (torch, "save", RuntimeError("[enforce fail at inline_container.cc:858] . file write failed")),
        (checkpoint, "sha256_of", FULL),
        (TrainingRecord, "write", InputError("x/thoughts.json: cannot be written (No space left on device)")),
        (checkpoint.Path, "mkdir", FULL),
        (checkpoint.os, "replace", FULL),
    ],
)
def test_checkpoint_that_cannot_be_written_leaves_the_old_one(tiny_models, tmp_path, monkeypatch, place, name, error):
    """A save that fails at whatever point leaves the checkpoint that was there, and nothing half-written."""
    first, second = tiny_models.model("small_block", seed=1), tiny_models.model("small_block", seed=2)
    save_checkpoint(tmp_path / "run", first, record_of(first))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def fail(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch, pytest.raises(InputError) as raised:
        patch.setattr(place, name, fail)
        save_checkpoint(tmp_path / "run", second, record_of(second))
    one_line(raised, str(tmp_path / "run"), "cannot be written", "what was there stays")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("end", ["kill", "signal", "full disk"])
def test_old_checkpoint_stands_until_the_new_one_does(tiny_models, tmp_path, monkeypatch, end):
    """A save that ends between the two renames keeps the old checkpoint: where the rename fails or a signal comes it is
    put back at once, after a kill the next save puts it back first, even if that save fails."""
    model, replace = tiny_models.model("small"), checkpoint.os.replace
    save_checkpoint(tmp_path / "run", model, record_of(model))

    def second_fails(old, new):
        if str(old).endswith("run.partial") or (end == "kill" and str(old).endswith("run.old")):
            raise FULL if end == "full disk" else KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch, pytest.raises(InputError if end == "full disk" else KeyboardInterrupt):
        patch.setattr(checkpoint.os, "replace", second_fails)
        save_checkpoint(tmp_path / "run", model, record_of(model, task_name="other"))
    assert (tmp_path / "run").exists() == (end != "kill")
    with monkeypatch.context() as patch, pytest.raises(InputError):
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(FULL))
        save_checkpoint(tmp_path / "run", model, record_of(model, task_name="other"))
    assert TrainingRecord.read(tmp_path / "run") == record_of(model)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_files_that_a_system_leaves_are_none_of_a_checkpoint(tmp_path):
    """What a file system or a file browser leaves in a folder is not recorded: it goes away as it came."""
    for name in (".nfs0001", ".DS_Store", "model.safetensors", "base_model/.DS_Store", "base_model/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list(checkpoint.files_of(tmp_path)) == ["base_model/a", "model.safetensors"]


class Planted:
    def __reduce__(self):
        return (print, ("a pickled object ran",))


@pytest.mark.parametrize(
    "write, part",
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "cannot be read (Is a directory)"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "not a PyTorch file"),
        (lambda path: path.write_bytes(b""), "not a PyTorch file"),
        (lambda path: path.write_bytes(b"\x80\x02K\x01"), "not a PyTorch file"),
        (lambda path: path.write_bytes(pickle.dumps(Planted(), protocol=2)), "not a PyTorch file"),
        (lambda path: torch.save({"weight": Planted()}, path), "not a PyTorch file"),
        (lambda path: torch.save([torch.ones(2)], path), "not a state dict"),
        (lambda path: torch.save({"weight": 1.0}, path), "not a state dict"),
        (lambda path: torch.save({0: torch.ones(2)}, path), "not a state dict"),
    ],
)
def test_files_without_tensors_are_refused(tmp_path, write, part, capsys):
    """A file that holds anything but plain tensors is refused in one line, and no code in it runs."""
    write(tmp_path / "x.bin")
    with pytest.raises(InputError) as error:
        read_weights(tmp_path / "x.bin", "--att_file_name")
    one_line(error, "--att_file_name", str(tmp_path / "x.bin"), part)
    assert "ran" not in capsys.readouterr().out


def test_truncated_weight_files_are_refused(tmp_path):
    """A weight file that was cut off, at any length, is refused in one line."""
    torch.save(published("block")[1], tmp_path / "x.bin")
    whole = (tmp_path / "x.bin").read_bytes()
    for size in range(1, len(whole), len(whole) // 20):
        (tmp_path / "x.bin").write_bytes(whole[:size])
        with pytest.raises(InputError, match="not a PyTorch file"):
            read_weights(tmp_path / "x.bin", "--att_file_name")


def test_broken_meta_file_is_refused(tmp_path):
    """A missing or broken meta file is refused in one line."""
    with pytest.raises(InputError) as error:
        TrainingRecord.read(tmp_path)
    one_line(error, "no such file", META_FILE)
    for content, part in ((b"{", "not JSON"), (b"\xff\xfe\x00", "not UTF-8 text")):
        (tmp_path / META_FILE).write_bytes(content)
        with pytest.raises(InputError) as error:
            TrainingRecord.read(tmp_path)
        one_line(error, part, META_FILE)


def test_what_is_not_known_is_not_written(tiny_models, tmp_path):
    """thoughts.json has no key without a value but `own_task`, which says that the task is none of the user's own."""
    record_of(tiny_models.model("small_block")).write(tmp_path)
    values = json.loads((tmp_path / META_FILE).read_text())
    assert [name for name, value in values.items() if value is None] == ["own_task"]


def test_missing_slot_flag_means_one_token(tiny_models, tmp_path):
    """thoughts.json of before --distinct_slot_ids still loads: the small LM reads one token at all slots."""
    record_of(tiny_models.model("small", design=Design(distinct_slot_ids=True))).write(tmp_path)
    values = json.loads((tmp_path / META_FILE).read_text())
    del values["design"]["distinct_slot_ids"]
    (tmp_path / META_FILE).write_text(json.dumps(values))
    assert TrainingRecord.read(tmp_path).design == Design()


@pytest.mark.parametrize(
    "change, part",
    [
        ({"num_thoughts": "4"}, "num_thoughts: is '4', not int"),
        ({"num_thoughts": True}, "num_thoughts: is True, not int"),
        ({"sizes": {"num_thoughts": 4}}, "sizes: has no d_small"),
        ({"sizes": [4]}, "sizes: is [4], not Sizes"),
        ({"design": {"num_chains": None}}, "design: num_chains: is None, not int"),
        ({"prompts": {"problem": 5}}, "prompts.problem: is 5, not str"),
        ({"fingerprints": [1, None]}, "fingerprints[0]: is 1, not str or null"),
        ({"dev_curve": {}}, "dev_curve: is {}, not list"),
        ({"tuned": {"base_model": {"r": "16"}}}, "r: is '16', not int"),
        ({"tuned": {"another": {}}}, "its `tuned` is not what train.py writes"),
        ({"thought_generator": "gru"}, "gru is no thought generator"),
        ({"dtype": "int8"}, "its dtype is int8"),
        ({"fingerprints": ["a"]}, "its fingerprints are not two"),
        ({"prompts": {"problem": "{question}"}}, "its prompts are not problem, thoughts, generator"),
        ({"num_thoughts": 0}, "its numbers are not those of a generator"),
        ({"thought_generator": "block", "num_thoughts": 0}, "its numbers are not those of a generator"),
        ({"design": {"num_blocks": 10**9}}, "its numbers are not those of a generator"),
        ({"design": {"num_chains": 10**30}}, "its numbers are not those of a generator"),
        ({"design": {"reader_layers": -1}}, "its numbers are not those of a generator"),
        ({"design": {"projection": "sideways"}}, "its projection is 'sideways'"),
        ({"answer_type": "poem"}, "its answer_type is 'poem'"),
        ({"best": {"metric": "sft_loss", "step": 4}}, "best: has no value"),
        ({"best": {"metric": "sft_loss", "value": 1, "step": "4", "epoch": 1}}, "best: step: is '4', not int"),
        ({"dev": {"step": 1}}, "a dev point has no step or no epoch"),
        ({"dev_curve": [{"step": 1, "epoch": 1, "eval_loss": None}]}, "dev_curve[0].eval_loss: is None, not float"),
        ({"rows": {"train": {"kept": 1}}}, "rows.train: has no source"),
        ({"rows": {}}, "its rows are not those of train and dev"),
        ({"flags": {"learning_rate": "fast"}}, "a flag is no number"),
        ({"files": {"projection.bin": 5}}, "files.projection.bin: is 5, not str"),
        ({"flags": {"output_name": ["a"]}}, "flags.output_name: is ['a'], not str or"),
    ],
)
def test_wrong_values_of_thoughts_json_are_named(tiny_models, tmp_path, change, part):
    """Every key is checked against its type when the file is read; the message has the file and the key."""
    record_of(tiny_models.model("small_block")).write(tmp_path)
    values = json.loads((tmp_path / META_FILE).read_text())
    (tmp_path / META_FILE).write_text(json.dumps(values | change))
    with pytest.raises(InputError) as error:
        TrainingRecord.read(tmp_path)
    one_line(error, str(tmp_path / META_FILE), part)


VALUES = [None, 5, -1, 0.5, True, "", "x", [], [None], [[]], {}, {"x": None}, {"step": []}, 10**30, "\u0000"]


def test_no_value_of_thoughts_json_is_a_traceback(tiny_models, tmp_path):
    """Every key, at every depth, with a value of every type: the record is read, or one line names the file."""
    record_of(tiny_models.model("small_block"), best=checkpoint.Best("sft_loss", 1.0, 1, 0.5)).write(tmp_path)
    values, path = json.loads((tmp_path / META_FILE).read_text()), tmp_path / META_FILE
    refused = 0
    for key, value in values.items():
        changed = [{key: other} for other in VALUES]
        if isinstance(value, dict):
            changed += [{key: value | {inner: other}} for inner in value for other in VALUES]
        for change in changed:
            path.write_text(json.dumps(values | change))
            try:
                TrainingRecord.read(tmp_path)
            except InputError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error), change
                refused += 1
    assert refused > 300


def test_generator_follows_from_published_sizes():
    """The generator of published files follows from their sizes. Where the sizes leave it open or fit nothing, one line
    says so."""
    assert infer_generator(published("small"), 16, 32) == "small"
    assert infer_generator(published("small_block"), 16, 32) == "small_block"
    assert infer_generator(published("block"), 16, 32) == "block"
    with pytest.raises(InputError) as error:  # a published final folder has no block
        infer_generator(GeneratorWeights(published("block")[0], None), 16, 32)
    one_line(error, "--att_file_name", f"no {ATT_FILE}", "32 features")
    for d_small, d_large, part in ((32, 32, "--thought_generator"), (8, 64, "32 features")):
        with pytest.raises(InputError) as error:
            infer_generator(published("block"), d_small, d_large)
        one_line(error, part)
    assert infer_generator(GeneratorWeights(None, {"prior": torch.ones(2, 32)}), 16, 32) == "prompt"
    with pytest.raises(InputError, match="--att_file_name needs --params_file_name"):
        infer_generator(GeneratorWeights(None, published("block")[1]), 16, 32)
    with pytest.raises(InputError, match="not a projection"):
        infer_generator(GeneratorWeights({"linear.weight": torch.ones(2, 2)}, None), 16, 32)
