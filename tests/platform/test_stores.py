import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from animaray.platform import stores
from animaray.platform.errors import ConfigError, StoreError
from animaray.platform.stores import Store, is_remote, open_store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(tmp_path / "data set")
    return open_store(request.getfixturevalue("s3_folder") + "/data set")


def test_what_is_written_is_read_listed_and_removed(store: Store) -> None:
    store.write("a/b.bin", b"0123456789")
    store.write("a/b.bin", b"01234567890")
    store.write("a/c/d.bin", b"")
    store.write("e.bin", b"x")
    assert store.read("a/b.bin") == b"01234567890"
    assert (store.size("a/b.bin"), store.size("a/c/d.bin"), store.size("a")) == (11, 0, None)
    assert sorted((f.path, f.size_bytes) for f in store.files("a")) == [
        ("a/b.bin", 11), ("a/c/d.bin", 0),
    ]  # fmt: skip
    assert sorted(file.path for file in store.files()) == ["a/b.bin", "a/c/d.bin", "e.bin"]
    assert store.remove("a/b.bin", "a test")
    store.remove("a/b.bin", "a test")
    assert store.size("a/b.bin") is None
    with pytest.raises(FileNotFoundError):
        store.read("a/b.bin")
    with pytest.raises(FileNotFoundError):
        store.open("a/b.bin")


def test_one_of_many_writers_gets_a_name(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            name = f"log/{number:08d}.json"
            won = list(pool.map(lambda i: store.write_if_absent(name, b"%d" % i), range(4)))  # noqa: B023
            assert sum(won) == 1
            assert store.read(name) == b"%d" % won.index(True)


def test_parquet_groups_are_read_by_range_from_a_store_that_travelled(store: Store) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"n": range(1000)}), buffer, row_group_size=100)
    store.write("t.parquet", buffer.getvalue())
    elsewhere = pickle.loads(pickle.dumps(store))
    with elsewhere.open("t.parquet") as file:
        table = pq.ParquetFile(file).read_row_group(7)
    assert table["n"].to_pylist() == list(range(700, 800))


def test_addresses() -> None:
    assert open_store("s3://b/x/").address == "s3://b/x"
    assert open_store("file:///data/x").address == "/data/x"
    assert is_remote("gs://b/x")
    assert not is_remote("/data/x")
    assert not is_remote("file:///data/x")
    with pytest.raises(ConfigError, match="ftp://host/x"):
        open_store("ftp://host/x")


def test_a_store_that_is_away_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_MAX_RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    with pytest.raises(StoreError, match="s3://bucket/x cannot be used") as found:
        open_store("s3://bucket/x").read("y")
    assert "\n" not in found.value.message
