"""Loading a whole checkpoint: config, weights, tokenizer, features.

    config.json ──▶ UltravoxConfig ──▶ UltravoxModel (empty) ──▶ weights ──▶ Checkpoint
         │ audio_model_id, text_model_id                            ▲
         └──────────▶ their configs and files ──────────────────────┘

No remote code is run and none is fetched.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import psutil
import torch
import torch.nn.functional as F
from transformers.initialization import no_init_weights

from model.errors import ModelLoadError
from model.ultravox.chat import ChatFormat
from model.ultravox.config import (
    AudioEncoderConfig,
    UltravoxConfig,
    WeightsKind,
    read_json,
)
from model.ultravox.lengths import (
    HOP_SAMPLES,
    RATE_HZ,
    bucket_frames,
    piece_lengths,
)
from model.ultravox.mel import LogMel
from model.ultravox.network import UltravoxModel
from model.ultravox.placement import (
    Card,
    Placement,
    cards_of,
    layer_devices,
    num_bytes,
    on_no_device,
    place,
    spread,
)
from model.ultravox.quantize import Quantization, quantize
from model.ultravox.repository import (
    TOKENIZER_FILES,
    HubOptions,
    Repository,
    open_part,
    open_repository,
    weight_files,
)
from model.ultravox.weights import PartName, TensorSource, load_weights, parts_in
from model.ultravox.weights_digest import weights_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from model.ultravox.inputs import PromptFormat

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Where and how to hold the weights.

    `auto` device is the GPU when there is one. `auto` dtype is what the hardware is
    good at: bfloat16 on GPUs that have it and float16 on older ones; on a CPU bfloat16
    for checkpoints made in it where the CPU has instructions for it, else float32.
    """

    device: Device | str = "auto"
    dtype: Dtype = "auto"
    hub: HubOptions = field(default_factory=HubOptions)
    quantize: Quantization = "none"
    """Bits of the language model's weights; they pass through main memory once."""
    cards: tuple[Card, ...] | None = None
    """Over which a model that is too large for the first is spread; None: every GPU,
    if `device` names no particular one."""
    card_gb: tuple[float, ...] = ()
    """Weights each of them may hold at most, or one number for all."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model ready to use; nothing in it belongs to any call."""

    name: str
    config: UltravoxConfig
    network: UltravoxModel
    log_mel: LogMel
    chat: PromptFormat
    stop_ids: frozenset[int]
    device: torch.device
    dtype: torch.dtype
    weights_version: str = ""
    """Tells these weights from others of the same name."""
    layer_devices: tuple[torch.device, ...] = ()
    """Of each decoder layer, where several cards hold them; empty: all on `device`."""
    num_parameters: int = field(init=False)  # tied ones once
    weights_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        # Counted now: an engine moves weights to where it reads them fastest.
        parameters = list(self.network.parameters())
        count = sum(_num_weights(p) for p in parameters)
        size = sum(p.numel() * p.element_size() for p in parameters)
        object.__setattr__(self, "num_parameters", count)
        object.__setattr__(self, "weights_bytes", size)

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Clips (n_samples,) at 16 kHz -> audio vectors (tokens, E), each as if alone.

        Clips of all lengths go through the encoder as one batch; each is cut into
        pieces of 30 s, whose vectors are laid end to end.
        """
        mel, num_mel_frames = self.log_mel(waves)
        pieces: list[Tensor] = []
        continues: list[bool] = []
        per_clip: list[int] = []
        for row, num_frames in zip(mel, num_mel_frames.tolist(), strict=True):
            lengths = piece_lengths(num_frames)
            pieces += torch.split(row[:, :num_frames], lengths, dim=1)
            continues += [index > 0 for index in range(len(lengths))]
            per_clip.append(len(lengths))
        width = self._piece_width(max(piece.shape[1] for piece in pieces))
        batch = torch.stack([F.pad(p, (0, width - p.shape[1])) for p in pieces])
        vectors = self.network.encode(
            batch.to(self.dtype),
            torch.tensor([piece.shape[1] for piece in pieces], device=self.device),
            torch.tensor(continues, device=self.device),
        )
        clips = []
        for count in per_clip:
            clips.append(torch.cat(vectors[:count]))
            vectors = vectors[count:]
        return clips

    def _piece_width(self, num_mel_frames: int) -> int:
        assert self.config.audio is not None, "text models are refused clips"
        return min(bucket_frames(num_mel_frames), self.config.audio.max_mel_frames)

    @property
    def weights_kind(self) -> WeightsKind:
        """What the replies are worth: random and demo weights say so."""
        return self.config.weights_kind

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table; no prompt may hold a larger id."""
        return int(self.network.text_config.vocab_size)

    @property
    def max_context_tokens(self) -> int:
        """Positions the language model was made for."""
        return int(self.network.text_config.max_position_embeddings)


