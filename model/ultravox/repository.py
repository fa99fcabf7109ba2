"""A checkpoint's files, from a local folder or the Hugging Face hub.

Only JSON, Jinja and safetensors files are ever fetched: no code, no pickles.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tqdm import tqdm

from model.errors import ModelLoadError
from model.ultravox.config import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How to reach the hub.

    `token` is needed for gated repositories (Llama, Gemma); None takes the one of the
    hub's own login. `offline` uses only what is in the cache. `endpoint` is a mirror.
    `report` is told how far a download is, from the thread that loads.
    """

    token: str | None = field(default=None, repr=False)
    cache_dir: Path | None = None
    offline: bool = False
    endpoint: str | None = None
    report: Callable[[str], object] | None = field(
        default=None, repr=False, compare=False
    )


class Repository(Protocol):
    """A folder of checkpoint files, wherever it is."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    def find(self, file: str) -> Path | None:
        """The file's local path, fetched if need be; None if there is no such file."""
        ...


@dataclass(frozen=True, slots=True)
class LocalRepository:
    """A folder on this machine."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder, for messages."""
        return str(self.folder)

    def find(self, file: str) -> Path | None:
        """The file if it is there."""
        path = self.folder / file
        return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A repository on the Hugging Face hub; files are fetched when asked for."""

    name: str
    options: HubOptions

    def find(self, file: str) -> Path | None:
        """The file, from the cache or fetched.

        Raises:
            ModelLoadError: no such repository, no access to it, or no network.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import RemoteEntryNotFoundError

        try:
            with _explaining(self.name, file, self.options):
                path = hf_hub_download(  # nosec B615 # the operator chose
                    self.name,
                    file,
                    cache_dir=self.options.cache_dir,
                    token=self.options.token,
                    local_files_only=self.options.offline,
                    endpoint=self.options.endpoint,
                    tqdm_class=_reporting(file, self.options.report),
                )
        except RemoteEntryNotFoundError:
            return None
        except _NotCached:
            return None
        return Path(path)


def _reporting(
    file: str, report: Callable[[str], object] | None
) -> type[tqdm[Any]] | None:
    """A progress bar that draws nothing and tells how far it is."""
    if report is None:
        return None

    tell = report

    class Reporting(tqdm):  # type: ignore[type-arg]
        monitor_interval = 0  # no thread of its own

        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # huggingface_hub's own addition
            super().__init__(*args, **options | {"disable": False, "gui": True})

        def display(self, *args: Any, **options: Any) -> None:
            if self.total:
                tell(f"{file}, {self.n / 1e6:.0f} of {self.total / 1e6:.0f} MB")

        def close(self) -> None:
            self.display()
            self.disable = True  # the rest of it clears a line on the screen

    return Reporting


class _NotCached(Exception):
    """The cache holds other files of the repository, but not this one."""


@contextmanager
def _explaining(repo: str, file: str, options: HubOptions) -> Iterator[None]:
    """Turn the hub's errors into ours, which say what to do."""
    from huggingface_hub import errors, try_to_load_from_cache

    page = f"https://huggingface.co/{repo}"
    try:
        yield
    except errors.RemoteEntryNotFoundError:
        raise
    except errors.GatedRepoError as exc:
        raise ModelLoadError(
            f"{repo} is gated: accept its licence at {page} and set HF_TOKEN to a "
            "token of that account",
            subject=repo,
        ) from exc
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as exc:
        raise ModelLoadError(
            f"{repo} is neither a local folder nor a repository at {page}; if it is "
            "private, set HF_TOKEN",
            subject=repo,
        ) from exc
    except errors.LocalEntryNotFoundError as exc:
        # Without a network, optional files cannot be told from files not yet here.
        known = try_to_load_from_cache(repo, "config.json", options.cache_dir)
        if isinstance(known, str):
            raise _NotCached from exc
        raise ModelLoadError(
            f"{repo}/{file} is not in the cache and the hub cannot be reached; fetch "
            "it once with a network, or give a local folder",
            subject=repo,
        ) from exc
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError) as exc:
        raise ModelLoadError(
            f"cannot fetch {file} of {repo}: {exc}", subject=repo
        ) from exc


def open_repository(name: str, options: HubOptions) -> Repository:
    """A local folder if there is one of that name, else a hub repository.

    Raises:
        ModelLoadError: the name is a path, and nothing is there.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return LocalRepository(folder)
    if _is_path(name):
        raise ModelLoadError(f"there is no folder {folder}", subject=name)
    return HubRepository(name, options)


def open_part(name: str, owner: Repository, options: HubOptions) -> Repository:
    """The repository that a checkpoint's `*_model_id` names.

    A path is taken from the checkpoint's own folder, or from the one around it;
    never from wherever the program was started.

    Raises:
        ModelLoadError: the name is a path, and nothing is there.
    """
    if isinstance(owner, LocalRepository):
        for base in (owner.folder, owner.folder.resolve().parent):
            if (base / name).is_dir():
                return LocalRepository(base / name)
    if _is_path(name):
        raise ModelLoadError(
            f"{owner.name} names {name}, which is not a folder in it or beside it",
            subject=name,
        )
    return HubRepository(name, options)


def weight_files(repository: Repository) -> tuple[Path, ...]:
    """The safetensors files, sharded or not.

    Raises:
        ModelLoadError: there are none, or a shard is missing.
    """
    index = repository.find(_INDEX)
    if index is None:
        single = repository.find(_SINGLE)
        if single is None:
            raise ModelLoadError(
                f"{repository.name} has no {_SINGLE}; other formats are not read",
                subject=f"{repository.name}/{_SINGLE}",
            )
        return (single,)
    shards = sorted(set(read_json(index).get("weight_map", {}).values()))
    paths = []
    for shard in shards:
        path = repository.find(shard)
        if path is None:
            raise ModelLoadError(
                f"{repository.name} lacks {shard}, which its index lists",
                subject=f"{repository.name}/{shard}",
            )
        paths.append(path)
    return tuple(paths)


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") != 1
