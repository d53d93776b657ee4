"""The flags of train.py as they are declared, and the names of Hugging Face's: without torch and transformers, whose
imports take seconds. What they mean together: flags.py.
"""

import ast
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lta_thinker.data_loader import TASKS
from lta_thinker.flags import ATTENTION_HELP, CONFIG_HELP, RECIPE_HELP, EstimateArguments, TaskArguments, flag
from lta_thinker.names import KIND_NAMES, MAX_BLOCKS
from lta_thinker.usage import words_of

# Hugging Face's own flags that would break the frozen LLM or the run's promises, would do nothing here, or are set from
# other flags
REFUSED = {
    "fsdp": "DDP copies what is trained (--shard_llm shards the frozen LLM)",
    "deepspeed": "DDP copies what is trained",
    "fp16": "use --bf16, or neither (float32)",
    "neftune_noise_alpha": "it changes the frozen LLM's embeddings",
    "label_smoothing_factor": "the SFT loss has none",
    "output_dir": "the run's folders are named by --output_name",
    "resume_from_checkpoint": "use --resume",
    "save_only_model": "a run could not be resumed",
    "auto_find_batch_size": "give --batch_size",
    "group_by_length": "a step's rows are sorted by length already",
    "save_strategy": "resume checkpoints follow --eval_strategy",
    "save_steps": "resume checkpoints follow --eval_steps",
    "load_best_model_at_end": "the best weights are always the ones saved",
    "metric_for_best_model": "use --best_metric",
    "greater_is_better": "use --best_metric",
    "remove_unused_columns": "rows are token ids already",
    "train_sampling_strategy": "a step's rows are sorted by length already",
    "ddp_find_unused_parameters": "every trained parameter is used",
    "ignore_data_skip": "a resumed run would see rows of the epoch again",
    "restore_callback_states_from_checkpoint": "a stopped run's checkpoint would stop the one that goes on",
    "accelerator_config": "a step's batches are this program's own",
    "save_safetensors": "resume checkpoints are read as safetensors",
    "save_on_each_node": "the run's folders lie on a file system that all nodes see",
    "enable_jit_checkpoint": "SIGTERM ends a run with a checkpoint already",
    "use_liger_kernel": "it changes LLMs that are trained, and the LLM is frozen",
    "fsdp_config": "DDP copies what is trained",
    "gradient_checkpointing_kwargs": "the model recomputes its layers itself",
    "activation_checkpointing_kwargs": "the model recomputes its layers itself",
    "torch_compile": "the losses take gradients themselves, and compiling them does not end",
    "torch_compile_backend": "nothing is compiled (--torch_compile)",
    "torch_compile_mode": "nothing is compiled (--torch_compile)",
    "bf16_full_eval": "dev is evaluated as training is",
    "fp16_full_eval": "dev is evaluated as training is",
}

# the library's flags that TrainArguments sets itself
SET_HERE = {"output_dir", "use_cpu", "save_strategy", "save_steps", "load_best_model_at_end", "metric_for_best_model"}
SET_HERE |= {"greater_is_better", "remove_unused_columns", "dataloader_pin_memory", "dataloader_persistent_workers"}
SET_HERE |= {"ddp_find_unused_parameters", "logging_nan_inf_filter", "logging_dir", "hub_token", "push_to_hub_token"}
SET_HERE |= {"eval_steps", "disable_tqdm", "do_eval"}


