"""Checkpoint files -> modules: every tensor accounted for, none left over.

Each expected tensor must come exactly once from exactly one source. Published
layouts differ in which parts the Ultravox files hold:

    whole model           audio_tower.*, multi_modal_projector.*, language_model.*
    encoder + projector   the language model from `text_model_id`       (v0.5, v0.6)
    projector only        the encoder from `audio_model_id` as well     (v0.4)

The reference loader does not report missing encoder or language model tensors; ours
does, by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError, safe_open

from model.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor, nn

PartName = Literal["audio_tower", "multi_modal_projector", "language_model"]
PARTS: tuple[PartName, ...] = (
    "audio_tower",
    "multi_modal_projector",
    "language_model",
)

# Tensors that are no weights of ours: rotary tables (rebuilt from the config), the
# half of a Whisper file that is its decoder, the eyes of vision backbones.
_IGNORED: dict[PartName | Literal["ultravox"], re.Pattern[str]] = {
    "ultravox": re.compile(r"rotary_emb\.inv_freq$"),
    "audio_tower": re.compile(r"^(model\.)?decoder\.|^proj_out\."),
    "language_model": re.compile(
        r"rotary_emb\.inv_freq$|^(model\.)?(vision_tower|multi_modal_projector)\."
    ),
    "multi_modal_projector": re.compile(r"(?!)"),
}

# Beginnings under which a part's own repository may keep its tensors.
_PREFIXES: dict[PartName, tuple[str, ...]] = {
    "audio_tower": ("model.encoder.", "encoder."),
    "multi_modal_projector": ("",),
    # Vision-language backbones nest the language model, old and new way.
    "language_model": ("", "language_model.", "model.language_model."),
}


# One expert of a mixture, as hub files name it.
_EXPERT = re.compile(r"\.experts\.\d+\.\w+_proj\.weight$")


@dataclass(frozen=True, slots=True)
class TensorSource:
    """Files that hold one or all parts.  `part` None: an Ultravox repository's."""

    name: str
    files: tuple[Path, ...]
    part: PartName | None = None


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where one expected tensor is to be read."""

    source: TensorSource
    file: Path
    key: str


@dataclass(slots=True)
class _Plan:
    places: dict[str, TensorPlace] = field(default_factory=dict)
    leftovers: list[tuple[TensorSource, str]] = field(default_factory=list)


def parts_in(files: Iterable[Path]) -> set[PartName]:
    """Which parts an Ultravox repository's files hold."""
    firsts = {key.split(".", 1)[0] for file in files for key in tensor_keys(file)}
    return {part for part in PARTS if part in firsts}


def load_weights(network: nn.Module, sources: Iterable[TensorSource]) -> None:
    """Fill every parameter of the network, in place, in the network's own dtype.

    Raises:
        ModelLoadError: a tensor is missing, superfluous, there twice or of another
            shape; names it.
    """
    sources = list(sources)
    expected, tied = _expected(network)
    keys = (key for s in sources for file in s.files for key in tensor_keys(file))
    if any(_EXPERT.search(key) for key in keys):
        expected = _experts_apart(expected)
    plan = _Plan()
    for source in sources:
        _plan_source(plan, source, expected, tied)
    if plan.leftovers:
        source, key = plan.leftovers[0]
        raise ModelLoadError(
            f"{source.name} holds {len(plan.leftovers)} tensors that this model has "
            f"no place for; the first is {key}",
            subject=key,
        )
    missing = [name for name in expected if name not in plan.places]
    if missing:
        raise ModelLoadError(
            f"{len(missing)} tensors are in none of the checkpoint's files; the "
            f"first is {missing[0]}",
            subject=missing[0],
        )
    _copy(plan, expected, _fill)
    _copy(plan, tied, _compare)


def tensor_keys(file: Path) -> list[str]:
    """Names of the tensors in a safetensors file.

    Raises:
        ModelLoadError: the file is missing, cut short or not safetensors.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError) as exc:
        raise ModelLoadError(f"cannot read {file}: {exc}", subject=str(file)) from exc


def _expected(network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors to fill, and second names of tied ones, which files may leave out."""
    expected: dict[str, Tensor] = {}
    tied: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in network.state_dict(keep_vars=True).items():
        (tied if id(tensor) in seen else expected)[name] = tensor
        seen.add(id(tensor))
    return expected, tied


def _experts_apart(expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Joined experts as views under the names that hub files have for each of them.

    transformers 5 holds (experts, 2 * width, E) `gate_up_proj` and (experts, E, width)
    `down_proj`; files hold `experts.3.gate_proj.weight` and so on.
    """
    apart: dict[str, Tensor] = {}
    for name, tensor in expected.items():
        owner, _, last = name.rpartition(".")
        if not owner.endswith(".experts") or last not in ("gate_up_proj", "down_proj"):
            apart[name] = tensor
            continue
        for index, expert in enumerate(tensor):
            if last == "down_proj":
                apart[f"{owner}.{index}.down_proj.weight"] = expert
            else:
                gate, up = expert.chunk(2)
                apart[f"{owner}.{index}.gate_proj.weight"] = gate
                apart[f"{owner}.{index}.up_proj.weight"] = up
    return apart


def _plan_source(
    plan: _Plan,
    source: TensorSource,
    expected: dict[str, Tensor],
    tied: dict[str, Tensor],
) -> None:
    ignored = _IGNORED[source.part or "ultravox"]
    for file in source.files:
        for key in tensor_keys(file):
            if ignored.search(key):
                continue
            name = _our_name(key, source.part, expected | tied)
            if name is None:
                plan.leftovers.append((source, key))
            elif name in plan.places:
                raise ModelLoadError(
                    f"{name} is in {plan.places[name].file} and again in {file}",
                    subject=name,
                )
            else:
                plan.places[name] = TensorPlace(source, file, key)


def _our_name(key: str, part: PartName | None, known: dict[str, Tensor]) -> str | None:
    if part is None:
        # vLLM accepts this older spelling of the encoder's names too.
        name = key.replace("audio_tower.model.encoder.", "audio_tower.", 1)
        return name if name in known else None
    for prefix in _PREFIXES[part]:
        if not key.startswith(prefix):
            continue
        rest = key.removeprefix(prefix)
        for name in (f"{part}.{rest}", f"{part}.model.{rest}"):
            if name in known and (prefix or name == f"{part}.{rest}"):
                return name
    return None


@torch.no_grad()
def _copy(
    plan: _Plan,
    targets: dict[str, Tensor],
    use: Callable[[str, Tensor, Tensor], None],
) -> None:
    by_file: dict[Path, list[tuple[str, TensorPlace]]] = {}
    for name, place in plan.places.items():
        if name in targets:
            by_file.setdefault(place.file, []).append((name, place))
    for file, places in by_file.items():
        with safe_open(file, framework="pt") as tensors:
            for name, place in places:
                tensor = tensors.get_tensor(place.key)
                if tensor.shape != targets[name].shape:
                    raise ModelLoadError(
                        f"{name} is {tuple(tensor.shape)} in {file}, but the config "
                        f"makes it {tuple(targets[name].shape)}",
                        subject=name,
                    )
                use(name, targets[name], tensor)


def _fill(name: str, target: Tensor, tensor: Tensor) -> None:
    target.copy_(tensor)


def _compare(name: str, target: Tensor, tensor: Tensor) -> None:
    """A tied tensor that a file holds all the same must be the one it is tied to."""
    if not torch.equal(target, tensor.to(target.device, target.dtype)):
        raise ModelLoadError(
            f"{name} is tied to another tensor by the config, but differs from it",
            subject=name,
        )
