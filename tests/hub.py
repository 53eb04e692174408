"""A loopback hub: as much of one as its clients need to list, download, stream and upload one repository, without a
network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SHA = "0" * 40  # of the one commit


@contextmanager
def serving(
    name: str, files: Mapping[str, bytes], kind: str = "datasets", received: list[Any] | None = None
) -> Generator[dict[str, str]]:
    """Serve the data set `name` ("owner/name") of these files; gives what a process's environment needs to find it.

    `kind` may also be "models". Requests for a new repository and commits are kept in `received`; files of a commit
    are served from then on, if `files` is a dict.

    The endpoint is read when the clients are imported, so ask in a process of its own.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, name, files, kind, received))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        yield {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    finally:
        server.shutdown()
        server.server_close()


class Hub(BaseHTTPRequestHandler):
    """Answers one request about the repository."""

    protocol_version = "HTTP/1.1"

    def __init__(
        self, name: str, files: Mapping[str, bytes], kind: str, received: list[Any] | None, *args: Any
    ) -> None:
        self.name, self.files, self.kind, self.received = name, files, kind, received
        super().__init__(*args)

    def do_GET(self) -> None:
        path, name = self.path.partition("?")[0], re.escape(self.name)
        below = "/datasets" if self.kind == "datasets" else ""
        if tree := re.fullmatch(rf"/api/{self.kind}/{name}/tree/[^/]+/?(.*)", path):
            self.answer(self.entries(tree[1]))
        elif re.fullmatch(rf"/api/{self.kind}/{name}(/revision/[^/]+)?", path):
            self.answer({"id": self.name, "sha": SHA, "siblings": [{"rfilename": f} for f in self.files], "tags": []})
        elif (file := re.fullmatch(rf"{below}/{name}/resolve/[^/]+/(.+)", path)) and file[1] in self.files:
            self.answer_file(self.files[file[1]])
        else:
            missing = "EntryNotFound" if self.name in path else "RepoNotFound"
            self.answer({}, 404, **{"X-Error-Code": missing})

    do_HEAD = do_GET

    def do_POST(self) -> None:  # paths-info, or an upload
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.received is not None and not self.path.endswith(f"/paths-info/{SHA}"):
            self.answer_upload(asked)
            return
        self.answer([entry for entry in self.entries("") if entry["path"] in asked])

    def answer_upload(self, asked: str) -> None:
        """Take a new repository, the plan of a commit, or the commit, with all files in the request itself."""
        assert self.received is not None
        url = f"http://{self.headers['Host']}/{self.name}"
        if self.headers.get("Authorization") != "Bearer writes":
            self.answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.received.append(json.loads(asked))
            self.answer({"url": url})
        elif self.path.startswith(f"/api/{self.kind}/{self.name}/preupload/"):
            plan = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(asked)["files"]
            ]
            self.answer({"files": plan})
        elif self.path.startswith(f"/api/{self.kind}/{self.name}/commit/"):
            lines = [json.loads(line) for line in asked.splitlines()]
            new = {one["value"]["path"]: one["value"]["content"] for one in lines if one["key"] == "file"}
            assert isinstance(self.files, dict)
            self.files.update({path: base64.b64decode(content) for path, content in new.items()})
            self.answer({"commitUrl": f"{url}/commit/{SHA}", "commitOid": SHA, "hookOutput": ""})
        else:
            self.answer({})  # such as the check of a card

    def entries(self, folder: str) -> list[dict[str, Any]]:
        """Files anywhere below a folder, and the folders between."""
        below = [name for name in self.files if name.startswith(f"{folder}/" if folder else "")]
        above = {".", folder, *map(str, Path(folder).parents)}
        folders = {str(parent) for name in below for parent in Path(name).parents} - above
        return [{"type": "directory", "path": name, "size": 0, "oid": SHA} for name in sorted(folders)] + [
            {"type": "file", "path": name, "size": len(self.files[name]), "oid": self.oid(self.files[name])}
            for name in below
        ]

    @staticmethod
    def oid(body: bytes) -> str:
        return hashlib.sha1(body).hexdigest()

    def answer_file(self, body: bytes) -> None:
        headers = {"ETag": f'"{self.oid(body)}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self.send(body, 200, headers)
            return
        start, end = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
        self.send(body[start : end + 1], 206, headers)

    def answer(self, content: Any, code: int = 200, **headers: str) -> None:
        self.send(json.dumps(content).encode(), code, {"Content-Type": "application/json", **headers})

    def send(self, body: bytes, code: int, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
