"""Every route as clients know it: what it is for, what it reads, what it answers. `openapi.py` makes the description of this.

Parameters are the very values that the handlers read requests with; methods and paths come from `routes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jobserver.api import (
    cluster,
    configs,
    contexts,
    data,
    history,
    job_views,
    jobs,
    objects,
    queries,
    schemas,
    submissions,
)
from jobserver.api.binary_formats import MEDIA_TYPES
from jobserver.api.envelopes import JSON, TEXT
from jobserver.api.parameters import Parameter
from jobserver.api.routes import Route
from jobserver.api.schemas import Schema, array, ref
from jobserver.model import ResultFormat

PLAIN = TEXT.split(";", maxsplit=1)[0]
ANYTHING = "*/*"
COLUMNS = (ResultFormat.ARROW.media_type, ResultFormat.PARQUET.media_type)
CONFIGURATION = {JSON: {"type": "object"}, PLAIN: schemas.TEXT}
"""A posted configuration: JSON or HOCON; the content type is not looked at."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `content` None: no body; `others`: types that `Accept` can ask for in the place of `type`."""

    status: int
    meaning: str
    content: Schema | None = None
    type: str = JSON
    headers: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One route. `refusals` are statuses with an error as body; `any_query`: every parameter means something."""

    tag: str
    summary: str
    replies: tuple[Reply, ...]
    refusals: tuple[int, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    headers: tuple[str, ...] = ()
    body: dict[str, Schema] = field(default_factory=dict)
    any_query: bool = False


_OK = ref("Success")
_UPLOAD = {name: {"type": "string", "format": "binary"} for name in MEDIA_TYPES}
_BYTES = {"application/octet-stream": {"type": "string", "format": "binary"}}
_NOT_MODIFIED = Reply(304, "The client has this answer already.", headers=("ETag",))
_SAVE_CONFIG = Operation(
    "configs",
    "Saves a configuration for `POST /jobs?config=<name>`.",
    (Reply(201, "Saved.", _OK), Reply(200, "Saved in the place of an older one.", _OK)),
    (408, 413),
    body=CONFIGURATION,
)
_SAVE_QUERY = Operation(
    "queries",
    "Saves a query for `POST /jobs?query=<name>`: `sql`, and optionally `args` and `context`.",
    (Reply(201, "Saved.", _OK), Reply(200, "Saved in the place of an older one.", _OK)),
    (408, 413),
    body=CONFIGURATION,
)

OPERATIONS: dict[Route, Operation] = {
    Route.LIST_BINARIES: Operation(
        "binaries", "The latest upload of each name.", (Reply(200, "By name.", ref("Binaries")),)
    ),
    Route.GET_BINARY: Operation(
        "binaries",
        "One upload.",
        (Reply(200, "Its latest version.", ref("Binary"), headers=("ETag",)), _NOT_MODIFIED),
        headers=("If-None-Match",),
    ),
    Route.POST_BINARY: Operation(
        "binaries",
        "Uploads code; a name that exists gets a new version, running jobs keep theirs.",
        (Reply(201, "Stored durably.", _OK),),
        (408, 413, 415),
        body=_UPLOAD,
    ),
    Route.POST_JAR: Operation(
        "binaries",
        "Uploads a jar whatever the content type says; the oldest clients' route.",
        (Reply(200, "`OK`", schemas.TEXT, PLAIN),),
        (408, 413),
        body=_BYTES,
    ),
    Route.DELETE_BINARY: Operation(
        "binaries", "Deletes every version of a name.", (Reply(200, "Deleted.", _OK),), (403,)
    ),
    Route.LIST_CONTEXTS: Operation(
        "contexts", "Names of contexts, newest first.", (Reply(200, "Names.", array(schemas.TEXT)),)
    ),
    Route.GET_CONTEXT: Operation(
        "contexts", "The most recent context of a name, ended or not.", (Reply(200, "It.", ref("Context")),)
    ),
    Route.POST_CONTEXT: Operation(
        "contexts",
        "Starts a context. Every query parameter is one of its settings; `spark.context-settings` of the body wins. "
        "`spark.proxy.user` names for whom its Spark works, where `access.proxy_users` of the settings allows it.",
        (Reply(200, "It runs.", _OK),),
        (408, 413),
        body=CONFIGURATION,
        any_query=True,
    ),
    Route.DELETE_CONTEXT: Operation(
        "contexts",
        "Stops a context and its jobs.",
        (
            Reply(200, "Stopped.", _OK),
            Reply(202, "Still stopping; `Location` is where to look.", headers=("Location", "Retry-After")),
        ),
        parameters=(contexts.FORCE, contexts.KEEP),
    ),
    Route.RESET_CONTEXTS: Operation(
        "contexts",
        "Stops every context and starts the configured ones again.",
        (Reply(200, "Done, or with sync=false begun.", _OK),),
        parameters=(contexts.RESET, contexts.SYNC),
    ),
    Route.LIST_OBJECTS: Operation(
        "named objects",
        "Named objects of a running context.",
        (Reply(200, "Objects.", array(ref("NamedObject"))),),
    ),
    Route.GET_OBJECT: Operation(
        "named objects",
        "One named object with its schema.",
        (Reply(200, "It.", ref("NamedObject")), Reply(202, "It is being built anew.", ref("NamedObject"))),
    ),
    Route.POST_OBJECT: Operation(
        "named objects",
        "Builds a named object anew, or goes back to an older version.",
        (
            Reply(200, "Done.", {"anyOf": [ref("NamedObject"), _OK]}),
            Reply(202, "The build goes on.", ref("NamedObject")),
        ),
        parameters=(objects.REFRESH, objects.REVERT, objects.TIMEOUT),
    ),
    Route.DELETE_OBJECT: Operation(
        "named objects", "Destroys a named object.", (Reply(200, "Durably gone.", _OK),)
    ),
    Route.LIST_JOBS: Operation(
        "jobs",
        "Jobs, newest first, without their values.",
        (Reply(200, "Jobs; `Link` leads to the next page.", array(ref("Job")), headers=("Link",)),),
        parameters=jobs.LISTING,
    ),
    Route.GET_JOB: Operation(
        "jobs",
        "One job with its value or error; with `wait`, when it ends or the time is over.",
        (
            Reply(
                200, "It; once it has ended, for good.", ref("Job"), headers=("ETag", "Preference-Applied")
            ),
            _NOT_MODIFIED,
        ),
        parameters=(jobs.WAIT,),
        headers=("If-None-Match", "Prefer"),
    ),
    Route.GET_JOB_CONFIG: Operation(
        "jobs", "The posted configuration of a job.", (Reply(200, "It.", {"type": "object"}),)
    ),
    Route.POST_JOB: Operation(
        "jobs",
        "Submits a job. The body is its configuration; a repetition under one Idempotency-Key gets the same job.",
        (
            Reply(
                200,
                "The value or error of a job that was waited for.",
                ref("JobValue"),
                headers=("Preference-Applied", "X-Job-Id"),
                others=COLUMNS,
            ),
            Reply(202, "Accepted, and never lost.", ref("JobStarted"), headers=("Preference-Applied",)),
        ),
        (406, 408, 409, 413, 422),
        parameters=submissions.PARAMETERS,
        headers=("Idempotency-Key", "Prefer"),
        body=CONFIGURATION,
    ),
    Route.DELETE_JOB: Operation(
        "jobs", "Kills a job.", (Reply(200, "Killed; or the error of one that had failed.", ref("Killed")),)
    ),
    Route.DELETE_JOBS: Operation(
        "jobs",
        "Kills every job of a context that has not ended.",
        (Reply(200, "Ids of those that this killed.", ref("KilledJobs")),),
        parameters=(jobs.ALL_OF,),
    ),
    Route.GET_JOB_HISTORY: Operation(
        "jobs",
        "Every state that a job came to, in the order of its life.",
        (Reply(200, "Its moves.", array(ref("JobMove"))),),
    ),
    Route.GET_PROGRESS: Operation(
        "jobs",
        "How far a job is: what it reports itself, and Spark's stages and tasks.",
        (Reply(200, "Its progress.", ref("JobProgress")),),
    ),
    Route.GET_EVENTS: Operation(
        "jobs",
        "States and progress of a job as server-sent events, until it has ended; any server takes a stream up again.",
        (Reply(200, "Events `state` and `progress`, each with an id.", schemas.TEXT, job_views.EVENTS),),
        parameters=(job_views.LAST_EVENT_ID,),
        headers=("Last-Event-ID",),
    ),
    Route.GET_LOG: Operation(
        "jobs",
        "What a job wrote to stdout, stderr and its log, also while it runs.",
        (
            Reply(
                200, "The output; its whole size is in `X-Log-Size`.", schemas.TEXT, PLAIN, ("X-Log-Size",)
            ),
            Reply(206, "The range that was asked for.", schemas.TEXT, PLAIN, ("Content-Range",)),
            Reply(416, "The output ends before the range begins.", headers=("Content-Range",)),
        ),
        parameters=(job_views.OFFSET, job_views.LIMIT),
        headers=("Range",),
    ),
    Route.GET_RESULT: Operation(
        "jobs",
        "The value of a finished job as it is, streamed when it is large; a DataFrame in the format it was submitted for.",
        (
            Reply(200, "The value.", schemas.ANY, others=COLUMNS),
            Reply(206, "The range that was asked for.", headers=("Content-Range",)),
            Reply(416, "The value ends before the range begins.", headers=("Content-Range",)),
        ),
        (406,),
        headers=("Range",),
    ),
    Route.LIST_CONFIGS: Operation(
        "configs",
        "Saved configurations by name, without their bodies.",
        (Reply(200, "Configs; `Link` leads to the next page.", array(ref("Config")), headers=("Link",)),),
        parameters=(configs.LIMIT, configs.AFTER),
    ),
    Route.GET_CONFIG: Operation(
        "configs", "One saved configuration.", (Reply(200, "It.", {"type": "object"}),)
    ),
    Route.PUT_CONFIG: _SAVE_CONFIG,
    Route.POST_CONFIG: _SAVE_CONFIG,
    Route.DELETE_CONFIG: Operation(
        "configs", "Deletes a saved configuration.", (Reply(200, "Deleted.", _OK),)
    ),
    Route.LIST_QUERIES: Operation(
        "queries",
        "Saved queries by name.",
        (Reply(200, "Queries; `Link` leads to the next page.", array(ref("Query")), headers=("Link",)),),
        parameters=(queries.LIMIT, queries.AFTER),
    ),
    Route.GET_QUERY: Operation("queries", "One saved query.", (Reply(200, "It.", ref("Query")),)),
    Route.PUT_QUERY: _SAVE_QUERY,
    Route.POST_QUERY: _SAVE_QUERY,
    Route.DELETE_QUERY: Operation("queries", "Deletes a saved query.", (Reply(200, "Deleted.", _OK),)),
    Route.LIST_OPERATIONS: Operation(
        "server",
        "What operators and clients did to the cluster, newest first.",
        (Reply(200, "Operations.", array(ref("Operation"))),),
        parameters=(history.LIMIT,),
    ),
    Route.LIST_DATA: Operation(
        "data", "Paths of data files, as jobs open them.", (Reply(200, "Paths.", array(schemas.TEXT)),)
    ),
    Route.POST_DATA: Operation(
        "data",
        "Uploads a data file; the name in the path begins its name.",
        (Reply(200, "Stored durably.", ref("DataFile")),),
        (408, 413),
        body=_BYTES,
    ),
    Route.DELETE_DATA: Operation(
        "data",
        "Deletes a data file by its percent-encoded path.",
        (Reply(200, "`OK`, which is no JSON whatever the content type says.", schemas.ANY),),
    ),
    Route.RESET_DATA: Operation(
        "data",
        "Deletes every data file.",
        (Reply(200, "Done.", _OK),),
        parameters=(data.RESET, data.SYNC),
    ),
    Route.HEALTH: Operation(
        "server",
        "200 when this server can serve, with what it does without; else 500.",
        (Reply(200, "Well.", ref("Health")),),
    ),
    Route.STATUSZ: Operation(
        "server",
        "The operator's own page: `statusz.html` of the server's working directory.",
        (Reply(200, "HTML.", schemas.TEXT, "text/html"),),
    ),
    Route.METRICZ: Operation(
        "server",
        "Metrics as monitors of existing servers read them.",
        (Reply(200, "JSON, under a text type.", schemas.TEXT, PLAIN),),
    ),
    Route.PROMETHEUS: Operation(
        "server", "Metrics for Prometheus.", (Reply(200, "Its text format.", schemas.TEXT, PLAIN),)
    ),
    Route.CLUSTER: Operation(
        "server", "Servers, leader, and who owns what.", (Reply(200, "The picture.", ref("Cluster")),)
    ),
    Route.SWITCHOVER: Operation(
        "server",
        "Moves a context to another server; answered when it runs there.",
        (Reply(200, "It has moved.", {"type": "object"}),),
        (409,),
        parameters=(cluster.TO, cluster.GRACE, cluster.KEEP_DRIVER),
    ),
    Route.DRAIN: Operation(
        "server",
        "Moves every context of a server away; it gets no new ones.",
        (Reply(202, "Begun; `GET /cluster` shows how far it is.", {"type": "object"}),),
        (409,),
        parameters=(cluster.GRACE, cluster.KEEP_DRIVERS),
    ),
    Route.UNDRAIN: Operation(
        "server",
        "Lets a drained server own contexts again.",
        (Reply(200, "It does.", {"type": "object"}),),
        (409,),
    ),
    Route.OPENAPI: Operation(
        "server", "This description.", (Reply(200, "OpenAPI 3.1.", {"type": "object"}),)
    ),
    Route.PAGE: Operation(
        "server", "A page that shows the cluster.", (Reply(200, "HTML.", schemas.TEXT, "text/html"),)
    ),
    Route.DOCS: Operation(
        "server", "To the page of this description.", (Reply(302, "Where it is.", headers=("Location",)),)
    ),
}
"""Every route but the files that pages are made of."""
