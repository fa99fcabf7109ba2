"""How fast the engine serves calls that all want a reply at once.

    python -m benchmarks.bench_engine --shape tiny|48m|1b|8b --device cpu|cuda
        [--calls 1,8,32] [--threads 1] [--audio-s 5 | 2-8] [--baseline] [--repeats 5]

Random weights of the true shapes. Turns are 2 to 8 s of speech; text in the shape 48m,
since transformers' batching takes no audio. Every call has the same instructions
(`--shared` tokens) and a part of its own (`--own` tokens, of which audio is the first);
all are submitted at the same moment and produce `--new` tokens each. Instructions are
warmed first, as at the start of a campaign, and the warming is reported by itself.

What bounds it: decoding reads every weight once a step whatever the number of calls,
so tokens a second grow with calls until arithmetic or the calls' own keys and values
cost as much as the weights. Prefill is arithmetic from the start. On small models the
interpreter's time per step comes first.

`--baseline` runs transformers on such prompts too: `generate`, one at a time, from the
start and with the instructions' cache kept; and its continuous batching, all at once.
Repeats of all of them take turns, so that what else the machine does hits all alike,
and medians are given. Tokens a second of the process's CPU time are given beside those
of the clock, for machines that are busy with something else. `roofline` is the share of
the time a decode step takes at least: its weights, keys and values read once, at the
rate this device was measured to read. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import resource
import statistics
import sys
from dataclasses import asdict, dataclass
from datetime import date
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from transformers.initialization import no_init_weights

from benchmarks.provenance import provenance
from model.engine.engine import Engine, EngineOptions
from model.engine.fast_paths import RunnerOptions, Wish
from model.engine.plain_chat import PlainChat
from model.engine.request import GenerationRequest
from model.ultravox.checkpoint import Checkpoint, choose_device, choose_dtype
from model.ultravox.clip import AudioClip
from model.ultravox.config import AudioEncoderConfig, UltravoxConfig
from model.ultravox.inputs import Message, build_prompt
from model.ultravox.lengths import RATE_HZ, num_clip_tokens
from model.ultravox.mel import LogMel
from model.ultravox.network import UltravoxModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.engine.stream import TokenStream
    from model.ultravox.inputs import Prompt

_TURBO = AudioEncoderConfig(
    d_model=1280,
    encoder_layers=32,
    encoder_attention_heads=20,
    encoder_ffn_dim=5120,
    num_mel_bins=128,
)
_SMALL = AudioEncoderConfig(
    d_model=160,
    encoder_layers=4,
    encoder_attention_heads=4,
    encoder_ffn_dim=640,
    num_mel_bins=80,
)


def _llama(
    hidden: int, layers: int, heads: int, kv: int, ffn: int, vocab: int, *, tied: bool
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "eos_token_id": 2,
    }


# (encoder, language model, projector width)
SHAPES: dict[str, tuple[AudioEncoderConfig, dict[str, Any], int]] = {
    "tiny": (_SMALL, _llama(192, 4, 6, 6, 512, 1024, tied=True), 512),
    "48m": (_SMALL, _llama(512, 11, 8, 4, 1408, 32000, tied=True), 1024),
    "1b": (_TURBO, _llama(2048, 16, 32, 8, 8192, 128256, tied=True), 4096),
    "8b": (_TURBO, _llama(4096, 32, 32, 8, 14336, 128256, tied=False), 4096),
}


class RunsChat(PlainChat):
    """A chat format that renders to what it was given; nobody reads the text."""

    def __init__(self, runs: Sequence[tuple[int, ...] | AudioClip] = ()) -> None:
        self._runs = list(runs)

    def render(
        self, messages: Sequence[Message], today: date
    ) -> list[tuple[int, ...] | AudioClip]:
        """The runs as they are."""
        return self._runs

    def decode(self, token_ids: Sequence[int]) -> str:
        """One letter a token."""
        return "x" * len(token_ids)


@dataclass(frozen=True, slots=True)
class Load:
    """What every call asks for."""

    shared_tokens: int
    own_tokens: int
    new_tokens: int
    min_audio_s: float
    max_audio_s: float

    def audio_s(self, call: int) -> float:
        """Lengths of one call after the other, spread evenly over the range."""
        share = (call * 0.618034) % 1.0  # the golden ratio spreads any number of them
        return self.min_audio_s + share * (self.max_audio_s - self.min_audio_s)

    def prompt(self, shape: str, call: int | None) -> Prompt:
        """One call's prompt; the instructions alone for None."""
        vocab = SHAPES[shape][1]["vocab_size"]
        shared = np.random.default_rng(0).integers(3, vocab, self.shared_tokens)
        runs: list[tuple[int, ...] | AudioClip] = [tuple(shared.tolist())]
        messages: list[Message] = []
        if call is not None:
            rng = np.random.default_rng(call + 1)
            num_text = self.own_tokens
            if self.max_audio_s:
                num_samples = round(self.audio_s(call) * RATE_HZ)
                noise = 0.1 * rng.standard_normal(num_samples)
                clip = AudioClip(noise.astype(np.float32))
                num_text -= num_clip_tokens(num_samples)
                runs.append(clip)
                messages.append(Message("user", (clip,)))
            runs.append(tuple(rng.integers(3, vocab, max(1, num_text)).tolist()))
        return build_prompt(RunsChat(runs), messages, date(2025, 1, 1))


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table."""

    calls: int
    seconds: float
    tokens_per_s: float
    tokens_per_cpu_s: float
    tokens_per_s_a_call: float  # of the slowest, from its first token on
    step_ms: float  # of the slowest call, first to last token, per token
    roofline: float  # share of what the device's memory allows, 0 to 1
    first_token_ms: dict[str, float]
    first_token_parts_ms: dict[str, float]  # medians
    cached_tokens: int


def random_checkpoint(
    shape: str, device: torch.device, dtype: torch.dtype
) -> Checkpoint:
    """A network of the shape with weights that keep activations finite."""
    audio, text, width = SHAPES[shape]
    config = UltravoxConfig(
        audio=audio, text=text, hidden_size=width, projector_ln_mid=True
    )
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), no_init_weights():
            network = UltravoxModel(config)
    finally:
        torch.set_default_dtype(default_dtype)
    network.language_model.tie_weights()
    torch.manual_seed(0)
    for name, parameter in network.named_parameters():
        if "norm" in name or "ln_" in name:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
        else:
            parameter.data.normal_(std=0.02)
    network.eval().requires_grad_(False)
    return Checkpoint(
        name=f"random {shape}",
        config=config,
        network=network,
        log_mel=LogMel(audio.num_mel_bins).to(device),
        chat=RunsChat(),
        stop_ids=frozenset({2}),
        device=device,
        dtype=dtype,
    )


def bytes_per_s(device: torch.device) -> float:
    """How fast the device reads memory: the best of some sums over much of it."""
    size = (1 << 30) if device.type == "cuda" else (1 << 28)
    block = torch.ones(size // 4, dtype=torch.float32, device=device)
    best = float("inf")
    for _ in range(5):
        began = perf_counter()
        float(block.sum())  # waits for the device
        best = min(best, perf_counter() - began)
    return size / best


@dataclass(slots=True)
class Measured:
    """What was measured of one engine, in the order of `calls`."""

    warm_s: float
    decoding: str
    results: list[list[Result]]  # by number of calls, then by repeat
    memory: dict[str, int]


async def measure(
    checkpoint: Checkpoint,
    shape: str,
    load: Load,
    calls: list[int],
    threads: int,
    *,
    repeats: int = 1,
    fast_paths: Wish = "auto",
    between: Callable[[], None] = lambda: None,
) -> Measured:
    """Serve every number of calls, again and again; `between` runs before each round.

    The rounds alternate with whatever `between` measures.
    """
    speed = bytes_per_s(checkpoint.device)
    options = EngineOptions(
        max_slots=max(calls) + 1,
        max_waiting=max(calls),
        max_context_tokens=load.shared_tokens + load.own_tokens + load.new_tokens + 8,
        max_step_tokens=max(512, 2 * max(calls)),
        num_threads=threads,
        chunk_timeout_s=600.0,
        runner=RunnerOptions(paged_attention=fast_paths, fixed_decode=fast_paths),
    )
    results: list[list[Result]] = [[] for _ in calls]
    async with Engine(checkpoint, options) as engine:
        began = perf_counter()
        await engine.warm(load.prompt(shape, None))
        warm_s = perf_counter() - began
        await _serve(engine, [load.prompt(shape, 999)], load, speed)  # first-use costs
        seen = 0
        for _ in range(repeats):
            between()
            for index, num_calls in enumerate(calls):
                prompts = [load.prompt(shape, seen + i) for i in range(num_calls)]
                seen += num_calls
                results[index].append(await _serve(engine, prompts, load, speed))
        return Measured(warm_s, engine.description.decoding, results, engine.memory())


async def _serve(
    engine: Engine, prompts: list[Prompt], load: Load, speed: float
) -> Result:
    async def read(stream: TokenStream) -> TokenStream:
        async with stream:
            async for _ in stream:
                pass
        return stream

    sessions = [engine.open_session() for _ in prompts]
    requests = [
        GenerationRequest(
            prompt,
            session=session,
            max_new_tokens=load.new_tokens,
            min_new_tokens=load.new_tokens,
        )
        for prompt, session in zip(prompts, sessions, strict=True)
    ]
    began, cpu_began = perf_counter(), process_time()
    streams = await asyncio.gather(*(read(engine.submit(r)) for r in requests))
    seconds, cpu_s = perf_counter() - began, process_time() - cpu_began
    for session in sessions:
        session.close()
    timings = [stream.timings for stream in streams if stream.timings is not None]
    usages = [stream.usage for stream in streams if stream.usage is not None]
    firsts = sorted(t.first_token_ms for t in timings)
    decode_ms = max(t.total_ms - t.first_token_ms for t in timings)
    num_tokens = sum(usage.completion_tokens for usage in usages)
    step_ms = decode_ms / max(1, load.new_tokens - 1)
    about = engine.memory()
    # Half of a reply's tokens are there on average, and its prompt.
    positions = sum(len(prompt) for prompt in prompts) + num_tokens / 2
    step_bytes = about["step_weights_bytes"] + positions * about["position_bytes"]
    return Result(
        calls=len(prompts),
        seconds=seconds,
        tokens_per_s=num_tokens / seconds,
        tokens_per_cpu_s=num_tokens / cpu_s,
        tokens_per_s_a_call=1000 / step_ms,
        step_ms=step_ms,
        roofline=1000 * step_bytes / speed / step_ms,
        first_token_ms={f"p{q}": _percentile(firsts, q) for q in (50, 95, 99)},
        first_token_parts_ms={
            name: statistics.median(getattr(t, f"{name}_ms") for t in timings)
            for name in ("queue", "encode", "prefill")
        },
        cached_tokens=min(u.cached_tokens for u in usages),
    )


@dataclass(frozen=True, slots=True)
class Baseline:
    """What transformers does with such prompts."""

    name: str
    calls: int
    tokens_per_s: float
    tokens_per_cpu_s: float


def one_at_a_time(
    checkpoint: Checkpoint,
    shape: str,
    load: Load,
    num_calls: int,
    *,
    keeps_prefix: bool = False,
) -> Baseline:
    """transformers' generate, each prompt from the start or from the instructions."""
    model: Any = checkpoint.network.language_model
    embed = model.get_input_embeddings()
    ends, model.generation_config.eos_token_id = (
        model.generation_config.eos_token_id,
        None,
    )
    model.set_attn_implementation("sdpa")
    prefix: Any = transformers.DynamicCache()
    if keeps_prefix:
        ids = torch.from_numpy(load.prompt(shape, None).token_ids[: load.shared_tokens])
        with torch.inference_mode():
            model(ids[None].to(checkpoint.device), cache=prefix, use_cache=True)

    def reply(prompt: Prompt) -> None:
        ids = torch.from_numpy(prompt.token_ids)[None].to(checkpoint.device)
        inputs: dict[str, Any] = {"input_ids": ids}
        if keeps_prefix:
            inputs["cache"] = copy.deepcopy(prefix)
        elif prompt.audio:
            embeds = embed(ids)
            for span in prompt.audio:
                (vectors,) = checkpoint.encode([torch.from_numpy(span.clip.wave)])
                embeds[0, span.start : span.start + span.num_tokens] = vectors
            inputs = {"inputs_embeds": embeds}
        tokens = model.generate(
            **inputs,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=load.new_tokens,
            do_sample=False,
            pad_token_id=0,
        )
        num_prompt = 0 if "inputs_embeds" in inputs else ids.shape[1]
        assert tokens.shape[1] - num_prompt == load.new_tokens

    prompts = [load.prompt(shape, 5000 + call) for call in range(num_calls)]
    with torch.inference_mode():
        reply(prompts[0])
        began, cpu_began = perf_counter(), process_time()
        for prompt in prompts:
            reply(prompt)
    model.generation_config.eos_token_id = ends
    tokens = num_calls * load.new_tokens
    return Baseline(
        "generate, instructions kept" if keeps_prefix else "generate, one at a time",
        num_calls,
        tokens / (perf_counter() - began),
        tokens / (process_time() - cpu_began),
    )


