"""Hugging Face's own flags: nonsense is one line before an LM is loaded, which names what was given."""

from pathlib import Path

import pytest
import torch
import transformers
from helpers import one_line
from packaging.version import Version

from lta_thinker import train
from lta_thinker.common import InputError
from lta_thinker.flags import parse_flags
from lta_thinker.training.flags import library_flags
from lta_thinker.training.trainer import reading_checkpoint

NONSENSE = {
    "--adam_beta1 5": "--adam_beta1 5",
    "--adam_beta2 -1": "--adam_beta2 -1.0: must be at least 0",
    "--adam_epsilon nan": "--adam_epsilon nan: must be finite",
    "--adam_epsilon 0": "--adam_epsilon 0.0: must be at least 1e-20",
    "--adam_epsilon 1e-46": "--adam_epsilon 1e-46: must be at least 1e-20",
    "--weight_decay inf": "--weight_decay inf: must be finite",
    "--max_grad_norm nan": "--max_grad_norm nan: must be finite",
    "--max_grad_norm -1": "--max_grad_norm -1.0: must be at least 0",
    "--warmup_steps inf": "warmup_steps",
    "--warmup_steps nan": "warmup_steps",
    "--warmup_steps -3": "--warmup_steps -3",
    "--optim foo": "foo",
    "--optim_args foo": "--optim_args foo",
    "--optim_args foo=1 --optim adafactor_": "adafactor_",
    "--optim lomo": "--optim lomo",
    "--optim adamw_bnb_8bit": "",
    "--lr_scheduler_type x": "--lr_scheduler_type x",
    "--lr_scheduler_kwargs x": "--lr_scheduler_kwargs x",
    '--lr_scheduler_kwargs {"power":': "",
    '--lr_scheduler_kwargs {"nonsense":1}': "nonsense",
    "--lr_scheduler_type cosine_with_min_lr": "min_lr",
    '--lr_scheduler_type cosine --lr_scheduler_kwargs {"num_cycles":"x"}': "--lr_scheduler_kwargs {'num_cycles': 'x'}",
    '--lr_scheduler_type polynomial --lr_scheduler_kwargs {"power":-1}': "--lr_scheduler_kwargs {'power': -1}",
    "--dataloader_num_workers 1 --dataloader_prefetch_factor 0": "--dataloader_prefetch_factor 0: must be above 0",
    "--max_steps 0": "--max_steps 0: must be above 0",
    "--max_steps -5": "--max_steps -5: must be at least -1",
    "--max_steps 1.5": "--max_steps",
    "--eval_strategy steps --eval_steps 0": "--eval_steps 0: must be above 0",
    "--eval_strategy steps --eval_steps nan": "--eval_steps nan: must be finite",
    "--eval_strategy steps --eval_steps 2.5": "eval_steps",
    "--eval_delay -1": "--eval_delay -1.0: must be at least 0",
    "--logging_steps 0": "--logging_steps 0.0: must be above 0",
    "--logging_steps nan": "--logging_steps nan: must be finite",
    "--logging_steps 2.5": "logging_steps",
    "--save_total_limit 0": "--save_total_limit 0: must be at least 1",
    "--save_total_limit -2": "--save_total_limit -2: must be at least 1",
    "--n_epochs nan": "--n_epochs nan: must be finite",
    "--n_epochs -1": "--n_epochs -1.0: must be above 0",
    "--dataloader_num_workers -1": "--dataloader_num_workers -1: must be at least 0",
    "--dataloader_prefetch_factor 2": "dataloader_prefetch_factor",
    "--data_seed -1": "--data_seed -1: must be at least 0",
    "--max_len -3": "--max_len -3: must be at least 1",
    "--num_blocks 2000": "--num_blocks 2000: must be at least 1 and at most 64",
    "--debug nonsense": "nonsense",
    "--hub_strategy nonsense": "nonsense",
    "--logging_strategy nonsense": "nonsense",
    "--log_level nonsense": "nonsense",
    "--ddp_backend nonsense": "nonsense",
    "--tf32 True": "tf32",
    "--torch_empty_cache_steps 0": "torch_empty_cache_steps",
    "--accelerator_config x.json": "--accelerator_config is not for this program",
    "--ignore_data_skip True": "--ignore_data_skip is not for this program",
    "--use_liger_kernel True": "--use_liger_kernel is not for this program",
    "--bf16_full_eval True": "--bf16_full_eval is not for this program",
    "--torch_compile True": "--torch_compile is not for this program",
    "--fsdp_config x.json": "--fsdp_config is not for this program",
    "--max_steps 10000000000": "--max_steps 10000000000: must be at most 2,147,483,647",
    "--batch_size 1000000000000000000000": "--batch_size 1000000000000000000000: must be at most 2,147,483,647",
    "--large_model_id=": "--large_model_id is empty",
    "--small_model_id= ": "--small_model_id is empty",
}


