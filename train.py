"""Train a thought generator in front of a frozen LLM (LTA-Thinker, arXiv 2509.12875).

    CUDA_VISIBLE_DEVICES=4,5,6,7 torchrun --nproc_per_node=4 --master_port=29501 train.py \
        --large_model_id Qwen/Qwen3-8B --small_model_id Qwen/Qwen3-0.6B --output_name NAME \
        --gradient_accumulation_steps 4 --batch_size 4 --task_name gsm8k --learning_rate 1e-4 \
        --num_thought_tokens 32 --n_epochs 10.0
    python train.py --estimate --gpus 4 ...    # what it would take: memory, hours; from config.json alone, on a CPU

flags -> rows -> frozen LMs and generator -> Trainer -> the best weights in ckpt/. Checkpoints to resume from are in
results/<output_name>/, tracker files in logs/<output_name>/. SIGTERM (a preempted job), SIGHUP and Ctrl-C save one more
and stop; a second Ctrl-C stops at once.
"""

import signal

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C during the imports, which take seconds, is no traceback
    from lta_thinker.training.start import answer_at_once

    answer_at_once()  # --help, a wrong flag and the first word do not wait for the imports

import contextlib
import functools
import gc
import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import torch
import transformers
from packaging.version import Version

import lta_thinker
from lta_thinker.build import build_layout, build_models
from lta_thinker.checkpoint import META_FILE, STATE_FILE, Best, TrainingRecord, save_checkpoint, step_of
from lta_thinker.common import InputError, ranks, run_program, versions, writing
from lta_thinker.console import command, departure_lines, disk_line
from lta_thinker.data_loader import TASKS, worked_examples
from lta_thinker.flags import parse_flags
from lta_thinker.llm.frozen import fingerprint
from lta_thinker.llm.sharding import check_can_shard, parameters_here, whole_tensor
from lta_thinker.model import LatentThoughtModel, Models, prior_row_ids
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.rows.layout import DATE_STRING, WorkedExample
from lta_thinker.training.curriculum import ResetOptimizer
from lta_thinker.training.declared import REFUSED
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.folders import (
    check_same_as_record,
    check_same_run,
    final_folder,
    from_first_rank,
    is_at_last_step,
    look_at_run,
    newest_checkpoint,
    note_other_versions,
    read_dev_losses,
    read_settings,
    record_start,
    take_run_folders,
)
from lta_thinker.training.repeat import flags_of_run
from lta_thinker.training.rows import RunRows, prepare_rows
from lta_thinker.training.states import can_keep_states, fit_states, forget_states, keep_states
from lta_thinker.weights import GeneratorWeights, check_weights, read_weights

KEPT = "what was saved is kept, and --resume goes on from the last checkpoint, where there is one"

# ---------------------------------------------------------------------------------------------------------------------
# Steps


def check_some_step(args: TrainArguments, num_rows: int) -> None:
    """InputError where the rows make no step."""
    at_once = args.per_device_train_batch_size * args.world_size
    if args.dataloader_drop_last and num_rows < at_once:
        raise InputError(
            f"--dataloader_drop_last: the {num_rows} training rows do not fill one micro-batch of --batch_size x "
            f"processes = {at_once}, so nothing would be trained"
        )


def library_can_resume(args: TrainArguments, num_rows: int, step: int) -> bool:
    """Whether the library can resume after `step`: transformers before 4.57 would merge the last, shorter step of
    an epoch that is resumed inside into the next epoch."""
    micro_batches = num_rows / (args.per_device_train_batch_size * args.world_size)
    micro_batches = math.floor(micro_batches) if args.dataloader_drop_last else math.ceil(micro_batches)
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
    """Weights to start from, None for fresh ones and where a run goes on with its own. InputError where they or the
    flags do not fit the LMs' configs: it is seen before the LMs are loaded."""
    llm_config, small_config = args.spec.load_configs()
    prior_row_ids(llm_config, args.num_thought_chains * args.num_thought_tokens)
    if args.distinct_slot_ids:
        prior_row_ids(small_config, args.num_thought_tokens)
    files = {"--params_file_name": args.params_file_name, "--att_file_name": args.att_file_name}
    if args.resume or not any(files.values()):
        return None
    weights = GeneratorWeights(*(read_weights(path, flag) if path else None for flag, path in files.items()))
    check_weights(args.thought_generator, args.spec.sizes(llm_config, small_config), weights, args.design)
    return weights


def with_states(args: TrainArguments, model: LatentThoughtModel, rows: RunRows, collators: dict) -> RunRows:
    """The rows with the small LM's states (training/states.py), in a file for each split and node. `collators` by
    split."""
    process, kept = ranks(), {}
    quiet = args.disable_tqdm or not process.is_first
    for split, collator in collators.items():
        path = args.run_folder / f"states-{split}-node{process.rank - process.in_node}.bin"
        digest = rows.counts[split].sha256
        kept[split] = keep_states(model, getattr(rows, split), digest, collator, path, process, quiet)
    return replace(rows, **kept)


