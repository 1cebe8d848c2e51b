"""What the user may name: folders, patterns, files, lists, archives, addresses."""

import io
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from animaray.pipelines.acquire.archives import check_parquet
from animaray.pipelines.acquire.config import AcquireConfig
from animaray.pipelines.acquire.inputs import Input, expand_sources
from animaray.platform.errors import ConfigError

CONFIG = AcquireConfig(max_file_bytes=1000)


def expand(*sources: object, folder: Path) -> list[Input]:
    return expand_sources([str(source) for source in sources], folder / "members", CONFIG).inputs


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.mp4", "b.mkv", "deep/c.webm", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    return folder


def write_tar(path: Path, members: dict[str, bytes], *, link: str | None = None) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link is not None:
            info = tarfile.TarInfo("link.mp4")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)


def test_folders_patterns_and_files_give_the_same_names(videos: Path, tmp_path: Path) -> None:
    assert [item.uri for item in expand(videos, folder=tmp_path)] == [
        "a.mp4", "b.mkv", "deep/c.webm",
    ]  # fmt: skip
    pattern = expand(f"{videos}/**/*.*", folder=tmp_path)
    assert [item.uri for item in pattern] == ["a.mp4", "b.mkv", "deep/c.webm"]
    assert [item.uri for item in expand(videos / "a.mp4", folder=tmp_path)] == ["a.mp4"]
    # Named twice is one input.
    assert len(expand(videos, videos / "a.mp4", f"{videos}/*.mp4", folder=tmp_path)) == 3


def test_equal_names_of_different_files_stay_apart(videos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.mp4").write_bytes(b"another")
    items = expand(videos, other, folder=tmp_path)
    assert [item.uri for item in items] == ["a.mp4", "b.mkv", "deep/c.webm", "other/a.mp4"]


def test_list_has_addresses_paths_and_comments(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# mine\n\nhttps://a.example/v.mp4\nvideos/a.mp4\n  https://youtu.be/x  \n")
    items = expand(path, folder=tmp_path)
    assert [item.url for item in items] == [
        "https://a.example/v.mp4", None, "https://youtu.be/x",
    ]  # fmt: skip
    assert items[1].path == videos / "a.mp4"
    assert {item.origin for item in items} == {str(path)}


def test_tar_gives_its_videos_under_names_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    members = {
        "0001.mp4": b"one", "0001.json": b"{}", "../../evil.mp4": b"two", "big.mp4": b"x" * 2000,
    }  # fmt: skip
    write_tar(path, members, link="/etc/passwd")
    items = {item.uri: item for item in expand(path, folder=tmp_path)}
    assert set(items) == {"set.tar/0001.mp4", "set.tar/../../evil.mp4", "set.tar/big.mp4"}
    assert items["set.tar/big.mp4"].problem is not None
    assert items["set.tar/big.mp4"].problem[0] == "too_large"
    evil = items["set.tar/../../evil.mp4"].path
    assert evil is not None
    assert evil.parent == tmp_path / "members"
    assert evil.read_bytes() == b"two"
    assert not (tmp_path.parent / "evil.mp4").exists()
    # A second look writes nothing again.
    before = evil.stat()
    expand(path, folder=tmp_path)
    assert evil.stat().st_ino == before.st_ino
    assert evil.stat().st_mtime_ns == path.stat().st_mtime_ns


def test_cut_tar_keeps_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    write_tar(path, {"a.mp4": b"a" * 600, "b.mp4": b"b" * 600})
    os.truncate(path, 512 + 1024 + 512 + 100)
    items = {item.uri: item for item in expand(path, folder=tmp_path)}
    assert items["cut.tar/a.mp4"].path is not None
    problems = [item.problem for item in items.values() if item.problem is not None]
    assert [reason for reason, _ in problems] == ["broken"]


def test_parquet_gives_bytes_places_and_addresses(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    rows = [
        {"bytes": b"one", "path": None}, {"bytes": None, "path": "videos/a.mp4"},
        {"bytes": None, "path": "https://a.example/v.mp4"}, {"bytes": None, "path": "/etc/passwd"},
        {"bytes": None, "path": None}, {"bytes": b"x" * 2000, "path": None},
    ]  # fmt: skip
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"video": pa.array(rows, kind), "n": range(6)}), path)
    items = expand(path, folder=tmp_path)
    assert items[0].path is not None
    assert items[0].path.read_bytes() == b"one"
    assert items[1].path == (videos / "a.mp4").resolve()
    assert items[2].url == "https://a.example/v.mp4"
    assert [item.problem[0] for item in items[3:] if item.problem] == [
        "outside", "empty", "too_large",
    ]  # fmt: skip


