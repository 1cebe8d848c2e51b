"""Render pages from our templates, and the sheet of a dataset's clips."""

from pathlib import Path
from typing import Any

import jinja2

from animaray.pipelines.policy.rules import spell_reasons
from animaray.pipelines.reports.report import dataset_report
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
    dataset: Path, media: Path, *, policy: str, prefix: str = ""
) -> list[dict[str, Any]]:
    """Write the posters of all clips and return the contact sheet's entries."""
    posters = media / "posters"
    posters.mkdir(parents=True, exist_ok=True)
    sheet = []
    for item in dataset_report(dataset, policy).items:
        poster = None
        if item.poster is not None:
            name = f"{item.item_id}.jpg"
            write_bytes_atomic(posters / name, item.poster)
            poster = f"{prefix}posters/{name}"
        sheet.append(
            {
                "poster": poster,
                "title": item.title,
                "kept": item.kept,
                "verdict": item.state,
                "reasons": spell_reasons({"reasons": item.reasons, "flags": item.flags}),
            }
        )
    return sorted(sheet, key=lambda entry: (not entry["kept"], entry["title"]))
