"""JSON schemas of what the API answers, as OpenAPI 3.1 takes them. Pure data.

Objects may have more keys than these name: clients must pass over what they do not know.
"""

from __future__ import annotations

from typing import Any

from jobserver.model import BinaryType, ContextState, JobState

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
ANY: Schema = {}


def ref(name: str) -> Schema:
    """A reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Schema) -> Schema:
    """A list of such."""
    return {"type": "array", "items": items}


def record(needed: dict[str, Schema], **more: Schema) -> Schema:
    """An object with these keys; `more` may be missing."""
    return {"type": "object", "required": list(needed), "properties": {**needed, **more}}


def nullable(schema: Schema) -> Schema:
    """Such, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


_BINARY: dict[str, Schema] = {
    "binary-type": {"type": "string", "enum": [kind.value for kind in BinaryType]},
    "upload-time": {"type": "string", "format": "date-time"},
}
_JOB: dict[str, Schema] = {
    "jobId": TEXT,
    "startTime": {"type": "string", "format": "date-time"},
    "classPath": TEXT,
    "context": TEXT,
    "contextId": TEXT,
    "duration": {"type": "string", "examples": ["6.341 secs", "Job not done yet"]},
    "status": {"type": "string", "enum": ["STARTED", *(state.value for state in JobState)]},
}

SCHEMAS: dict[str, Schema] = {
    "Error": {
        "description": "What went wrong: one sentence, or message, class and stack of an error.",
        **record(
            {"status": TEXT, "result": {"anyOf": [TEXT, ref("Exception")]}},
            jobId={"type": "string", "description": "The job that goes on although the wait is over."},
        ),
    },
    "Exception": record({"message": nullable(TEXT), "errorClass": TEXT, "stack": TEXT}),
    "Success": record({"status": {"const": "SUCCESS"}}, result=TEXT),
    "Health": record({"status": {"const": "SUCCESS"}}, degraded=array(TEXT)),
    "Binary": record({"app-name": TEXT, **_BINARY}),
    "Binaries": {"type": "object", "additionalProperties": record(_BINARY)},
    "Context": record(
        {
            "id": TEXT,
            "name": TEXT,
            "startTime": {"type": "string", "format": "date-time"},
            "endTime": {"type": "string", "description": "`Empty` while the context lives."},
            "state": {"type": "string", "enum": [state.value for state in ContextState]},
        },
        applicationId=TEXT,
        url=TEXT,
        epoch=WHOLE,
        owner=nullable(TEXT),
        standbys=array({"type": "object"}),
        lastFailover=nullable(record({"at": TEXT, "kind": TEXT, "seconds": NUMBER}, damage=array(TEXT))),
        data=nullable(
            record(
                {
                    "objects": WHOLE,
                    "damaged": array(TEXT),
                    "behind": record({"objects": WHOLE, "seconds": NUMBER}),
                    "warming": record({"done": WHOLE, "of": WHOLE}),
                }
            )
        ),
    ),
    "NamedObject": record({"name": TEXT, "kind": TEXT, "version": TEXT}),
    "Job": record(_JOB, result={"description": "The value of a finished job, or the error of a failed one."}),
    "JobStarted": record(_JOB),
    "JobValue": {
        "description": "A finished job's value, or status and error of one that failed.",
        **record({"jobId": TEXT}, status=TEXT, result=ANY),
    },
    "Killed": record({"status": {"enum": ["KILLED", "ERROR"]}}, ERROR=ref("Exception")),
    "KilledJobs": record({"status": {"const": "KILLED"}, "jobs": array(TEXT)}),
    "JobMove": record(
        {
            "attempt": WHOLE,
            "state": {"type": "string", "enum": [state.value for state in JobState]},
            "at": {"type": "string", "format": "date-time"},
            "server": TEXT,
            "epoch": nullable(WHOLE),
            "reason": nullable(TEXT),
        }
    ),
    "Query": record(
        {
            "name": TEXT,
            "sql": TEXT,
            "args": {"type": "object"},
            "context": nullable(TEXT),
            "principal": TEXT,
            "createdAt": {"type": "string", "format": "date-time"},
            "changedAt": {"type": "string", "format": "date-time"},
        }
    ),
    "JobProgress": record(
        {
            "jobId": TEXT,
            "status": {"type": "string", "enum": [state.value for state in JobState]},
            "attempt": WHOLE,
            "fraction": nullable({"type": "number", "minimum": 0, "maximum": 1}),
            "message": TEXT,
            "sparkJobs": ref("Counts"),
            "stages": ref("Counts"),
            "tasks": ref("Counts"),
            "activeStages": array(record({"id": WHOLE, "name": TEXT, "tasks": ref("Counts")})),
        }
    ),
    "Counts": record({"total": WHOLE, "done": WHOLE, "active": WHOLE, "failed": WHOLE}),
    "Config": record(
        {
            "name": TEXT,
            "principal": TEXT,
            "createdAt": {"type": "string", "format": "date-time"},
            "changedAt": {"type": "string", "format": "date-time"},
        }
    ),
    "Operation": record(
        {
            "at": {"type": "string", "format": "date-time"},
            "principal": TEXT,
            "action": TEXT,
            "target": TEXT,
            "detail": {"type": "object"},
            "server": TEXT,
        }
    ),
    "DataFile": record({"result": record({"filename": TEXT})}),
    "Cluster": record(
        {
            "servers": array({"type": "object"}),
            "leader": nullable(TEXT),
            "contexts": array({"type": "object"}),
        }
    ),
}
