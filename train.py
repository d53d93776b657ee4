"""Train a thought generator in front of a frozen LLM (LTA-Thinker, arXiv 2509.12875).

    CUDA_VISIBLE_DEVICES=4,5,6,7 torchrun --nproc_per_node=4 --master_port=29501 train.py \
        --large_model_id Qwen/Qwen3-8B --small_model_id Qwen/Qwen3-0.6B --output_name NAME \
        --gradient_accumulation_steps 4 --batch_size 4 --task_name gsm8k --learning_rate 1e-4 \
        --num_thought_tokens 32 --n_epochs 10.0

flags -> rows -> frozen LMs and generator -> Trainer -> the best weights in ckpt/. Checkpoints to resume from are in
results/<output_name>/, tracker files in logs/<output_name>/. SIGTERM (a preempted job) saves one more and stops.
"""

import contextlib
import functools
import gc
import math
import os
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path

import huggingface_hub
import torch
import transformers
from packaging.version import Version

from lta_thinker.build import build_layout, build_models
from lta_thinker.checkpoint import (
    DEV_LOSSES_FILE,
    GeneratorWeights,
    TrainingRecord,
    check_weights,
    complete_checkpoints,
    read_weights,
    save_checkpoint,
    step_of,
)
from lta_thinker.common import InputError, make_folder, ranks, read_json, run_program, versions, write_json
from lta_thinker.data_loader import TASKS, worked_examples
from lta_thinker.flags import parse_flags
from lta_thinker.llm.frozen import fingerprint
from lta_thinker.llm.sharding import check_can_shard, parameters_here, whole_tensor
from lta_thinker.model import KINDS, LatentThoughtModel, prior_row_ids
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.rows.layout import DATE_STRING, WorkedExample
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.rows import RunRows, prepare_rows
from lta_thinker.training.states import fit_states, forget_states, keep_states

FLAGS_FILE = "flags.json"
KEPT = "what was saved is kept, and --resume goes on from the last checkpoint, where there is one"

# ---------------------------------------------------------------------------------------------------------------------
# The run's folders: results/<output_name>/ to resume from, ckpt/<output_name>-.../ for the best weights


def final_folder(args: TrainArguments) -> Path:
    """ckpt/<output_name>-<task>-<generator>-<epochs>-<N>-<large>-<small>/"""
    large = Path(args.large_model_id.rstrip("/")).name
    small = Path(args.small_model_id.rstrip("/")).name if args.spec.small else "none"
    kind, n = args.thought_generator, args.num_thought_tokens
    return Path("ckpt") / f"{args.output_name}-{args.task_name}-{kind}-{args.num_train_epochs:g}-{n}-{large}-{small}"


def newest_checkpoint(run: Path) -> Path | None:
    """The newest complete resume checkpoint of a run."""
    return next(reversed(complete_checkpoints(run)), None)


def check_run_folders(args: TrainArguments, final: Path) -> Path | None:
    """The checkpoint to resume from, or None for a fresh run. InputError where the folders and --resume disagree."""
    newest = newest_checkpoint(args.run_folder)
    if args.resume:
        if newest is None:
            raise InputError(f"--resume: no complete checkpoint in {args.run_folder}")
        return newest
    if newest is not None or final.exists():
        raise InputError(f"{newest or final} is there already: --resume goes on, another --output_name starts afresh")
    return None


def run_settings(args: TrainArguments, rows: RunRows) -> dict:
    """What is stored with a run, and must be the same when it is resumed."""
    return args.resolved() | {f"{split}_sha256": counts.sha256 for split, counts in rows.counts.items()}


