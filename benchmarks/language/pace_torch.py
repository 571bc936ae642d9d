"""Tokens per second of a plain PyTorch loop, of TRL's trainers, and of transformers' `generate`."""

import copy
import json
import sys
import tempfile
import time
from types import SimpleNamespace

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

arguments = SimpleNamespace(**json.loads(sys.argv[1]))
torch.set_num_threads(arguments.threads)
transformers.logging.set_verbosity_error()
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.width,
        intermediate_size=4 * arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.width // 64,
        num_key_value_heads=arguments.width // 64,
        max_position_embeddings=arguments.length,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
)
prompt = arguments.length // 2
torch.manual_seed(0)


def tokens(count: int) -> torch.Tensor:
    return torch.randint(1, arguments.vocabulary, (count, arguments.length))


def repeat(once, tokens_each: int) -> float:
    """Tokens in a second, the first calls left out."""
    for _ in range(2):
        once()
    count, before = 0, time.perf_counter()
    while time.perf_counter() - before < arguments.seconds:
        once()
        count += 1
    return count * tokens_each / (time.perf_counter() - before)


def plain() -> float:
    """Forward, backward, clipping and AdamW, as few lines as it takes."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5)
    data = tokens(256)

    def once():
        batch = data[torch.randint(0, 256, (arguments.rows,))]
        labels = batch.clone()
        labels[:, :prompt] = -100
        loss = model(input_ids=batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return repeat(once, arguments.rows * arguments.length)


def writing() -> float:
    """New tokens in a second of `generate` with its key-value cache."""
    prompts = tokens(arguments.rows)[:, :prompt]

    def once():
        new = arguments.length - prompt
        options = {"do_sample": True, "top_k": 0, "min_new_tokens": new, "max_new_tokens": new}
        with torch.no_grad():
            model.generate(prompts, attention_mask=torch.ones_like(prompts), **options)

    return repeat(once, arguments.rows * (arguments.length - prompt))


def trained_by_trl() -> float:
    """TRL's trainer over a dataset that is tokenised already; a long run less a short one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from datasets import Dataset

    words = {f"t{i}": i for i in range(arguments.vocabulary)}
    inner = Tokenizer(models.WordLevel(words, unk_token="t1"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="t0", eos_token="t2", unk_token="t1"
    )
    half = arguments.length - prompt

    def text(row) -> str:
        return " ".join(f"t{i}" for i in row.tolist())

    rows = 4096
    drawn = torch.randint(3, arguments.vocabulary, (rows, prompt + 2 * half))
    if arguments.work == "SFT":
        columns = {
            "prompt": [text(row[:prompt]) + " " for row in drawn],
            "completion": [text(row[prompt : prompt + half - 1]) for row in drawn],
        }
    else:
        columns = {
            "prompt": [text(row[:prompt]) + " " for row in drawn],
            "chosen": [text(row[prompt : prompt + half - 1]) for row in drawn],
            "rejected": [text(row[prompt + half : -1]) for row in drawn],
        }
    data = Dataset.from_dict(columns)

    def seconds(updates: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            common = {
                "output_dir": folder,
                "per_device_train_batch_size": arguments.rows,
                "max_steps": updates,
                "report_to": [],
                "save_strategy": "no",
                "logging_strategy": "no",
                "disable_tqdm": True,
                "use_cpu": True,
                "bf16": False,
                "gradient_checkpointing": False,
                "max_length": arguments.length,
            }
            if arguments.work == "SFT":
                trainer = SFTTrainer(
                    model, SFTConfig(**common), train_dataset=data, processing_class=tokenizer
                )
            else:
                # Without a name of its own on the hub, it cannot be loaded a second time.
                trainer = DPOTrainer(
                    model,
                    ref_model=copy.deepcopy(model),
                    args=DPOConfig(**common),
                    train_dataset=data,
                    processing_class=tokenizer,
                )
            before = time.perf_counter()
            trainer.train()
            return time.perf_counter() - before

    # The first call of everything takes longer, which a long run would seem to make up for.
    seconds(2)
    few, short = 3, seconds(3)
    many = max(9, int(arguments.seconds / short * 3))
    pair = 2 if arguments.work == "DPO" else 1
    return (many - few) / (seconds(many) - short) * arguments.rows * arguments.length * pair


versions = {"torch": torch.__version__, "transformers": transformers.__version__}
if arguments.library == "trl":
    import trl

    versions["trl"] = trl.__version__
    rate = trained_by_trl()
elif arguments.work == "writing":
    rate = writing()
else:
    rate = plain()
print(json.dumps({"tokens_per_second": round(rate, 1), "versions": versions}))
