"""Blocks of the pages that say `<!-- tested by running -->` are run, in their order.

They run in one folder for each page, which holds a small dataset: what a page writes, its later
blocks may read. CLIP and SOURCE stand for ids, as on the page.
"""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import yaml

from animaray.cli.main import run
from animaray.datasets.reader import CurationDataset
from animaray.pipelines.policy.verdicts import reapply_policy
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"^<!-- tested by running -->\n```(\w+)\n(.*?)^```|^```(yaml)\n(name: .*?)^```", re.M | re.S
)
PAGES = ("index", "ml-teams", "operators", "services", "data-format", "diffusers")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pages") / "dataset"
    sizes = {"num_sources": 12, "num_identities": 6, "identity_dim": 256, "num_frames": 4}
    write_score_dataset(root, ScoreTables(**sizes, with_media=True))
    for policy in ("standard", "lax"):
        reapply_policy(root, policy)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_marked_blocks_of_a_page_run(
    page: str,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8"))
    assert blocks
    (tmp_path / "dataset").symlink_to(dataset)
    (tmp_path / "cluster.yaml").symlink_to(ROOT / "cluster.yaml")
    monkeypatch.chdir(tmp_path)
    opened = CurationDataset.open(dataset)
    clip = opened.clip(opened.clip_ids("lax")[0])
    for language, text, _, policy in blocks:
        if policy:
            Path(f"{yaml.safe_load(policy)['name']}.yaml").write_text(policy, encoding="utf-8")
        elif language == "python":
            Path("block.py").write_text(text, encoding="utf-8")
            runpy.run_path("block.py")
        else:
            named = text.replace("CLIP", clip["clip_id"]).replace("SOURCE", clip["source_id"])
            for line in named.splitlines():
                run_line(line, capsys)


def run_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, *words = shlex.split(line, comments=True)
    assert first == "animaray", line
    words, target = (words[:-2], words[-1]) if ">" in words else (words, None)
    capsys.readouterr()
    assert run(words) == 0, line
    if target is not None:
        Path(target).write_text(capsys.readouterr().out, encoding="utf-8")
