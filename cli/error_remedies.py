"""For every error id: why it comes, what helps, and one example. `animaray explain ID` shows it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to know about one error id beyond its meaning."""

    cause: str
    fix: str
    example: str
    """How it is met, and what then helps."""


REMEDIES: Mapping[str, Remedy] = {
    "AR-BUG-01": Remedy(
        "Something happened that no check foresaw: a fault of animaray or of a package.",
        "Repeat the command with --debug right after `animaray` and report the trace.",
        "animaray --debug curate videos --out dataset",
    ),
    "AR-CFG-01": Remedy(
        "An option, a --set or a --config file names a setting that does not exist or cannot be.",
        "The message names the setting, what it takes and what came; --print-config shows all.",
        "`--set optimizer.lrr=1` is refused; animaray train aligner --print-config shows"
        " `optimizer.lr`.",
    ),
    "AR-DAT-01": Remedy(
        "The folder holds no commit of a curated dataset, files of it are gone or damaged, or the"
        " chosen policy keeps no clip.",
        "Name the folder that `curate --out` wrote; `dataset validate` names each broken promise.",
        "animaray dataset validate dataset",
    ),
    "AR-DSK-01": Remedy(
        "The disk is full, read-only or fails, or you may not write to the folder.",
        "Free space or name a folder on another disk; the same command goes on from there.",
        "animaray cache list shows what may be removed.",
    ),
    "AR-FAC-01": Remedy(
        "The picture shows no face, or one that is too small, turned away or covered.",
        "Take a picture whose face is seen from the front and at least 64 pixels wide; a character"
        " without a human face goes on without an identity by --no-face.",
        "animaray animate portrait.jpg dance.mp4 --dry-run checks a picture without animating it.",
    ),
    "AR-JOB-01": Remedy(
        "A worker was silent for longer than the job's lease, and another one took its job.",
        "Nothing is lost and nothing is to be done: the other worker finishes the job.",
        "Seen in the server's log after a machine was suspended.",
    ),
    "AR-JOB-02": Remedy(
        "You, or somebody with the same key, cancelled the job.",
        "Submit it again if that was a mistake.",
        "animaray jobs submit me.jpg dance.mp4 --out me-dancing.mp4",
    ),
    "AR-JOB-03": Remedy(
        "The server was stopped while the job ran; the job waits in the database.",
        "Start the server with the same --data folder: the job starts again by itself.",
        "animaray serve --weights weights --data serving-data",
    ),
    "AR-JOB-04": Remedy(
        "The process that worked on the job was killed, crashed or hung, each time it was tried.",
        "Look for memory and drivers on the server, then submit the job again.",
        "animaray jobs submit me.jpg dance.mp4 --face-optimization off needs the least memory.",
    ),
    "AR-JOB-05": Remedy(
        "Two requests of one Idempotency-Key came at the same moment.",
        "Send the request again: it returns the job of the first.",
        "Seen by clients that repeat a POST without waiting for its answer.",
    ),
    "AR-JOB-06": Remedy(
        "Other programs on the server took memory while the job ran.",
        "Submit it again later, with fewer frames, or without face optimization.",
        "animaray jobs submit me.jpg dance.mp4 --face-optimization off",
    ),
    "AR-MCH-01": Remedy(
        "A package, a GPU, memory or disk is missing, or the machine was too busy to start Ray.",
        "`doctor` lists what is missing with the command that gets it; what ran goes on with the"
        " same command.",
        "animaray doctor",
    ),
    "AR-MED-01": Remedy(
        "The file is absent, empty, no picture or video, damaged, or larger than the limits.",
        "The message says which. Save or convert the file anew, or name another one.",
        "A text file named clip.mp4 is refused as not a video.",
    ),
    "AR-MED-02": Remedy(
        "Decoding ended the child process that did it: a damaged or hostile file, or no memory.",
        "Try once more; if it happens again, convert the file with a program that you trust.",
        "animaray curate videos --out dataset tries such a file three times and goes on.",
    ),
    "AR-MEM-01": Remedy(
        "The estimate of the work's peak memory is above what is free now.",
        "The message names what would fit: fewer frames, or less face optimization.",
        "animaray animate me.jpg dance.mp4 --weights W --max-frames 16 --face-optimization off",
    ),
    "AR-NET-01": Remedy(
        "Another program listens on the port, or the port needs rights that you do not have.",
        "Take another port, or end the other program.",
        "animaray serve --weights weights --port 8501",
    ),
    "AR-PER-01": Remedy(
        "Several people are in the picture or the video, so it must be said who is meant.",
        "Choose with --person (of the video) and --reference-person (of the picture).",
        "animaray animate us.jpg dance.mp4 --reference-person left --person largest",
    ),
    "AR-POS-01": Remedy(
        "Too few body points are seen, or the body of the video does not fit into the picture.",
        "Take footage that shows at least head, shoulders and hips; look at it with --report.",
        "animaray animate me.jpg dance.mp4 --report report --dry-run",
    ),
    "AR-REF-01": Remedy(
        "A check that protects you from a useless or harmful result said no; nothing was changed.",
        "The message says what was expected and what would be accepted.",
        "animaray animate me.jpg dance.mp4 --dry-run runs every check and writes nothing.",
    ),
    "AR-RUN-01": Remedy(
        "The run folder belongs to another configuration, files are damaged, or workers failed.",
        "Start with the same settings to resume, or take a new --out; the message says which.",
        "animaray train animator --data dataset --out runs/animator-2",
    ),
    "AR-STO-01": Remedy(
        "An object store (s3://, gs://, az://) did not answer, refused the keys, or has no such "
        "bucket.",
        "Set AWS_ENDPOINT_URL, AWS_REGION and the keys in the environment; the same command goes "
        "on where it stopped.",
        "AWS_REGION=eu-west-1 animaray curate videos --out s3://bucket/dataset",
    ),
    "AR-SRV-01": Remedy(
        "The service failed, or does not answer at the address.",
        "Check the address and that the server runs; its log holds the cause by request id.",
        "animaray jobs list --server http://127.0.0.1:8500",
    ),
    "AR-SRV-02": Remedy(
        "The queue is as long as the operator allows.",
        "Wait for as many seconds as Retry-After says; the client does so by itself.",
        "HTTP 503 with `Retry-After: 40`",
    ),
    "AR-SRV-03": Remedy(
        "Your key has as many jobs waiting and running as it may.",
        "Wait for one of them, or cancel one.",
        "animaray jobs list, then animaray jobs cancel JOB",
    ),
    "AR-SRV-04": Remedy(
        "The id is mistyped, the job's time is over, or it is another key's.",
        "List your jobs.",
        "animaray jobs list",
    ),
    "AR-SRV-05": Remedy(
        "The job is still waiting or running.",
        "Follow it until it ends, then download.",
        "animaray jobs watch JOB",
    ),
    "AR-SRV-06": Remedy(
        "An Idempotency-Key was used again with another picture, video or option.",
        "Use a new key for a new request.",
        "A key made of the time of the start, or a random one, never repeats.",
    ),
    "AR-SRV-07": Remedy(
        "The server knows its clients by keys, and none or a wrong one came.",
        "Ask the operator for a key and hand it over with --api-key or ANIMARAY_API_KEY.",
        "animaray jobs list --api-key KEY",
    ),
    "AR-SRV-08": Remedy(
        "A file has more bytes, pixels, frames or seconds than the operator allows.",
        "Send a smaller picture or a shorter video; the message names the limit.",
        "A video of 10 minutes is refused where 60 s are allowed.",
    ),
    "AR-SRV-09": Remedy(
        "The uploaded file is not a picture or video of an accepted kind, whatever its name says.",
        "Convert it to PNG, or to MP4 with H.264.",
        "animaray jobs submit me.png dance.mp4",
    ),
    "AR-SRV-10": Remedy(
        "The server is starting, or its workers cannot load the weights.",
        "Wait a minute; if it stays so, the detail and the server's log say why.",
        "GET /health/ready answers 200 when jobs can run.",
    ),
    "AR-SRV-11": Remedy(
        "A field of the request is missing, unknown, of the wrong type or out of range.",
        "The answer names the field; GET /openapi.json describes all.",
        "`steps=0` is refused: it takes 1 to 1000.",
    ),
    "AR-SRV-12": Remedy(
        "The upload was slower than the operator allows.",
        "Send a smaller file or use a faster line.",
        "HTTP 408 after a long upload",
    ),
    "AR-SRV-13": Remedy(
        "The job failed or was cancelled, or its result was removed after its time.",
        "Look at the job's state; submit it again where it helps.",
        "animaray jobs list --json",
    ),
    "AR-SRV-14": Remedy(
        "The address is not one of this service's.",
        "GET /openapi.json lists all addresses; the API stands under /v1/animations.",
        "GET /v1/animation (without s) is answered so.",
    ),
    "AR-SRV-15": Remedy(
        "The address exists, but not for this HTTP method.",
        "GET /openapi.json says which methods it takes.",
        "POST /v1/animations/JOB/content is answered so: it takes GET.",
    ),
    "AR-SRV-16": Remedy(
        "The request named a host that is not this server's, or came from a page of another site.",
        "Use the server's own address; an operator behind a proxy sets `allowed_hosts`.",
        "http://127.0.0.1:8500 instead of a name that points to it",
    ),
    "AR-USE-01": Remedy(
        "A command, option or path is misspelt or missing.",
        "The message says what came; every command has --help with an example.",
        "animaray animate --help",
    ),
    "AR-WGT-01": Remedy(
        "A weights file is absent, cut short, a Git-LFS pointer, or of another network.",
        "`weights list` says what is needed by whom, `weights pull` fetches what may be fetched.",
        "animaray weights pull --profile permissive",
    ),
}
"""By error id."""
