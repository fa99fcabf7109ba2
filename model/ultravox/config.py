"""An Ultravox checkpoint's sizes, read from its `config.json`.

Both published layouts are read: the parts' configs inlined (`audio_config`,
`text_config`), or named by `audio_model_id` / `text_model_id` and fetched by
`checkpoint.py`. `auto_map` and `custom_pipelines` point at remote code and are
never looked at.

Source: fixie-ai/ultravox `ultravox/model/ultravox_config.py`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from model.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WeightsKind = Literal["random", "demo", "published"]

# Our own key in config.json. Checkpoints from elsewhere do not have it, which is
# what "published" means; ours say what their replies are worth.
MARKER_KEY = "ultravox_phone_bot"

# In it, what P(the caller's turn is over) of this checkpoint is worth, measured by
# whoever trained it: "turn_end": {"over_from": 0.92, "more_below": 0.2}.
_TURN_END_KEY = "turn_end"

# Reads back what older Ultravox files leave out. LoRA settings are training
# leftovers: published encoders were merged before upload.
_LATENCY_MASK_SIDE = 3000


@dataclass(frozen=True, slots=True)
class AudioEncoderConfig:
    """Sizes of the Whisper encoder.  Defaults: transformers' WhisperConfig."""

    d_model: int = 384
    encoder_layers: int = 4
    encoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    num_mel_bins: int = 80
    max_source_positions: int = 1500  # encoder frames; two mel frames each, so 30 s
    activation_function: str = "gelu"

    def __post_init__(self) -> None:
        if self.d_model % self.encoder_attention_heads:
            raise ModelLoadError(
                f"audio config: d_model {self.d_model} is not a multiple of "
                f"encoder_attention_heads {self.encoder_attention_heads}",
                subject="audio_config.d_model",
            )

    @property
    def max_mel_frames(self) -> int:
        """Longest piece of mel the position table allows: 3000 for Whisper."""
        return 2 * self.max_source_positions

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AudioEncoderConfig:
        """Take the encoder's fields out of a Whisper config; ignore the decoder's."""
        known = {k: values[k] for k in cls.__dataclass_fields__ if k in values}
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """The same as a Whisper config."""
        fields = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return {"model_type": "whisper", **fields}


@dataclass(frozen=True, slots=True)
class TurnEndBounds:
    """From which probabilities on a turn is over, and up to which more will come.

    `more_below` None: low probabilities tell nothing.

    Raises:
        ModelLoadError: not probabilities, or the wrong way round.
    """

    over_from: float
    more_below: float | None = None

    def __post_init__(self) -> None:
        more_below = 0.0 if self.more_below is None else self.more_below
        if not 0.0 <= more_below < self.over_from <= 1.0:
            raise ModelLoadError(
                f"turn_end: need 0 <= more_below < over_from <= 1, not "
                f"{self.more_below} and {self.over_from}",
                subject="turn_end",
            )

    @classmethod
    def from_json(cls, values: Any) -> TurnEndBounds:
        """What a checkpoint's `config.json` says; other keys are its author's notes."""
        if not isinstance(values, dict):
            raise ModelLoadError(f"turn_end is {values!r}", subject="turn_end")
        bounds: list[Any] = [values.get("over_from"), values.get("more_below")]
        for bound in bounds if bounds[1] is not None else bounds[:1]:
            if not isinstance(bound, int | float) or isinstance(bound, bool):
                raise ModelLoadError(
                    f"turn_end: {bound!r} is not a number", subject="turn_end"
                )
        return cls(*bounds)


