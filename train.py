"""Train a thought generator in front of a frozen LLM (LTA-Thinker, arXiv 2509.12875).

    CUDA_VISIBLE_DEVICES=4,5,6,7 torchrun --nproc_per_node=4 --master_port=29501 train.py \
        --large_model_id Qwen/Qwen3-8B --small_model_id Qwen/Qwen3-0.6B --output_name NAME \
        --gradient_accumulation_steps 4 --batch_size 4 --task_name gsm8k --learning_rate 1e-4 \
        --num_thought_tokens 32 --n_epochs 10.0

flags -> rows -> frozen LMs and generator -> Trainer -> the best weights in ckpt/. Checkpoints to resume from are in
results/<output_name>/, tracker files in logs/<output_name>/.
"""

import json
import math
import os
import platform
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import accelerate
import huggingface_hub
import torch
import transformers
from packaging.version import Version
from tqdm import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from data_loader import (
    DATE_STRING,
    PROMPTS,
    Example,
    InputError,
    Layout,
    TrainingCollator,
    get_task,
    load_split,
    loss_counts,
    pad_token_id,
)
from flags import flag, parse_flags
from generation import count_right
from model import (
    GENERATORS,
    LOSSES,
    LatentThoughtModel,
    check_weights,
    generator_sizes,
    load_config,
    load_frozen_lm,
    load_tokenizer,
    load_weights,
    prior_row_ids,
    read_weights,
    save_checkpoint,
)

COMPLETE = "complete"  # a resume checkpoint without this file was cut off while it was written
FLAGS_FILE = "flags.json"
# Trainer's own flags that would break the frozen LLM, or would do nothing here
REFUSED = {
    "fsdp": "only the small generator is trained, and DDP copies it",
    "deepspeed": "only the small generator is trained, and DDP copies it",
    "fp16": "use --bf16, or neither (float32)",
    "neftune_noise_alpha": "it changes the frozen LLM's embeddings",
    "label_smoothing_factor": "the SFT loss has none",
    "output_dir": "the run's folders are named by --output_name",
}


# ---------------------------------------------------------------------------------------------------------------------
# Flags