def _num_weights(parameter: Any) -> int:
    """Also of one that holds two in a byte."""
    packed = getattr(parameter, "quant_state", None)
    return int((parameter if packed is None else packed).shape.numel())


def load_checkpoint(name: str, options: LoadOptions | None = None) -> Checkpoint:
    """Load a checkpoint from a local folder or a hub repository.  Blocks.

    Raises:
        ModelLoadError: names the file, tensor or repository, and says what to do.
    """
    options = options or LoadOptions()
    repository = open_repository(name, options.hub)
    device = choose_device(options.device)
    config, text_repository = _full_config(repository, options.hub)
    dtype = choose_dtype(options.dtype, device, stored=config.torch_dtype)
    is_whole = options.quantize == "none"
    loaded_on = device if is_whole else torch.device("cpu")
    empty = _without_memory(config)
    placement = None
    if is_whole and (cards := _cards(options, device, num_bytes(empty, dtype))):
        limited = bool(options.card_gb)
        placement = place(empty, dtype, cards, is_limited=limited)
        device = loaded_on = cards[0].device
    if placement is None:
        _check_memory(empty, loaded_on, dtype)  # before gigabytes are fetched
    sources = _sources(config, repository, options.hub)
    network = _build(config, loaded_on, dtype, placement)
    load_weights(network, sources)
    network.eval().requires_grad_(False)
    if not is_whole:
        with _explaining_memory():
            quantize(network.language_model, options.quantize, device, dtype)
            network.to(device)
    chat = ChatFormat.load(
        _tokenizer_folder(repository, text_repository),
        stack_factor=config.stack_factor,
        vocab_size=int(network.text_config.vocab_size),
    )
    log_mel = _log_mel(config, repository).to(device)
    checkpoint = Checkpoint(
        name=name,
        config=config,
        network=network,
        log_mel=log_mel,
        chat=chat,
        stop_ids=_stop_ids(chat, network, (repository, text_repository)),
        device=device,
        dtype=dtype,
        weights_version=_weights_version(sources),
        layer_devices=layer_devices(network) if placement else (),
    )
    logger.info(
        "model_loaded",
        extra={
            "model": name,
            "weights_kind": checkpoint.weights_kind,
            "weights_version": checkpoint.weights_version,
            "num_parameters": checkpoint.num_parameters,
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
        },
    )
    return checkpoint


def _weights_version(sources: Iterable[TensorSource]) -> str:
    files = [file for source in sources for file in source.files]
    try:
        return weights_version(files)
    except (OSError, ValueError) as exc:
        raise ModelLoadError(
            f"cannot read the weights again: {exc}", subject=str(files[0])
        ) from exc


def choose_device(wanted: str) -> torch.device:
    """`auto` is the GPU when there is one.

    Raises:
        ModelLoadError: a GPU is wanted and there is none.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelLoadError(
            "no CUDA device is available to PyTorch; set the device to cpu or auto",
            subject="device",
        )
    return torch.device(wanted)


def choose_dtype(wanted: Dtype, device: torch.device, stored: str) -> torch.dtype:
    """`auto` is the half precision a GPU is good at. On a CPU it is bfloat16 if that
    is what the checkpoint was made in and the CPU computes it, else float32."""
    if wanted != "auto":
        return _DTYPES[wanted]
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    if stored == "bfloat16" and _cpu_computes_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_computes_bfloat16() -> bool:
    # Without such instructions bfloat16 is emulated, slower than float32.
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return probe is not None and bool(probe())


def _full_config(
    repository: Repository, hub: HubOptions
) -> tuple[UltravoxConfig, Repository]:
    """The config with its parts' put in, and where the language model is from."""
    config = UltravoxConfig.from_json(_required_json(repository, "config.json"))
    text_repository = repository
    if config.text_model_id is not None:
        text_repository = open_part(config.text_model_id, repository, hub)
        text = _required_json(text_repository, "config.json")
        config = config.with_parts(text=text)
    if config.audio is not None and config.audio_model_id is not None:
        audio_repository = open_part(config.audio_model_id, repository, hub)
        audio = _required_json(audio_repository, "config.json")
        config = config.with_parts(audio=AudioEncoderConfig.from_json(audio))
    return config, text_repository


