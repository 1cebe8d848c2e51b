"""`animaray keys`: make, list and revoke the API keys of a server."""

from pathlib import Path
from typing import Annotated

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.serving.config import DEFAULT_KEY_FILE
from animaray.serving.http.tenants import add_key, read_key_file, revoke_key

app = typer.Typer(
    help="Hand out keys to a server, each to one tenant, and take them back; a running server"
    " notices at once.",
    no_args_is_help=True,
)

FileOption = Annotated[
    Path, typer.Option("--file", "-f", help="Key file, as for `animaray serve --api-keys`")
]
TenantArgument = Annotated[
    str, typer.Argument(help="Who the key is for: one name, which sees its own jobs only")
]


@app.command()
def new(
    tenant: TenantArgument, file: FileOption = DEFAULT_KEY_FILE, as_json: JsonOption = False
) -> None:
    """Make a tenant's key and print it, once: the file holds only its SHA-256.

    Example: animaray keys new me
    """
    key = add_key(file, tenant)
    if as_json:
        print_json({"tenant": tenant, "key": key, "file": str(file)})
    else:
        typer.echo(key)
    print_hint(
        f"{file} has a key for `{tenant}`; it cannot be shown again. The server takes it with"
        f" `--api-keys {file}`, clients send it with ANIMARAY_API_KEY or `--api-key`."
    )


@app.command("list")
def list_(file: FileOption = DEFAULT_KEY_FILE, as_json: JsonOption = False) -> None:
    """List the tenants that have a key."""
    digests = read_key_file(file)
    if as_json:
        rows = [{"tenant": tenant, "sha256": digest} for tenant, digest in digests.items()]
        print_json({"keys": rows})
        return
    rows_shown = [(tenant, f"{digest[:12]}...") for tenant, digest in digests.items()]
    print_table("API keys", ("tenant", "SHA-256 of the key"), rows_shown)


@app.command()
def revoke(tenant: TenantArgument, file: FileOption = DEFAULT_KEY_FILE) -> None:
    """Take a tenant's key back; the tenant's jobs stay where they are.

    Example: animaray keys revoke me
    """
    revoke_key(file, tenant)
    left = len(read_key_file(file))
    print_hint(
        f"Revoked the key of `{tenant}`; {left} left in {file}."
        + ("" if left else " A running server lets nobody in now.")
    )
