"""What can go wrong on the way to a tfds data set: networks, disks, damage, other processes."""

import contextlib
import http.server
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import mnist as official
from tiny_builders import TinyMnist, archived_tiny, is_tiny, message, pin, published, spoil

from mnist_jax.data import datasets, tfds_reader


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return archived_tiny(monkeypatch, tmp_path)


# --- the network


@pytest.fixture
def served():
    """`served(respond, requests)` -> address of a server, which ends after so many requests."""
    servers = []

    def start(respond, requests):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                with contextlib.suppress(ConnectionError):  # the probe goes when it has the status
                    respond(self)
                answered.release()

            def log_message(self, *args):
                pass

        answered = threading.Semaphore(0)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append((server, answered, requests))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, answered, requests in servers:
        for _ in range(requests):  # tfds would try again for minutes after the end of the test
            assert answered.acquire(timeout=10)
        server.shutdown()
        server.server_close()


def reply(handler, content, status=200):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def test_download(tiny, tmp_path, monkeypatch, served):
    def send(handler):
        path = tmp_path / "archives/tiny_mnist" / Path(handler.path).name
        reply(handler, path.read_bytes())

    tiny = published(monkeypatch, tmp_path, served(send, requests=5))
    assert is_tiny(tiny(archives=None))


def test_an_altered_download_is_refused(tiny, tmp_path, monkeypatch, served):
    url = served(lambda handler: reply(handler, b"wrong"), requests=5)
    tiny = published(monkeypatch, tmp_path, url)
    with pytest.raises(datasets.DataError, match="wrong checksum") as error:
        tiny(archives=None)
    assert url in message(error)
    assert not isinstance(error.value, datasets.DataNotFound)


def test_a_download_that_breaks_off(tiny, tmp_path, monkeypatch, served):
    def send(handler):
        path = tmp_path / "archives/tiny_mnist" / Path(handler.path).name
        status = 200 if path.name.startswith("t10k-images") else 404
        reply(handler, path.read_bytes(), status)

    tiny = published(monkeypatch, tmp_path, served(send, requests=5))
    with pytest.raises(datasets.DataNotFound, match="HTTP code: 404"):
        tiny(archives=None)


def test_the_official_address_is_asked_through_a_proxy(tmp_path, monkeypatch, served):
    asked = set()

    def send(handler):
        asked.add(handler.path)
        reply(handler, b"wrong")

    for variable in ("MNIST_JAX_ARCHIVES", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("http_proxy", served(send, requests=5))
    with pytest.raises(datasets.DataError, match="wrong checksum"):
        datasets.load("fashion_mnist", data_dir=str(tmp_path))
    assert asked
    assert asked <= set(official.FashionMNIST.url_infos)  # the first wrong one ends it


@pytest.mark.parametrize("case", ["refused", "no route", "unresolved", "slow names", "hangs", 503])
def test_without_a_network_nobody_waits_for_it(tiny, tmp_path, monkeypatch, case, served):
    """Not the 20 seconds that what is called slow here takes."""
    release = threading.Event()

    def unresolved(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    def slow(*args, **kwargs):
        release.wait(20)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    def no_route(*args, **kwargs):
        raise OSError(101, "Network is unreachable")

    match case:
        case "no route":
            monkeypatch.setattr(socket.socket, "connect", no_route)
        case "unresolved":
            monkeypatch.setattr(socket, "getaddrinfo", unresolved)
        case "slow names":
            monkeypatch.setattr(socket, "getaddrinfo", slow)
        case "hangs":
            tiny = published(monkeypatch, tmp_path, served(lambda _: release.wait(20), 1))
        case 503:
            url = served(lambda handler: reply(handler, b"", 503), 1)
            tiny = published(monkeypatch, tmp_path, url)
    start = time.perf_counter()
    with pytest.raises(datasets.DataNotFound) as error:
        tiny(archives=None)
    assert time.perf_counter() - start < 15
    release.set()
    assert "MNIST_JAX_ARCHIVES" in message(error)
    assert TinyMnist.URL in message(error)


# --- the cache, the disk, other processes


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "not its fingerprint"])
def test_a_damaged_cache_is_made_anew(tiny, tmp_path, damage):
    dataset = tiny()
    cache = tmp_path / "data/mnist_jax/tiny_mnist.npz"
    sound = cache.read_bytes()
    match damage:
        case "empty":
            cache.write_bytes(b"")
        case "cut":
            cache.write_bytes(sound[: len(sound) // 2])
        case "flipped":
            middle = len(sound) // 2
            cache.write_bytes(sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :])
        case "foreign":
            np.savez(cache, something=np.arange(3))
        case _:
            images = dataset.train_images ^ 1
            np.savez(cache, **dataset._replace(train_images=images)._asdict())
    assert is_tiny(tiny())
    assert cache.read_bytes() == sound
    assert [path.name for path in cache.parent.iterdir()] == ["tiny_mnist.npz"]


def test_what_a_killed_process_wrote_of_the_cache_is_removed_after_a_day(tiny, tmp_path):
    cache = tmp_path / "data/mnist_jax/tiny_mnist.npz"
    cache.parent.mkdir(parents=True)
    old, young = (cache.with_name(f".{cache.name}.{name}") for name in ("0ld", "1f"))
    old.touch()
    young.touch()  # perhaps of a living one
    os.utime(old, (0, 0))
    tiny()
    assert sorted(cache.parent.iterdir()) == [young, cache]


def test_the_cache_serves_without_the_prepared_copy(tiny, tmp_path):
    dataset = tiny()
    shutil.rmtree(tmp_path / "data/tiny_mnist")
    again = tiny(archives=None)
    assert again.fingerprint == dataset.fingerprint
    assert again.class_names == dataset.class_names == tuple("0123456789")


def test_a_damaged_prepared_copy_is_named(tiny, tmp_path):
    tiny()
    shutil.rmtree(tmp_path / "data/mnist_jax")
    (record,) = (tmp_path / "data").glob("tiny_mnist/*/*train.array_record*")
    spoil(record, lambda content: content[:100])
    with pytest.raises(datasets.DataError, match="delete that folder and start again") as error:
        tiny()
    assert str(record.parent) in message(error)


def test_a_data_dir_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(datasets.DataError, match="tiny_mnist: cannot be prepared in") as error:
        tiny(data_dir=str(tmp_path / "file/data"))
    assert str(tmp_path / "file/data") in message(error)


def test_a_remote_data_dir_is_refused():
    with pytest.raises(datasets.DataError, match="gs://bucket: data_dir must be a local folder"):
        datasets.load("mnist", data_dir="gs://bucket")


def in_process(tmp_path, file_size=None):
    """Loads `tiny_mnist` from archives in this process; run in one of its own."""
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    pinned = pin(tmp_path / "archives" / "tiny_mnist", TinyMnist.URL)
    TinyMnist.url_infos = pinned
    dataset = datasets.load(
        "tiny_mnist", data_dir=str(tmp_path / "data"), archives=str(tmp_path / "archives")
    )
    return is_tiny(dataset)


def meet(folder):
    """Waits in one of two processes until the other has come here too."""
    folder.mkdir(exist_ok=True)
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)


