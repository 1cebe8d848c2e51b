"""Write the card of a dataset: one HTML file with everything inside, for people to read."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from animaray.cli.dataset.page import render_template
from animaray.datasets.reader import CurationDataset
from animaray.pipelines.reports.card import Card, RuleCard, dataset_card
from animaray.platform.disk import check_folder
from animaray.platform.quantities import spell_hours
from animaray.platform.storage import write_bytes_atomic

MAX_SHEET = 48
"""Kept clips on the sheet; the first ones by a hash, which is as good as at random."""
_WIDTH, _HEIGHT, _BASE = 360.0, 120.0, 96.0


def write_dataset_card(
    dataset: str | Path, out: Path, *, policy: str = "standard"
) -> tuple[Path, Card]:
    """Write the card of a dataset and return its path and facts.

    Args:
        out: An .html file, or a folder for index.html.

    Raises:
        DatasetError: There is no dataset, or the policy was never applied.
    """
    page = out if out.suffix == ".html" else out / "index.html"
    check_folder(page.parent, "The page")
    card = dataset_card(dataset, policy)
    sheet = sorted(card.kept_clips)[:MAX_SHEET]  # ids are hashes
    shown = {clip.clip_id for rule in card.rules for clip in (*rule.good_side, *rule.bad_side)}
    opened = CurationDataset.open(dataset)
    titles = {
        clip_id: "{file_name} {start_s:.1f}\u00a0s".format(**opened.clip(clip_id))
        for clip_id in {*shown, *sheet}
    }
    posters = _posters(opened, {*shown, *sheet})
    facts = {name: value for name, value in asdict(card).items() if name != "rules"}
    html = render_template(
        "card.html.j2",
        card=facts,
        rules=[
            {**asdict(rule), "plot": _plot(rule), "text": _rule_text(rule)} for rule in card.rules
        ],
        sheet=sheet,
        titles=titles,
        spell=spell_hours,
        posters=posters,
        largest={name: max([*counts.values(), 1]) for name, counts in card.balance.items()},
        largest_input=max(1, *(count for _, count in card.funnel[:3])),
        largest_clip=max(1, *(count for _, count in card.funnel[3:])),
    )
    write_bytes_atomic(page, html.encode())
    return page, card


def _posters(dataset: CurationDataset, clip_ids: Iterable[str]) -> dict[str, str]:
    """Return the posters of clips as data addresses; a clip without a preview has none."""
    return {
        clip_id: "data:image/jpeg;base64,"
        + base64.b64encode(dataset.preview(clip_id)["poster"]).decode()
        for clip_id in sorted(clip_ids)
        if dataset.has_row("preview", clip_id)
    }


def _rule_text(rule: RuleCard) -> str:
    sign = "at least" if rule.is_minimum else "at most"
    only = f", {rule.framing} framing only" if rule.framing else ""
    return f"{rule.score} {sign} {rule.limit:g}{only}"


def _plot(rule: RuleCard) -> Mapping[str, Any]:
    """Return bars and threshold line of a histogram in the plot's own units."""
    low, high = rule.edges[0], rule.edges[-1]
    top = max([a + b for a, b in zip(rule.passing, rule.failing, strict=True)] or [1]) or 1
    step = _WIDTH / len(rule.passing)
    bars = []
    for index, (good, bad) in enumerate(zip(rule.passing, rule.failing, strict=True)):
        tall = [_BASE * count / top for count in (good, bad)]
        if good:
            bars.append((step * index, _BASE - tall[0], step - 1, tall[0], "good"))
        if bad:
            bars.append((step * index, _BASE - tall[0] - tall[1], step - 1, tall[1], "bad"))
    line = (rule.limit - low) / (high - low) * _WIDTH if high > low else 0.0
    return {
        "width": _WIDTH, "height": _HEIGHT, "base": _BASE, "bars": bars, "line": line,
        "low": _number(low), "high": _number(high), "limit": f"{rule.limit:g}",
        "anchor": "end" if line > _WIDTH * 0.7 else "start",
    }  # fmt: skip


def _number(value: float) -> str:
    """Return three digits, never in the form 1e+03."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
