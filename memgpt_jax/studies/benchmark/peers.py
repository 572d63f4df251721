"""Models of other libraries in torch, if they are installed, with the widths of ours."""

# The libraries are optional:
# pyright: reportMissingImports=false

import importlib.util
import inspect
import time
from collections.abc import Callable
from typing import Any

from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.studies.benchmark.decoding import NEW
from memgpt_jax.studies.benchmark.interleaving import Case


def training_peers(config: ExperimentConfig) -> dict[str, Callable[[], Case]]:
    """For each installed library, a function that makes training steps on as many tokens as ours (on the GPU if torch
    has one)."""
    peers = {}
    if installed("torch", "transformers"):
        peers["GPT-2 of transformers"] = lambda: _gpt2_training(config)
    if installed("torch", "recurrent_memory_transformer_pytorch"):
        peers["RMT of recurrent-memory-transformer-pytorch"] = lambda: _rmt_training(config)
    return peers


def decoding_peers(config: ExperimentConfig, rows: int) -> dict[str, Callable[[], Case]]:
    """For each installed library, a function that makes greedy decoding with a key-value cache, after `window_size`
    tokens."""
    if not installed("torch", "transformers"):
        return {}
    return {"GPT-2 of transformers": lambda: _gpt2_decoding(config, rows)}


def installed(*packages: str) -> bool:
    """Whether all packages can be imported."""
    return all(importlib.util.find_spec(package) for package in packages)


def _decoder(config: ExperimentConfig) -> ModelConfig:
    return instance_of(config.model, ModelConfig, "model")


def _training(model: Any, config: ExperimentConfig, shape: tuple[int, int], loss: Callable) -> Case:
    """AdamW steps of a torch module on random tokens, in the compute type of the config."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(config.model.vocab_size, shape, device=device)

    def run() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=_decoder(config).dtype == "bfloat16"):
            value = loss(model, tokens)
        if value.requires_grad:  # RMT's wrapper has run the backward pass itself
            value.backward()
        optimizer.step()
        host = time.perf_counter() - start
        if device == "cuda":
            torch.cuda.synchronize()
        return host

    return Case(run=run, tokens=tokens.numel(), facts={"parameters": sum(p.numel() for p in model.parameters())})


def gpt2_generation(model: ModelConfig, num_positions: int) -> Callable[[list[int], int], list[int]]:
    """Greedy `generate` of a GPT-2 of transformers with the widths of ours: ids and a number to new ids."""
    import torch

    decoder = gpt2(model, num_positions).eval()

    def generate(prompt: list[int], number: int) -> list[int]:
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": number, "min_new_tokens": number, "do_sample": False, "pad_token_id": 0}
        with torch.inference_mode():
            found = decoder.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return found[0, len(prompt) :].tolist()

    return generate


def gpt2(model: ModelConfig, num_positions: int) -> Any:
    """A GPT-2 of transformers with the widths of ours and random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": model.vocab_size, "n_embd": model.d_model, "n_inner": model.feed_forward_dim}
    depth = {"n_layer": model.num_layers, "n_head": model.num_heads, "n_positions": num_positions}
    plain = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **depth, **plain))


def _gpt2_training(config: ExperimentConfig) -> Case:
    """Full attention over sequences of `window_size` tokens."""
    model = _decoder(config)
    context = model.window_size
    rows = max(1, config.training.batch_size * config.training.sequence_length // context)

    def loss(model: Any, tokens: Any):
        return model(tokens, labels=tokens, use_cache=False).loss

    return _training(gpt2(model, context), config, (rows, context), loss)


def _rmt_training(config: ExperimentConfig) -> Case:
    """128 memory tokens; gradients flow through all segments of a training sequence."""
    import recurrent_memory_transformer_pytorch as rmt

    model = _decoder(config)
    sizes = {"num_tokens": model.vocab_size, "dim": model.d_model, "depth": model.num_layers, "heads": model.num_heads}
    segments = {"seq_len": model.segment_length, "num_memory_tokens": 128, "dim_head": model.attention_head_dim}
    wrapped = rmt.RecurrentMemoryTransformerWrapper(rmt.RecurrentMemoryTransformer(**sizes, **segments))

    def loss(model: Any, tokens: Any):
        return model(tokens, memory_replay_backprop=True)

    return _training(wrapped, config, (config.training.batch_size, config.training.sequence_length), loss)


def _gpt2_decoding(config: ExperimentConfig, rows: int) -> Case:
    """The cache starts with `window_size` tokens and is cropped to them after each run."""
    import torch
    from transformers import DynamicCache

    ours = _decoder(config)
    context = ours.window_size
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, ours.dtype)
    model = gpt2(ours, context + NEW).to(device, dtype).eval()
    tokens, cache = torch.randint(ours.vocab_size, (rows, context), device=device), DynamicCache()
    # Newer releases of transformers call the argument `cache`.
    reuse = {"cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values": cache}
    with torch.inference_mode():
        first = model(tokens, **reuse).logits[:, -1:].argmax(-1)

    def run() -> float:
        start, token = time.perf_counter(), first
        with torch.inference_mode():
            for _ in range(NEW):
                token = model(token, **reuse).logits[:, -1:].argmax(-1)
        host = time.perf_counter() - start
        if device == "cuda":
            torch.cuda.synchronize()
        cache.crop(context - cache.get_seq_length())  # negative: the number of tokens to drop
        return host

    return Case(run=run, tokens=NEW * rows, facts={"parameters": sum(p.numel() for p in model.parameters())})