class _Canary(pa.ExtensionType):
    """An extension type that tells when it is built from a file."""

    built = 0

    def __init__(self) -> None:
        super().__init__(pa.int64(), "animaray.test.canary")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"code"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "_Canary":
        cls.built += 1
        return cls()


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()), pa.binary(),
    ],
    ids=str,
)  # fmt: skip
def test_parquet_places_may_be_text_of_any_storage(
    videos: Path, tmp_path: Path, kind: pa.DataType
) -> None:
    path = videos / "set.parquet"
    places = ["a.mp4", "deep/c.webm", "a.mp4", None, "https://example.com/v.mp4"]
    values = [place and place.encode() for place in places] if kind == pa.binary() else places
    pq.write_table(pa.table({"path": pa.array(values, type=kind)}), path)
    found = expand(path, folder=tmp_path)
    assert [item.path for item in found if item.path] == [videos / "a.mp4", videos / "deep/c.webm"]
    assert [item.url for item in found if item.url] == ["https://example.com/v.mp4"]
    assert [item.problem and item.problem[0] for item in found] == [None, None, "empty", None]


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(5),
        pa.dictionary(pa.int32(), pa.binary()),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
def test_parquet_videos_may_be_bytes_of_any_storage(
    tmp_path: Path, kind: pa.DataType, nested: bool
) -> None:
    path = tmp_path / "set.parquet"
    bytes_ = pa.array([b"first", b"secon"], type=kind)
    names = pa.array([None, None], type=pa.string_view())
    column = pa.StructArray.from_arrays([bytes_, names], ["bytes", "path"]) if nested else bytes_
    pq.write_table(pa.table({"video": column}), path)
    found = expand(path, folder=tmp_path)
    assert [item.path.read_bytes() for item in found if item.path] == [b"first", b"secon"]


def test_categorical_field_file_names_its_video(tmp_path: Path) -> None:
    field = Path(__file__).parents[2] / "data/field/categorical_path.parquet"
    copy = tmp_path / field.name
    copy.write_bytes(field.read_bytes())
    assert [item.path for item in expand(copy, folder=tmp_path)] == [tmp_path / "v50_square.mp4"]


def test_parquet_without_videos_names_its_columns_and_their_types(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"
    pq.write_table(pa.table({"path": [1, 2], "note": ["x", "y"]}), path)
    with pytest.raises(ConfigError, match=r"path \(int64\), note \(string\)"):
        expand(path, folder=tmp_path)


def test_parquet_with_extension_types_is_refused_before_any_is_built(tmp_path: Path) -> None:
    pa.register_extension_type(_Canary())
    try:
        path = tmp_path / "evil.parquet"
        values = pa.ExtensionArray.from_storage(_Canary(), pa.array([1, 2]))
        pq.write_table(pa.table({"video": [b"a", b"b"], "x": values}), path)
        _Canary.built = 0
        with pytest.raises(ConfigError, match="extension types"):
            expand(path, folder=tmp_path)
        assert _Canary.built == 0
        pq.read_metadata(path)
        assert _Canary.built == 1, "the canary does not sing, so its silence proves nothing"
    finally:
        pa.unregister_extension_type("animaray.test.canary")


def test_parquet_guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"video": [b"x" * 100_000]}), path, use_dictionary=False)
    with pytest.raises(ConfigError, match="Row group 0"):
        check_parquet(path, max_row_group_bytes=1000)
    monkeypatch.setenv("RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR", "1")
    with pytest.raises(ConfigError, match="Ray would run code"):
        check_parquet(path, max_row_group_bytes=1 << 20)
    monkeypatch.undo()
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(ConfigError, match="no Parquet file"):
        check_parquet(path, max_row_group_bytes=1 << 20)


@pytest.mark.parametrize("source", ["nowhere", "nowhere/*.mp4", "empty.txt", "binary.bin"])
def test_wrong_sources_are_named(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"nowhere|empty\.txt|binary\.bin"):
        expand(tmp_path / source, folder=tmp_path)
