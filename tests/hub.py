"""A small model hub on this machine: the calls of huggingface_hub that read a repository, and put a commit into one."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from huggingface_hub import constants


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a folder and its commit."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        """where new repositories go"""
        self.repositories: dict[str, tuple[Path, str]] = {}
        self.closed: dict[str, str] = {}
        """name -> the error code for those who have not logged in"""
        self.asked: list[str] = []
        """method and path of each request"""
        self.break_after: int | None = None
        """bytes after which the transfer of weights is cut off"""
        self.starts: list[int] = []
        """first byte of each transfer of weights"""
        self.refused: dict[str, int] = {}
        """name -> the status for whoever wants to write there"""
        self.private: set[str] = set()
        self.branches: dict[str, set[str]] = {}
        """name -> branches beside main; all of them have the files of main here"""
        self.sent: dict[str, bytes] = {}
        """name of a file, or SHA-256 of weights -> what was sent last"""
        self.break_upload = False
        """the transfer of weights to the hub is cut off"""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        name = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if name in self.server.closed and "Authorization" not in self.headers:
            return self.answer(401, headers={"X-Error-Code": self.server.closed[name]})
        if name not in self.server.repositories:
            return self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
        folder, commit = self.server.repositories[name]
        revision = re.search(r"/(?:revision|tree|resolve)/([^/]+)", path)
        if revision is not None and revision[1] not in ("main", commit, *self.server.branches.get(name, ())):
            return self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = sorted(folder.iterdir())
        if "/tree/" in path:
            return self.answer(200, [{"type": "file", "path": file.name, "size": file.stat().st_size,
                                      "oid": hashlib.sha1(file.read_bytes()).hexdigest()} for file in files])
        if path.startswith("/api/"):
            return self.answer(200, {"id": name, "modelId": name, "sha": commit, "private": name in self.server.private,
                                     "tags": [],
                                     "downloads": 0, "siblings": [{"rfilename": file.name} for file in files]})
        self.file(folder / path.split("/")[-1], commit)

    def do_POST(self) -> None:
        body, path = self.rfile.read(int(self.headers["Content-Length"])), self.path.split("?")[0]
        self.server.asked.append(f"POST {path}")
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        name = re.sub(r"^/(api/models/)?([^/]+/[^/]+?)(\.git)?/.*", r"\2", path)
        if status := self.no_right(name):
            return self.answer(status, {"error": "no right to write"})
        if "/branch/" in path:
            self.server.branches.setdefault(name, set()).add(path.split("/")[-1])
            return self.answer(200, {})
        if "/preupload/" in path:
            return self.answer(200, {"files": [{
                "path": file["path"], "shouldIgnore": False,
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            return self.answer(200, {"transfer": "basic", "objects": [
                {**wanted, "actions": {"upload": {"href": f"{self.server.address}/lfs/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]]})
        self.commit(name, [json.loads(line) for line in body.splitlines()])

    def do_PUT(self) -> None:
        if self.server.break_upload:
            self.close_connection = True
            return
        size, body = self.headers["Content-Length"], b""
        if size is not None:
            body = self.rfile.read(int(size))
        while size is None and (length := int(self.rfile.readline(), 16)):           # in chunks
            body += self.rfile.read(length)
            self.rfile.readline()
        self.server.sent[self.path.split("/")[-1]] = body
        self.answer(200)

    def no_right(self, name: str) -> int | None:
        """The status for a request to write that is refused."""
        return 401 if "Authorization" not in self.headers else self.server.refused.get(name)

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if status := self.no_right(name):
            return self.answer(status, {"error": "no right to write"})
        address = {"url": f"{self.server.address}/{name}"}
        if name in self.server.repositories:
            return self.answer(409, address)
        if wanted.get("visibility") == "private":
            self.server.private.add(name)
        folder = self.server.root / name
        folder.mkdir(parents=True)
        self.server.repositories[name] = folder, "0" * 40
        self.answer(200, address)

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        """Put the files of a commit into the repository's folder."""
        folder, _ = self.server.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.server.sent[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.server.sent[value["path"]] = self.server.sent.pop(value["oid"])
            if "path" in value:
                (folder / value["path"]).write_bytes(self.server.sent[value["path"]])
        commit = hashlib.sha1(repr(lines).encode()).hexdigest()
        self.server.repositories[name] = folder, commit
        self.answer(200, {"commitUrl": f"{self.server.address}/{name}/commit/{commit}", "commitOid": commit})

    def file(self, file: Path, commit: str) -> None:
        content = file.read_bytes()
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.command == "GET" else 0
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, content[start:], headers, weights=file.suffix == ".safetensors", start=start)

    def answer(self, status: int, content: Any = b"", headers: dict[str, str] | None = None, weights: bool = False,
               start: int = 0) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if weights:
            self.server.starts.append(start)
            if self.server.break_after is not None:
                body, self.close_connection = body[:self.server.break_after], True
        self.wfile.write(body)


def settings(address: str, folder: Path) -> dict[str, Any]:
    """Constants of huggingface_hub for a hub at an address."""
    return {"HF_HUB_CACHE": str(folder / "cache"), "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_DISABLE_XET": True, "HF_HUB_DISABLE_PROGRESS_BARS": True, "HF_HUB_OFFLINE": False,
            "HF_TOKEN_PATH": str(folder / "token")}


@contextmanager
def running_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process uses, with an empty cache; its new repositories, the cache and the token lie in `folder`.
    """
    hub = Hub(folder / "hub")
    for name, value in settings(hub.address, folder).items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