@dataclass(frozen=True, slots=True)
class UltravoxConfig:
    """Sizes and flavours of one checkpoint.

    `text` is the language model's config in transformers' own form. `hidden_size` is
    the projector's width, not the language model's.
    """

    audio: AudioEncoderConfig | None = field(default_factory=AudioEncoderConfig)
    text: Mapping[str, Any] = field(default_factory=dict)
    audio_model_id: str | None = None
    text_model_id: str | None = None
    hidden_size: int = 4096
    stack_factor: int = 8
    projector_act: str = "swiglu"
    projector_ln_mid: bool = False
    num_projector_layers: int = 0
    norm_init: float = 0.4
    audio_token_index: int | None = None
    audio_latency_block_size: int | None = None
    llm_only_training: bool = False
    torch_dtype: str = "bfloat16"
    weights_kind: WeightsKind = "published"
    turn_end: TurnEndBounds | None = None

    def __post_init__(self) -> None:
        block = self.audio_latency_block_size
        if block is not None and _LATENCY_MASK_SIDE % block:
            raise ModelLoadError(
                f"audio_latency_block_size {block} does not divide "
                f"{_LATENCY_MASK_SIDE}, which the latency mask needs",
                subject="audio_latency_block_size",
            )
        if self.stack_factor < 1:
            raise ModelLoadError(
                f"stack_factor {self.stack_factor} is below 1", subject="stack_factor"
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> UltravoxConfig:
        """Read `config.json`; absent and null fields take the published defaults.

        Parts named by an id keep what is inlined (usually nothing) until
        `with_parts` puts the fetched configs in.

        Raises:
            ModelLoadError: not an Ultravox config, or a field of the wrong kind.
        """
        model_type = values.get("model_type")
        if model_type != "ultravox":
            raise ModelLoadError(
                f"config.json is for model_type {model_type!r}, not 'ultravox'",
                subject="model_type",
            )
        llm_only = bool(values.get("llm_only_training") or False)
        audio = AudioEncoderConfig.from_json(values.get("audio_config") or {})
        return cls(
            audio=None if llm_only else audio,
            text=dict(values.get("text_config") or {}),
            audio_model_id=values.get("audio_model_id") or None,
            text_model_id=values.get("text_model_id") or None,
            hidden_size=_number(values, "hidden_size", 4096),
            stack_factor=_number(values, "stack_factor", 8),
            projector_act=str(values.get("projector_act") or "swiglu"),
            projector_ln_mid=bool(values.get("projector_ln_mid") or False),
            num_projector_layers=_number(values, "num_projector_layers", 0),
            norm_init=float(values.get("norm_init") or 0.4),
            audio_token_index=values.get("audio_token_index"),
            # null, 0 and absent all mean off.
            audio_latency_block_size=values.get("audio_latency_block_size") or None,
            llm_only_training=llm_only,
            # transformers 5 writes "dtype"; Ultravox's own files say "torch_dtype".
            torch_dtype=str(
                values.get("torch_dtype") or values.get("dtype") or "bfloat16"
            ),
            weights_kind=_weights_kind(values.get(MARKER_KEY)),
            turn_end=_turn_end(values.get(MARKER_KEY)),
        )

    def to_json(self) -> dict[str, Any]:
        """What `config.json` must hold to describe this checkpoint, whole layout."""
        values: dict[str, Any] = {
            "architectures": ["UltravoxModel"],
            "model_type": "ultravox",
            "audio_config": self.audio.to_json() if self.audio else {},
            "text_config": dict(self.text),
            "audio_model_id": self.audio_model_id,
            "text_model_id": self.text_model_id,
            "hidden_size": self.hidden_size,
            "stack_factor": self.stack_factor,
            "projector_act": self.projector_act,
            "projector_ln_mid": self.projector_ln_mid,
            "num_projector_layers": self.num_projector_layers,
            "norm_init": self.norm_init,
            "audio_token_index": self.audio_token_index,
            "audio_latency_block_size": self.audio_latency_block_size,
            "llm_only_training": self.llm_only_training,
            "torch_dtype": self.torch_dtype,
        }
        if self.weights_kind != "published":
            values[MARKER_KEY] = {"weights": self.weights_kind}
        if self.turn_end is not None:
            marker = values.setdefault(MARKER_KEY, {"weights": self.weights_kind})
            marker[_TURN_END_KEY] = asdict(self.turn_end)
        return values

    def with_parts(
        self,
        *,
        audio: AudioEncoderConfig | None = None,
        text: Mapping[str, Any] | None = None,
    ) -> UltravoxConfig:
        """The same config with a part's own config, fetched from its id, put in."""
        return replace(
            self,
            audio=self.audio if audio is None else audio,
            text=self.text if text is None else dict(text),
        )


def read_config(path: Path) -> UltravoxConfig:
    """Read a `config.json`, or the one in a folder.

    Raises:
        ModelLoadError: the file is missing, is not JSON, or is not Ultravox's.
    """
    return UltravoxConfig.from_json(read_json(path))


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object of a checkpoint folder (`config.json` if given the folder).

    Raises:
        ModelLoadError: naming the file.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ModelLoadError(
            f"cannot read {file}: {exc.strerror}", subject=str(file)
        ) from exc
    except ValueError as exc:
        raise ModelLoadError(f"{file} is not JSON: {exc}", subject=str(file)) from exc
    if not isinstance(values, dict):
        raise ModelLoadError(f"{file} is not a JSON object", subject=str(file))
    return values


def _number(values: Mapping[str, Any], key: str, default: int) -> int:
    value = values.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelLoadError(f"{key} is {value!r}, not a whole number", subject=key)
    return value


def _turn_end(marker: Any) -> TurnEndBounds | None:
    values = marker.get(_TURN_END_KEY) if isinstance(marker, dict) else None
    return None if values is None else TurnEndBounds.from_json(values)


def _weights_kind(marker: Any) -> WeightsKind:
    if marker is None:
        return "published"
    kind = marker.get("weights") if isinstance(marker, dict) else None
    if kind not in get_args(WeightsKind):
        raise ModelLoadError(
            f"{MARKER_KEY}.weights is {kind!r}; it must be one of "
            f"{', '.join(get_args(WeightsKind))}",
            subject=MARKER_KEY,
        )
    return cast("WeightsKind", kind)
