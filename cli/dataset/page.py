"""Render pages from our templates, and the sheet of a dataset's clips."""

from pathlib import Path
from typing import Any

import jinja2

from animaray.datasets.reader import CurationDataset
from animaray.pipelines.policy.rules import spell_reasons
from animaray.pipelines.reports.show import show_sources
from animaray.platform.storage import write_bytes_atomic

TEMPLATES_DIR = Path(__file__).parents[1] / "templates"


def render_template(name: str, **context: object) -> str:
    """Render one of our page templates; the style sheet is put inline, nothing is fetched."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (TEMPLATES_DIR / "style.css").read_text(encoding="utf-8")
    return environment.get_template(name).render(style=style, **context)


def write_sheet(
    dataset: str | Path, media: Path, *, policy: str, prefix: str = ""
) -> list[dict[str, Any]]:
    """Write the posters of all clips and return the contact sheet's entries."""
    posters = media / "posters"
    posters.mkdir(parents=True, exist_ok=True)
    opened = CurationDataset.open(dataset)
    sheet = []
    for source in show_sources(opened, policy):
        for clip in source["clips"]:
            poster = None
            if opened.has_row("preview", clip["clip_id"]):
                name = f"{clip['clip_id']}.jpg"
                write_bytes_atomic(posters / name, opened.preview(clip["clip_id"])["poster"])
                poster = f"{prefix}posters/{name}"
            file_name = opened.clip(clip["clip_id"])["file_name"]
            sheet.append(
                {
                    "poster": poster,
                    "title": f"{file_name} {clip['start']:.2f} to {clip['end']:.2f} s",
                    "kept": clip["keep"],
                    "verdict": clip["state"],
                    "reasons": spell_reasons(clip),
                }
            )
        if not source["clips"]:
            sheet.append(
                {
                    "poster": None,
                    "title": source.get("file") or source.get("url"),
                    "kept": False,
                    "verdict": source["state"],
                    "reasons": [text for text in (source["reason"], source["detail"]) if text],
                }
            )
    return sorted(sheet, key=lambda entry: (not entry["kept"], entry["title"]))
