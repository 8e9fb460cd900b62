"""The folder that `watch` writes, and about.json in it: what was watched, how, and which files are ours.

Nothing in the folder is replaced unless this command wrote it, of the same videos under the same settings, and nobody
has changed it since.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gazepose.io import read_object, sha256_of, write_json

ABOUT = "about.json"
PARTS = "parts"
KIND = "gazepose watch"
REPLACE = "name another folder, or give --replace"


class Results:
    """A folder of results.

    Args:
        plan: what all of it depends on: the videos, and the settings of their passes. It goes into about.json.
        replace: results of another plan, and files that were changed, may be replaced.

    Raises:
        ValueError: the folder holds results or parts of another plan, or a file of ours that was changed since, or
            about.json is of something else.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], replace: bool = False) -> None:
        self.folder, self.replace = folder, replace
        path, self.about = folder / ABOUT, {}
        if path.exists():
            before = read_object(path)
            if before.get("kind") != KIND:
                raise ValueError(f"{path}: was written by something else -> name another folder")
            if not replace and self._is_used(before):
                for name, value in plan.items():
                    if before.get(name) != value:
                        raise ValueError(f"{folder}: holds results with other {name}: {_shown(before.get(name))}, now "
                                         f"{_shown(value)} -> {REPLACE}")
                self._refuse_changed(before.get("files", {}))
            self.about = before
        self.about = {**self.about, "kind": KIND, "state": "unfinished", **plan}
        self.about.setdefault("files", {})

    def _is_used(self, about: Mapping[str, Any]) -> bool:
        """Whether a file or a part is there: a command that could watch no video leaves none."""
        names = {*about.get("files", ()), *about.get("begun", ())}
        return any((self.folder / name).exists() for name in names) or any((self.folder / PARTS).rglob("*.npz"))

    def _refuse_changed(self, files: Mapping[str, str]) -> None:
        for name, digest in files.items():
            path = self.folder / name
            if path.is_file() and sha256_of(path) != digest:
                raise ValueError(f"{path}: was changed since it was written -> move it away to keep it, or give "
                                 "--replace")

    def begin(self, names: Iterable[str]) -> None:
        """Note the files that will be written, so that a run that is killed meanwhile can go on, and write about.json.

        Raises:
            FileExistsError: one is there that this command did not write.
        """
        names = list(names)
        ours = {*self.about["files"], *self.about.get("begun", ())}
        for name in names:
            if (self.folder / name).exists() and name not in ours and not self.replace:
                raise FileExistsError(f"{self.folder / name}: is there already, and not by this command -> {REPLACE}")
        self.about["begun"] = sorted(ours | set(names))
        self.about["files"] = {name: digest for name, digest in self.about["files"].items() if name not in names}
        write_json(self.folder / ABOUT, self.about)

    def finish(self, paths: Iterable[Path], parts: Iterable[Path], **facts: Any) -> list[str]:
        """Write about.json at the end, and remove parts that are no longer used.

        Args:
            paths: files that were written. parts: folders of the parts. facts: more for about.json.

        Returns:
            Files of an earlier run that this one did not write again.
        """
        written = {path.relative_to(self.folder).as_posix(): sha256_of(path) for path in paths}
        earlier = sorted(name for name in {*self.about["files"], *self.about["begun"]} - {*written}
                         if (self.folder / name).is_file())
        keep = {path.name for path in parts}
        for path in (self.folder / PARTS).iterdir():
            if path.is_dir() and path.name not in keep and all(file.suffix == ".npz" for file in path.iterdir()):
                shutil.rmtree(path)
        before = {name: self.about["files"][name] for name in earlier if name in self.about["files"]}
        self.about |= {**facts, "files": dict(sorted({**before, **written}.items())), "begun": earlier,
                       "state": "finished"}
        write_json(self.folder / ABOUT, self.about)
        return earlier


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | dict) else str(value)
    return f"{text:.140}" or "none"
