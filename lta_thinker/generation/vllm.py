"""The vLLM sampler: our model makes the thoughts, a vLLM engine (or several) writes behind them.

Its prompts are embeddings, (T, d_large) for each chain of thoughts. Every sample is a request with its own seed; the
engine's prefix cache computes once what samples share. The engine runs in processes of its own: thoughts of the next
questions are made while it writes. It returns token lists and their log-probabilities.
"""

# vLLM is optional, and pyright takes this file for it
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import asyncio
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

from lta_thinker.common import InputError
from lta_thinker.generation.prompts import Request
from lta_thinker.generation.samplers import Backend, Sampler
from lta_thinker.generation.sampling import Sample, check_log_probs, make_sample, noise_keys

OLDEST = "0.32"  # the version that was tried
INSTALL = "pip install -r requirements-vllm.txt"
# a CPU engine is for trying: compiling takes longer than the answers; and with prompts read in chunks seeded noise is
# rewound, which the CPU's generator cannot ("CPU Generator does not use offset")
ON_CPU = {"enforce_eager": True, "enable_chunked_prefill": False}
CPU_STEP = 2048  # tokens a CPU engine reads in a step; at least a whole prompt


def import_vllm() -> Any:
    """The module vllm. InputError where it is missing or too old."""
    # vLLM reads these when it is imported; what the user has set stays
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        import vllm
        import vllm.exceptions
        import vllm.inputs
        import vllm.platforms
        import vllm.sampling_params
        import vllm.usage.usage_lib
        import vllm.v1.engine.async_llm
    except ImportError as error:
        raise InputError(f"--backend vllm: vllm cannot be imported ({error}); {INSTALL}") from None
    if Version(vllm.__version__) < Version(OLDEST):
        raise InputError(f"--backend vllm: vllm {vllm.__version__} is older than {OLDEST}; {INSTALL}")
    return vllm


def model_length(given: int | None, longest: int, max_new_tokens: int, config) -> int:
    """--max_model_len, else room for the longest prompt and answer as far as the model's positions go; prints a note
    where answers may be cut off. InputError where the longest prompt does not fit."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or longest + max_new_tokens
    length = given or min(longest + max_new_tokens, positions)
    whose = "--max_model_len" if given else "the model's positions"
    if length <= longest:
        raise InputError(f"{whose}: {length}, but the longest prompt has {longest} columns with its thoughts")
    if length < longest + max_new_tokens:
        print(f"note: {whose}: {length}, so an answer behind the longest prompt ends after {length - longest} tokens")
    return length


def memory_share(free: int, total: int) -> float:
    """--gpu_memory_utilization where it is not given: the free share of a GPU (bytes) beside the models that make the
    thoughts, less 2 GiB for their work, at most vLLM's own default."""
    return min(0.92, math.floor(100 * (free - 2 * 2**30) / total) / 100)


def spare_token(config, tokenizer) -> int | None:
    """The last row of the embedding table if no token of the tokenizer has it, else None."""
    last = config.get_text_config().vocab_size - 1
    return last if last > max(tokenizer.get_vocab().values()) else None


