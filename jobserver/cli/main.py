"""The commands and their options. Nothing but typer is imported until a command runs: the start must be quick.

Errors of the product end a command with their sentence on stderr and exit code 1.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobserver.cli.operators import ConfigOption, JsonOption, checkpoint_app, config_app, db_app
from jobserver.errors import JobServerError

if TYPE_CHECKING:
    from jobserver.cli import moves

app = typer.Typer(
    help="Shared, long-lived Spark contexts that survive the death of their server and driver.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.add_typer(config_app, name="config")
app.add_typer(db_app, name="db")
app.add_typer(checkpoint_app, name="checkpoint")


ServersOption = Annotated[int, typer.Option(min=1, max=9, help="How many servers.")]
PortOption = Annotated[
    int, typer.Option(min=1, max=65000, help="Port of the first server; the others follow.")
]
StandbyOption = Annotated[
    Literal["cold", "warm", "hot"] | None,
    typer.Option(help="What standbys keep ready; overrides the settings."),
]
UrlOption = Annotated[
    str,
    typer.Option(envvar="JOBSERVER_URL", help="Any server of the cluster; of several the first is asked."),
]
GraceOption = Annotated[
    str, typer.Option(help="How long running jobs have to end, like 30s; then they run again elsewhere.")
]
DEFAULT_URL = "http://127.0.0.1:8090"
DEFAULT_URLS = [DEFAULT_URL]
UrlsOption = Annotated[
    list[str],
    typer.Option(
        envvar="JOBSERVER_URL",
        help="A server of the cluster; repeatable: the next one is asked when one is away.",
    ),
]
ContextOption = Annotated[str | None, typer.Option(help="A running context; default: one for this job.")]
SyncOption = Annotated[bool, typer.Option("--sync", help="Wait for the result, with a progress bar.")]
TimeoutOption = Annotated[
    float | None, typer.Option(min=0.1, help="Seconds to wait; default: as long as it takes.")
]


@app.callback()
def options(
    user: Annotated[
        str | None,
        typer.Option(
            envvar="JOBSERVER_USER",
            help="Who asks, where servers want to know; the password is asked for, or JOBSERVER_PASSWORD has it.",
        ),
    ] = None,
) -> None:
    """Shared, long-lived Spark contexts that survive the death of their server and driver."""
    if user is not None:
        os.environ["JOBSERVER_USER"] = user


@app.command()
def serve(config: ConfigOption) -> None:
    """Run one server."""
    from jobserver.cli import serve

    serve.serve(config)


@app.command()
def up(
    servers: ServersOption = 3,
    port: PortOption = 8090,
    directory: Annotated[
        Path, typer.Option("--dir", help="Where the cluster keeps its data; re-use it to go on.")
    ] = Path("cluster"),
    standby: StandbyOption = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings for all servers; `up` sets ports, paths and ZooKeeper.")
    ] = None,
    mysql: Annotated[
        bool,
        typer.Option("--mysql", help="Keep the metadata in a MariaDB of the cluster's own, not in SQLite."),
    ] = False,
    hdfs: Annotated[
        bool, typer.Option("--hdfs", help="Keep checkpoints in an HDFS of the cluster's own.")
    ] = False,
) -> None:
    """Run a cluster on this machine until Ctrl-C: ZooKeeper and some servers."""
    from jobserver.cli import up

    sys.exit(up.run(directory, servers, port, standby, config, mysql=mysql, hdfs=hdfs))


@app.command()
def demo(
    servers: Annotated[int, typer.Option(min=3, max=9, help="How many servers; two of them will die.")] = 3,
    port: PortOption = 8090,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where to keep the data; default: a temporary directory.")
    ] = None,
    standby: StandbyOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster up until Ctrl-C.")] = False,
) -> None:
    """Watch a cluster lose servers and drivers, and no data. Takes about a minute."""
    from jobserver.cli import demo

    sys.exit(demo.run(directory, servers, port, standby, keep=keep))


@app.command()
def status(
    url: UrlOption = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is.")] = False,
) -> None:
    """Show servers, contexts, owners, drivers and the last failovers."""
    from jobserver.cli import status

    status.show(url, as_json=as_json)


@app.command()
def switchover(
    context: Annotated[str, typer.Argument(help="Name of the context.")],
    to: Annotated[str | None, typer.Option(help="The server that shall own it; default: the best.")] = None,
    grace: GraceOption = "30s",
    keep_driver: Annotated[
        bool, typer.Option("--keep-driver", help="Only the owner changes; it adopts the driver where it is.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Move a context to another server; no request fails and no job is lost."""
    from jobserver.cli import moves

    _told(moves.switchover(url, context, to, grace, keep_driver=keep_driver), as_json=as_json)


