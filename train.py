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
import json
import math
import os
import signal
import sys
from pathlib import Path

import huggingface_hub
import torch
import transformers
from accelerate.utils import gather_object
from packaging.version import Version
from transformers import set_seed

from lta_thinker.checkpoint import check_weights, complete_checkpoints, load_weights, read_weights, save_checkpoint
from lta_thinker.common import InputError, read_json, versions, write_text
from lta_thinker.data_loader import TASKS
from lta_thinker.flags import parse_flags
from lta_thinker.llm.frozen import (
    check_cache,
    check_vocabulary,
    fingerprint,
    load_config,
    load_frozen_lm,
    load_tokenizer,
)
from lta_thinker.llm.lora import ROLES, inject, tuned_settings
from lta_thinker.llm.sharding import check_can_shard, load_sharded, parameters_here, whole_tensor
from lta_thinker.model import GENERATORS, LatentThoughtModel, generator_sizes, prior_row_ids
from lta_thinker.rows.batch import TrainingCollator
from lta_thinker.rows.layout import DATE_STRING, Layout, pad_token_id
from lta_thinker.training.flags import TrainArguments
from lta_thinker.training.rows import prepare_rows
from lta_thinker.training.states import forget_states, keep_states

FLAGS_FILE = "flags.json"


def newest_checkpoint(run: Path) -> Path | None:
    """The newest complete resume checkpoint of a run."""
    return next(reversed(complete_checkpoints(run)), None)


def check_run_folders(args: TrainArguments, final: Path) -> Path | None:
    """The checkpoint to resume from, or None for a fresh run. InputError where the folders and --resume disagree."""
    run = Path(args.output_dir)
    newest = newest_checkpoint(run)
    if not args.resume:
        for there in filter(None, (newest, final.exists() and final)):
            raise InputError(f"{there} is there already: --resume goes on, another --output_name starts afresh")
    elif newest is None:
        raise InputError(f"--resume: no complete checkpoint in {run}")
    return newest if args.resume else None


def make_folders(*folders: Path) -> None:
    """Now, not after the last epoch: InputError where one cannot be made."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be made here ({error.strerror})") from None


def check_same_run(args: TrainArguments, rows: dict) -> None:
    """InputError where flags or rows of a resumed run are not those it was started with (or rows changed on disk)."""
    before, now = read_json(Path(args.output_dir) / FLAGS_FILE), run_settings(args, rows)
    for name in now:
        if name in before and before[name] != now[name]:
            raise InputError(f"--resume: this run was started with {name} = {before[name]}, not {now[name]}")
    last = before["starts"][-1]["versions"] if "starts" in before else {}
    for name, version in versions().items():
        if last.get(name, version) != version:
            print(f"note: this run came here with {name} {last[name]}, and goes on with {version}")


def library_can_resume(args: TrainArguments, num_rows: int, step: int) -> bool:
    """Transformers before 4.57 would merge the last, shorter step of an epoch resumed after `step` into the next."""
    micro_batches = math.ceil(num_rows / (args.per_device_train_batch_size * args.world_size))
    steps, rest = divmod(micro_batches, args.gradient_accumulation_steps)
    inside_epoch = step % (steps + bool(rest)) != 0
    return Version(transformers.__version__) >= Version("4.57") or not rest or not inside_epoch


def check_library_can_resume(args: TrainArguments, checkpoint: Path, num_rows: int) -> None:
    """InputError where it cannot."""
    if not library_can_resume(args, num_rows, int(checkpoint.name.split("-")[1])):
        raise InputError(
            f"--resume: transformers {transformers.__version__} cannot go on inside an epoch whose micro-batches are "
            "no multiple of --gradient_accumulation_steps; use transformers 4.57 or newer"
        )


def run_settings(args: TrainArguments, rows: dict) -> dict:
    """What is stored with a run, and must be the same when it goes on."""
    return args.resolved() | {f"{name}_sha256": count["sha256"] for name, count in rows.items()}


def record_start(args: TrainArguments, rows: dict) -> None:
    """Write what repeats this run to its folder: what decides its weights, and of each time it was started the versions
    and the flags that may differ."""
    path = Path(args.output_dir, FLAGS_FILE)
    starts = read_json(path).get("starts", []) if args.resume else []
    starts.append({"versions": versions(), "flags": args.free()})
    write_text(path, json.dumps(run_settings(args, rows) | {"starts": starts}, indent=2) + "\n")


def final_folder(args: TrainArguments) -> Path:
    """ckpt/<output_name>-<task>-<generator>-<epochs>-<N>-<large>-<small>/"""
    large = Path(args.large_model_id.rstrip("/")).name
    small = Path(args.small_model_id.rstrip("/")).name if GENERATORS[args.thought_generator].uses_small_lm else "none"
    kind, n = args.thought_generator, args.num_thought_tokens
    return Path("ckpt") / f"{args.output_name}-{args.task_name}-{kind}-{args.num_train_epochs:g}-{n}-{large}-{small}"


def build_layout(args: TrainArguments) -> Layout:
    """The layout of both prompts, from the LMs' tokenizers alone."""
    llm_tokenizer = load_tokenizer(args.large_model_id, "--large_model_id", args.trust_remote_code)
    tokenizer = llm_tokenizer
    if GENERATORS[args.thought_generator].uses_small_lm:
        tokenizer = load_tokenizer(args.small_model_id, "--small_model_id", args.trust_remote_code)
    return Layout(llm_tokenizer, tokenizer, args.prompts, separator=args.task.separator)


