"""A small model hub on this machine: the calls of huggingface_hub that read a repository."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a folder and its commit."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, tuple[Path, str]] = {}
        self.closed: dict[str, str] = {}
        """name -> the error code for those who have not logged in"""
        self.asked: list[str] = []
        """method and path of each request"""
        self.break_after: int | None = None
        """bytes after which the transfer of weights is cut off"""
        self.starts: list[int] = []
        """first byte of each transfer of weights"""

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
        if revision is not None and revision[1] not in ("main", commit):
            return self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        files = sorted(folder.iterdir())
        if "/tree/" in path:
            return self.answer(200, [{"type": "file", "path": file.name, "size": file.stat().st_size,
                                      "oid": hashlib.sha1(file.read_bytes()).hexdigest()} for file in files])
        if path.startswith("/api/"):
            return self.answer(200, {"id": name, "modelId": name, "sha": commit, "private": False, "tags": [],
                                     "downloads": 0, "siblings": [{"rfilename": file.name} for file in files]})
        self.file(folder / path.split("/")[-1], commit)

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


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