@dataclass
class TrainArguments(TrainingArguments):
    """Flags of train.py; those of Hugging Face's TrainingArguments pass through under their own names."""

    large_model_id: str = flag("Qwen/Qwen3-8B", "frozen LLM: hub id or folder")
    small_model_id: str = flag("Qwen/Qwen3-0.6B", "frozen small LM; not loaded when the generator uses none")
    thought_generator: str | None = flag(None, f"{', '.join(GENERATORS)} (default small_block)")
    use_assistant_model: bool = flag(False, "another word for --thought_generator small (SoftCoT)")
    num_thought_tokens: int = flag(32, "N: number of latent thoughts")
    per_device_train_batch_size: int = flag(4, "rows a device and micro-batch", "--batch_size")
    gradient_accumulation_steps: int = flag(4, "micro-batches an optimiser step")
    learning_rate: float = flag(1e-4, "peak learning rate")
    num_train_epochs: float = flag(10.0, "epochs", "--n_epochs")
    warmup_ratio: float = flag(0.1, "share of the steps that warm up (--warmup_steps wins)")
    seed: int = flag(41, "of the generator's start and the order of rows")
    sft_loss_weight: float = flag(0.33, "of L_SFT; 0 skips the loss's work in training")
    align_loss_weight: float = flag(0.33, "of L_align; 0 skips it")
    focus_loss_weight: float = flag(0.33, "of L_focus; 0 skips it")
    focus_temperature: float = flag(0.1, "tau of L_focus")
    thoughts_see_steps: bool = flag(False, "published order: gold steps before the slots in training (leaks)")
    freeze_prior: bool = flag(False, "keep the slots' prior as it starts (published)")
    task_name: str = flag("gsm8k", "task")
    data_dir: str = flag("data", "folder with a folder for each task")
    k_shot: int = flag(0, "first k training rows only; 0: all")
    max_len: int | None = flag(None, "drop (and count) rows longer than this many LLM tokens with their target")
    skip_bad_rows: bool = flag(False, "leave broken rows out and count them instead of stopping")
    params_file_name: str | None = flag(None, "start from this projection.bin")
    att_file_name: str | None = flag(None, "start from this TransformerBlock.bin")
    resume: bool = flag(False, "go on from the newest checkpoint of this run")
    output_name: str | None = flag(None, "required: names the run and its folders")
    best_metric: str = flag("sft_loss", "sft_loss (dev SFT loss) or accuracy (greedy dev answers) chooses the best")
    max_new_tokens: int = flag(512, "for the dev answers of --best_metric accuracy")
    trust_remote_code: bool = flag(False, "allow the models' own code from the hub")
    bf16: bool | None = flag(
        None, "frozen LMs and the generator's products in bf16 (default: on CUDA)", nargs="?", const=True
    )
    eval_strategy: str = flag("epoch", "when dev is evaluated and a resume checkpoint saved: epoch or steps")
    logging_steps: float = flag(10, "steps between two log lines")
    save_total_limit: int | None = flag(2, "resume checkpoints kept (the best is always one)")
    report_to: str = flag("none", "tracker: none, tensorboard, wandb, ...")

    def __post_init__(self):
        for name, reason in REFUSED.items():
            if getattr(self, name, None):
                raise InputError(f"--{name} is not for this program: {reason}")
        self._check()
        self.output_dir = f"results/{self.output_name}"
        self.use_cpu = not torch.cuda.is_available() or self.use_cpu  # torchrun without a GPU: gloo
        self.dtype = self._dtype()
        self.bf16 = False  # Trainer's autocast would also change the frozen LMs; the model has its own
        self.save_strategy, self.save_steps = self.eval_strategy, self.eval_steps or self.logging_steps
        self.eval_steps = self.save_steps
        self.load_best_model_at_end = True
        self.metric_for_best_model = f"eval_{self.best_metric}"
        self.greater_is_better = self.best_metric == "accuracy"
        self.remove_unused_columns = False
        self.dataloader_pin_memory = torch.cuda.is_available()
        self.ddp_find_unused_parameters = False
        os.environ.setdefault("WANDB_DIR", f"logs/{self.output_name}")
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f"logs/{self.output_name}")
        if Version(transformers.__version__) < Version("5"):
            self.logging_dir = f"logs/{self.output_name}"
        try:
            super().__post_init__()
        except ValueError as error:
            raise InputError(" ".join(str(error).split())) from None
        self._n_gpu = min(self.n_gpu, 1)  # plain `python` uses one GPU; several are for torchrun

    def _check(self):
        if not self.output_name or not re.fullmatch(r"[\w.-]+", self.output_name):
            raise InputError("--output_name is required: letters, digits, '.', '_' and '-' that name the run's folders")
        if self.use_assistant_model and self.thought_generator not in (None, "small"):
            raise InputError(f"--use_assistant_model means small, --thought_generator says {self.thought_generator}")
        kind = self.thought_generator = "small" if self.use_assistant_model else self.thought_generator or "small_block"
        if kind == "none":
            raise InputError("--thought_generator none: there is nothing to train; evaluate.py runs it as it is")
        if kind not in GENERATORS:
            raise InputError(f"--thought_generator {kind}: no such generator; there are {', '.join(GENERATORS)}")
        get_task(self.task_name)
        for name in ("num_thought_tokens", "per_device_train_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: must be at least 1")
        for name in ("learning_rate", "focus_temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"--{name} {getattr(self, name)}: must be above 0")
        if min(self.loss_weights.values()) < 0 or not any(self.loss_weights.values()):
            raise InputError("--sft_loss_weight --align_loss_weight --focus_loss_weight: none below 0, one above 0")
        if self.max_steps <= 0 and not self.num_train_epochs > 0:
            raise InputError(f"--n_epochs {self.num_train_epochs}: must be above 0")
        if self.k_shot < 0:
            raise InputError(f"--k_shot {self.k_shot}: must be 0 (all rows) or more")
        if not 0 <= self.warmup_ratio < 1:
            raise InputError(f"--warmup_ratio {self.warmup_ratio}: must be at least 0 and below 1")
        if self.best_metric not in ("sft_loss", "accuracy"):
            raise InputError(f"--best_metric {self.best_metric}: sft_loss or accuracy")
        if self.eval_strategy not in ("epoch", "steps"):
            raise InputError(f"--eval_strategy {self.eval_strategy}: epoch or steps; dev evaluations choose the best")
        if bool(self.params_file_name) != bool(self.att_file_name) and (self.att_file_name or kind != "small"):
            raise InputError(
                f"--params_file_name and --att_file_name: the generator {kind} starts from both or neither"
            )
        if self.params_file_name and self.resume:
            raise InputError("--params_file_name with --resume: a resumed run has its weights already")

    def _dtype(self) -> str:
        on_cuda = torch.cuda.is_available() and not self.use_cpu
        return "bfloat16" if (on_cuda if self.bf16 is None else self.bf16) else "float32"

    @property
    def loss_weights(self) -> dict[str, float]:
        return {name: getattr(self, f"{name}_loss_weight") for name in LOSSES}

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """`warmup_ratio` left the library in transformers 5; here it stays."""
        return int(self.warmup_steps) or math.ceil(num_training_steps * self.warmup_ratio)

    def resolved(self) -> dict:
        """What decides the weights of a run: stored with it, compared when it is resumed."""
        names = [f.name for f in fields(self) if f.name in TrainArguments.__annotations__]
        names = [name for name in names if name not in ("bf16", "resume", "logging_steps", "report_to")]
        more = {"dtype": self.dtype, "max_steps": self.max_steps, "world_size": self.world_size}
        more["eval_strategy"] = str(self.eval_strategy.value)
        return {name: getattr(self, name) for name in names} | more


# ---------------------------------------------------------------------------------------------------------------------
# Training


class ThoughtTrainer(Trainer):
    """Trainer whose losses are divided by counts over the whole optimiser step: over ranks and micro-batches."""

    def __init__(self, *args, dev_examples: list[Example], layout: Layout, **kwargs):
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # compute_loss divides; Trainer shall not divide by accumulation again
        self.dev_examples, self.layout = dev_examples, layout
        self.dev_collator = TrainingCollator(layout, steps=True)
        self._parts, self._parts_step = torch.zeros(len(LOSSES), device=self.args.device), 0

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The micro-batches of one optimiser step and, for its loss sums, counts (3,) a rank: global count / ranks."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = sum((loss_counts(batch) for batch in batches), torch.zeros(len(LOSSES))).to(device)
        return batches, self.accelerator.reduce(counts, "mean")

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        sums = model(**inputs)
        counts = dict(zip(LOSSES, num_items_in_batch.clamp(min=1e-9), strict=True))
        parts = {name: total / counts[name] for name, total in sums.items()}
        self._parts += torch.stack(
            [parts[name].detach() if name in parts else self._parts.new_zeros(()) for name in LOSSES]
        )
        return sum(self.model.weights[name] * part for name, part in parts.items())

    def log(self, logs, start_time=None):
        if "loss" in logs:  # a training log: add the losses one by one, over the same steps
            parts = self.accelerator.reduce(self._parts, "mean") / (self.state.global_step - self._parts_step)
            weighted = [name for name in LOSSES if self.model.weights[name]]
            logs |= {f"{name}_loss": parts[LOSSES.index(name)].item() for name in weighted}
            self._parts, self._parts_step = torch.zeros_like(self._parts), self.state.global_step
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Dev losses, each over all dev rows (SFT per target token), thoughts made without steps in view."""
        self.model.eval()
        mine = self.eval_dataset[self.args.process_index :: self.args.world_size]
        size = self.args.per_device_eval_batch_size
        totals = torch.zeros(2, len(LOSSES), dtype=torch.float64)
        quiet = self.args.disable_tqdm or not self.is_world_process_zero()
        for start in tqdm(range(0, len(mine), size), desc="dev losses", disable=quiet, leave=False):
            batch = self.dev_collator(mine[start : start + size])
            sums = self.model(**self._prepare_inputs(batch))
            totals += torch.stack([torch.tensor([sums[name].item() for name in LOSSES]), loss_counts(batch)])
        sums, counts = self.accelerator.reduce(totals.to(self.args.device), "sum").tolist()
        losses = {name: total / max(count, 1) for name, total, count in zip(LOSSES, sums, counts, strict=True)}
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
            get_task(self.args.task_name).answer_type,
            self.args.max_new_tokens,
            self.args.per_device_eval_batch_size,
            quiet,
        )
        counts = torch.tensor([right, len(mine)], device=self.args.device)
        right, total = self.accelerator.reduce(counts, "sum").tolist()
        return right / total

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            Path(self.args.output_dir, f"checkpoint-{self.state.global_step}", COMPLETE).touch()


class EvaluateLastStep(TrainerCallback):
    """With --eval_strategy steps the last weights are judged too, wherever the last step falls."""

    def on_step_end(self, args, state, control, **kwargs):
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        return control


def newest_checkpoint(run: Path) -> Path | None:
    """The newest complete resume checkpoint of a run."""
    complete = [path.parent for path in run.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def check_run_folders(args: TrainArguments, final: Path) -> Path | None:
    """The checkpoint to resume from, or None for a fresh run. InputError where the folders and --resume disagree."""
    run = Path(args.output_dir)
    newest = newest_checkpoint(run)
    if not args.resume:
        for there in filter(None, (newest, final.exists() and final)):
            raise InputError(f"{there} is there already: --resume goes on, another --output_name starts afresh")
        return None
    if newest is None:
        raise InputError(f"--resume: no complete checkpoint in {run}")
    before, now = json.loads((run / FLAGS_FILE).read_text()), args.resolved()
    for name, value in now.items():
        if before.get(name) != value:
            raise InputError(f"--resume: this run was started with {name} = {before.get(name)}, not {value}")
    return newest


def final_folder(args: TrainArguments) -> Path:
    """ckpt/<output_name>-<task>-<generator>-<epochs>-<N>-<large>-<small>/"""
    large = Path(args.large_model_id.rstrip("/")).name
    small = Path(args.small_model_id.rstrip("/")).name if GENERATORS[args.thought_generator].uses_small_lm else "none"
    kind, n = args.thought_generator, args.num_thought_tokens
    return Path("ckpt") / f"{args.output_name}-{args.task_name}-{kind}-{args.num_train_epochs:g}-{n}-{large}-{small}"


def prepare_rows(args: TrainArguments, layout: Layout) -> tuple[list[dict], list[dict], list[Example], dict]:
    """Training rows and dev rows as token ids, the dev examples, and counts of what was read, kept and dropped."""
    counts, rows, kept = {}, {}, {}
    for name in ("train", "dev"):
        split = load_split(args.task_name, name, args.data_dir, args.skip_bad_rows)
        examples = split.examples[: args.k_shot or None] if name == "train" else split.examples
        encoded = [(example, layout.training(example)) for example in examples]
        fits = [
            (example, row)
            for example, row in encoded
            if args.max_len is None
            or len(row["prefix"]) + args.num_thought_tokens + len(row["suffix"]) + len(row["target"]) <= args.max_len
        ]
        if not fits:
            raise InputError(f"--max_len {args.max_len}: no {name} row is that short")
        kept[name], rows[name] = [example for example, _ in fits], [row for _, row in fits]
        counts[name] = {"source": split.source, "read": split.read, "bad": split.bad, "in_split": len(split.examples)}
        counts[name] |= {"too_long": len(encoded) - len(fits), "kept": len(fits)}
    return rows["train"], rows["dev"], kept["dev"], counts


def build_layout(args: TrainArguments) -> Layout:
    """The layout of both prompts, from the LMs' tokenizers alone."""
    llm_tokenizer = load_tokenizer(args.large_model_id, "--large_model_id", args.trust_remote_code)
    tokenizer = llm_tokenizer
    if GENERATORS[args.thought_generator].uses_small_lm:
        tokenizer = load_tokenizer(args.small_model_id, "--small_model_id", args.trust_remote_code)
    return Layout(llm_tokenizer, tokenizer, PROMPTS[get_task(args.task_name).answer_type])


def read_start(args: TrainArguments) -> list:
    """Weights to start from (projection, block), or nothing; all is checked on the LMs' configs, before they load."""
    llm_config = load_config(args.large_model_id, "--large_model_id", args.trust_remote_code)
    small_config = None
    if GENERATORS[args.thought_generator].uses_small_lm:
        small_config = load_config(args.small_model_id, "--small_model_id", args.trust_remote_code)
    prior_row_ids(llm_config, args.num_thought_tokens)
    if not args.params_file_name:
        return []
    projection = read_weights(args.params_file_name, "--params_file_name")
    block = read_weights(args.att_file_name, "--att_file_name") if args.att_file_name else None
    sizes = generator_sizes(llm_config, small_config, args.num_thought_tokens)
    check_weights(args.thought_generator, sizes, projection, block)
    return [projection, block]


def build_model(args: TrainArguments, layout: Layout, start: list) -> LatentThoughtModel:
    """The frozen LMs on this rank's device and the generator before them."""
    dtype, kind = getattr(torch, args.dtype), GENERATORS[args.thought_generator]
    llm = load_frozen_lm(args.large_model_id, "--large_model_id", dtype, args.device, args.trust_remote_code)
    small_lm = None
    if kind.uses_small_lm:
        small_lm = load_frozen_lm(args.small_model_id, "--small_model_id", dtype, args.device, args.trust_remote_code)
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
    )
    if start:
        load_weights(model, *start)
    if args.freeze_prior and kind.has_block:
        model.generator.prior.requires_grad_(False)
    return model


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }


