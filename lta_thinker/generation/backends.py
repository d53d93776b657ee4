"""--backend: which sampler writes the answers, in this process (samplers.py) or in a vLLM engine (vllm.py)."""

from collections.abc import Sequence

from lta_thinker.generation.prompts import Request
from lta_thinker.generation.samplers import Backend, Sampler, TransformersSampler
from lta_thinker.generation.sampling import SamplingSettings
from lta_thinker.model import Models


def open_sampler(
    backend: Backend,
    models: Models,
    settings: SamplingSettings,
    batch_size: int,
    num_injected: int,
    requests: Sequence[Request],
) -> Sampler:
    """The backend's sampler for these requests, to be closed. InputError where it does not start."""
    if backend.name == "hf" or not requests:
        return TransformersSampler(models, settings, batch_size, num_injected)
    # imported here: vLLM is optional and takes seconds
    from lta_thinker.generation.vllm import VllmSampler

    longest = max(request.length for request in requests) + num_injected
    return VllmSampler(models, settings, batch_size, num_injected, backend, longest)


def backend_versions(backend: str) -> dict[str, str]:
    """The versions of the libraries that the backend needs besides ours. InputError for missing and old ones."""
    if backend == "hf":
        return {}
    from lta_thinker.generation.vllm import import_vllm

    return {"vllm": import_vllm().__version__}
