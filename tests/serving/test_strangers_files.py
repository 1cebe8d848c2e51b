"""The service shares its data folder with strangers' files and never touches one of them."""

import os
import sqlite3
from pathlib import Path

import pytest

from animaray.platform.errors import ConfigError
from animaray.serving import serve
from animaray.serving.config import ServeConfig
from animaray.serving.http.service import AnimationService
from animaray.serving.http.tenants import Tenants
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.store import JobStore
from animaray.serving.serve import start_server

OURS, MD5 = "a" * 32, "0123456789abcdef" * 2
STRANGERS = (
    "results/thesis/measurements.csv", "results/paper-draft.txt", "results/.hidden",
    f"results/{MD5}", f"results/{MD5}.txt", f"results/{MD5}.1.mp4.bak", f"results/{MD5}.x.mp4",
    f"results/{MD5.upper()}.1.mp4", f"results/{OURS}.2.mp4/folder.txt", f"results/{OURS}.notes.mp4",
    "uploads/my-camera/holiday.mp4", f"uploads/{MD5}.mp4", f"uploads/{MD5}/portrait.png",
    f"uploads/{OURS}/notes.txt", f"uploads/{'b' * 32}/reference_image/mine.txt", "uploads/a/b/c",
    "report.txt", "videos/one.mp4",
)  # fmt: skip


def make_old(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (0, 0), follow_symlinks=False)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a data folder with strangers' files, links to elsewhere and leftovers of ours."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    files = JobFiles(data)
    for name in STRANGERS:
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    elsewhere.mkdir()
    for name in ("reference_image", "driving_video", "precious.mp4"):
        (elsewhere / name).write_text(name)
    (data / "uploads" / ("c" * 32)).symlink_to(elsewhere)
    (data / "results" / f"{'c' * 32}.1.mp4").symlink_to(elsewhere / "precious.mp4")
    (data / "results" / "elsewhere").symlink_to(elsewhere)
    for name in ("reference_image", "driving_video"):
        (files.upload_dir("d" * 32) / name).write_text("ours")
        (files.upload_dir(OURS) / name).write_text("ours")
    files.write_result("d" * 32, 1, b"ours")
    (data / "results" / f".{'d' * 32}.2.mp4.0123abcd.tmp").write_bytes(b"ours, cut off")
    return data


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("age", ["old", "new"])
def test_housekeeping_removes_ours_and_nothing_else(
    shared: Path, age: str, caplog: pytest.LogCaptureFixture
) -> None:
    if age == "old":
        make_old(shared)
        make_old(shared.parent / "elsewhere")
    store = JobStore(f"sqlite:///{shared}/jobs.sqlite")
    service = AnimationService(store, JobFiles(shared), ServingLimits(), Tenants(None))
    before = names_in(shared)
    service.housekeep()
    store.close()
    after = names_in(shared)
    assert set(STRANGERS) <= after
    assert {path.name for path in (shared.parent / "elsewhere").iterdir()} == {
        "reference_image", "driving_video", "precious.mp4",
    }  # fmt: skip
    assert (shared / "uploads" / ("c" * 32)).is_symlink()
    assert (shared / "results" / f"{'c' * 32}.1.mp4").is_symlink()
    gone = {name for name in before - after if not name.startswith("jobs.sqlite")}
    if age == "new":
        assert gone == set()
        return
    assert gone == {
        f"results/{'d' * 32}.1.mp4", f"results/.{'d' * 32}.2.mp4.0123abcd.tmp",
        f"uploads/{'d' * 32}/reference_image", f"uploads/{'d' * 32}/driving_video",
        f"uploads/{OURS}/reference_image", f"uploads/{OURS}/driving_video",
    }  # fmt: skip
    assert not (shared / "uploads" / ("d" * 32)).exists()
    shown = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for path in (f"results/{'d' * 32}.1.mp4", f"uploads/{'d' * 32}"):
        assert any(str(shared / path) in line for line in shown)


def test_removing_one_job_touches_no_stranger(shared: Path) -> None:
    files = JobFiles(shared)
    for job_id in (OURS, MD5, "b" * 32, "c" * 32, "d" * 32):
        files.remove_uploads(job_id)
        files.remove_results(job_id)
    assert set(STRANGERS) <= names_in(shared)
    assert (shared.parent / "elsewhere" / "reference_image").is_file()


@pytest.mark.parametrize("name", ["results/paper.txt", "uploads/camera/a.mp4", "results/x/y"])
def test_foreign_data_folder_is_refused_and_left_as_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("require_whole_folder", "check_port"):
        monkeypatch.setattr(serve, check, lambda *_: None)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match="that no animaray server made") as caught:
        start_server(ServeConfig(weights_dir=tmp_path, data_dir=tmp_path))
    assert "/".join(name.split("/")[:2]) in str(caught.value)
    assert caught.value.fix is not None
    assert "--data" in caught.value.fix
    assert names_in(tmp_path) == {name}
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_with_our_database_or_jobs_is_taken_whatever_lies_beside(tmp_path: Path) -> None:
    JobFiles.check_data_dir(tmp_path / "new")
    files = JobFiles(tmp_path)
    JobFiles.check_data_dir(tmp_path)  # empty folders
    (tmp_path / "results" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError):
        JobFiles.check_data_dir(tmp_path)
    files.write_result(OURS, 1, b"ours")  # with PostgreSQL there is no jobs.sqlite
    JobFiles.check_data_dir(tmp_path)
    files.remove_results(OURS)
    JobStore(f"sqlite:///{tmp_path}/jobs.sqlite").close()
    JobFiles.check_data_dir(tmp_path)


def test_database_of_another_program_is_refused_before_it_is_changed(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE jobs (id INTEGER)")
    database.commit()
    database.close()
    content = file.read_bytes()
    with pytest.raises(ConfigError, match="of another program"):
        JobFiles.check_data_dir(tmp_path)
    assert file.read_bytes() == content