def checkpoint_meta(args: TrainArguments, trainer: ThoughtTrainer, rows: dict) -> dict:
    """thoughts.json: all that evaluation must agree on, and where the weights come from."""
    model, state = trainer.model, trainer.state
    task = get_task(args.task_name)
    keys = ("step", "epoch", "eval_loss", *(f"eval_{name}_loss" for name in LOSSES), "eval_accuracy")
    curve = [{key: log[key] for key in keys if key in log} for log in state.log_history if "eval_sft_loss" in log]
    best = next(point for point in curve if point["step"] == state.best_global_step)
    return {
        "thought_generator": model.kind,
        "num_thoughts": model.num_thoughts,
        "sizes": vars(model.sizes),
        "large_model_id": args.large_model_id,
        "small_model_id": args.small_model_id if model.generator.uses_small_lm else None,
        "prompts": PROMPTS[task.answer_type],
        "date_string": DATE_STRING,
        "task_name": args.task_name,
        "answer_type": task.answer_type,
        "loss_weights": model.weights,
        "focus_temperature": args.focus_temperature,
        "thoughts_see_steps": args.thoughts_see_steps,
        "dtype": args.dtype,
        "seed": args.seed,
        "versions": versions(),
        "flags": args.resolved(),
        "rows": rows,
        "best": {"metric": args.best_metric, "value": state.best_metric, "step": best["step"], "epoch": best["epoch"]},
        "dev_curve": curve,
    }