def read_start(args: TrainArguments) -> list:
    """Weights to start from (projection, block), or nothing; all is checked on the LMs' configs, before they load."""
    llm_config = load_config(args.large_model_id, "--large_model_id", args.trust_remote_code)
    small_config = None
    if GENERATORS[args.thought_generator].uses_small_lm:
        small_config = load_config(args.small_model_id, "--small_model_id", args.trust_remote_code)
    prior_row_ids(llm_config, args.num_thought_chains * args.num_thought_tokens)
    if not (args.params_file_name or args.att_file_name):
        return []
    projection = read_weights(args.params_file_name, "--params_file_name") if args.params_file_name else None
    block = read_weights(args.att_file_name, "--att_file_name") if args.att_file_name else None
    sizes = generator_sizes(llm_config, small_config, args.num_thought_tokens)
    check_weights(args.thought_generator, sizes, projection, block, args.design)
    return [projection, block]


def build_model(args: TrainArguments, layout: Layout, start: list) -> LatentThoughtModel:
    """The frozen LMs on this rank's device and the generator before them."""
    dtype, kind = getattr(torch, args.dtype), GENERATORS[args.thought_generator]
    large, small = (args.large_model_id, "--large_model_id", dtype), (args.small_model_id, "--small_model_id", dtype)
    how = (args.trust_remote_code, args.attn_implementation)
    if args.shard_llm:
        llm = load_sharded(lambda: load_frozen_lm(*large, "cpu", *how), args.device)
    else:
        llm = load_frozen_lm(*large, args.device, *how)
    check_vocabulary(llm, layout.llm_tokenizer, layout.llm.text, "--large_model_id")
    check_cache(llm, "--large_model_id")
    small_lm = None
    if kind.uses_small_lm:
        small_lm = load_frozen_lm(*small, args.device, *how)
        check_vocabulary(small_lm, layout.generator_tokenizer, layout.generator.text, "--small_model_id")
    set_seed(args.seed)
    model = LatentThoughtModel(
        args.thought_generator,
        llm,
        small_lm,
        args.num_thought_tokens,
        pad_token_id(layout.generator_tokenizer),
        args.loss_weights,
        args.focus_temperature,
        args.thoughts_see_steps,
        args.design,
        args.align,
    )
    if start:
        load_weights(model, *start)
    if args.freeze_prior and kind.has_prior:
        model.generator.prior.requires_grad_(False)
    ids = (args.large_model_id, args.small_model_id)
    for role, lm, model_id in zip(ROLES, model.frozen, ids, strict=True):
        if role in args.tuned_roles:  # last: the generator starts as it would without
            model.adapters[role] = inject(lm, args.lora.config(model_id), "--lora_target")
    return model


def can_keep_states(args: TrainArguments, num_rows: int) -> bool:
    """Whether the small LM's states of a row are always the same, and read more than once."""
    step_rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    epochs = args.max_steps * step_rows / num_rows if args.max_steps > 0 else args.num_train_epochs
    always_the_same = args.num_thought_chains == 1 and not args.thoughts_see_steps and not args.tune_assistant_model
    uses_small_lm = GENERATORS[args.thought_generator].uses_small_lm
    return args.thought_cache and uses_small_lm and always_the_same and epochs > 1