def check_same_run(args: TrainArguments, rows: RunRows) -> None:
    """InputError where a resumed run has other flags or rows than it was started with (rows may change on disk)."""
    before, now = read_json(args.run_folder / FLAGS_FILE), run_settings(args, rows)
    for name in TrainArguments.__annotations__:  # what the train.py that began the run did not have yet was off
        off = False if isinstance(now.get(name), bool) else TrainArguments.__dataclass_fields__[name].default
        before.setdefault(name, off)
    for name in now:
        if name in before and before[name] != now[name]:
            raise InputError(f"--resume: this run was started with {name} = {before[name]}, not {now[name]}")
    last = before["starts"][-1]["versions"]
    for name, version in versions().items():
        if last.get(name, version) != version:
            print(f"note: this run came here with {name} {last[name]}, and goes on with {version}")


def record_start(args: TrainArguments, rows: RunRows) -> None:
    """Write into the run's folder what is needed to repeat it: what decides its weights, and for each start the
    versions and the flags that may differ."""
    path = args.run_folder / FLAGS_FILE
    starts = read_json(path)["starts"] if args.resume else []
    starts.append({"versions": versions(), "flags": args.free()})
    write_json(path, run_settings(args, rows) | {"starts": starts})
    if not args.resume:  # a run that was killed before its first checkpoint may have left it
        (args.run_folder / DEV_LOSSES_FILE).unlink(missing_ok=True)


def library_can_resume(args: TrainArguments, num_rows: int, step: int) -> bool:
    """Whether the library can resume after `step`: transformers before 4.57 would merge the last, shorter step of
    an epoch that is resumed inside into the next epoch."""
    micro_batches = math.ceil(num_rows / (args.per_device_train_batch_size * args.world_size))
    steps, rest = divmod(micro_batches, args.gradient_accumulation_steps)
    inside_epoch = step % (steps + bool(rest)) != 0
    return Version(transformers.__version__) >= Version("4.57") or not rest or not inside_epoch