def print_start(args: TrainArguments, model: LatentThoughtModel, rows: dict) -> None:
    for name, value in args.resolved().items():
        print(f"  {name} = {value}")
    if args.thoughts_see_steps:
        print("warning: --thoughts_see_steps: thoughts read the gold steps in training and have none in evaluation")
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for lm in model.frozen if lm is not None for p in lm.parameters())
    print(f"  parameters: {trained:,} trained, {frozen:,} frozen")
    for name, count in rows.items():
        print(f"  {name} rows: " + ", ".join(f"{key} {value}" for key, value in count.items()), flush=True)


def run(argv: list[str]) -> None:
    args = parse_flags(TrainArguments, argv, "train.py")
    final = final_folder(args)
    checkpoint = check_run_folders(args, final)
    start, layout = read_start(args), build_layout(args)
    train_rows, dev_rows, dev_examples, counts = prepare_rows(args, layout)
    model = build_model(args, layout, start)
    trainer = ThoughtTrainer(
        model=model,
        args=args,
        data_collator=TrainingCollator(layout, steps=bool(args.focus_loss_weight) or args.thoughts_see_steps),
        train_dataset=train_rows,
        eval_dataset=dev_rows,
        callbacks=[EvaluateLastStep()],
        dev_examples=dev_examples,
        layout=layout,
    )
    if trainer.is_world_process_zero():
        print_start(args, model, counts)
        Path(args.output_dir, FLAGS_FILE).write_text(json.dumps(args.resolved(), indent=2) + "\n")
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    if trainer.is_world_process_zero():
        meta = checkpoint_meta(args, trainer, counts)
        save_checkpoint(final, model, meta)
        best = meta["best"]
        print(
            f"best dev {best['metric']} {best['value']:.4f} at step {best['step']} (epoch {best['epoch']:.2f}): {final}"
        )


def main() -> None:
    huggingface_hub.logging.set_verbosity_error()  # else a missing network is five retries before the one line
    try:
        run(sys.argv[1:])
    except InputError as error:
        first = int(os.environ.get("RANK", 0)) == 0
        sys.exit(f"error: {error}" if first else 1)


if __name__ == "__main__":
    main()
