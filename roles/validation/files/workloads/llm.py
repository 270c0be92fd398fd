# SPDX-License-Identifier: GPL-3.0-or-later
"""vLLM: how fast does a large language model answer, one question alone and many at once?

Without a model it makes one of the shape of Llama 2 with random weights on the spot, so that nothing is downloaded: the arithmetic
and the memory traffic are the same, only the text would be nonsense. Prompts are numbers of tokens, so no tokenizer is needed.
"""

from __future__ import annotations

import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import children
import workload

SHAPES: dict[str, dict[str, int]] = {
    "llama-2-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
    "tiny": {
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
    },
}
PROMPT = 32
"""Tokens in a prompt."""
ALONE = 5
"""Prompts that are answered one after the other."""
LENGTH = 512
"""The most tokens of a prompt with its answer: as little memory as will do is set aside for it."""


def config(shape: str, kind: str) -> dict[str, Any]:
    """The config.json of a Llama."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": kind,
        **SHAPES[shape],
    }


def weights(shape: dict[str, int], bytes_each: int) -> int:
    """Bytes of a Llama's weights."""
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    keys = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    attention = 2 * hidden * hidden + 2 * hidden * keys
    layer = attention + 3 * hidden * shape["intermediate_size"] + 2 * hidden
    return (layers * layer + 2 * shape["vocab_size"] * hidden + hidden) * bytes_each


def stored(folder: Path) -> int:
    """Bytes of the weights of a model in a folder."""
    files = list(folder.glob("*.safetensors")) or list(folder.glob("*.bin"))
    return sum(file.stat().st_size for file in files)


@dataclass
class Answer:
    """How one prompt was answered: when the first token came, in seconds since it was asked, and how many came.

    `looked_at` of them told by what they were chosen, and for `not_finite` of these it was no number.
    """

    first: float
    tokens: int = 0
    looked_at: int = 0
    not_finite: int = 0


class Engine:
    """vLLM with a model."""

    def __init__(self, vllm: ModuleType, model: str, options: Namespace) -> None:
        self.vllm = vllm
        self.llm = vllm.LLM(
            model=model,
            load_format="auto" if options.model else "dummy",
            skip_tokenizer_init=True,
            dtype="auto" if options.model else kind_of(options),
            max_model_len=LENGTH,
            max_num_seqs=max(options.prompts, 1),
            tensor_parallel_size=options.split,
            gpu_memory_utilization=options.share,
            enforce_eager=options.device == "cpu",
            enable_prefix_caching=False,
            seed=0,
        )
        self.vocabulary = int(self.llm.llm_engine.model_config.get_vocab_size())
        self.numbers = random.Random(50)
        self.asked = 0

    def ask(self, prompts: int, tokens: int) -> tuple[float, list[Answer]]:
        """Ask everything at once. The seconds that it took, and how each was answered."""
        engine = self.llm.llm_engine
        wanted = self.vllm.SamplingParams(
            temperature=0.0,
            max_tokens=tokens,
            min_tokens=tokens,
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
        )
        answers: dict[str, Answer] = {}
        begin = time.perf_counter()
        for _prompt in range(prompts):
            self.asked += 1
            ids = [self.numbers.randrange(3, self.vocabulary) for _token in range(PROMPT)]
            engine.add_request(str(self.asked), {"prompt_token_ids": ids}, wanted)
        while engine.has_unfinished_requests():
            for output in engine.step():
                at = time.perf_counter() - begin
                made = output.outputs[0]
                answer = answers.setdefault(output.request_id, Answer(at))
                answer.tokens = len(made.token_ids)
                if output.finished:
                    chosen_by = chances(made)
                    answer.looked_at = len(chosen_by)
                    answer.not_finite = sum(not math.isfinite(chance) for chance in chosen_by)
        return time.perf_counter() - begin, list(answers.values())


def chances(made: Any) -> list[float]:
    """The logarithm of the probability of each token of an answer."""
    each = zip(made.token_ids, made.logprobs or [], strict=False)
    return [float(of[token].logprob) for token, of in each if token in of]


