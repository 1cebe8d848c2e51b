"""The demo on real videos without weights: pull, curate, move a photo by parts, show both.

No network is trained and none generates: the page says so.
"""

from pathlib import Path
from typing import Any

from animaray.cli.animate.parts import run_parts
from animaray.cli.animate.request import AnimateRequest
from animaray.cli.dataset.page import render_template, write_sheet
from animaray.cli.demo.choice import clip_facts, find_photo
from animaray.cli.demo.run import DemoRun
from animaray.datasets.reader import CurationDataset
from animaray.models.animation.options import MADE_BY, AnimationRequest
from animaray.platform.errors import PoseError, RefusedError
from animaray.platform.media.picture import read_picture, write_png
from animaray.platform.storage import read_json, write_bytes_atomic
from animaray.platform.media.video import decode_in_child
from animaray.platform.weights.store import pull_profile

NUM_STEPS = 4
POLICY = "standard"
MAX_FRAMES = 240
"""Of the animated clip."""


def run_photo_demo(run: DemoRun) -> Path:
    """Run the four steps and return the page.

    Args:
        run: Its settings name the videos, and a photo or none.
    """
    settings = run.settings
    with run.step("pull", "pull the networks that see people") as record:
        record["note"] = f"{len(pull_profile(settings.profile))} files of {settings.profile}"
    summary = run.curate()
    dataset = CurationDataset.open(settings.dataset_dir)
    settings.media_dir.mkdir(parents=True, exist_ok=True)
    with run.step("animate", "move the photo by parts") as record:
        photo = _photo(run, dataset)
        plan, refused = _animate(run, dataset, photo)
        record["note"] = f"{plan['result']['num_frames']} frames, {MADE_BY['parts']}"
        run.facts["animation"] = plan
    with run.step("page", "write the page") as record:
        page = settings.out / "index.html"
        sheet = write_sheet(
            settings.dataset_dir, settings.media_dir, policy=POLICY, prefix="media/"
        )
        text = render_template(
            "demo_parts.html.j2",
            made_by=MADE_BY["parts"],
            photo=f"media/{photo.name}",
            plan=plan,
            refused=refused,
            sheet=sheet,
            summary=summary.one_line(),
            timings=list(run.timings.values()),
        )
        write_bytes_atomic(page, text.encode())
        record["note"] = str(page)
    return page


def _photo(run: DemoRun, dataset: CurationDataset) -> Path:
    """Return the picture to animate: the user's, one beside the videos, or a frame of a clip."""
    settings = run.settings
    chosen = settings.image or find_photo(settings.videos_dir, settings.profile)
    path = settings.media_dir / "photo.png"
    if chosen is not None:
        write_png(path, read_picture(chosen))
        return path
    first = dataset.decode_clip(_drivers(dataset)[0], max_frames=1)
    write_png(path, first.frames_uint8[0])
    return path


def _drivers(dataset: CurationDataset) -> list[str]:
    """Return the clips, kept ones first, then those that move most.

    Raises:
        PoseError: There is none that shows a face.
    """
    kept = set(dataset.clip_ids(policy=POLICY, keep=True))
    facts = [clip_facts(dataset, clip_id) for clip_id in dataset.clip_ids()]
    seen = [fact for fact in facts if fact is not None]
    if not seen:
        raise PoseError(
            "No clip of the videos shows a person whose face is seen.",
            fix="Add a video of one person, seen from the front.",
            reason="no_person",
        )
    seen.sort(key=lambda fact: (fact.clip_id not in kept, -fact.motion))
    return [fact.clip_id for fact in seen]


def _animate(
    run: DemoRun, dataset: CurationDataset, photo: Path
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Move the photo by the first clip that suits it; also return what was refused, and why.

    Raises:
        RefusedError: No clip suits.
        PoseError: There is no clip.
    """
    media = run.settings.media_dir
    request = AnimateRequest(
        image=photo,
        driving=media / "driving.mp4",
        out=media / "result.mp4",
        options=AnimationRequest(person="largest", reference_person="largest"),
        max_frames=MAX_FRAMES,
        report_dir=media / "report",
    )
    refused: list[dict[str, str]] = []
    last: RefusedError | None = None
    for clip_id in _drivers(dataset):
        request.driving.write_bytes(dataset.media_bytes(clip_id))
        try:
            run_parts(request, dry_run=False, as_json=False)
        except RefusedError as error:
            refused.append({"clip": clip_id, "why": error.message})
            last = error
        else:
            plan: dict[str, Any] = read_json(media / "report" / "report.json")["plan"]
            return plan, refused
    if last is None:
        raise PoseError("There is no clip to take the motion from.", reason="no_person")
    raise last