def small_lm_states(args: TrainArguments, model, split: str, rows, collator: TrainingCollator, counts: dict):
    """Rows of a split with the small LM's states (states.py), one file a node."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    path = Path(args.output_dir, f"states-{split}-node{args.process_index // ranks}.bin")
    part, quiet = (args.local_process_index, ranks), args.disable_tqdm or args.process_index > 0
    digest = counts[split]["sha256"]
    return keep_states(model, rows, digest, collator, path, part, lambda here: all(gather_object([here])), quiet)


def run_meta(args: TrainArguments, model: LatentThoughtModel, rows: dict) -> dict:
    """Of thoughts.json, what all checkpoints of a run share: all that evaluation must agree on, and their origin."""
    llm, small_lm = model.frozen
    return {
        "thought_generator": model.kind,
        "num_thoughts": model.num_thoughts,
        "sizes": vars(model.sizes),
        "design": vars(model.design),
        "large_model_id": args.large_model_id,
        "small_model_id": args.small_model_id if model.generator.uses_small_lm else None,
        "prompts": args.prompts,
        "date_string": DATE_STRING,
        "task_name": args.task_name,
        "own_task": None if args.task_name in TASKS else args.own_flags(),
        "answer_type": args.task.answer_type,
        "loss_weights": model.weights,
        "focus_temperature": args.focus_temperature,
        "align": args.align,
        "thoughts_see_steps": args.thoughts_see_steps,
        **tuned_settings(args.lora, args.tuned_roles),
        "dtype": args.dtype,
        "fingerprints": [
            fingerprint(llm, whole_tensor) if args.shard_llm else fingerprint(llm),
            small_lm and fingerprint(small_lm),
        ],
        "seed": args.seed,
        "versions": versions(),
        "flags": args.resolved(),
        "rows": rows,
    }


def print_start(args: TrainArguments, model: LatentThoughtModel, rows: dict) -> None:
    for name, value in args.told().items():
        print(f"  {name} = {value}")
    if args.thoughts_see_steps:
        print("warning: --thoughts_see_steps: thoughts read the gold steps in training and have none in evaluation")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for lm in model.frozen if lm is not None for p in lm.parameters() if not p.requires_grad)
    sent = f" (ranks send each other {4 * trained / 1e6:.1f} MB of gradients a step)" if args.world_size > 1 else ""
    print(f"  parameters: {trained:,} trained{sent}, {frozen:,} frozen")
    if args.shard_llm:
        whole = sum(p.numel() for p in model.llm.parameters())
        print(f"  --shard_llm: this rank holds {parameters_here(model.llm):,} of the LLM's {whole:,} parameters")
    for name, count in rows.items():
        told = ", ".join(f"{key} {value}" for key, value in count.items() if key != "sha256")
        print(f"  {name} rows: {told}", flush=True)


def save_best(args: TrainArguments, trainer, model: LatentThoughtModel, final: Path) -> None:
    """The best weights, which the Trainer has loaded at its end, into the run's folder in ckpt/."""
    meta, state = trainer.meta_at(trainer.state.best_global_step), trainer.state
    best = {"metric": args.best_metric, "value": state.best_metric}
    best |= {name: meta["dev"][name] for name in ("step", "epoch")}
    save_checkpoint(final, model, meta | {"best": best})
    print(f"best dev {best['metric']} {best['value']:.4g} at step {best['step']} (epoch {best['epoch']:.2f}): {final}")


def run(argv: list[str]) -> int:
    """The whole of a run -> exit status."""
    args = parse_flags(TrainArguments, argv, "train.py")
    # imported here: transformers' Trainer takes two seconds, which --help and a wrong flag do without
    from lta_thinker.training.preemption import StopAtSigterm
    from lta_thinker.training.trainer import EvaluateLastStep, ThoughtTrainer

    if args.shard_llm:
        check_can_shard(args.world_size)
    final = final_folder(args)
    checkpoint = check_run_folders(args, final)
    start, layout = read_start(args), build_layout(args)
    train_rows, dev_rows, dev_examples, counts = prepare_rows(args, layout)
    if checkpoint:
        check_same_run(args, counts)
        check_library_can_resume(args, checkpoint, len(train_rows))
    make_folders(Path(args.output_dir), final.parent)
    model = build_model(args, layout, start)
    if args.recompute_layers:
        model.recompute_layers()
    lengths = zip(train_rows["prefix_length"], train_rows["length"], strict=True)
    widths = [(prefix, args.num_thought_tokens + length - prefix) for prefix, length in lengths]
    collator = TrainingCollator(layout, steps=bool(args.focus_loss_weight) or args.thoughts_see_steps)
    if can_keep_states(args, len(train_rows)):
        dev_collator = TrainingCollator(layout, steps=True)
        train_rows = small_lm_states(args, model, "train", train_rows, collator, counts)
        dev_rows = small_lm_states(args, model, "dev", dev_rows, dev_collator, counts)
    sigterm = StopAtSigterm(functools.partial(library_can_resume, args, len(train_rows)))
    trainer = ThoughtTrainer(
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=train_rows,
        eval_dataset=dev_rows,
        callbacks=[EvaluateLastStep(), sigterm],
        dev_examples=dev_examples,
        layout=layout,
        meta=run_meta(args, model, counts),
        widths=widths,
    )
    if trainer.is_world_process_zero():
        print_start(args, model, counts)
        record_start(args, counts)
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if sigterm.step is not None:
        newest = newest_checkpoint(Path(args.output_dir))
        goes_on = f"--resume goes on from {newest}" if newest else "there is no checkpoint yet"
        print(f"stopped by SIGTERM after step {sigterm.step}: {goes_on}", flush=True)
        return 128 + signal.SIGTERM
    trainer.save_state()  # the log to its end, which may be later than the last checkpoint
    if trainer.is_world_process_zero():
        save_best(args, trainer, model, final)
        forget_states(Path(args.output_dir))
    return 0


def main() -> None:
    huggingface_hub.logging.set_verbosity_error()  # else a missing network is five retries before the one line
    try:
        with contextlib.redirect_stdout(sys.stdout if int(os.environ.get("RANK", 0)) == 0 else open(os.devnull, "w")):
            status = run(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}" if int(os.environ.get("LOCAL_RANK", 0)) == 0 else 1)
    if torch.distributed.is_initialized():
        gc.collect()  # a sharded LLM still holds process groups: their threads would run on into the interpreter's end
        torch.distributed.destroy_process_group()
    sys.exit(status)


if __name__ == "__main__":
    main()