def _sources(
    config: UltravoxConfig, repository: Repository, hub: HubOptions
) -> list[TensorSource]:
    """Who brings which tensors: the Ultravox files first, the ids for the rest."""
    files = weight_files(repository)
    present = parts_in(files)
    sources = [TensorSource(repository.name, files)]
    wanted: list[tuple[PartName, str | None]] = [
        ("language_model", config.text_model_id)
    ]
    if config.audio is not None:
        wanted.append(("audio_tower", config.audio_model_id))
    for part, model_id in wanted:
        if part not in present and model_id is not None:
            other = open_part(model_id, repository, hub)
            sources.append(TensorSource(other.name, weight_files(other), part))
    return sources


def _cards(
    options: LoadOptions, device: torch.device, needed_bytes: int
) -> tuple[Card, ...]:
    """Cards to choose among; a particular device is no choice."""
    if options.cards is not None:
        return options.cards
    if str(device) != "cuda":
        return ()
    return cards_of(needed_bytes, options.card_gb)


def _without_memory(config: UltravoxConfig) -> UltravoxModel:
    with torch.device("meta"), no_init_weights():
        network = UltravoxModel(config)
    network.language_model.tie_weights()
    return network


def _check_memory(
    network: UltravoxModel, device: torch.device, dtype: torch.dtype
) -> None:
    """Say beforehand that the weights will not fit, rather than be killed for it."""
    needed = num_bytes(network, dtype)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    if needed > free:
        name = str(dtype).removeprefix("torch.")
        raise ModelLoadError(
            f"the weights take {needed / 1e9:.1f} GB as {name} and {free / 1e9:.1f} GB "
            f"are free on {device.type}; take a smaller model, a smaller dtype or "
            "another device",
            subject="memory",
        )


def _build(
    config: UltravoxConfig,
    device: torch.device,
    dtype: torch.dtype,
    placement: Placement | None,
) -> UltravoxModel:
    """An empty network in its final place: real buffers, weights yet to come."""
    default_dtype = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    building = torch.device(device) if placement is None else on_no_device()
    try:
        with _explaining_memory(), no_init_weights():
            with building:
                network = UltravoxModel(config)
            if placement is not None:
                spread(network, placement)
    finally:
        torch.set_default_dtype(default_dtype)
    network.language_model.tie_weights()
    return network


@contextmanager
def _explaining_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise ModelLoadError(
            f"the model does not fit in the GPU's memory: {exc}", subject="memory"
        ) from exc


def _required_json(repository: Repository, file: str) -> dict[str, Any]:
    path = repository.find(file)
    if path is None:
        raise ModelLoadError(
            f"{repository.name} has no {file}", subject=f"{repository.name}/{file}"
        )
    return read_json(path)


def _tokenizer_folder(repository: Repository, text_repository: Repository) -> Path:
    """The folder of the Ultravox repository's tokenizer, or else the backbone's."""
    for candidate in (repository, text_repository):
        found = [candidate.find(file) for file in TOKENIZER_FILES]
        if found[0] is not None:
            return found[0].parent
    raise ModelLoadError(
        f"neither {repository.name} nor {text_repository.name} has a tokenizer.json",
        subject="tokenizer.json",
    )


def _log_mel(config: UltravoxConfig, repository: Repository) -> LogMel:
    """Whisper's features; a preprocessor that says otherwise is refused."""
    num_mel_bins = config.audio.num_mel_bins if config.audio else 80
    path = repository.find("preprocessor_config.json")
    settings = read_json(path) if path else {}
    wanted = {
        "feature_size": num_mel_bins,
        "n_fft": 400,
        "hop_length": HOP_SAMPLES,
        "sampling_rate": RATE_HZ,
    }
    for key, value in wanted.items():
        if settings.get(key, value) != value:
            raise ModelLoadError(
                f"preprocessor_config.json: {key} is {settings[key]}, not {value}",
                subject=key,
            )
    return LogMel(num_mel_bins)


def _stop_ids(
    chat: ChatFormat, network: UltravoxModel, repositories: tuple[Repository, ...]
) -> frozenset[int]:
    """Every id that some file calls an end: they differ, and all are meant."""
    ids = set(chat.stop_ids())
    declared = [network.text_config.eos_token_id]
    for repository in repositories:
        path = repository.find("generation_config.json")
        if path is not None:
            declared.append(read_json(path).get("eos_token_id"))
    for value in declared:
        if isinstance(value, int):
            ids.add(value)
        elif isinstance(value, list):
            ids.update(value)
    return frozenset(ids)
