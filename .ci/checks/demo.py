"""What the checks share: packages that are installed once, and a demo of their own, started and ended here."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
TOOLS = Path(os.environ.get("APIXX_TOOLS", TARGET / "tools"))
NAME = Path(sys.argv[0]).name

# A debug build makes a database, migrates it and tells a month of history.
READY_SECONDS = 180
END_SECONDS = 15
# What an answer's text may hold: the limit of a page, and room for its last lines.
MAX_TEXT = 9_000


class Failed(Exception):
    """The check fails; the text says why."""


def say(text):
    print(f"{NAME}: {text}", flush=True)


def require(holds, text):
    if not holds:
        raise Failed(text)


def main(check):
    """Runs `check(binary)`."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(f"usage: {NAME} [BINARY]")
    binary = Path(sys.argv[1] if sys.argv[1:] else TARGET / "debug" / "apixx-mcp").resolve()
    # Ended from outside, a check still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    try:
        require(binary.is_file(), f"there is no program at {binary}; build it, or name it")
        check(binary)
    except Failed as failure:
        sys.exit(f"{NAME}: FAILED: {failure}")


def run(*command, seconds=600, **options):
    """Runs a program to its end and returns what it printed."""
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=seconds, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)[:300]} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-4000:]}")
    return done.stdout


def install(where, lock, command):
    """Runs `command(directory)` unless what `lock` pins is installed there already."""
    directory = TOOLS / where
    mark = directory / "installed"
    if not mark.is_file() or mark.read_bytes() != lock.read_bytes():
        say(f"installing {lock.relative_to(HERE)} into {directory}")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        command(directory)
        # The mark goes in last, so that an installation that broke off is made again.
        shutil.copyfile(lock, mark)
    return directory


def npm(where, folder):
    """The `node_modules` of the packages that a folder's lockfile pins."""

    def command(directory):
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(folder / name, directory / name)
        run("npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", cwd=directory)

    return install(where, folder / "package-lock.json", command) / "node_modules"


def python(where, pins):
    """The Python of a virtual environment that holds what a file pins."""

    def command(directory):
        run(sys.executable, "-m", "venv", directory)
        pip = [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(*pip, "--no-deps", "--requirement", pins)

    return install(where, pins, command) / "bin" / "python"


class Demo:
    """The program's demo on a free port, with a data directory that goes when it ends."""

    def __init__(self, binary, *arguments):
        self.binary, self.arguments = binary, arguments

    def __enter__(self):
        self.home = Path(tempfile.mkdtemp(prefix="apixx-check-", dir="/tmp"))
        # PostgreSQL refuses to run as root; its user must get in.
        self.home.chmod(0o755)
        self.data = self.home / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [self.binary, "demo", "--listen", f"127.0.0.1:{port}", "--data-dir", self.data, "--json", *self.arguments]
        say(" ".join(map(str, command)))
        self.out, self.log = self.home / "out", self.home / "log"
        with self.out.open("wb") as out, self.log.open("wb") as log:
            # A session of its own: what is typed at a terminal reaches it through us alone.
            self.process = subprocess.Popen(command, stdout=out, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            self.ready()
        except BaseException:
            self.end()
            raise
        return self

    def ready(self):
        deadline = time.monotonic() + READY_SECONDS
        while b"\n" not in self.out.read_bytes():
            require(self.process.poll() is None, f"the demo ended with {self.process.returncode} before it was ready:\n{self.tail()}")
            require(time.monotonic() < deadline, f"the demo was not ready within {READY_SECONDS} s:\n{self.tail()}")
            time.sleep(0.05)
        line = self.out.read_text(encoding="utf-8").splitlines()[0]
        said = json.loads(line)
        require(said.get("ready") is True, f"the demo's first line is {line}")
        self.url, self.database_url = said["mcp_url"], said["database_url"]
        self.tokens = {workspace["customer"]: workspace["token"] for workspace in said["workspaces"]}

    def call(self, workspace, tool, arguments):
        """A tool's text and structured answer; the check fails where the tool does."""
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        headers = {
            "Authorization": f"Bearer {self.tokens[workspace]}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        }
        request = urllib.request.Request(self.url, json.dumps(message).encode(), headers)
        asked = f"{tool} {json.dumps(arguments, ensure_ascii=False)}"
        try:
            with urllib.request.urlopen(request, timeout=90) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise Failed(f"{asked}: HTTP {error.code} {error.read(2000)!r}") from None
        except OSError as error:
            raise Failed(f"{asked}: {error}") from None
        result = answer.get("result", {})
        require("result" in answer and not result.get("isError"), f"{asked}: {json.dumps(answer, ensure_ascii=False)[:3000]}")
        return result["content"][0]["text"], result["structuredContent"]

    def tail(self):
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def __exit__(self, kind, error, trace):
        if kind is not None and self.process.poll() is not None:
            say(f"the demo ended with {self.process.returncode}:\n{self.tail()}")
        self.end()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                say(f"the demo did not end within {END_SECONDS} s of SIGINT and is killed")
                self.process.kill()
                self.process.wait()
        # A demo that did not end by itself leaves its PostgreSQL, whose first line is its process id.
        for left in self.home.rglob("postmaster.pid"):
            try:
                os.kill(int(left.read_text().split("\n")[0]), signal.SIGQUIT)
                say("the demo left its PostgreSQL running; it is ended")
            except (OSError, ValueError):
                pass
        shutil.rmtree(self.home, ignore_errors=True)