@pytest.mark.parametrize("words", NONSENSE)
def test_nonsense_is_one_line_before_an_lm_is_loaded(flags, words, monkeypatch):
    """Nonsense for a flag of the library is one line that says it, before an LM is loaded, and nothing is written."""
    monkeypatch.setattr(train, "build_models", lambda *_: pytest.fail("an LM was loaded"))
    words = [words] if "_id=" in words else words.split(" ")
    with pytest.raises(InputError) as error:
        train.run([*flags, "--output_name", "x", *words])
    one_line(error, NONSENSE[" ".join(words)])
    assert len(str(error.value)) < 800
    assert not Path("results").exists() and not Path("ckpt").exists()


def test_message_names_what_was_given_and_nothing_else(flags):
    """Of the library's flags the line names those that were given, not those that this program sets."""
    with pytest.raises(InputError) as error:
        train.run([*flags, "--output_name", "x", "--adam_beta1", "5", "--weight_decay", "0.1"])
    given = str(error.value).partition(" (of Hugging Face's flags there are ")[2].rstrip(")").split(", ")
    assert sorted(given) == ["--adam_beta1 5.0", "--max_steps 5", "--weight_decay 0.1"]


def test_unknown_flag_is_named_before_wrong_values(flags):
    """A flag that is spelt wrongly is named first: another may be wrong because of it."""
    with pytest.raises(InputError, match=r"no such flag: --adam_beta3 \(--adam_beta2, --adam_beta1\?\)"):
        train.run([*flags, "--adam_beta3", "5", "--k_shot", "-1"])


@pytest.mark.parametrize("words", ["--optim adafactor", "--optim sgd", "--lr_scheduler_type constant_with_warmup"])
def test_good_flags_of_the_library_pass(flags, words):
    """What the library takes is taken."""
    from lta_thinker.training.trainer import check_optimizer

    check_optimizer(parse_flags(train.TrainArguments, [*flags, "--output_name", "x", *words.split()], "train.py"))


@pytest.mark.parametrize(
    "model", ["a `model` in order to correctly initialize a LOMO optimizer", "a model to initialize x"]
)
def test_optimizer_that_needs_the_model_is_not_probed(flags, monkeypatch, model):
    """Optimizers that the library makes from the model (LOMO, GaLore) are checked when there is one."""
    from lta_thinker.training import trainer

    def refuse(args):
        raise ValueError(f"You need to pass {model}.")

    monkeypatch.setattr(trainer.Trainer, "get_optimizer_cls_and_kwargs", refuse)
    trainer.check_optimizer(parse_flags(train.TrainArguments, [*flags, "--output_name", "x"], "train.py"))


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError, AssertionError])
def test_what_no_flag_is_at_fault_for_stays_itself(flags, kind):
    """A full GPU, or a fault of this program, is not laid to the library's flags."""
    args = parse_flags(train.TrainArguments, [*flags, "--output_name", "x"], "train.py")
    with pytest.raises(kind), library_flags(args):
        raise kind("CUDA out of memory")
    if kind is torch.OutOfMemoryError:
        with pytest.raises(kind), reading_checkpoint("x", "optimizer.pt"):
            raise kind("CUDA out of memory")


def test_hub_that_cannot_be_reached_is_one_line(flags, monkeypatch):
    """--push_to_hub without a hub is one line that names the flag."""
    from lta_thinker.training import trainer

    def refuse(*_, **__):
        raise Exception("Name or service not known")

    monkeypatch.setattr(trainer.Trainer, "init_hf_repo", refuse)
    with pytest.raises(InputError, match="--push_to_hub: Name or service not known"):
        train.run([*flags, "--output_name", "x", "--push_to_hub", "True"])


@pytest.mark.skipif(Version(transformers.__version__) < Version("5"), reason="transformers 4.53 has no such flag")
def test_flag_of_a_newer_library_is_checked_too(flags):
    """Numbers are checked whatever version of the library declares them."""
    with pytest.raises(InputError, match="--ddp_timeout -1: must be at least 0"):
        train.run([*flags, "--output_name", "x", "--ddp_timeout", "-1"])


@pytest.mark.parametrize(("given", "said"), [((), " is required"), (("--output_name", "a/b"), " a/b")])
def test_output_names_are_asked_for_or_named(flags, given, said):
    """A missing --output_name is asked for; one that cannot name a folder is named."""
    with pytest.raises(InputError) as error:
        train.run([*flags, *given])
    one_line(error, f"--output_name{said}: letters, digits")
