"""Train a thought generator in front of a frozen LLM (LTA-Thinker, arXiv 2509.12875).

    CUDA_VISIBLE_DEVICES=4,5,6,7 torchrun --nproc_per_node=4 --master_port=29501 train.py \
        --large_model_id Qwen/Qwen3-8B --small_model_id Qwen/Qwen3-0.6B --output_name NAME \
        --gradient_accumulation_steps 4 --batch_size 4 --task_name gsm8k --learning_rate 1e-4 \
        --num_thought_tokens 32 --n_epochs 10.0

flags -> rows -> frozen LMs and generator -> Trainer -> the best weights in ckpt/. Checkpoints to resume from are in
results/<output_name>/, tracker files in logs/<output_name>/.
"""

import contextlib
import hashlib
import json
import math
import os
import sys
from pathlib import Path

import huggingface_hub
import torch
import transformers
from accelerate.data_loader import SeedableRandomSampler
from accelerate.utils import broadcast_object_list
from packaging.version import Version
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, set_seed

from checkpoint import (
    COMPLETE,
    META_FILE,
    check_weights,
    complete_checkpoints,
    load_weights,
    read_weights,
    save_checkpoint,
)
from data_loader import DATE_STRING, TASKS, Example, InputError, load_split
from flags import TrainArguments, parse_flags
from generation import count_right
from layout import Layout, TrainingCollator, loss_counts, pad_token_id
from model import (
    GENERATORS,
    LOSSES,
    LatentThoughtModel,
    check_vocabulary,
    fingerprint,
    generator_sizes,
    load_config,
    load_frozen_lm,
    load_tokenizer,
    prior_row_ids,
)
from report import read_json, versions, write_text
from states import forget_states, keep_states

FLAGS_FILE = "flags.json"

# ---------------------------------------------------------------------------------------------------------------------
# Training


class ByLengthWithinSteps(torch.utils.data.Sampler):
    """The library's random order of rows, with the rows of one optimiser step (of all ranks and micro-batches) sorted
    by length, longest first. Every step has the very rows that it would have had; its micro-batches are padded less,
    and ranks that work at the same time have rows of similar length."""

    def __init__(self, order: SeedableRandomSampler, lengths: list[int], step_rows: int):
        self.order, self.lengths, self.step_rows = order, lengths, step_rows

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self):
        rows = list(self.order)
        for start in range(0, len(rows), self.step_rows):
            yield from sorted(rows[start : start + self.step_rows], key=lambda row: -self.lengths[row])

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)


def padding_share(widths: list[tuple[int, int]], order: list[int], batch_size: int) -> float:
    """Share of padding among the LLM's tokens where rows of `widths` (prefix; thoughts, suffix and target) come in that
    order."""
    real = padded = 0
    for start in range(0, len(order), batch_size):
        prefixes, rests = zip(*(widths[row] for row in order[start : start + batch_size]), strict=True)
        real += sum(prefixes) + sum(rests)
        padded += len(prefixes) * (max(prefixes) + max(rests))
    return 1 - real / padded