@app.command()
def drain(
    server: Annotated[str, typer.Argument(help="Id of the server.")],
    grace: GraceOption = "30s",
    keep_drivers: Annotated[
        bool, typer.Option("--keep-drivers", help="Only the owners change; drivers go on where they are.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Return when the server owns nothing any more.")] = True,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Move every context of a server to others, and give it none until it is undrained or restarted."""
    from jobserver.cli import moves

    _told(moves.drain(url, server, grace, keep_drivers=keep_drivers, wait=wait), as_json=as_json)


@app.command()
def undrain(
    server: Annotated[str, typer.Argument(help="Id of the server.")],
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
) -> None:
    """Let a drained server take contexts again."""
    from jobserver.cli import moves

    _told(moves.undrain(url, server), as_json=as_json)


def _told(done: moves.Done, *, as_json: bool) -> None:
    from jobserver.cli import jobs

    jobs.tell(done.sentence, done.value, as_json=as_json)


@app.command()
def submit(
    code: Annotated[
        str, typer.Argument(help="A file of code to upload first, or the name of an upload, or an address.")
    ],
    main: Annotated[str, typer.Option(help="package.module.Class or package.module:function.")],
    context: ContextOption = None,
    conf: Annotated[
        list[str] | None, typer.Option(help="key=value of the configuration; repeatable.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration, HOCON or JSON.", exists=True, dir_okay=False)
    ] = None,
    sync: SyncOption = False,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Run a job. Exit code 3: it failed, 4: it was killed, 5: the time is over and it goes on."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client
    from jobserver.client import Work

    work = Work(main, context=context, config=jobs.configuration(config, conf or []))
    sys.exit(jobs.submit(client(url), code, work, sync=sync, seconds=timeout, as_json=as_json))


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SQL statement, over tables and named objects.")],
    context: ContextOption = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Rows at most; default: 10,000.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the rows: .parquet, .arrow or .json.", dir_okay=False)
    ] = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Run a query and print its rows, or write them to a file."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client
    from jobserver.client import Work

    work = Work(sql=statement, context=context, parameters={"limit": limit})
    if out is not None:
        sys.exit(jobs.save(client(url), work, out, seconds=timeout, as_json=as_json))
    sys.exit(jobs.run(client(url), work, sync=True, seconds=timeout, as_json=as_json))


@app.command("jobs")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    state: Annotated[str | None, typer.Option("--status", help="Only jobs in this state.")] = None,
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """List jobs, newest first."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client

    jobs.show_jobs(client(url), limit, state, as_json=as_json)


@app.command()
def contexts(as_json: JsonOption = False, url: UrlsOption = DEFAULT_URLS) -> None:
    """List the contexts that live."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client

    jobs.show_contexts(client(url), as_json=as_json)


@app.command()
def binaries(as_json: JsonOption = False, url: UrlsOption = DEFAULT_URLS) -> None:
    """List uploads."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client

    jobs.show_binaries(client(url), as_json=as_json)


@app.command()
def upload(
    file: Annotated[
        Path, typer.Argument(help="A .jar, .egg, .whl, .zip or .py.", exists=True, dir_okay=False)
    ],
    name: Annotated[
        str | None, typer.Option(help="Its name; default: the file's, without its ending.")
    ] = None,
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Upload code; jobs that are submitted from now on use it."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client

    stored = client(url).upload(file, name)
    jobs.tell(f"{file} is uploaded as {stored}.", {"binary": stored}, as_json=as_json)


@app.command()
def create(
    context: Annotated[str, typer.Argument(help="Name of the context; a letter first.")],
    conf: Annotated[list[str] | None, typer.Option(help="key=value of its settings; repeatable.")] = None,
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Start a context; returns when it runs."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client

    client(url, jobs.START_PATIENCE).create_context(context, jobs.pairs(conf or []))
    jobs.tell(f"Context {context} runs.", {"context": context, "state": "RUNNING"}, as_json=as_json)


@app.command()
def delete(
    context: Annotated[str, typer.Argument(help="Name of the context.")],
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Stop a context and its jobs. Its named objects go with it."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client

    ended = client(url, jobs.START_PATIENCE).delete_context(context)
    words = f"Context {context} has ended." if ended else f"Context {context} is stopping."
    jobs.tell(words, {"context": context, "ended": ended}, as_json=as_json)


@app.command()
def kill(
    job: Annotated[str, typer.Argument(help="Id of the job.")],
    as_json: JsonOption = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Kill a job."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client

    client(url).kill(job)
    jobs.tell(f"Job {job} is killed.", {"jobId": job, "status": "KILLED"}, as_json=as_json)


@app.command()
def logs(
    job: Annotated[str, typer.Argument(help="Id of the job.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Pieces as JSON, one a line.")] = False,
    url: UrlsOption = DEFAULT_URLS,
) -> None:
    """Print what a job wrote."""
    from jobserver.cli import jobs
    from jobserver.cli.credentials import client

    jobs.follow_log(client(url), job, follow=follow, as_json=as_json)


def main() -> None:
    """Entry point of the command."""
    try:
        app()
    except JobServerError as error:
        typer.echo(error.message, err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
