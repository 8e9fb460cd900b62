"""Checkpoints of a model hub: hf:OWNER/NAME or hf:OWNER/NAME@REVISION, where other programs take a path.

Nothing is fetched unless the user writes hf:. Only the files of a checkpoint are fetched, which hold no code, into the
cache of huggingface_hub. They are read as a run that was copied from elsewhere. Only `gazepose push` sends anything.
"""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gazepose.output import is_quiet

PREFIX = "hf:"
FILES = ("config.json", "manifest.json", "model.safetensors")
"""files of a checkpoint"""
OTHERS = ("ema.safetensors", "folder.json", "imported.json")
"""files that some checkpoints also have; nothing else is fetched"""
NAME = re.compile(r"hf:([\w.-]{1,96}/[\w.-]{1,96})(?:@([\w.-][\w./-]*))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


def is_on_hub(path: str | Path) -> bool:
    """Whether a path names a repository of the hub."""
    return Path(path).as_posix().startswith(PREFIX)


def pinned(path: Path) -> Path:
    """The path with the commit that its revision means now, hf:OWNER/NAME@COMMIT, fetched; another path as it is.

    Raises:
        ValueError, FileNotFoundError, OSError: as `local_folder`.
    """
    if not is_on_hub(path):
        return path
    repository, _ = _parts(path)
    return Path(f"{PREFIX}{repository}@{local_folder(path).name}")


def local_folder(path: Path) -> Path:
    """The folder of a checkpoint in the cache; its name is the commit. Another path as it is.

    A commit that is in the cache is not asked for again; HF_HUB_OFFLINE=1 uses the cache only.

    Raises:
        ValueError: not such a name. FileNotFoundError: no such repository or revision, or no checkpoint in it, or not
            in the cache and offline. PermissionError: its terms have not been accepted. OSError: the transfer failed.
    """
    if not is_on_hub(path):
        return path
    repository, revision = _parts(path)
    folder = Path(_fetch(path.as_posix(), repository, revision))
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{path}: has no {missing[0]}, so it is no checkpoint of this package; files of other "
                                "kinds are not fetched -> download a published file by hand and give its path")
    return folder


def _parts(path: Path) -> tuple[str, str | None]:
    match = NAME.fullmatch(path.as_posix())
    if match is None or ".." in path.as_posix():
        raise ValueError(f"{path}: not a name on the hub -> give hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    return match[1], match[2]


def _show_bars_on_terminals_only() -> None:
    """The library draws its bars into files too."""
    from huggingface_hub.utils import disable_progress_bars
    if is_quiet() or not sys.stderr.isatty():
        disable_progress_bars()


def _fetch(path: str, repository: str, revision: str | None) -> str:
    """The folder of the fetched files, whose name is their commit."""
    from huggingface_hub import constants, errors, snapshot_download
    _show_bars_on_terminals_only()
    files = [*FILES, *OTHERS]
    if revision is not None and COMMIT.fullmatch(revision):            # no bar of progress for what is there
        with suppress(errors.LocalEntryNotFoundError):
            cached = snapshot_download(repository, revision=revision, allow_patterns=files, local_files_only=True)
            if all((Path(cached) / name).is_file() for name in FILES):
                return cached
    try:
        return snapshot_download(repository, revision=revision, allow_patterns=files)
    except errors.GatedRepoError as error:
        raise PermissionError(f"{path}: its terms must be accepted first -> accept them on its page, then run `hf auth "
                              "login`") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such model repository, or a private one -> check the name; for a private "
                                "one run `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{path}: the repository has no such revision -> leave out what follows the @, or give "
                                "a branch, a tag or a commit") from error
    except errors.LocalEntryNotFoundError as error:
        if constants.is_offline_mode():
            raise FileNotFoundError(f"{path}: not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set -> "
                                    "run once without it, or copy the cache from another machine") from error
        raise OSError(f"{path}: the hub cannot be reached, and the cache {constants.HF_HUB_CACHE} does not have it -> "
                      f"try again when {constants.ENDPOINT} can be reached") from error
    except (errors.HTTPError, OSError) as error:           # type: ignore[reportPrivateImportUsage]
        raise OSError(f"{path}: the transfer failed ({error}) -> give the same command again; files that are complete "
                      "are not fetched again") from error


def check_target(repository: str, revision: str | None, dry_run: bool = False) -> None:
    """Refuse what `send` could not do, before anything is computed. Arguments and errors as there.

    Args:
        dry_run: nothing is to be sent, so only the names count.
    """
    from huggingface_hub import constants, get_token
    if NAME.fullmatch(f"{PREFIX}{repository}" + ("" if revision is None else f"@{revision}")) is None:
        raise ValueError(f"{repository}, revision {revision}: not a name on the hub -> give OWNER/NAME, and with "
                         "--revision a branch of letters, digits, _ . - and /")
    if constants.is_offline_mode() and not dry_run:
        raise ValueError("HF_HUB_OFFLINE is set, so nothing is sent -> unset it, or add --dry_run to see what would "
                         "be sent")
    if get_token() is None and not dry_run:
        raise PermissionError("this machine has no token of the hub -> run `hf auth login` with one that may write, or "
                              "set HF_TOKEN to one")


def send(repository: str, files: Mapping[str, Path | bytes], message: str, revision: str | None = None,
         private: bool = False) -> str:
    """Put files into a model repository in one commit; the repository and the branch are made if they are not there.

    Args:
        repository: OWNER/NAME. files: name -> a file, or its content. revision: a branch; None: main.
        private: make the repository private. One that is public already is refused.

    Returns:
        The commit.

    Raises:
        ValueError: not such a name; offline; public though `private` was asked for. PermissionError: no token, or one
            that may not write there. OSError: the transfer failed; the repository is as it was.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors
    check_target(repository, revision)
    _show_bars_on_terminals_only()
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private or None, exist_ok=True)
        if private and not hub.repo_info(repository).private:
            raise ValueError(f"{repository}: is public -> leave --private out to publish, make it private on its page, "
                             "or give another name")
        if revision is not None:
            hub.create_branch(repository, branch=revision, exist_ok=True)
        return hub.create_commit(repository, [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()], commit_message=message, revision=revision).oid
    except (errors.HTTPError, OSError, RuntimeError) as error:           # type: ignore[reportPrivateImportUsage]
        response = getattr(error, "response", None)
        if response is not None and response.status_code in (401, 403):
            raise PermissionError(f"{repository}: the token may not write there ({response.status_code}) -> run `hf "
                                  "auth login` with one that may, or give a repository of your own") from error
        raise OSError(f"{repository}: the transfer failed ({error}) -> give the same command again; the repository "
                      "changes only when all files have come") from error