class ThoughtTrainer(Trainer):
    """Trainer whose losses are divided by counts over the whole optimiser step: over ranks and micro-batches."""

    def __init__(
        self, *args, dev_examples: list[Example], layout: Layout, meta: dict, widths: list[tuple[int, int]], **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.widths = widths  # of the training rows, as padding_share takes them
        self.model_accepts_loss_kwargs = True  # compute_loss divides; Trainer shall not divide by accumulation again
        self.dev_examples, self.layout, self.meta = dev_examples, layout, meta
        self.dev_collator = TrainingCollator(layout, steps=True)
        self._parts, self._parts_step = torch.zeros(len(LOSSES), device=self.args.device), None

    def _get_train_sampler(self, train_dataset=None) -> torch.utils.data.Sampler:
        batch_size = self.args.per_device_train_batch_size
        step_rows = batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        order = SeedableRandomSampler(self.train_dataset, data_seed=self.args.data_seed)
        random_order = [*order]
        sampler = order
        if step_rows > batch_size:
            sampler = ByLengthWithinSteps(order, [sum(width) for width in self.widths], step_rows)
        order.set_epoch(0)
        shares = [padding_share(self.widths, rows, batch_size) for rows in (random_order, [*sampler])]
        order.set_epoch(0)
        if self.is_world_process_zero():
            print("  padding: {1:.1%} of the LLM's tokens ({0:.1%} with rows in random order)".format(*shares))
        return sampler

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of one optimiser step and, for its loss sums, counts (4,) a rank: global count / ranks."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = sum((loss_counts(batch) for batch in batches), torch.zeros(len(LOSSES))).to(device)
        return batches, self.accelerator.reduce(counts, "mean")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self._parts_step is None:  # the first step of this process, perhaps of a resumed run
            self._parts_step = self.state.global_step
        sums = model(**inputs)
        counts = dict(zip(LOSSES, num_items_in_batch.clamp(min=1e-9), strict=True))
        parts = {name: total / counts[name] for name, total in sums.items()}
        self._parts += torch.stack(
            [parts[name].detach() if name in parts else self._parts.new_zeros(()) for name in LOSSES]
        )
        return sum(self.weight_now(name) * part for name, part in parts.items())

    def weight_now(self, name: str) -> float:
        """A loss's weight at this step."""
        left = 1 - self.state.global_step / self.state.max_steps
        return self.model.weights[name] * (left if self.args.decay_extra_losses and name != "sft" else 1)

    def log(self, logs, start_time=None):
        if "loss" in logs:  # a training log: add the losses one by one, over the same steps
            parts = self.accelerator.reduce(self._parts, "mean") / (self.state.global_step - self._parts_step)
            weighted = [name for name in self.model.losses if self.model.weights[name]]
            logs |= {f"{name}_loss": parts[LOSSES.index(name)].item() for name in weighted}
            self._parts, self._parts_step = torch.zeros_like(self._parts), self.state.global_step
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Dev losses, each over all dev rows (SFT per target token), thoughts made without steps in view."""
        self.model.eval()
        mine = range(self.args.process_index, len(self.eval_dataset), self.args.world_size)
        size = self.args.per_device_eval_batch_size
        totals = torch.zeros(2, len(LOSSES), dtype=torch.float64)
        quiet = self.args.disable_tqdm or not self.is_world_process_zero()
        for start in tqdm(range(0, len(mine), size), desc="dev losses", disable=quiet, leave=False):
            batch = self.dev_collator([self.eval_dataset[i] for i in mine[start : start + size]])
            sums = self.model(**self._prepare_inputs(batch))
            values = [sums[name].item() if name in sums else 0.0 for name in LOSSES]
            totals += torch.stack([torch.tensor(values), loss_counts(batch)])
        sums, counts = self.accelerator.reduce(totals.to(self.args.device), "sum").tolist()
        means = {name: total / max(count, 1) for name, total, count in zip(LOSSES, sums, counts, strict=True)}
        losses = {name: means[name] for name in self.model.losses}
        if not all(map(math.isfinite, losses.values())):
            raise InputError(f"step {self.state.global_step}: dev losses {losses}; try a lower --learning_rate")
        metrics = {f"eval_{name}_loss": value for name, value in losses.items()}
        metrics["eval_loss"] = sum(self.model.weights[name] * value for name, value in losses.items())
        if self.args.best_metric == "accuracy":
            metrics["eval_accuracy"] = self._dev_accuracy(quiet)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _dev_accuracy(self, quiet: bool) -> float:
        """Share of dev questions whose greedy answer is right, over all ranks."""
        mine = self.dev_examples[self.args.process_index :: self.args.world_size]
        right = count_right(
            self.model,
            self.layout,
            mine,
            self.args.task.answer_type,
            self.args.max_new_tokens,
            self.args.per_device_eval_batch_size,
            quiet,
        )
        counts = torch.tensor([right, len(mine)], device=self.args.device)
        right, total = self.accelerator.reduce(counts, "sum").tolist()
        return right / total

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        # transformers 4.53: a rank may look for the best folder before rank 0 has made it, and they hang at the end
        best = [self.state.best_model_checkpoint]
        self.state.best_model_checkpoint = broadcast_object_list(best)[0]
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
            write_text(folder / META_FILE, json.dumps(self.meta_at(self.state.global_step), indent=2) + "\n")
            (folder / COMPLETE).touch()

    def meta_at(self, step: int) -> dict:
        """thoughts.json of the weights after `step`: `dev` is their own point of the dev curve so far."""
        keys = ("step", "epoch", "eval_loss", *(f"eval_{name}_loss" for name in LOSSES), "eval_accuracy")
        logs = [log for log in self.state.log_history if "eval_sft_loss" in log]
        curve = [{key: log[key] for key in keys if key in log} for log in logs]
        unjudged = {"step": self.state.global_step, "epoch": self.state.epoch}  # before --eval_delay
        dev = next((point for point in curve if point["step"] == step), unjudged)
        return self.meta | {"dev": dev, "dev_curve": curve}


class EvaluateLastStep(TrainerCallback):
    """With --eval_strategy steps the last weights are judged too, wherever the last step falls."""

    def on_step_end(self, args, state, control, **kwargs):
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        return control


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


def check_library_can_resume(args: TrainArguments, checkpoint: Path, num_rows: int) -> None:
    """InputError where transformers before 4.57 would merge the last, shorter step of a resumed epoch into the next."""
    micro_batches = math.ceil(num_rows / (args.per_device_train_batch_size * args.world_size))
    steps, rest = divmod(micro_batches, args.gradient_accumulation_steps)
    inside_epoch = int(checkpoint.name.split("-")[1]) % (steps + bool(rest)) != 0
    if Version(transformers.__version__) < Version("4.57") and rest and inside_epoch:
        raise InputError(
            f"--resume: transformers {transformers.__version__} cannot go on inside an epoch of {micro_batches} "
            "micro-batches, no multiple of --gradient_accumulation_steps; use transformers 4.57 or newer"
        )


def run_settings(args: TrainArguments, rows: dict) -> dict:
    """What is stored with a run, and must be the same when it goes on."""
    return args.resolved() | {f"{name}_sha256": count["sha256"] for name, count in rows.items()}


def final_folder(args: TrainArguments) -> Path:
    """ckpt/<output_name>-<task>-<generator>-<epochs>-<N>-<large>-<small>/"""
    large = Path(args.large_model_id.rstrip("/")).name
    small = Path(args.small_model_id.rstrip("/")).name if GENERATORS[args.thought_generator].uses_small_lm else "none"
    kind, n = args.thought_generator, args.num_thought_tokens
    return Path("ckpt") / f"{args.output_name}-{args.task_name}-{kind}-{args.num_train_epochs:g}-{n}-{large}-{small}"


def prepare_rows(args: TrainArguments, layout: Layout) -> tuple[list[dict], list[dict], list[Example], dict]:
    """Training rows and dev rows as token ids, the dev examples, and counts of what was read, kept and dropped."""
    counts, rows, kept, warnings = {}, {}, {}, set()
    for name in ("train", "dev"):
        split = load_split(args.task, name, args.data_dir, args.skip_bad_rows)
        examples = split.examples[: args.k_shot or None] if name == "train" else split.examples
        encoded = [(example, layout.training(example)) for example in examples]
        fits = [
            (example, row)
            for example, row in encoded
            if args.max_len is None
            or len(row["prefix"]) + args.num_thought_tokens + len(row["suffix"]) + len(row["target"]) <= args.max_len
        ]
        if not fits:
            reason = "no row is that short" if encoded else "no row is left beside the dev rows"
            raise InputError(f"{split.source}, {name}, --max_len {args.max_len}: {reason}")
        kept[name], rows[name] = [example for example, _ in fits], [row for _, row in fits]
        counts[name] = {"source": split.source, "read": split.read, "bad": split.bad, "in_split": len(split.examples)}
        warnings |= {split.warning} - {""}
        steps_field = args.task.fields[0].steps
        if examples and steps_field and not any(example.steps for example in examples):
            raise InputError(f"{split.source}: no row has steps in the field {steps_field} (--steps_field)")
        digest = hashlib.sha256(json.dumps(rows[name]).encode()).hexdigest()
        counts[name] |= {"too_long": len(encoded) - len(fits), "kept": len(fits), "sha256": digest}
    for warning in warnings:
        print(f"warning: {warning}")
    return rows["train"], rows["dev"], kept["dev"], counts


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
    llm = load_frozen_lm(args.large_model_id, "--large_model_id", dtype, args.device, args.trust_remote_code)
    check_vocabulary(llm, layout.llm_tokenizer, layout.llm, "--large_model_id")
    small_lm = None
    if kind.uses_small_lm:
        small_lm = load_frozen_lm(args.small_model_id, "--small_model_id", dtype, args.device, args.trust_remote_code)
        check_vocabulary(small_lm, layout.generator_tokenizer, layout.generator, "--small_model_id")
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
    return model


def can_keep_states(args: TrainArguments, num_rows: int) -> bool:
    """Whether the small LM's states of a row are always the same, and read more than once."""
    step_rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    epochs = args.max_steps * step_rows / num_rows if args.max_steps > 0 else args.num_train_epochs
    always_the_same = args.num_thought_chains == 1 and not args.thoughts_see_steps
    uses_small_lm = GENERATORS[args.thought_generator].uses_small_lm
    return args.thought_cache and uses_small_lm and always_the_same and epochs > 1


def small_lm_states(args: TrainArguments, model, split: str, rows, collator: TrainingCollator, counts: dict):
    """Rows of a split with the small LM's states (states.py), one file a node."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    path = Path(args.output_dir, f"states-{split}-node{args.process_index // ranks}.bin")
    state, quiet = args.distributed_state, args.disable_tqdm or args.process_index > 0
    part = (args.local_process_index, ranks)
    return keep_states(model, rows, counts[split]["sha256"], collator, path, part, state.wait_for_everyone, quiet)


def run_meta(args: TrainArguments, model: LatentThoughtModel, rows: dict) -> dict:
    """Of thoughts.json, what all checkpoints of a run share: all that evaluation must agree on, and their origin."""
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
        "dtype": args.dtype,
        "fingerprints": [None if lm is None else fingerprint(lm) for lm in model.frozen],
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
    frozen = sum(p.numel() for lm in model.frozen if lm is not None for p in lm.parameters())
    print(f"  parameters: {trained:,} trained, {frozen:,} frozen")
    for name, count in rows.items():
        told = ", ".join(f"{key} {value}" for key, value in count.items() if key != "sha256")
        print(f"  {name} rows: {told}", flush=True)


def run(argv: list[str]) -> None:
    args = parse_flags(TrainArguments, argv, "train.py")
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
    widths = [(len(row["prefix"]), args.num_thought_tokens + len(row["suffix"] + row["target"])) for row in train_rows]
    collator = TrainingCollator(layout, steps=bool(args.focus_loss_weight) or args.thoughts_see_steps)
    if can_keep_states(args, len(train_rows)):
        dev_collator = TrainingCollator(layout, steps=True)
        train_rows = small_lm_states(args, model, "train", train_rows, collator, counts)
        dev_rows = small_lm_states(args, model, "dev", dev_rows, dev_collator, counts)
    trainer = ThoughtTrainer(
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=train_rows,
        eval_dataset=dev_rows,
        callbacks=[EvaluateLastStep()],
        dev_examples=dev_examples,
        layout=layout,
        meta=run_meta(args, model, counts),
        widths=widths,
    )
    if trainer.is_world_process_zero():
        print_start(args, model, counts)
        write_text(Path(args.output_dir, FLAGS_FILE), json.dumps(run_settings(args, counts), indent=2) + "\n")
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if trainer.is_world_process_zero():
        meta, state = trainer.meta_at(trainer.state.best_global_step), trainer.state
        best = {"metric": args.best_metric, "value": state.best_metric}
        best |= {name: meta["dev"][name] for name in ("step", "epoch")}
        save_checkpoint(final, model, meta | {"best": best})
        forget_states(Path(args.output_dir))
        print(
            f"best dev {best['metric']} {best['value']:.4g} at step {best['step']} (epoch {best['epoch']:.2f}): {final}"
        )


def main() -> None:
    huggingface_hub.logging.set_verbosity_error()  # else a missing network is five retries before the one line
    try:
        with contextlib.redirect_stdout(sys.stdout if int(os.environ.get("RANK", 0)) == 0 else open(os.devnull, "w")):
            run(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}" if int(os.environ.get("LOCAL_RANK", 0)) == 0 else 1)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
