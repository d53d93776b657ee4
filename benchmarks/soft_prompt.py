"""A control: a constant soft prompt, the same N trained vectors for every question, by SFT alone.

    python benchmarks/soft_prompt.py --large_model_id toy/large --task_name arithmetic --output_name soft-41 --seed 41 \
        --num_thought_tokens 8 --batch_size 16 --gradient_accumulation_steps 1 --learning_rate 2e-2 --max_steps 400

Takes train.py's flags and trains as it does; then answers the test split (10 samples a question) and writes
results/eval-<output_name>/ so that `python evaluate.py --compare` can read it.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch import nn  # noqa: E402
from tqdm import tqdm  # noqa: E402

import model  # noqa: E402
import report  # noqa: E402
import train  # noqa: E402
from data_loader import load_split  # noqa: E402
from flags import parse_flags  # noqa: E402
from generation import generate_answers, resolve_sampling  # noqa: E402
from layout import TrainingCollator  # noqa: E402


class SoftPrompt(nn.Module):
    """N vectors that start as rows of the LLM's embedding table; nothing of the question is read."""

    uses_small_lm, has_block = False, False

    def __init__(self, sizes: model.Sizes):
        super().__init__()
        self.prior = nn.Parameter(torch.zeros(sizes.num_thoughts, sizes.d_large))

    def forward(self, states, mask, columns, slots):
        """z (B, K, d_large): the prior at the slots (the last N columns), zeros elsewhere."""
        z = self.prior.new_zeros(*columns.shape, self.prior.shape[1])
        if not slots:
            return z
        return torch.cat([z[:, : -len(self.prior)], self.prior.expand(len(z), -1, -1)], dim=1)


def main() -> None:
    model.GENERATORS["soft_prompt"] = SoftPrompt
    losses = ["--sft_loss_weight", "1", "--align_loss_weight", "0", "--focus_loss_weight", "0"]
    flags = [*sys.argv[1:], "--thought_generator", "soft_prompt", *losses]
    args = parse_flags(train.TrainArguments, flags, "soft_prompt.py")
    layout = train.build_layout(args)
    rows, dev_rows, dev_examples, _ = train.prepare_rows(args, layout)
    thoughts = train.build_model(args, layout, [])
    embeddings = thoughts.llm.get_input_embeddings().weight
    start = model.prior_row_ids(thoughts.llm.config, args.num_thought_tokens)
    thoughts.generator.prior.data.copy_(embeddings[start.start : start.stop])
    trainer = train.ThoughtTrainer(
        model=thoughts,
        args=args,
        data_collator=TrainingCollator(layout, steps=False),
        train_dataset=rows,
        eval_dataset=dev_rows,
        dev_examples=dev_examples,
        layout=layout,
    )
    trainer.train()
    folder = Path(f"results/eval-{args.output_name}")
    folder.mkdir(parents=True)
    examples = load_split(args.task, "test", args.data_dir).examples
    config = thoughts.llm.generation_config
    kind = args.task.answer_type
    sampling = resolve_sampling(thoughts.llm.config.model_type, config, 10, args.seed, max_new_tokens=96)
    answers = generate_answers(thoughts.llm, thoughts.eval(), layout, examples, sampling, 16)
    records = [report.sample_record(*answer, kind) for answer in tqdm(answers, total=len(examples), desc="questions")]
    (folder / report.SAMPLES_FILE).write_text("".join(json.dumps(record) + "\n" for record in records))
    settings = {"num_thought_tokens": args.num_thought_tokens, "thought_generator": "soft_prompt", "answer_type": kind}
    figures = report.make_report(records, kind) | {"settings": settings | {"sampling": asdict(sampling)}}
    figures |= {"speed": None, "thought_variance": None}
    (folder / report.REPORT_FILE).write_text(json.dumps(figures, indent=2) + "\n")
    report.print_report(figures)


if __name__ == "__main__":
    main()
