"""A run again: flags.json of a run -> the flags that make it anew.

python train.py --config results/first/flags.json --output_name again
"""

from lta_thinker.common import InputError, ranks
from lta_thinker.training.declared import SET_HERE, TrainFlags, library_words
from lta_thinker.usage import flag_words

# of flags.json: what is no flag, and flags that are about one start or stand for others, which are there too
NO_FLAGS = {"starts", "dtype", "recompute_layers", "world_size", "train_sha256", "dev_sha256"}
ONE_START = SET_HERE - {"eval_steps", "disable_tqdm"} | {"resume", "recipe", "config", "local_rank", "verbose"}
ONE_START |= {"bf16", "gradient_checkpointing", "activation_checkpointing"}


def flags_of_run(values: dict, path: str) -> dict:
    """What a --config holds; where it is a run's flags.json, the flags of a run like that.

    Prints a note where that run was of another number of processes, and where it had flags that there are not in this
    version. InputError for a flags.json that train.py did not write.
    """
    if "starts" not in values:
        return values
    starts = values["starts"]
    if not (isinstance(starts, list) and starts and isinstance(starts[-1], dict)):
        raise InputError(f"--config {path}: has no start, which train.py writes into a run's flags.json")
    free = starts[-1].get("flags")
    if not isinstance(free, dict) or not {"dtype", "world_size", "output_name"} <= values.keys():
        raise InputError(f"--config {path}: not as train.py writes a run's flags.json")
    flags = {key: value for key, value in (values | free).items() if key not in NO_FLAGS | ONE_START}
    flags |= {"bf16": values["dtype"] == "bfloat16", "gradient_checkpointing": values.get("recompute_layers")}
    if flags.get("run_name") == flags["output_name"]:  # it was not given
        del flags["run_name"]
    if not flags.get("num_thought_tokens"):  # an adapter alone
        del flags["num_thought_tokens"]
    known = flag_words(TrainFlags.__dataclass_fields__.values()) | library_words()
    strange = [key for key, value in flags.items() if f"--{key}" not in known and value is not None]
    if ranks().is_first and strange:
        print(f"note: {path}: passed over, this version has no such flags: {', '.join(strange)}")
    if ranks().is_first and values["world_size"] != ranks().world:
        what = f"of a run of {values['world_size']} processes; here are {ranks().world}, whose steps have other rows"
        print(f"note: {path}: {what}")
    return {key: value for key, value in flags.items() if f"--{key}" in known}
