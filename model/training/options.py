"""How to train."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from model.training.start import Sizes


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train. With `max_steps` the budget is steps, for tests; else minutes."""

    minutes: float = 180.0
    max_steps: int | None = None
    seed: int = 1
    sizes: Sizes = field(default_factory=Sizes)
    dialogues_a_step: int = 14
    imagined_a_step: int = 16
    openings_a_step: int = 64
    # Beside the heard dialogues of the last stage. They are cheap, and the language
    # model is what needs most steps.
    imagined_beside: int = 6
    openings_beside: int = 24
    ear_every: int = 1
    # In the stage that ends the run, where the ear stays as it is.
    read_a_step: int = 8
    spliced_a_step: int = 72
    steps_a_heard_shard: int = 3
    learning_rate: float = 2e-3
    written_weight: float = 0.3  # of transcripts, against replies
    # Shares of the budget.
    text_until: float = 0.35
    heads_until: float = 0.65
    # At once: everything together costs most and taught least.
    reading_from: float = 0.65
    decay_from: float = 0.75
    last_share: float = 0.03
    warm_up_steps: int = 100
    # Of an imagined clip's word pieces, those heard wrong; and blur, against the
    # spread of the embeddings. Means: a clip has between nothing and twice as much.
    imagined_wrong: float = 0.15
    imagined_blur: float = 0.4
    # Small enough that those of a group are of one length.
    rows_a_group: int = 8
    clips_a_group: int = 8
    save_every_s: float = 180.0
    check_every_s: float = 400.0
    processes: int = 0  # that share each step; 0: one for each processor, four at most
    # "auto" times both: bfloat16 is three times as fast on a processor that has it and
    # several times slower on one that has not.
    arithmetic: str = "auto"
    device: str = "auto"  # CUDA where there is one
    workers: int = 0  # processes that prepare batches; 0: the training's own
    tokenizer_dialogues: int = 20_000


def on_gpu(options: TrainOptions) -> TrainOptions:
    """The same with settings for a large GPU: big batches, made by many processes."""
    return replace(
        options,
        minutes=24.0,
        text_until=0.2,
        heads_until=0.45,
        reading_from=0.8,
        decay_from=0.65,
        dialogues_a_step=128,
        imagined_a_step=96,
        openings_a_step=384,
        imagined_beside=32,
        openings_beside=144,
        ear_every=1,
        rows_a_group=96,
        clips_a_group=64,
        processes=1,
        workers=12,
        arithmetic="bfloat16",
        device="cuda",
    )