# ---------------------------------------------------------------------------------------------------------------------
# What is printed and written


def training_record(args: TrainArguments, models: Models, rows: RunRows, shots: list[WorkedExample]) -> TrainingRecord:
    """The part of thoughts.json that is the same in all checkpoints of a run."""
    model = models.thoughts
    assert model is not None
    llm_fingerprint = fingerprint(model.llm, whole_tensor) if args.shard_llm else fingerprint(model.llm)
    small_fingerprint = None if model.small_lm is None else fingerprint(model.small_lm)
    return TrainingRecord(
        thought_generator=model.kind,
        num_thoughts=model.num_thoughts,
        sizes=model.sizes,
        design=model.design,
        large_model_id=args.large_model_id,
        small_model_id=args.small_model_id if model.generator.uses_small_lm else None,
        large_model_path=absolute_path(args.large_model_id),
        small_model_path=absolute_path(args.small_model_id) if model.generator.uses_small_lm else None,
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
        tokens=models.layout.digests,
        known_states=list(models.known_states),
        seed=args.seed,
        versions=versions(),
        flags=args.resolved(),
        rows=rows.counts,
    )


def check_same_lms(args: TrainArguments, record: TrainingRecord, trained: TrainingRecord) -> None:
    """InputError where a resumed run has other LMs than its checkpoint."""
    for model_id, now, before in zip((args.large_model_id, args.small_model_id), record.lms, trained.lms, strict=True):
        if other := now.differs(before, args.dtype):
            raise InputError(f"--resume: {model_id}: {other}")


def absolute_path(model_id: str) -> str | None:
    """Where a model's folder is, whatever folder a checkpoint is used from; None for an id of the hub."""
    return os.path.abspath(model_id) if os.path.isdir(model_id) else None


def print_flags(args: TrainArguments) -> None:
    """The flags that were given; with --verbose all that decide the weights."""
    lines = [f"  {name} = {value}" for name, value in args.worth_printing().items()] if args.verbose else []
    print("\n".join(lines or departure_lines(args, args.departures)), flush=True)


def print_rows(args: TrainArguments, rows: RunRows) -> None:
    """The rows of each split, and what was left out."""
    for split, counts in rows.counts.items():
        left_out = {"broken": counts.bad, "too long": counts.too_long}
        parts = [f"{counts.kept:,} of {counts.source}"] + [f"{n:,} {why}" for why, n in left_out.items() if n]
        print(f"  {split} rows: {', '.join(parts)}", flush=True)


def print_start(args: TrainArguments, model: LatentThoughtModel, final: Path) -> None:
    """Parameters, disk, and what a flag has against it, at the start of a run."""
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
    print(disk_line(args.run_folder, final), flush=True)


def print_next(args: TrainArguments, final: Path) -> None:
    """The command that evaluates the weights."""
    words = ["--checkpoint", str(final), "--num_return_sequences", "10"]
    words += ["--data_dir", args.data_dir] if args.data_dir != "data" else []
    words += ["--trust_remote_code"] if args.trust_remote_code else []
    print(f"next: {command('evaluate.py', words)}")


def save_best(args: TrainArguments, trainer, model: LatentThoughtModel, final: Path) -> None:
    """Save the weights of the best checkpoint into the run's folder in ckpt/."""
    trainer.load_best()
    record = trainer.record_at(trainer.state.best_global_step)
    best = Best(args.best_metric, trainer.state.best_metric, record.dev["step"], record.dev["epoch"])
    save_checkpoint(final, model, replace(record, best=best), "; make room, and --resume writes them")
    print(f"best dev {best.metric} {best.value:.4g} at step {best.step} (epoch {best.epoch:.2f}): {final}")


def show_curves(args: TrainArguments, state: transformers.TrainerState) -> None:
    """Write the run's page."""
    from lta_thinker.evaluation.run_page import RUN_PAGE_FILE, write_run_page  # here: only the end needs it
    from lta_thinker.evaluation.runs import Run

    page = args.run_folder / RUN_PAGE_FILE
    write_run_page([Run(args.output_name, 0, state.log_history, state.best_global_step, {})], page)
    print(f"curves: {page}")


# ---------------------------------------------------------------------------------------------------------------------
# The run


