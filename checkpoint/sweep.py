"""Carrying out retention: lists, asks `retention`, removes. Started by the current writer alone (`CheckpointWriter.sweep`).

The plan is made before anything is listed. What was handed out after it is asked for again at the last moment
(`is_fresh`), so a sweep that was frozen for hours still removes nothing that is new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from checkpoint import layout
from checkpoint.base import read_manifest
from checkpoint.contents import Contents
from checkpoint.epoch import list_manifests
from checkpoint.errors import Damaged
from checkpoint.fence import Marker, markers_in
from checkpoint.files import FileStore
from checkpoint.manifest import Manifest
from checkpoint.retention import keep_manifests, named_paths, removable_markers


@dataclass(frozen=True, slots=True)
class Plan:
    """What the writer knows when it starts to sweep: its marker, its newest acknowledged manifest, its contents."""

    context_id: str
    mine: Marker
    acknowledged: str
    contents: Contents
    in_use: frozenset[str]


def carry_out(
    files: FileStore,
    plan: Plan,
    secret: bytes,
    is_fresh: Callable[[str], bool],
    check: Callable[[], None],
) -> tuple[str, ...]:
    """Remove what the plan allows and answer the paths, manifests first: data goes after all that names it.

    `check` raises Superseded once a later epoch has begun. It is called when all is listed: what is listed is older than the
    marker of an epoch that begins after it, so nothing of that one is removed, however long this sweeper sleeps.
    """
    readable: dict[str, Manifest | None] = {}

    def manifest(name: str) -> Manifest | None:
        if name not in readable:
            readable[name] = _good(files, plan.context_id, name, secret)
        return readable[name]

    kept = keep_manifests(list_manifests(files, plan.context_id), plan.acknowledged, manifest)
    if kept is None:
        return ()
    stay = [manifest(name) for name in kept.manifests]
    removed = [layout.manifest_path(plan.context_id, name) for name in kept.removable]
    removed += _old_markers(files, plan)
    emptied: list[str] = []
    if (
        None not in stay
    ):  # else a damaged one among them may name anything: all data stays until it has aged out
        named = named_paths([one for one in stay if one is not None], plan.contents)
        data, emptied = _data(files, plan, named, is_fresh)
        removed += data
    check()
    for path in removed:
        files.remove(path)
    for folder in emptied:
        files.discard_unfinished(folder)
        files.remove_empty(folder)
    for folder in (layout.manifest_folder(plan.context_id), layout.marker_folder(plan.context_id)):
        files.discard_unfinished(folder)
    return tuple(removed)


def _good(files: FileStore, context_id: str, name: str, secret: bytes) -> Manifest | None:
    try:
        return read_manifest(files, context_id, name, secret).manifest
    except Damaged:
        return None


def _old_markers(files: FileStore, plan: Plan) -> list[str]:
    markers = markers_in(files.names(layout.marker_folder(plan.context_id)))
    return [
        layout.marker_path(plan.context_id, marker.epoch, marker.token)
        for marker in removable_markers(markers, plan.mine)
    ]


def _data(
    files: FileStore, plan: Plan, named: frozenset[str], is_fresh: Callable[[str], bool]
) -> tuple[list[str], list[str]]:
    """Paths of all data that was there before the plan, is not named and not in use; and the folders of jobs that are empty then.

    Those for which anything is in use stay, as somebody may be about to write there; those of objects, too: their names come
    again, and they may be shared with another user of the store.
    """
    data, emptied = list[str](), list[str]()
    for top in ("objects", "progress"):
        for owner in files.names(layout.in_context(plan.context_id, top)):
            folder = f"{top}/{owner}"
            names = files.names(layout.in_context(plan.context_id, folder))
            gone = [name for name in names if _is_litter(folder, name, plan, named, is_fresh)]
            data += [layout.in_context(plan.context_id, f"{folder}/{name}") for name in gone]
            if (
                top == "progress"
                and gone == names
                and not any(path.startswith(f"{folder}/") for path in plan.in_use)
            ):
                emptied.append(layout.in_context(plan.context_id, folder))
    return data, emptied


def _is_litter(
    folder: str, name: str, plan: Plan, named: frozenset[str], is_fresh: Callable[[str], bool]
) -> bool:
    path = f"{folder}/{name}"
    used = {name, path} & plan.in_use or path in named or is_fresh(name) or is_fresh(path)
    return _ours(folder, name, plan) and not used


def _ours(folder: str, name: str, plan: Plan) -> bool:
    """Nothing that a later epoch made, and nothing whose name we did not give."""
    numbers = layout.parse_pair(name)
    return numbers is not None and (layout.is_progress(folder) or numbers[0] <= plan.mine.epoch)