class VllmSampler(Sampler):
    """vLLM writes. models: of the large LLM the embeddings alone (llm/embeddings.py); longest: columns of any prompt.

    The engine takes min_p before top_p, TransformersSampler (as the library) after: with both the candidates differ.
    """

    def __init__(self, models, settings, batch_size, num_injected, backend: Backend, longest: int):
        super().__init__(models, settings, batch_size, num_injected)
        import_vllm()
        self._check_settings()
        self._start(self._engine_flags(backend, longest))
        config = self.engine.vllm_config
        # samples in flight: enough to keep every engine full while questions end and others begin
        self.most = 2 * config.scheduler_config.max_num_seqs * config.parallel_config.data_parallel_size
        self.runner = asyncio.Runner()  # its loop runs while an answer is waited for

    def _check_settings(self) -> None:
        """InputError for settings that vLLM does not have."""
        from vllm.exceptions import VLLMValidationError

        try:
            self._params(0)
        except VLLMValidationError as error:  # a temperature above 2
            raise InputError(f"--backend vllm: {error}") from None
        # vLLM's repetition penalty counts the prompt's tokens too; for embeddings it reads ids that other prompts have
        # left there. So the prompt's ids are set to one that no answer can have
        self.placeholder, penalty = None, self.settings.repetition_penalty
        if penalty != 1.0:
            self.placeholder = spare_token(self.llm.config, self.layout.llm_tokenizer)
            if self.placeholder is None:
                raise InputError(
                    f"--backend vllm: the model's repetition_penalty is {penalty}, which vLLM can keep to what is "
                    "written only where the vocabulary has a row to spare; use --backend hf"
                )
            os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"  # the other one puts token 0 at a prompt's embeddings

    def _engine_flags(self, backend: Backend, longest: int) -> dict:
        """Keyword arguments of vLLM's AsyncEngineArgs."""
        from vllm.platforms import current_platform

        length = model_length(backend.max_model_len, longest, self.settings.max_new_tokens, self.llm.config)
        names = ("tensor_parallel_size", "data_parallel_size", "gpu_memory_utilization")
        flags = {name: getattr(backend, name) for name in names if getattr(backend, name) is not None}
        if current_platform.is_cpu():
            flags |= ON_CPU | {"max_num_batched_tokens": max(CPU_STEP, length)}
        device = self.llm.get_input_embeddings().weight.device
        if device.type == "cuda":
            flags.setdefault("gpu_memory_utilization", memory_share(*torch.cuda.mem_get_info(device)))
        return flags | {
            "model": backend.model_id,
            "dtype": backend.dtype,
            "trust_remote_code": backend.trust_remote_code,
            "max_model_len": length,
            "enable_prompt_embeds": True,
            "skip_tokenizer_init": True,  # texts are decoded here, by the tokenizer that made the prompts
            "generation_config": "vllm",  # no sampling settings of its own: they are resolved here
            "logprobs_mode": "raw_logprobs",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }

    def _start(self, flags: dict) -> None:
        """Start the engine, and what ends it when this process is killed. InputError where it does not start."""
        from vllm import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        print("  vllm: the engine starts", flush=True)
        # in a session of its own, so that a Ctrl-C ends the evaluation and not the reaper
        reaper = [sys.executable, str(Path(__file__).with_name("reaper.py")), str(os.getpid())]
        self.reaper = subprocess.Popen(reaper, start_new_session=True)
        # vLLM catches a Ctrl-C while it starts: here it ends this process, and the reaper ends the engine
        interrupt = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            # LLM_CLASS: as many sequences at a time as for offline work
            self.engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**flags), usage_context=UsageContext.LLM_CLASS)
        except Exception as error:  # of many types, from pydantic's to the engine's
            self._end_reaper()
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                "--backend vllm: the engine did not start; what it printed says why, and --gpu_memory_utilization, "
                f"--max_model_len and --tensor_parallel_size what it needs ({reason})"
            ) from None
        finally:
            signal.signal(signal.SIGINT, interrupt)

    def _decode(self, requests):
        from vllm.v1.engine.exceptions import EngineDeadError

        waiting = sorted(range(len(requests)), key=lambda place: (requests[place].length, -place))  # taken from its end
        running = {}
        try:
            while waiting or running:
                while waiting and len(running) * self.settings.num_return_sequences < self.most:
                    group = [requests[waiting.pop()] for _ in range(min(len(waiting), self.batch_size))]
                    for request, chains in zip(group, unpadded(self.embed(group), len(group)), strict=True):
                        task = self.runner.get_loop().create_task(self._samples(request, chains))
                        running[task] = request
                    self.runner.run(asyncio.sleep(0))  # the engine begins with these
                done, _ = self.runner.run(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                for task in done:
                    yield running.pop(task), task.result()
        except EngineDeadError:
            raise InputError(
                "--backend vllm: the engine has died; what it printed says why (the same command goes on from here)"
            ) from None
        finally:
            self.runner.run(end(running))

    async def _samples(self, request: Request, chains: list[Tensor]) -> list[Sample]:
        """All samples of a question, behind the prompts of its chains, (T, d_large) each."""
        s, index = self.settings.num_return_sequences, request.example.index
        keys = noise_keys(self.settings.seed, torch.full((s,), request.noise), torch.arange(s))[:, 0].tolist()
        prompts = [self._prompt(chain) for chain in chains]
        samples = (self._sample(prompts[i % len(prompts)], f"{index}.{i}", keys[i] % (1 << 62)) for i in range(s))
        samples = await asyncio.gather(*samples)
        name, question = self.llm.config.name_or_path, request.example.question
        check_log_probs([sample.score for sample in samples], name, question)
        return samples

    def _prompt(self, embeddings: Tensor):
        from vllm.inputs import embeds_input

        if self.placeholder is None:
            return embeds_input(embeddings)
        ids = [self.placeholder] * len(embeddings)
        return embeds_input(embeddings, prompt_token_ids=ids, is_token_ids=[False] * len(ids))

    def _params(self, seed: int):
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        settings = self.settings
        return SamplingParams(
            temperature=0.0 if settings.greedy else settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            min_p=settings.min_p,
            repetition_penalty=settings.repetition_penalty,
            max_tokens=settings.max_new_tokens,
            stop_token_ids=self.stop_ids,
            seed=seed,
            logprobs=0,  # of the written tokens alone
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def _sample(self, prompt, name: str, seed: int) -> Sample:
        outputs = [output async for output in self.engine.generate(prompt, self._params(seed), name)]
        [written] = outputs[-1].outputs
        return make_sample(list(written.token_ids), written.cumulative_logprob, self.stop_ids)

    def close(self) -> None:
        """Stop the engine's processes."""
        try:
            self.runner.close()
            self.engine.shutdown()
            del self.engine  # now, and not at exit, when modules that it needs are gone
        finally:
            self._end_reaper()

    def _end_reaper(self) -> None:
        self.reaper.kill()
        self.reaper.wait()


async def end(tasks) -> None:
    """Cancel the tasks and fetch their results: asyncio would print each error that is not fetched."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def unpadded(inputs: dict[str, Tensor], questions: int) -> Iterator[list[Tensor]]:
    """Left-padded inputs of model.llm_inputs, a row a chain -> for each question its chains' rows without padding,
    (T, d_large) each, on the CPU, from which the engine's processes get them."""
    embeddings, mask = inputs["inputs_embeds"].cpu(), inputs["attention_mask"].bool().cpu()
    rows = [row[real] for row, real in zip(embeddings, mask, strict=True)]
    chains = len(rows) // questions
    for i in range(questions):
        yield rows[i * chains : (i + 1) * chains]