def check_library_can_resume(args: TrainArguments, checkpoint: Path, num_rows: int) -> None:
    """InputError where the library cannot go on from the checkpoint."""
    if not library_can_resume(args, num_rows, step_of(checkpoint)):
        raise InputError(
            f"--resume: transformers {transformers.__version__} cannot go on inside an epoch whose micro-batches are "
            "no multiple of --gradient_accumulation_steps; use transformers 4.57 or newer"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Weights to start from, and the small LM's states


def read_start(args: TrainArguments) -> GeneratorWeights | None:
    """Weights to start from, None for fresh ones. InputError where they or the flags do not fit the LMs' configs: it is
    seen before the LMs are loaded."""
    llm_config, small_config = args.spec.load_configs()
    prior_row_ids(llm_config, args.num_thought_chains * args.num_thought_tokens)
    if args.distinct_slot_ids:
        prior_row_ids(small_config, args.num_thought_tokens)
    files = {"--params_file_name": args.params_file_name, "--att_file_name": args.att_file_name}
    if not any(files.values()):
        return None
    weights = GeneratorWeights(*(read_weights(path, flag) if path else None for flag, path in files.items()))
    check_weights(args.thought_generator, args.spec.sizes(llm_config, small_config), weights, args.design)
    return weights


def can_keep_states(args: TrainArguments, num_rows: int) -> bool:
    """Whether the small LM's states of a row are always the same, and read more than once."""
    step_rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    epochs = args.max_steps * step_rows / num_rows if args.max_steps > 0 else args.num_train_epochs
    always_the_same = args.num_thought_chains == 1 and not args.thoughts_see_steps and not args.tune_assistant_model
    uses_small_lm = KINDS[args.thought_generator].uses_small_lm
    return args.thought_cache and uses_small_lm and always_the_same and epochs > 1


def with_states(args: TrainArguments, model: LatentThoughtModel, rows: RunRows, collators: dict) -> RunRows:
    """The rows with the small LM's states (training/states.py), in a file for each split and node. `collators` by
    split."""
    process, kept = ranks(), {}
    quiet = args.disable_tqdm or not process.is_first
    for split, collator in collators.items():
        path = args.run_folder / f"states-{split}-node{process.rank // process.node_size}.bin"
        digest = rows.counts[split].sha256
        kept[split] = keep_states(model, getattr(rows, split), digest, collator, path, process, quiet)
    return replace(rows, **kept)


# ---------------------------------------------------------------------------------------------------------------------
# What is printed and written


def training_record(
    args: TrainArguments, model: LatentThoughtModel, rows: RunRows, shots: list[WorkedExample]
) -> TrainingRecord:
    """The part of thoughts.json that is the same in all checkpoints of a run."""
    llm_fingerprint = fingerprint(model.llm, whole_tensor) if args.shard_llm else fingerprint(model.llm)
    small_fingerprint = None if model.small_lm is None else fingerprint(model.small_lm)
    return TrainingRecord(
        thought_generator=model.kind,
        num_thoughts=model.num_thoughts,
        sizes=model.sizes,
        design=model.design,
        large_model_id=args.large_model_id,
        small_model_id=args.small_model_id if model.generator.uses_small_lm else None,
        prompts=args.prompts,
        worked_examples=shots or None,
        special_tokens_in_text=args.special_tokens_in_text,
        date_string=DATE_STRING,
        task_name=args.task_name,
        own_task=None if args.task_name in TASKS else args.own_task_flags(),
        answer_type=args.task.answer_type,
        loss_weights=args.objective.weights,
        focus_temperature=args.objective.focus_temperature,
        align=args.objective.align,
        thoughts_see_steps=args.thoughts_see_steps,
        tuned=args.adapters or None,
        dtype=args.dtype,
        fingerprints=[llm_fingerprint, small_fingerprint],
        seed=args.seed,
        versions=versions(),
        flags=args.resolved(),
        rows={split: asdict(counts) for split, counts in rows.counts.items()},
    )


def print_start(args: TrainArguments, model: LatentThoughtModel, rows: RunRows) -> None:
    """Flags, parameters and rows, at the start of a run."""
    for name, value in args.worth_printing().items():
        print(f"  {name} = {value}")
    if args.thoughts_see_steps:
        print("warning: --thoughts_see_steps: thoughts read the gold steps in training and have none in evaluation")
    if args.freeze_prior and model.generator.has_prior:
        print("warning: --freeze_prior: the slots' prior is not trained")
    reads_positions = model.generator.uses_small_lm or model.design.reader_layers or model.design.block_positions
    if args.steps_as_turns and not reads_positions:
        why = "block has no positions, so the end-of-turn tokens of all steps get one vector"
        print(f"warning: --steps_as_turns: {why}: the focus loss is a constant, the mean of log M of rows with M steps")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lms = [lm for lm in (model.llm, model.small_lm) if lm is not None]
    frozen = sum(p.numel() for lm in lms for p in lm.parameters() if not p.requires_grad)
    extra = [name for name in model.losses if name != "sft" and model.weights[name]] if args.balances else []
    megabytes = 4 * trained * (1 + len(extra)) / 1e6  # balanced losses have a gradient each
    sent = f" (ranks send each other {megabytes:.1f} MB of gradients a step)" if args.world_size > 1 else ""
    print(f"  parameters: {trained:,} trained{sent}, {frozen:,} frozen")
    if args.shard_llm:
        whole = sum(p.numel() for p in model.llm.parameters())
        print(f"  --shard_llm: this rank holds {parameters_here(model.llm):,} of the LLM's {whole:,} parameters")
    for split, counts in rows.counts.items():
        parts = [f"{key} {value}" for key, value in asdict(counts).items() if key != "sha256"]
        print(f"  {split} rows: {', '.join(parts)}", flush=True)


def save_best(args: TrainArguments, trainer, model: LatentThoughtModel, final: Path) -> None:
    """Save the best weights, which the Trainer has loaded at its end, into the run's folder in ckpt/."""
    record = trainer.record_at(trainer.state.best_global_step)
    best = {"metric": args.best_metric, "value": trainer.state.best_metric}
    best |= {name: record.dev[name] for name in ("step", "epoch")}
    save_checkpoint(final, model, replace(record, best=best))
    print(f"best dev {best['metric']} {best['value']:.4g} at step {best['step']} (epoch {best['epoch']:.2f}): {final}")


# ---------------------------------------------------------------------------------------------------------------------
# The run


def run(argv: list[str]) -> int:
    """A whole run; returns the exit status. InputError for whatever the user gave that is wrong."""
    args = parse_flags(TrainArguments, argv, "train.py")
    # imported here: transformers' Trainer takes two seconds, and --help and a wrong flag do not need it
    from lta_thinker.training.preemption import StopAtSigterm, start_workers_from_server
    from lta_thinker.training.trainer import EvaluateLastStep, ThoughtTrainer

    if args.dataloader_num_workers:
        start_workers_from_server()
    if args.shard_llm:
        check_can_shard(args.world_size)
    final = final_folder(args)
    checkpoint = check_run_folders(args, final)

    weights = read_start(args)
    separator, as_turns = args.task.separator, args.steps_as_turns
    shots = worked_examples(args.task, args.num_fewshot, args.data_dir, args.skip_bad_rows)
    layout = build_layout(
        args.spec,
        args.prompts,
        separator=separator,
        steps_as_turns=as_turns,
        worked_examples=shots,
        names_in_text=args.special_tokens_in_text,
    )
    rows = prepare_rows(args, layout)
    if checkpoint:
        check_same_run(args, rows)
        check_library_can_resume(args, checkpoint, len(rows.train))
    for folder in (args.run_folder, final.parent):  # now: an error must not wait for the last epoch
        make_folder(folder)

    models = build_models(args.spec, layout, weights, args.adapters)
    model = models.thoughts
    assert model is not None  # something is trained
    if args.freeze_prior and model.generator.has_prior:
        model.generator.prior.requires_grad_(False)
    if args.recompute_layers:
        model.recompute_layers()

    collator = TrainingCollator(layout, steps=bool(args.focus_loss_weight) or args.thoughts_see_steps)
    if args.standardize_states and not (weights or checkpoint):
        fit_states(model, rows.train, collator)
    if can_keep_states(args, len(rows.train)):
        collators = {"train": collator, "dev": TrainingCollator(layout, steps=True)}
        rows = with_states(args, model, rows, collators)
    sigterm = StopAtSigterm(functools.partial(library_can_resume, args, len(rows.train)))
    trainer = ThoughtTrainer(
        args=args,
        models=models,
        rows=rows,
        record=training_record(args, model, rows, shots),
        data_collator=collator,
        callbacks=[EvaluateLastStep(), sigterm],
    )
    if trainer.is_world_process_zero():
        print_start(args, model, rows)
        record_start(args, rows)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    if sigterm.step is not None:
        newest = newest_checkpoint(args.run_folder)
        goes_on = f"--resume goes on from {newest}" if newest else "there is no checkpoint yet"
        print(f"stopped by SIGTERM after step {sigterm.step}: {goes_on}", flush=True)
        return 128 + signal.SIGTERM
    trainer.save_state()  # the log to its end, which may be later than the last checkpoint
    if trainer.is_world_process_zero():
        save_best(args, trainer, model, final)
        forget_states(args.run_folder)
    return 0


def main() -> None:
    """The command: reads sys.argv, exits with run's status, prints an InputError as one line."""
    huggingface_hub.logging.set_verbosity_error()  # without a network it would print five retries before the one line
    with contextlib.redirect_stdout(sys.stdout if ranks().is_first else open(os.devnull, "w")):
        status = run_program(run, sys.argv[1:], KEPT)
    if torch.distributed.is_initialized():
        gc.collect()  # a sharded LLM still holds process groups, whose threads would disturb the interpreter's end
        torch.distributed.destroy_process_group()
    sys.exit(status)


if __name__ == "__main__":
    main()
