"""What every error id means: those of error classes, of HTTP refusals and of failed jobs."""

from dataclasses import dataclass

from animaray.platform.errors import error_classes
from animaray.serving.http.problems import PROBLEM_KINDS, exit_code_of
from animaray.serving.jobs.records import JOB_FAILURES


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorMeaning:
    """One error id in words."""

    error_id: str
    meaning: str
    exit_code: int | None = None
    """Of a command that ends with it; None for what only a service says."""
    http_status: int | None = None
    """Of an answer that carries it."""

    def line(self) -> str:
        """Return it as one line of text."""
        codes = [
            f"{name} {value}"
            for name, value in (("exit code", self.exit_code), ("HTTP status", self.http_status))
            if value is not None
        ]
        return (
            f"{self.error_id} ({', '.join(codes)}): {self.meaning}"
            if codes
            else (f"{self.error_id} (a failed job): {self.meaning}")
        )


def error_meanings() -> dict[str, ErrorMeaning]:
    """Return every id that a message, a problem document or a job can carry, sorted."""
    found = {
        kind.error_id: ErrorMeaning(
            error_id=kind.error_id,
            meaning=(kind.__doc__ or "").strip(),
            exit_code=kind.exit_code,
        )
        for kind in error_classes()
    }
    for code, problem in PROBLEM_KINDS.items():
        found[code] = ErrorMeaning(
            error_id=code,
            meaning=f"{problem.title}. {problem.explanation}",
            exit_code=problem.exit_code,
            http_status=problem.status,
        )
    for code, meaning in JOB_FAILURES.items():
        found[code] = ErrorMeaning(error_id=code, meaning=meaning, exit_code=exit_code_of(code))
    return dict(sorted(found.items()))