def run(argv: list[str]) -> int:
    """A whole run; returns the exit status. InputError for whatever the user gave that is wrong."""
    args = parse_flags(TrainArguments, argv, "train.py", REFUSED, flags_of_run)
    print_flags(args)
    # imported here: transformers' Trainer takes two seconds, and a wrong flag does not need it
    from lta_thinker.training.preemption import StopAtSignal, start_workers_from_server
    from lta_thinker.training.texts import LogTexts
    from lta_thinker.training.trainer import Schedule, ThoughtTrainer, check_optimizer

    check_optimizer(args)
    if args.estimate:
        from lta_thinker.training.estimate import print_estimate  # here: nothing else needs it

        print_estimate(args)
        return 0
    if args.dataloader_num_workers:
        start_workers_from_server()
    if args.shard_llm:
        check_can_shard(args.world_size)
    final = final_folder(args)
    finished = from_first_rank(functools.partial(look_at_run, args, final))

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
    print_rows(args, rows)
    check_some_step(args, rows.num_train)
    if finished:
        check_same_as_record(args, rows, finished, str(final / META_FILE))
        print(f"this run has ended, and its weights are in {final}: nothing is left to do")
        return 0

    checkpoint, before, dev_losses = from_first_rank(functools.partial(take_run, args, rows, final))
    if before:  # they need not be given again, and the record names them
        args.params_file_name, args.att_file_name = before["params_file_name"], before["att_file_name"]
    only_writes = checkpoint is not None and is_at_last_step(checkpoint)
    if checkpoint and not only_writes:
        print(f"  goes on from {checkpoint}", flush=True)
        check_library_can_resume(args, checkpoint, rows.num_train)

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
    if can_keep_states(args, rows.num_train) and not only_writes:
        collators = {"train": collator, "dev": TrainingCollator(layout, steps=True)}
        rows = with_states(args, model, rows, collators)
    record = training_record(args, models, rows, shots)
    if checkpoint:
        check_same_lms(args, record, TrainingRecord.read(checkpoint))
    stop = StopAtSignal(functools.partial(library_can_resume, args, rows.num_train))
    callbacks = [Schedule(), stop, ResetOptimizer(args.curriculum)]
    if args.log_texts:
        callbacks.append(LogTexts(models, rows.dev_examples[: args.log_texts], args.task.answer_type))
    trainer = ThoughtTrainer(
        args=args,
        models=models,
        rows=rows,
        record=record,
        dev_losses=dev_losses,
        data_collator=collator,
        callbacks=callbacks,
    )
    if only_writes:
        print(f"all steps of this run are done; what is left is to write {final}")
        assert checkpoint is not None
        trainer.stand_at(checkpoint)
    else:
        if trainer.is_world_process_zero():
            print_start(args, model, final)
            record_start(args, rows, before.get("starts", []))
        with stop.catching():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    if stop.step is not None:
        newest = newest_checkpoint(args.run_folder)
        goes_on = f"--resume goes on from {newest}" if newest else "there is no checkpoint yet"
        print(f"stopped by {signal.Signals(stop.caught).name} after step {stop.step}: {goes_on}", flush=True)
        return 128 + stop.caught
    if trainer.is_world_process_zero():
        with writing(args.run_folder / STATE_FILE):
            trainer.save_state()  # the log to its end, which may be later than the last checkpoint
        save_best(args, trainer, model, final)
        forget_states(args.run_folder)
        show_curves(args, trainer.state)
        print_next(args, final)
    return 0


def take_run(args: TrainArguments, rows: RunRows, final: Path) -> tuple[Path | None, dict, dict]:
    """Keep the run's folders for this process -> (the checkpoint to resume from, the run's flags.json and dev losses so
    far). InputError where they cannot be written, or are not this run's."""
    checkpoint = take_run_folders(args, final)
    if checkpoint is None:
        return None, {}, {}
    settings = read_settings(args, rows)
    check_same_run(args, rows, settings)
    check_same_as_record(args, rows, TrainingRecord.read(checkpoint), str(checkpoint / META_FILE))
    note_other_versions(settings)
    return checkpoint, settings, read_dev_losses(args, checkpoint)


def run_rank(argv: list[str]) -> int:
    """`run`, with one line where a collective fails because its other end has gone: what ended that process, its own
    line says."""
    try:
        return run(argv)
    except RuntimeError as error:
        here, lost = ranks(), isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if here.world == 1 or not lost:
            raise
        what = f"another of the {here.world} processes of this run has ended or cannot be reached"
        raise InputError(f"process {here.rank}: {what}; {KEPT}") from None


def main() -> None:
    """The command: reads sys.argv, exits with run's status, prints an InputError as one line."""
    huggingface_hub.logging.set_verbosity_error()  # without a network it would print five retries before the one line
    with contextlib.redirect_stdout(sys.stdout if ranks().is_first else open(os.devnull, "w")):
        estimates = any(word.startswith("--estimate") for word in sys.argv[1:])
        status = run_program(run_rank, sys.argv[1:], "nothing was written" if estimates else KEPT)
    if torch.distributed.is_initialized():
        gc.collect()  # a sharded LLM still holds process groups, whose threads would disturb the interpreter's end
        torch.distributed.destroy_process_group()
    sys.exit(status)


if __name__ == "__main__":
    main()
else:
    sys.modules[__name__].__class__ = lta_thinker.CallableTrain  # lta_thinker.train(rows, large=..., small=...)
