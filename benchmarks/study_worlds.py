"""What the study runs: learning rates, contestants, worlds, runs, and the evaluations that are asked for.

The rules are in benchmarks/study.py.
"""

from dataclasses import dataclass, field

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FEW_RATES = LEARNING_RATES[1:4]
REAL_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SEEDS = (41, 42, 43, 44, 45)
FEW_SEEDS, REAL_SEEDS = SEEDS[:2], SEEDS[:3]
# where weights are varied it is in the published plain sum, but for THREE, the defaults
WEIGHTS = ("sft_loss_weight", "align_loss_weight", "focus_loss_weight")
PLAIN = {"balance_losses": False, "align_stop_gradient": False}
SFT = dict(zip(WEIGHTS, (1, 0, 0), strict=True)) | PLAIN
PUBLISHED = dict.fromkeys(WEIGHTS, 0.33) | PLAIN
THREE = dict(zip(WEIGHTS, (1, 0.33, 0.33), strict=True)) | {"balance_losses": True, "align_stop_gradient": True}


@dataclass(frozen=True)
class Contestant:
    """A row of the main table; `flags` are those of train.py (None: nothing is trained)."""

    title: str
    flags: dict | None
    asked_with: dict = field(default_factory=dict)  # its flags of evaluate.py


CONTESTANTS = {
    "none": Contestant("bare LLM", None),
    "prompt": Contestant("constant prompt", {"thought_generator": "prompt"} | SFT),
    "softcot": Contestant("SoftCoT", {"thought_generator": "small"} | SFT),
    "softcotpp": Contestant(
        "SoftCoT++, 5 chains",
        {"thought_generator": "small", "num_thought_chains": 5, "diversity_loss_weight": 0.1} | SFT,
    ),
    "block-three": Contestant("LTA block, three losses", {"thought_generator": "block"} | THREE),
    "block": Contestant("LTA block, three losses, plain sum", {"thought_generator": "block"} | PUBLISHED),
    "block-sft": Contestant("LTA block, SFT alone", {"thought_generator": "block"} | SFT),
    "small_block-three": Contestant("LTA small_block, three losses", {"thought_generator": "small_block"} | THREE),
    "small_block": Contestant(
        "LTA small_block, three losses, plain sum", {"thought_generator": "small_block"} | PUBLISHED
    ),
    "small_block-sft": Contestant("LTA small_block, SFT alone", {"thought_generator": "small_block"} | SFT),
    "leak": Contestant(
        "LTA small_block, SFT alone, steps seen",
        {"thought_generator": "small_block", "thoughts_see_steps": True} | SFT,
    ),
    "fewshot": Contestant("bare LLM, 4 worked examples", None, {"num_fewshot": 4}),
    "lora": Contestant("LoRA, no thoughts", {"thought_generator": "none", "tune_base_model": True} | SFT),
    "lora-three": Contestant(
        "LoRA and small_block, three losses", {"thought_generator": "small_block", "tune_base_model": True} | THREE
    ),
}
TUNING_RATES = (3e-4, 1e-3, 3e-3)
# 25 steps of 16 rows an epoch
EPOCHS = {"max_steps": -1, "n_epochs": 8, "k_shot": 400, "eval_steps": 25}
EPOCHS |= {"batch_size": 16, "gradient_accumulation_steps": 1}
# what tunes the LLM itself, with the same rows, epochs and batches for all: text chain of thought, the answer without
# steps, and Coconut's curriculum with its own thoughts and with pause tokens in their place
STAGES = {"coconut_stages": 3, "thoughts_per_step": 2, "num_thought_tokens": 6}
WRITERS = {
    "cot": ("text chain of thought", {"thought_generator": "none"}),
    "nocot": ("the answer alone", {"thought_generator": "none", "answer_only": True}),
    "pause": ("pause tokens in stages", {"thought_generator": "prompt"} | STAGES),
    "coconut": ("Coconut", {"thought_generator": "coconut"} | STAGES),
}
TUNINGS = {"full": ("all weights", {"full_tuning": True}), "lora": ("LoRA", {"tune_base_model": True})}
BY_LORA = tuple(f"{name}-lora" for name in WRITERS)
TUNED = (*(f"{name}-full" for name in WRITERS), *BY_LORA)
for name in TUNED:
    (title, flags), (words, tuning) = (part[key] for part, key in zip((WRITERS, TUNINGS), name.split("-"), strict=True))
    CONTESTANTS[name] = Contestant(f"{title}, {words}", SFT | flags | tuning | EPOCHS)
