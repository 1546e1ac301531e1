"""Routes under /binaries and its alias /jars (rest_contract section 3)."""

from __future__ import annotations

from jobserver.api.binary_formats import check_bytes, named_type
from jobserver.api.calls import Call
from jobserver.api.conditions import tagged
from jobserver.api.dates import instant
from jobserver.api.envelopes import Answer, json_answer, ok, text_answer
from jobserver.api.names import check_binary_name
from jobserver.errors import UnsupportedBinaryType
from jobserver.model import BinaryRecord, BinaryType


async def list_binaries(call: Call) -> Answer:
    """GET /binaries"""
    return json_answer({binary.name: _shown(binary) for binary in await call.service.list_binaries()})


async def get_binary(call: Call) -> Answer:
    """GET /binaries/<name>"""
    binary = await call.service.binary(call.name)
    answer = json_answer({"app-name": binary.name, **_shown(binary)})
    return tagged(answer, f"{binary.digest}.{binary.uploaded_at.timestamp():.6f}", call.request.headers)


async def post_binary(call: Call) -> Answer:
    """POST /binaries/<name>: the type comes from the content type, which is checked before the bytes."""
    kind = named_type(call.content_type)
    if kind is None:
        raise UnsupportedBinaryType(f"Unsupported binary type {_rendered(call.content_type)}")
    await _store(call, kind)
    return ok(status=201)


async def post_jar(call: Call) -> Answer:
    """POST /jars/<name> in the words of the oldest clients: whatever content type, a jar, answered with `OK`."""
    await _store(call, named_type(call.content_type) or BinaryType.JAR)
    return text_answer("OK")


async def delete_binary(call: Call) -> Answer:
    """DELETE /binaries/<name>"""
    await call.service.delete_binary(call.name)
    return ok()


async def _store(call: Call, kind: BinaryType) -> None:
    check_binary_name(call.name)
    data = await call.body()
    await check_bytes(kind, data, call.limits)
    await call.service.upload_binary(call.name, kind, data)


def _shown(binary: BinaryRecord) -> dict[str, str]:
    return {"binary-type": binary.type.value, "upload-time": instant(binary.uploaded_at)}


def _rendered(content_type: str | None) -> str:
    return "none/none" if content_type is None else content_type[:200]
