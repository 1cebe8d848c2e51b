"""`animaray jobs`: submit, list, watch, cancel and download jobs of a server."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from animaray.cli.animate.command import FLAGS, PANELS
from animaray.cli.early_checks import check_picture, check_video
from animaray.cli.options import with_options
from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.models.animation.options import NOT_SERVED, AnimationRequest

if TYPE_CHECKING:  # every command imports this file, and few ask a server
    from animaray.serving.client import AnimarayClient

app = typer.Typer(help="Use an animaray server.", no_args_is_help=True)

ServerOption = Annotated[
    str, typer.Option("--server", envvar="ANIMARAY_SERVER", help="Address of the server")
]
KeyOption = Annotated[str | None, typer.Option("--api-key", envvar="ANIMARAY_API_KEY")]
JobArgument = Annotated[str, typer.Argument(help="Job id")]
DEFAULT_SERVER = "http://127.0.0.1:8500"


@app.command()
@with_options(
    AnimationRequest,
    without=NOT_SERVED,
    defaults={"seed": 0},
    flags=FLAGS,
    panels=PANELS,
    is_served=True,
)
def submit(
    image: Annotated[Path, typer.Argument(help="Picture of the person")],
    video: Annotated[Path, typer.Argument(help="Driving video")],
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Wait and save here")] = None,
    as_json: JsonOption = False,
    *,
    options: Mapping[str, Any],
) -> None:
    """Submit a job and print its id; with --out wait for it and save the video.

    Example: animaray jobs submit me.jpg dance.mp4 --out me-dancing.mp4
    """
    check_picture(image)
    check_video(video)
    with _client(server, api_key) as client:
        job = client.submit(image, video, **options)
        print_hint(f"Submitted. Watch: animaray jobs watch {job.id} --server {server}")
        if not as_json:
            typer.echo(job.id)
        if out is not None:
            job.wait()
            job.save(out)
            print_hint(f"Saved {out}")
        if as_json:
            print_json({"job": job.status().model_dump(mode="json")})


@app.command("list")
def list_(
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    state: Annotated[
        str | None, typer.Option(help="Only jobs in this state, such as `failed`")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List your jobs, newest first."""
    with _client(server, api_key) as client:
        jobs = client.list(state=state, limit=limit + 1)
    if len(jobs) > limit:
        jobs = jobs[:limit]
        print_hint(f"There are more than {limit} jobs: see older ones with --limit.")
    if as_json:
        print_json({"jobs": [job.model_dump(mode="json") for job in jobs]})
        return
    print_table("Jobs", ("id", "state", "step"), [(job.id, job.state, job.step) for job in jobs])


@app.command()
def watch(
    job_id: JobArgument, server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None
) -> None:
    """Print a job's events until it ends; fails as the job does."""
    with _client(server, api_key) as client:
        job = client.job(job_id)
        for event in job.events():
            typer.echo(f"{event}")
        job.check_success()


@app.command()
def cancel(
    job_id: JobArgument, server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None
) -> None:
    """Cancel a job; a running one stops within a step."""
    with _client(server, api_key) as client:
        state = client.job(job_id).cancel().state
    if state in ("succeeded", "failed"):
        print_hint(f"Job {job_id} had {state} before; nothing was cancelled.")
    elif state == "cancelled":
        print_hint(f"Cancelled {job_id}.")
    else:
        print_hint(f"Job {job_id} is {state} and stops within a step.")


@app.command()
def download(
    job_id: JobArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The mp4 to write")],
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
) -> None:
    """Save a finished job's video."""
    with _client(server, api_key) as client:
        client.job(job_id).save(out)
    print_hint(f"Saved {out}")


def _client(server: str, api_key: str | None) -> "AnimarayClient":
    from animaray.serving.client import AnimarayClient

    return AnimarayClient(server, api_key=api_key)