def processes(n):
    return ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))


def test_a_full_disk(tiny, tmp_path):
    with processes(1) as pool:
        with pytest.raises(
            datasets.DataError, match=r"cannot be prepared in .*File too large"
        ) as error:
            pool.submit(in_process, tmp_path, 1_000).result()
        message(error)
    assert not list((tmp_path / "data").glob("tiny_mnist/*"))
    tiny()
    shutil.rmtree(tmp_path / "data/mnist_jax")
    with processes(1) as pool:  # enough for everything but the cache
        assert pool.submit(in_process, tmp_path, 1_000).result()
    assert not list((tmp_path / "data/mnist_jax").iterdir())


def test_concurrent_loads(tiny, tmp_path):
    with processes(2) as pool:
        list(pool.map(meet, [tmp_path / "met"] * 2))  # both have started
        loads = [pool.submit(in_process, tmp_path) for _ in range(2)]
        assert all(load.result() for load in loads)


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_tfds_trouble import TinyMnist, in_process
def kill(self, **kwargs):
    Path(self.data_dir, "part.array_record").touch()
    os.kill(os.getpid(), 9)
TinyMnist._download_and_prepare = kill
in_process(Path(sys.argv[2]))
"""


def test_what_a_killed_preparation_leaves_is_removed_next_time(tiny, tmp_path):
    command = [sys.executable, "-c", KILLED, Path(__file__).parent, tmp_path]
    path = os.pathsep.join(str(folder) for folder in Path(__file__).parents[1:3])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == -9
    (left,) = (tmp_path / "data/tiny_mnist").iterdir()
    assert left.name.startswith("incomplete.")
    # Another program may be writing one, unless it is old.
    for name in ("incomplete.YOUNG_3.0.1", "incomplete.OLD_3.0.1"):
        left.with_name(name).mkdir()
    os.utime(left.with_name("incomplete.OLD_3.0.1"), (0, 0))
    assert is_tiny(tiny())
    assert sorted(p.name for p in left.parent.iterdir()) == ["3.0.1", "incomplete.YOUNG_3.0.1"]
    assert {p.name for p in (left.parent / "3.0.1").iterdir()} >= {"features.json"}
    assert not (left.parent / "3.0.1" / tfds_reader._MARK).exists()


def test_the_folder_of_a_living_preparation_is_left_alone(tiny, tmp_path, monkeypatch):
    write = tfds.core.GeneratorBasedBuilder._download_and_prepare
    folders = []

    def watched(self, **kwargs):
        folders.append(Path(self.data_dir))
        if len(folders) == 1:
            tiny()  # another process, which prepares the same and cleans up before
            assert folders[0].is_dir()
        write(self, **kwargs)

    monkeypatch.setattr(TinyMnist, "_download_and_prepare", watched)
    assert is_tiny(tiny())
    assert len(set(folders)) == 2
    assert not any(folder.exists() for folder in folders)


def test_another_process_may_finish_the_same_preparation_first(tiny, monkeypatch):
    write = tfds.core.GeneratorBasedBuilder._download_and_prepare
    runs = []

    def overtaken(self, **kwargs):
        runs.append(self)
        if len(runs) == 1:
            tiny()  # the other process
        write(self, **kwargs)

    monkeypatch.setattr(TinyMnist, "_download_and_prepare", overtaken)
    assert is_tiny(tiny())
    assert len(runs) == 2
