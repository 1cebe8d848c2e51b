"""Prometheus metrics, computed from the job store at each scrape.

They count the same whichever ingress answers, and go on counting after a restart. Ids are never
labels.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from animaray.serving.http.service import AnimationService
from animaray.serving.jobs.database import Total
from animaray.serving.jobs.records import ACTIVE_STATES

_SUMMARIES = {
    "queue_wait": ("animaray_queue_wait_seconds", "Time a job waited for its first worker."),
    "stage": ("animaray_stage_duration_seconds", "Time of one stage of a finished job."),
    "job": ("animaray_job_duration_seconds", "Working time of a finished job, all stages."),
    "identity_similarity": (
        "animaray_identity_similarity",
        "Mean cosine between the faces of a result and of its picture.",
    ),
}


class _ServiceCollector(Collector):
    def __init__(self, service: AnimationService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        totals = self._service.store.totals()
        yield _jobs_total(totals)
        yield from _summaries(totals)
        counts = self._service.store.counts()
        active = GaugeMetricFamily(
            "animaray_jobs_active", "Jobs that are not finished.", labels=["state"]
        )
        for state in ACTIVE_STATES:
            active.add_metric([str(state)], counts[state])
        yield active
        yield GaugeMetricFamily(
            "animaray_jobs_queued", "Jobs that wait for a worker.", value=counts[ACTIVE_STATES[0]]
        )
        states = [state.split(":")[0] for state in self._service.worker_states()]
        workers = GaugeMetricFamily(
            "animaray_workers", "Workers by what they do.", labels=["state"]
        )
        for name in ("loading", "ready", "busy", "draining", "failed"):
            workers.add_metric([name], states.count(name))
        yield workers
        yield GaugeMetricFamily(
            "animaray_data_free_bytes",
            "Free space of the data folder.",
            value=self._service.free_bytes(),
        )
        peaks = [total.recent for total in totals if total.name == "gpu_peak_memory"]
        if peaks:
            yield GaugeMetricFamily(
                "animaray_gpu_peak_memory_bytes",
                "Peak GPU memory of recent jobs (moving average).",
                value=peaks[0],
            )


def _jobs_total(totals: list[Total]) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "animaray_jobs", "Finished jobs by outcome.", labels=["state", "reason"]
    )
    for total in totals:
        if total.name == "jobs":
            state, _, reason = total.label.partition(":")
            family.add_metric([state, reason], total.count)
    return family


def _summaries(totals: list[Total]) -> Iterator[Metric]:
    for name, (metric, text) in _SUMMARIES.items():
        labels = ["stage"] if name == "stage" else []
        family = SummaryMetricFamily(metric, text, labels=labels)
        for total in totals:
            if total.name == name:
                family.add_metric([total.label] if labels else [], total.count, total.total)
        yield family


def render_metrics(service: AnimationService) -> bytes:
    """Return the metrics page in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ServiceCollector(service))
    return generate_latest(registry)