def continuous_batching(
    checkpoint: Checkpoint, shape: str, load: Load, num_calls: int
) -> Baseline:
    """transformers' continuous batching on the same ids; it cannot take audio.

    It is given the same instructions beforehand.
    """
    model: Any = checkpoint.network.language_model
    model.set_attn_implementation("sdpa")
    context = load.shared_tokens + load.own_tokens + load.new_tokens
    generation = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=load.new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    settings = transformers.ContinuousBatchingConfig(
        page_size=32,
        num_blocks=(num_calls + 2) * (context // 32 + 2),
        max_batch_tokens=max(512, 2 * num_calls),
    )
    with model.continuous_batching_context_manager(
        generation_config=generation, continuous_batching_config=settings
    ) as running:
        # Twice: the second finds the instructions in its prefix cache.
        for first in (6000, 7000):
            prompts = [load.prompt(shape, first + call) for call in range(num_calls)]
            began, cpu_began = perf_counter(), process_time()
            ids = [prompt.token_ids.tolist() for prompt in prompts]
            running.add_requests(ids, max_new_tokens=load.new_tokens)
            num_tokens = 0
            for _ in range(num_calls):
                done = running.get_result(timeout=600)
                assert done is not None, "continuous batching gave nothing"
                num_tokens += len(done.generated_tokens)
            seconds, cpu_s = perf_counter() - began, process_time() - cpu_began
    return Baseline(
        "continuous batching", num_calls, num_tokens / seconds, num_tokens / cpu_s
    )


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _table(results: list[Result]) -> str:
    lines = [
        f"{'calls':>5} {'tokens/s':>9} {'per CPU s':>9} {'a call':>7} {'ms/step':>9}"
        f" {'roofline':>9} {'first token ms p50':>19}"
        f" {'p95':>8} {'encode':>8} {'prefill':>8} {'cached':>7}"
    ]
    for r in results:
        lines.append(
            f"{r.calls:5d} {r.tokens_per_s:9.1f} {r.tokens_per_cpu_s:9.1f}"
            f" {r.tokens_per_s_a_call:7.1f} {r.step_ms:9.2f} {r.roofline:9.2f}"
            f" {r.first_token_ms['p50']:19.1f} {r.first_token_ms['p95']:8.1f}"
            f" {r.first_token_parts_ms['encode']:8.1f}"
            f" {r.first_token_parts_ms['prefill']:8.1f} {r.cached_tokens:7d}"
        )
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_engine",
        description="Measure the engine with random weights of a true shape.",
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 ...")
    parser.add_argument("--calls", default="1,8", help="numbers of calls at once")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--shared", type=int, default=500, help="instruction tokens")
    parser.add_argument("--own", type=int, help="tokens of each call")
    parser.add_argument("--new", type=int, default=40, help="tokens of each reply")
    parser.add_argument("--audio-s", help="speech per call, 0, 5 or 2-8")
    parser.add_argument("--baseline", action="store_true", help="transformers as well")
    parser.add_argument("--repeats", type=int, default=1, help="rounds; medians count")
    parser.add_argument(
        "--fast-paths",
        choices=["auto", "on", "off"],
        default="auto",
        help="CUDA graphs and paged attention",
    )
    options = parser.parse_args(arguments)
    if options.audio_s is None:
        options.audio_s = "0" if options.shape == "48m" else "2-8"
    if options.own is None:
        options.own = 45 if options.audio_s == "0" else 60
    return options


def _median(results: Sequence[Result]) -> Result:
    """The middle one by tokens a CPU second."""
    ordered = sorted(results, key=lambda result: result.tokens_per_cpu_s)
    return ordered[(len(ordered) - 1) // 2]


def _median_baselines(baselines: Sequence[Baseline]) -> list[Baseline]:
    kinds: dict[tuple[str, int], list[Baseline]] = {}
    for baseline in baselines:
        kinds.setdefault((baseline.name, baseline.calls), []).append(baseline)
    return [
        sorted(kind, key=lambda one: one.tokens_per_cpu_s)[(len(kind) - 1) // 2]
        for kind in kinds.values()
    ]


def _ratios(result: Result, baselines: Sequence[Baseline]) -> dict[str, float]:
    """Our tokens a CPU second over theirs, at as many calls."""
    return {
        baseline.name: round(result.tokens_per_cpu_s / baseline.tokens_per_cpu_s, 2)
        for baseline in baselines
        if baseline.calls == result.calls
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table and one line of JSON."""
    options = parse(arguments)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device, stored="float32")
    calls = [int(number) for number in options.calls.split(",")]
    least, _, most = options.audio_s.partition("-")
    load = Load(
        options.shared, options.own, options.new, float(least), float(most or least)
    )
    torch.set_num_threads(options.threads)
    checkpoint = random_checkpoint(options.shape, device, dtype)
    millions = checkpoint.num_parameters / 1e6
    print(f"{options.shape}: {millions:.1f} M parameters, {dtype}, {device}")
    baselines: list[Baseline] = []

    def run_baselines() -> None:
        baselines.extend(_run_baselines(other, options.shape, load, calls))

    if options.baseline:  # a network of its own: the engine takes over the weights
        other = random_checkpoint(options.shape, device, dtype)
    measured = asyncio.run(
        measure(
            checkpoint,
            options.shape,
            load,
            calls,
            options.threads,
            repeats=options.repeats,
            fast_paths=options.fast_paths,
            between=run_baselines if options.baseline else lambda: None,
        )
    )
    _report(options, checkpoint, measured, _median_baselines(baselines))
    return 0


def _run_baselines(
    checkpoint: Checkpoint, shape: str, load: Load, calls: Sequence[int]
) -> list[Baseline]:
    number = min(8, max(calls))
    found = [one_at_a_time(checkpoint, shape, load, number)]
    if not load.max_audio_s:  # neither of these takes audio
        kept = one_at_a_time(checkpoint, shape, load, number, keeps_prefix=True)
        found.append(kept)
        found += [continuous_batching(checkpoint, shape, load, n) for n in calls]
    return found


def _report(
    options: argparse.Namespace,
    checkpoint: Checkpoint,
    measured: Measured,
    baselines: Sequence[Baseline],
) -> None:
    """The table for people, and the line for programs."""
    results = [_median(rounds) for rounds in measured.results]
    print(f"decoding: {measured.decoding}")
    print(f"instructions of {options.shared} tokens warmed in {measured.warm_s:.2f} s")
    print(_table(results))
    memory = measured.memory | peak_memory(checkpoint.device)
    megabytes = ", ".join(
        f"{name.removesuffix('_bytes')} {size / 1e6:.0f}"
        for name, size in memory.items()
        if name != "position_bytes"
    )
    print(f"memory in MB: {megabytes}")
    for baseline in baselines:
        print(
            f"transformers {baseline.name}, {baseline.calls} calls: "
            f"{baseline.tokens_per_s:.1f} tokens/s, "
            f"{baseline.tokens_per_cpu_s:.1f} per CPU s"
        )
    for result in results:
        for name, ratio in _ratios(result, baselines).items():
            print(f"{result.calls} calls: {ratio:.2f} times {name}, per CPU s")
    device = checkpoint.device
    dtype = str(checkpoint.dtype).removeprefix("torch.")
    record = {
        "benchmark": "engine",
        **provenance("torch", "transformers"),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "parameters": vars(options) | {"dtype": dtype},
        "decoding": measured.decoding,
        "warm_s": measured.warm_s,
        "memory": memory,
        "results": [
            asdict(result) | {"times_baseline_per_cpu_s": _ratios(result, baselines)}
            for result in results
        ],
        "baselines": [asdict(baseline) for baseline in baselines],
    }
    print(json.dumps(record))


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most that was in use: of this process, and of the GPU."""
    peak = {"peak_rss_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if device.type == "cuda":
        peak["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(device)
    return peak


if __name__ == "__main__":
    sys.exit(main())
