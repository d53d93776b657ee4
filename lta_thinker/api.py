"""The Python door: a checkpoint from a folder or from the Hugging Face hub, back to a folder or to the hub, and one
question answered.

    model = LatentThoughtModel.from_pretrained("ckpt/NAME")        # or "owner/name" on the hub
    model.solve("How many ...?", num_samples=10)                   # Solution: answer, votes, texts, tokens
    model.push_to_hub("owner/name", report="results/eval-NAME/test-n2-x10-seed41/report.json")
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download

from lta_thinker.build import check_prompts
from lta_thinker.checkpoint import CHECKPOINT_FILES, META_FILE, find_checkpoint, known_runs, save_checkpoint
from lta_thinker.common import InputError, first_line, sha256_of
from lta_thinker.evaluation.card import model_card
from lta_thinker.evaluation.flags import EvaluationArguments
from lta_thinker.evaluation.plan import Plan, load_layout, load_models, make_plan, model_settings
from lta_thinker.evaluation.report import Report
from lta_thinker.generation.sampling import resolve_sampling
from lta_thinker.generation.solve import Solution, as_example, solve
from lta_thinker.llm.frozen import num_positions
from lta_thinker.llm.lora import ROLES, AllWeights
from lta_thinker.model import Models

WEIGHTS_ON_HUB = [META_FILE, "*.bin", *(f"{role}/*" for role in ROLES)]  # the folders: adapters of tuned LMs


class LatentThoughtModel(ModelHubMixin):
    """A trained checkpoint with its LMs, ready to be asked; from_pretrained makes one.

    models: the frozen LLM, the thought model before it (model.LatentThoughtModel) and the layout of the prompts; plan:
    what was settled from thoughts.json (without the weights).
    """

    def __new__(cls, *args, **kwargs):
        # ModelHubMixin's stores the arguments in a config.json; ours are whole LMs, and thoughts.json has the rest
        return object.__new__(cls)

    def __init__(self, models: Models, plan: Plan):
        self.models, self.plan = models, dataclasses.replace(plan, weights=None)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]  # other arguments than ModelHubMixin's
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        base_model_id: str | None = None,
        assistant_model_id: str | None = None,
        device: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> "LatentThoughtModel":
        """Load a checkpoint with the LMs that its thoughts.json names, the generator and the prompts.

        pretrained_model_name_or_path: ckpt/NAME, results/RUN/checkpoint-STEP, a run's name, or a hub id. base_model_id,
        assistant_model_id: where the same LMs are, if not where thoughts.json says (a relative folder there is relative
        to the current folder). device: "cpu", "cuda:1", "auto" (spread over the visible GPUs), None: evaluate.py's
        choice. dtype, attn_implementation, trust_remote_code: evaluate.py's flags. The others: arguments of
        huggingface_hub's snapshot_download.

        Raises InputError, in one line, where anything is missing or does not fit.
        """
        if dtype not in ("auto", "float32", "bfloat16"):
            raise InputError(f"dtype {dtype}: auto, float32 or bfloat16")
        try:
            torch.device("cpu" if device in (None, "auto") else device)
        except RuntimeError as error:
            raise InputError(f"device {device}: {error}") from None
        folder = find_checkpoint(str(pretrained_model_name_or_path))
        if folder is None:
            folder = download(
                str(pretrained_model_name_or_path),
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        args = EvaluationArguments(
            checkpoint=str(folder),
            base_model_id=base_model_id,
            assistant_model_id=assistant_model_id,
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
        )
        plan = make_plan(args, device)
        models = load_models(plan, load_layout(plan))
        model_settings(plan, models)  # refuses other LMs than those of the training
        return cls(models, plan)

    @property
    def num_thoughts(self) -> int:
        """N, how many thoughts are made from a question."""
        return self.plan.spec.num_thoughts

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        report: str | Path | None = None,
        baseline: str | Path | None = None,
        model_card_kwargs: dict | None = None,
        **kwargs,
    ) -> str | None:
        """Write the .bin files and thoughts.json, as train.py does, and a model card, README.md. A folder that an
        earlier call has written is replaced.

        report, baseline: for the card's figures, see card.model_card. Other arguments: of huggingface_hub's
        ModelHubMixin. Raises InputError before anything is written: for a folder with other things in it, for a report
        of other weights.
        """
        folder = Path(save_directory).resolve()
        card: dict[str, Any] = {"name": str(save_directory), "report": report, "baseline": baseline}
        card |= model_card_kwargs or {}
        self.generate_model_card(**card)
        tuned = self.models.thoughts.adapters.values() if self.models.thoughts else ()
        if self.models.llm.dtype != torch.float32 and any(isinstance(one, AllWeights) for one in tuned):
            raise InputError(
                f'{folder}: all weights of the LLM were trained in float32: from_pretrained(dtype="float32")'
            )
        try:
            check_replaceable(folder)
            return super().save_pretrained(folder, model_card_kwargs=card, **kwargs)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror})") from error

    def _save_pretrained(self, save_directory: Path) -> None:
        assert self.models.thoughts is not None and self.plan.record is not None
        save_checkpoint(save_directory, self.models.thoughts, self.plan.record)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        report: str | Path | None = None,
        baseline: str | Path | None = None,
        model_card_kwargs: dict | None = None,
        **kwargs,
    ) -> str:
        """Upload what save_pretrained writes; returns the commit's address. thoughts.json goes up as it is, with every
        flag and path of the training. Arguments and errors: save_pretrained's; InputError also where the hub refuses or
        is out of reach."""
        card: dict[str, Any] = {"report": report, "baseline": baseline} | (model_card_kwargs or {}) | {"name": repo_id}
        self.generate_model_card(**card)  # before a repository is made
        try:
            return super().push_to_hub(repo_id, model_card_kwargs=card, **kwargs)
        except InputError:
            raise
        except Exception as error:  # the hub's clients raise errors of several unrelated libraries
            raise InputError(f"{repo_id}: not pushed to the hub ({first_line(error)})") from error

    def generate_model_card(
        self, name: str, report: str | Path | None = None, baseline: str | Path | None = None
    ) -> ModelCard:
        """card.model_card of this checkpoint. InputError also where the report is of other weights."""
        assert self.plan.record is not None
        if report is not None:
            settings = Report.read(Path(report)).settings
            files = {path.name: path for path in self.plan.files}
            for role, adapter in self.plan.adapters.items():
                files |= {f"{role}/{path.name}": path for path in adapter.files}
            for key, path in files.items():
                if settings.get(key) != sha256_of(path):
                    raise InputError(f"{report}: an evaluation of other weights than {path}")
        elif baseline is not None:
            raise InputError(f"baseline {baseline}: nothing is compared with it without a report")
        return ModelCard(model_card(self.plan.record, name, report, baseline))

    def solve(
        self,
        question: str,
        num_samples: int = 10,
        *,
        num_thoughts: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        max_new_tokens: int | None = None,
        greedy: bool = False,
        seed: int = 41,
        options: tuple[str, ...] = (),
    ) -> Solution:
        """Sample answers to a question and vote.

        num_thoughts: n, how many of the N thoughts are injected (None: all). Settings that are not given are those of
        evaluate.py; greedy takes one sample. options: of a choice question, texts without letters. With the same seed
        the texts are those of evaluate.py for a file with this question. Raises InputError.
        """
        injected = self.num_thoughts if num_thoughts is None else num_thoughts
        if num_thoughts is not None and not 1 <= injected <= self.num_thoughts:
            raise InputError(f"num_thoughts {num_thoughts}: at least 1, at most the {self.num_thoughts} that are made")
        answer_type = self.plan.task.answer_type
        llm: Any = self.models.llm
        settings = resolve_sampling(
            self.plan.llm_config.get_text_config().model_type,
            llm.generation_config,
            1 if greedy else num_samples,
            seed,
            greedy,
            num_positions(self.plan.llm_config),
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            max_new_tokens=max_new_tokens,
        )
        example = as_example(question, answer_type, options)
        layout, new_tokens = self.models.layout, settings.max_new_tokens
        check_prompts(self.plan.spec, layout, [(example, "the question")], injected, new_tokens)
        return solve(self.models, example, settings, answer_type, injected)


def download(hub_id: str, **arguments) -> Path:
    """The folder with the checkpoint's files from a hub repository; InputError where there is none."""
    try:
        return Path(snapshot_download(hub_id, allow_patterns=WEIGHTS_ON_HUB, **arguments))
    except Exception as error:  # the hub's clients raise errors of several unrelated libraries
        what = f"no such folder here, and no such hub repository could be read ({first_line(error)})"
        raise InputError(f"{hub_id}: {what}; {known_runs()}") from None


def check_replaceable(folder: Path) -> None:
    """InputError where a folder that is to be replaced has other things in it than save_pretrained writes."""
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    others = sorted(names - CHECKPOINT_FILES if META_FILE in names else names)
    if others:
        raise InputError(f"{folder}: has {others[0]} in it, which would be lost; save into a new folder")
