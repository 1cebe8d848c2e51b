"""`animaray jobs`: submit, list, watch, cancel and download jobs of a server."""

from pathlib import Path
from typing import Annotated, Any

import typer

from animaray.cli.animate.arguments import JobEngineOption, ModeOption
from animaray.cli.animate.options import (
    AlignmentOption,
    AudioOption,
    FaceOptimizationOption,
    GuidanceMaxOption,
    GuidanceMinOption,
    GuidanceOption,
    NoFaceOption,
    PersonOption,
    ReferencePersonOption,
    SamplerOption,
    SeedOption,
    StepsOption,
    WindowFramesOption,
    WindowOverlapOption,
    WindowRuleOption,
)
from animaray.cli.early_checks import check_picture, check_video
from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.serving.client import AnimarayClient

app = typer.Typer(help="Use an animaray server.", no_args_is_help=True)

ServerOption = Annotated[
    str, typer.Option("--server", envvar="ANIMARAY_SERVER", help="Address of the server")
]
KeyOption = Annotated[str | None, typer.Option("--api-key", envvar="ANIMARAY_API_KEY")]
JobArgument = Annotated[str, typer.Argument(help="Job id")]
DEFAULT_SERVER = "http://127.0.0.1:8500"
JobFpsOption = Annotated[
    str | None,
    typer.Option("--fps", help="`source`, `model` (the server's default) or frames per second"),
]


@app.command()
def submit(
    image: Annotated[Path, typer.Argument(help="Picture of the person")],
    video: Annotated[Path, typer.Argument(help="Driving video")],
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Wait and save here")] = None,
    person: PersonOption = None,
    reference_person: ReferencePersonOption = None,
    no_face: NoFaceOption = False,
    alignment: AlignmentOption = None,
    engine: JobEngineOption = None,
    mode: ModeOption = None,
    fps: JobFpsOption = None,
    seed: SeedOption = 0,
    steps: StepsOption = None,
    sampler: SamplerOption = None,
    guidance: GuidanceOption = None,
    guidance_min: GuidanceMinOption = None,
    guidance_max: GuidanceMaxOption = None,
    window_frames: WindowFramesOption = None,
    window_overlap: WindowOverlapOption = None,
    window_rule: WindowRuleOption = None,
    face_optimization: FaceOptimizationOption = None,
    audio: AudioOption = True,
    as_json: JsonOption = False,
) -> None:
    """Submit a job and print its id; with --out wait for it and save the video.

    Example: animaray jobs submit me.jpg dance.mp4 --out me-dancing.mp4
    """
    check_picture(image)
    check_video(video)
    options: dict[str, Any] = {
        "seed": seed,
        "person": person or None,
        "reference_person": reference_person or None,
        "alignment": alignment,
        "engine": engine,
        "mode": mode,
        "fps": float(fps) if fps and fps.replace(".", "", 1).isdecimal() else fps,
        "num_inference_steps": steps,
        "sampler": sampler,
        "guidance_scale": guidance,
        "guidance_min": guidance_min,
        "guidance_max": guidance_max,
        "window_frames": window_frames,
        "window_overlap": window_overlap,
        "window_rule": window_rule,
        "face_optimization": face_optimization,
        "no_face": no_face or None,
        "audio": None if audio else False,
    }
    given = {name: value for name, value in options.items() if value is not None}
    with AnimarayClient(server, api_key=api_key) as client:
        job = client.submit(image, video, **given)
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
    with AnimarayClient(server, api_key=api_key) as client:
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
    with AnimarayClient(server, api_key=api_key) as client:
        job = client.job(job_id)
        for event in job.events():
            typer.echo(f"{event}")
        job.check_success()


@app.command()
def cancel(
    job_id: JobArgument, server: ServerOption = DEFAULT_SERVER, api_key: KeyOption = None
) -> None:
    """Cancel a job; a running one stops within a step."""
    with AnimarayClient(server, api_key=api_key) as client:
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
    with AnimarayClient(server, api_key=api_key) as client:
        client.job(job_id).save(out)
    print_hint(f"Saved {out}")