CONTROLS = tuple(f"{name}-{tuning}" for tuning in TUNINGS for name in ("nocot", "pause"))  # of Coconut
DEFAULT = "small_block-three"
TOYS = tuple(name for name in CONTESTANTS if name not in ("fewshot", "lora", "lora-three", *TUNED))
REAL = (
    "none",
    "fewshot",
    "prompt",
    "softcot",
    DEFAULT,
    "small_block-sft",
    "block-three",
    "lora",
    "lora-three",
)
LTA = ("block-three", "block", "block-sft", "small_block-three", "small_block", "small_block-sft")
TOY_PAIR = ("toy/large", "toy/small")


@dataclass(frozen=True)
class World:
    """A frozen pair (two folders) and a task.

    task: flags of both scripts. tuned_on: the world on which the learning rates are chosen, of `rates`. baselines: the
    contestants that all others are compared with. reading: flags of the generators that read a small LM. ways: the
    contestants of every way of thinking, side by side; tuning_rates: the learning rates of those that tune the LLM;
    in_epochs: other values for their flags; longer_ways: of their trainings behind that for the learning rate.
    All runs have batch_size rows a step, `steps` steps, num_thoughts thoughts and test_k test questions.
    """

    name: str
    large: str
    small: str
    tuned_on: str
    task: tuple[tuple[str, str], ...]
    rates: tuple[float, ...] = LEARNING_RATES
    contestants: tuple[str, ...] = TOYS
    baselines: tuple[str, ...] = ("none", "prompt", "softcot", "small_block-sft")
    reading: tuple[tuple[str, object], ...] = ()
    ways: tuple[str, ...] = ()
    tuning_rates: tuple[float, ...] = TUNING_RATES
    in_epochs: tuple[tuple[str, object], ...] = ()
    longer_ways: tuple[tuple[str, object], ...] = ()
    batch_size: int = 16
    steps: int = 100
    test_k: int = 500
    num_thoughts: int = 8
    max_new_tokens: int = 96


def broad(family: str, answer_type: str) -> World:
    """A task family of the second world (toy/broad.py)."""
    files = tuple((f"{split}_file", f"toy/broad/data/{family}/{split}.jsonl") for split in ("train", "dev", "test"))
    fields = {
        "boolean": (("steps_field", "facts"),),
        "choice": (("steps_field", "rationale"), ("answer_field", "correct")),
    }
    task = (("task_name", f"broad-{family}"), ("answer_type", answer_type), *files, *fields.get(family, ()))
    names = tuple(name for name in TOYS if name != "block-three")
    return World(f"broad-{family}", "toy/broad/large", "toy/broad/small", "broad-number", task, FEW_RATES, names)


def other_rows(name: str) -> World:
    """The first world with other rows, which study.py writes."""
    files = {split: f"results/study/{name}/{split}.jsonl" for split in ("train", "dev", "test")}
    task = (("task_name", f"arithmetic-{name}"), ("answer_type", "number"))
    return World(name, *TOY_PAIR, "arithmetic", (*task, *((f"{split}_file", file) for split, file in files.items())))


SIDE_BY_SIDE = ("none", "prompt", "softcot", "softcotpp", DEFAULT)
ARITHMETIC = World(
    "arithmetic",
    *TOY_PAIR,
    "arithmetic",
    (("task_name", "arithmetic"),),
    ways=(*SIDE_BY_SIDE, *(f"{name}-full" for name in WRITERS), "cot-lora", "coconut-lora"),
    longer_ways=(("eval_steps", 100), ("k_shot", 1600), ("n_epochs", 6)),  # as many rows as the others see
)
BROAD = tuple(broad(family, family) for family in ("number", "boolean", "choice"))
# a wrong method in 30 % of the training rows; questions about the teller alone, of which a word or two tell the method
NOISY, TELLER = other_rows("noisy"), other_rows("teller")
LLM = "models/smollm2-135m"  # SmolLM2-135M-Instruct; toy/real.py makes it