def kind_of(options: Namespace) -> str:
    """As Llama 2 is published; the CPU computes in what every CPU can."""
    return "float16" if options.device == "cuda" else "float32"


def p95(values: Sequence[float]) -> float:
    """What 95 of 100 do not exceed: by the nearest rank, so always one that was measured."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def environment(folder: str, options: Namespace) -> None:
    """What vLLM and what it stands on read when they are loaded: stay on this machine, and leave nothing on it."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        os.environ[name] = "1"
    for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "HF_HOME"):
        os.environ[name] = str(Path(folder, name.lower()))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # Everything in this process where that is possible: what it starts could outlive it.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")
    if options.device == "cpu":
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def main() -> None:
    """Print the figures that the check ``llm_inference`` judges."""
    parser = workload.parser(__doc__ or "")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument(
        "--model", default="", help="the folder of a model; empty: one with random weights is made"
    )
    parser.add_argument("--prompts", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=50, help="of each answer")
    parser.add_argument("--split", type=int, default=1, help="over how many GPUs the model is spread")
    parser.add_argument("--share", type=float, default=0.9, help="of each GPU's memory that may be used")
    options = parser.parse_args()
    options.workers = options.split
    children.clean_up_when_ended()
    with tempfile.TemporaryDirectory(prefix="gpumesh-") as folder:
        environment(folder, options)
        torch, vllm = workload.framework("torch"), workload.framework("vllm")
        workload.begin("llm", options, vllm=vllm.__version__, torch=torch.__version__)
        model = options.model
        if not model:
            Path(folder, "config.json").write_text(
                json.dumps(config(options.shape, kind_of(options))), encoding="utf-8"
            )
            model = folder
        try:
            measure(vllm, model, options)
        except Exception as problem:
            lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
            workload.fail(f"vLLM cannot run the model: {lines[0] if lines else type(problem).__name__}")
    workload.end()
    sys.stderr.flush()


def measure(vllm: ModuleType, model: str, options: Namespace) -> None:
    """Start, ask one after the other, ask all at once."""
    size = stored(Path(model)) if options.model else 0
    if not options.model:
        size = weights(SHAPES[options.shape], 2 if options.device == "cuda" else 4)
    workload.figure("weights", round(size / 1e9, 4), "GB")
    workload.figure("split", options.split)
    workload.progress(0.05, "loading the model")
    begin = time.perf_counter()
    with workload.phase("start"):
        engine = Engine(vllm, model, options)
        engine.ask(2, 4)
    workload.figure("start", round(time.perf_counter() - begin, 2), "s")
    rates, firsts = [], []
    with workload.phase("one stream"):
        for number in range(ALONE):
            workload.progress(0.5 + 0.05 * number, "one prompt at a time")
            seconds, [answer] = engine.ask(1, options.tokens)
            rates.append(answer.tokens / seconds)
            firsts.append(answer.first)
    workload.progress(0.8, f"{options.prompts} prompts at once")
    with workload.phase("batch"):
        seconds, answers = engine.ask(options.prompts, options.tokens)
    rate = statistics.median(rates)
    workload.figure("one stream", round(rate, 2), "tokens/s", spread=round(max(rates) - min(rates), 2))
    made = sum(answer.tokens for answer in answers)
    workload.figure("batch", round(made / seconds, 2), "tokens/s")
    in_batch = [1000 * answer.first for answer in answers]
    workload.figure("first token, one stream", round(1000 * statistics.median(firsts), 2), "ms")
    workload.figure("first token, median", round(statistics.median(in_batch), 2), "ms")
    workload.figure("first token, p95", round(p95(in_batch), 2), "ms")
    workload.figure("tokens", made, wanted=options.prompts * options.tokens)
    looked_at = sum(answer.looked_at for answer in answers)
    bad = sum(answer.not_finite for answer in answers) if looked_at else None
    workload.figure("not finite", bad, of=looked_at)


if __name__ == "__main__":
    main()