@dataclass
class TrainFlags(TaskArguments, EstimateArguments):
    """This program's own flags of train.py; some are the library's under its names, with other defaults."""

    large_model_id: str = flag("Qwen/Qwen3-8B", "frozen LLM: hub id or folder", group="models")
    small_model_id: str = flag("Qwen/Qwen3-0.6B", "frozen small LM; not loaded when the generator uses none")
    attn_implementation: str | None = flag(None, ATTENTION_HELP)
    trust_remote_code: bool = flag(False, "allow the models' own code from the hub")
    bf16: bool = flag(None, "frozen LMs and the generator's products in bf16 (default: on CUDA)", decides_weights=False)
    shard_llm: bool = flag(False, "split the LLM's layers among a node's processes (FSDP2)", decides_weights=False)
    tune_base_model: bool = flag(False, "tune the large LLM too: LoRA, by peft")
    tune_assistant_model: bool = flag(False, "tune the small LM too: LoRA, by peft")
    full_tuning: bool = flag(False, "train all weights of the large LLM instead of an adapter, in float32")
    lora_r: int = flag(None, "rank of the adapters (default 16)", at_least=1)
    lora_alpha: int = flag(None, "the adapters' scale is lora_alpha / lora_r (default 32)", above=0)
    lora_dropout: float = flag(None, "dropout on the adapters' input (default 0.1)", at_least=0, below=1)
    lora_target: str = flag(None, "names of the linear layers that get an adapter (default q_proj,v_proj)")
    task_name: str = flag("gsm8k", f"{', '.join(TASKS)}, or a new name for a task of your own", group="data")
    k_shot: int = flag(0, "first k training rows only; 0: all", at_least=0)
    num_fewshot: int = flag(
        0, "K worked examples in the LLM's prompt: the first K rows of train, which are then not trained on", at_least=0
    )
    max_len: int | None = flag(
        None, "drop (and count) rows longer than this many LLM tokens with their target", at_least=1
    )
    thought_generator: str = flag(
        None,
        "what makes the thoughts (default small_block; none: an adapter alone)",
        choices=KIND_NAMES,
        group="method",
    )
    use_assistant_model: bool = flag(False, "another word for --thought_generator small (SoftCoT)")
    num_thought_tokens: int = flag(
        None, "N: number of latent thoughts (default 32; in stages K x c; without a generator none)", at_least=1
    )
    coconut_stages: int = flag(
        None,
        "K: the curriculum of Coconut, stages 0 to K and the answer alone; of coconut (default 3) and prompt (default "
        "0: no stages)",
        at_least=0,
    )
    thoughts_per_step: int = flag(None, "c: thoughts that stand in the place of a step (default 2)", at_least=1)
    epochs_per_stage: int = flag(
        None, "epochs of each stage; the last lasts to the end (default: an equal share of --n_epochs)", at_least=1
    )
    coconut_mix: float = flag(0.0, "share of rows in the form of a random stage (published 0)", at_least=0, at_most=1)
    answer_only: bool = flag(False, "train on the answer alone, without the written steps")
    sft_loss_weight: float = flag(1.0, "weight of L_SFT; 0: not computed in training", at_least=0)
    align_loss_weight: float = flag(
        None, "weight of L_align (default 0.33; of generators without a block 0: not computed in training)", at_least=0
    )
    focus_loss_weight: float = flag(
        None, "weight of L_focus (default 0.33; of generators without a block 0: not computed in training)", at_least=0
    )
    diversity_loss_weight: float = flag(0.0, "weight of the contrastive loss between chains (SoftCoT++)", at_least=0)
    balance_losses: bool = flag(
        True, "scale an extra loss's gradient down to the SFT loss's norm before weighting (published: a plain sum)"
    )
    decay_extra_losses: bool = flag(False, "let all weights but the SFT loss's fall linearly to 0 over the run")
    focus_temperature: float = flag(0.1, "tau of L_focus", above=0)
    align_temperature: float = flag(1.0, "temperature of both softmaxes of L_align (published 1)", above=0)
    align_mean: bool = flag(False, "compute L_align of the mean thought, not of each thought")
    align_stop_gradient: bool = flag(
        True, "stop the gradient of L_align at the question's z (published: it is not stopped)"
    )
    align_variance_floor: float = flag(0.0, "L_align penalises a standard deviation over slots below this", at_least=0)
    num_thought_chains: int = flag(1, "C: sets of thoughts a question; samples are spread over them", at_least=1)
    num_blocks: int = flag(1, "TransformerBlocks in a row (published 1)", at_least=1, at_most=MAX_BLOCKS)
    projection: str | None = flag(
        None, "before or after the block (default: small_block before, block after)", choices=("before", "after")
    )
    reader_layers: int | None = flag(
        None, "read the question through that many first layers of the small LM (default all), in block of the LLM (0)"
    )
    block_positions: bool = flag(False, "add positions to what the TransformerBlock reads (published: it has none)")
    standardize_states: bool = flag(False, "take from the small LM's states what all questions have in common")
    match_scale: bool = flag(False, "scale every thought to the mean norm of the LLM's embedding table")
    thoughts_see_steps: bool = flag(False, "published order: in training the thoughts see the gold steps (a leak)")
    steps_as_turns: bool = flag(False, "L_focus reads each step as a turn of its own, at its end-of-turn (published)")
    distinct_slot_ids: bool = flag(False, "the small LM reads N distinct tokens at the slots (published), not one")
    freeze_prior: bool = flag(False, "do not train the slots' prior (published)")
    recipe: str | None = flag(
        None, f"sft: the SFT loss alone; {RECIPE_HELP}; paper-run: its faults too", decides_weights=False
    )
    per_device_train_batch_size: int = flag(
        4, "rows a device and micro-batch", "--batch_size", at_least=1, group="training"
    )
    gradient_accumulation_steps: int = flag(4, "micro-batches an optimiser step", at_least=1)
    learning_rate: float = flag(1e-4, "peak learning rate", above=0)
    num_train_epochs: float = flag(10.0, "epochs", "--n_epochs", above=0)
    warmup_ratio: float = flag(0.1, "share of the steps that warm up (--warmup_steps wins)", at_least=0, below=1)
    seed: int = flag(41, "decides the generator's initial weights and the order of the rows", at_least=0, below=2**32)
    eval_strategy: str = flag(
        "epoch", "when dev is evaluated and a resume checkpoint saved: epoch or steps", choices=("epoch", "steps")
    )
    best_metric: str = flag(
        "sft_loss", "chooses the best weights: dev SFT loss, or greedy dev accuracy", choices=("sft_loss", "accuracy")
    )
    max_new_tokens: int = flag(512, "longest dev answer of --best_metric accuracy and --log_texts", at_least=1)
    params_file_name: str | None = flag(None, "start from this projection.bin")
    att_file_name: str | None = flag(None, "start from this TransformerBlock.bin")
    thought_cache: bool = flag(
        True, "keep the small LM's states on disk during the run, if they are read again", decides_weights=False
    )
    config: str | None = flag(None, f"{CONFIG_HELP}; a run's flags.json repeats it", decides_weights=False)
    resume: bool = flag(False, "go on from the newest checkpoint of this run", decides_weights=False)
    output_name: str = flag(None, "names the run and its folders; required", group="output")
    logging_steps: float = flag(10, "steps between two log lines", decides_weights=False, above=0)
    save_total_limit: int | None = flag(
        2, "resume checkpoints kept (the best is always one)", decides_weights=False, at_least=1
    )
    verbose: bool = flag(False, "print all flags at the start, not only those that were given", decides_weights=False)
    report_to: str = flag(
        "none", "tracker (tensorboard, wandb, trackio, ...); its files go to logs/<output_name>", decides_weights=False
    )
    log_texts: int = flag(
        0,
        "at each dev evaluation answer the first K dev questions greedily, as a table in wandb or trackio; takes as "
        "long as K answers of --max_new_tokens, on one process",
        decides_weights=False,
        at_least=0,
    )
    run_name: str | None = flag(None, "the run's name in a tracker (default: --output_name)", decides_weights=False)
    project: str = flag("lta-thinker", "the project's name in a tracker that has projects", decides_weights=False)


@cache
def library_words() -> frozenset[str]:
    """The words of the command line that are flags of Hugging Face's TrainingArguments: read from the source of the
    installed version, since importing it takes four seconds."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("training_args.py").read_text(encoding="utf-8"))
    (declared,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments"]
    words: set[str] = set()
    for node in (node for node in declared.body if isinstance(node, ast.AnnAssign)):
        given = {word.arg: word.value for word in node.value.keywords} if isinstance(node.value, ast.Call) else {}
        if not is_constant(given.get("init"), False):
            words |= words_of(ast.unparse(node.target), is_constant(given.get("default", node.value), True))
    return frozenset(words)


def is_constant(node: ast.AST | None, value: bool) -> bool:
    """Whether an expression of a source is this constant."""
    return isinstance(node, ast.Constant) and node.value is value