def smollm2(task: str, contestants: tuple[str, ...], batch_size: int) -> World:
    """LLM on a task; its first 20 layers are the small LM."""
    return World(
        f"{task}-smollm2",
        LLM,
        LLM,
        "asdiv-smollm2",
        (("task_name", task),),
        REAL_RATES,
        contestants,
        baselines=("none", "fewshot", "prompt", "lora"),
        reading=(("reader_layers", 20),),
        ways=(*SIDE_BY_SIDE, *BY_LORA),
        tuning_rates=TUNING_RATES[-1:],  # of `lora` the best but one, 0.006 nats behind
        # a row has one step; an epoch, 40 steps of 32 rows, for each stage and the answer alone: as many as the others
        in_epochs=(
            ("coconut_stages", 1),
            ("thoughts_per_step", 8),
            ("num_thought_tokens", 8),
            ("n_epochs", 3),
            ("k_shot", 1280),
            ("batch_size", 32),
            ("eval_steps", 60),
        ),
        batch_size=batch_size,
        steps=120,
        test_k=412,
        max_new_tokens=400,
    )


ASDIV = smollm2("asdiv", REAL, batch_size=32)
GSM8K = smollm2("gsm8k", ("prompt", "softcot", DEFAULT, "small_block-sft", "lora"), batch_size=16)
REAL_WORLDS = (ASDIV, GSM8K)
WORLDS = {world.name: world for world in (ARITHMETIC, NOISY, TELLER, *BROAD, *REAL_WORLDS)}


@dataclass(frozen=True)
class Run:
    """A contestant in a world with a seed and flags that replace its own (sorted pairs)."""

    world: str
    contestant: str
    seed: int
    options: tuple[tuple[str, object], ...] = ()

    @classmethod
    def of(cls, record: dict) -> "Run":
        return cls(record["world"], record["contestant"], record["seed"], tuple(sorted(record["options"].items())))

    @property
    def name(self) -> str:
        """Also a valid --output_name."""
        options = "".join(f".{name}_{value}" for name, value in self.options)
        return f"{self.world}.{self.contestant}{options}.s{self.seed}"

    def train_flags(self, prefix: str) -> dict:
        """Flags of train.py; the prefix keeps two studies' folders apart."""
        world = WORLDS[self.world]
        common = {
            "large_model_id": world.large,
            "small_model_id": world.small,
            **dict(world.task),
            "output_name": f"{prefix}.{self.name}",
            "seed": self.seed,
            "num_thought_tokens": world.num_thoughts,
            "batch_size": world.batch_size,
            "per_device_eval_batch_size": 50,
            "gradient_accumulation_steps": 1,
            "max_steps": world.steps,
            "eval_strategy": "steps",
            "eval_steps": max(10, world.steps // 4),
            "logging_steps": 5,
            "disable_tqdm": "true",
        }
        own = CONTESTANTS[self.contestant].flags
        reading = dict(world.reading) if own["thought_generator"] in ("small", "small_block") else {}
        in_epochs = {name: value for name, value in world.in_epochs if name in own}
        return common | own | in_epochs | reading | dict(self.options)


@dataclass(frozen=True)
class Evaluation:
    """A call of evaluate.py on a run: label and flags (sorted pairs) besides the common ones."""

    label: str
    flags: tuple[tuple[str, object], ...] = ()


def sampled(label: str, samples: int, **flags) -> Evaluation:
    """`samples` answers a question, under the label with their number."""
    return Evaluation(f"{label}-x{samples}", (("num_return_sequences", samples), *sorted(flags.items())))


MAIN, SHORT = sampled("test", 10), sampled("test", 4)
LONGER = sampled(
    "longer", 4, task_name="arithmetic-longer", answer_type="number", test_file="results/study/longer.jsonl"
)
REWORDED = sampled("reworded", 4, prompt_file="results/study/reworded.json")
MADE_TWO = sampled("made2", 4, num_thought_tokens=2, make_only_n=True)
SMALL_ALONE = sampled("small-alone", 4, base_model_id="toy/broad/small")
# for the seconds: as MAIN; on the real LLM of fewer questions and answers
ALONE, FEW_ALONE = sampled("alone", 10), sampled("alone", 4, test_k=100, dtype="float32")
INSPECT = Evaluation("inspect", (("inspect", 100),))
REWORDED_PROMPT = {
    "problem": "Here is a question. Work it out in steps and write the final answer in \\boxed{}.\n\n{question}"
}
