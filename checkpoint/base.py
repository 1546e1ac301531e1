"""Loading: a manifest with its predecessors, checked, becomes what a driver starts from.

Never loads what is proven damaged; trouble of the store passes through as StoreUnavailable and proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from checkpoint import layout
from checkpoint.contents import Contents, adds_nothing, applied
from checkpoint.errors import Corrupt, Damaged, Foreign, Missing
from checkpoint.files import FileStore
from checkpoint.manifest import BaseRef, Manifest, NamedObject, Progress, decode, digest_of
from checkpoint.sealing import persist

LONGEST_CHAIN = 64
"""Deltas followed before a chain counts as broken; writers seal a full manifest at least every 16."""


@dataclass(frozen=True, slots=True)
class LostVersion:
    """A version of a named object that was sealed and cannot be loaded; removed objects have an empty version."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class DamageReport:
    """Proof that a manifest is damaged, and what it cost.

    `lost` is what intact manifests behind it held; `unclaimed` is newer data that lies in the store and that nothing
    loaded names: it was sealed in the damaged manifest, or was being written.
    """

    manifest: str
    why: str
    lost: tuple[LostVersion, ...] = ()
    unclaimed: tuple[LostVersion, ...] = ()

    def __str__(self) -> str:
        return (
            f"manifest {self.manifest} is damaged: {self.why}; behind it was lost: {_listed(self.lost)}; "
            f"data that it may have named: {_listed(self.unclaimed)}"
        )


def _listed(items: Sequence[LostVersion]) -> str:
    return ", ".join(f"{item.name!r} at {item.version or 'its removal'}" for item in items) or "nothing known"


@dataclass(frozen=True, slots=True)
class Base:
    """What an epoch starts from. `name` is None only when nothing was ever sealed.

    `deltas` counts the deltas since the last full manifest; `pinned` is the manifest that `<epoch>-0` was made of;
    `same_as` an older manifest that holds the same, when this one is a pin.
    """

    name: str | None
    objects: Mapping[str, NamedObject] = field(default_factory=dict)
    progress: Mapping[str, Progress] = field(default_factory=dict)
    damaged: tuple[DamageReport, ...] = ()
    digest: str = ""
    deltas: int = 0
    pinned: str | None = None
    same_as: BaseRef | None = None

    @property
    def contents(self) -> Contents:
        return Contents(self.objects, self.progress)

    @property
    def ref(self) -> BaseRef | None:
        return None if self.name is None else BaseRef(self.name, self.digest)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A manifest that was read and found good, with the digest inside it."""

    manifest: Manifest
    digest: str


def read_manifest(files: FileStore, context_id: str, name: str, secret: bytes) -> Sealed:
    """One manifest, checked. Raises Damaged (also when it is absent or lost), UnknownFormat, StoreUnavailable."""
    try:
        data = persist(lambda: files.read(layout.manifest_path(context_id, name)))
    except Missing as error:
        raise Damaged("manifest", name, "it is absent, although listed or named by its successor") from error
    except Corrupt as error:
        raise Damaged("manifest", name, str(error)) from error
    manifest = decode(data, secret, name)
    if manifest.context_id != context_id:
        raise Foreign("manifest", name, f"it belongs to context {manifest.context_id}")
    return Sealed(manifest, digest_of(data))


def load(files: FileStore, context_id: str, manifest_name: str, secret: bytes) -> Base:
    """Exactly this manifest, resolved over its deltas. Raises Damaged with the name of the one that is."""
    chain = _chain(files, context_id, manifest_name, secret)
    contents = Contents()
    for sealed in reversed(chain):
        contents = applied(contents, sealed.manifest)
    return base_of(chain[0], contents, len(chain) - 1)


def base_of(newest: Sealed, contents: Contents, deltas: int) -> Base:
    """What an epoch that starts from this manifest has; `contents` after it, `deltas` since the last full one."""
    manifest = newest.manifest
    return Base(
        manifest.name,
        contents.objects,
        contents.progress,
        digest=newest.digest,
        deltas=deltas,
        pinned=manifest.base.name if manifest.seq == 0 and manifest.base else None,
        same_as=manifest.base if manifest.seq == 0 and adds_nothing(manifest) else None,
    )


def deltas_after(base: Base, manifest: Manifest) -> int:
    """Deltas since the last full manifest, when this one follows on the base, or on what the base is a pin of."""
    if manifest.full:
        return 0
    return base.deltas if manifest.base == base.same_as else base.deltas + 1


def newest_good(files: FileStore, context_id: str, names: Sequence[str], secret: bytes) -> Base:
    """The newest of these manifests that is good with all its predecessors; reports the damage above it.

    Nothing good among them: an empty base. But if one of them is foreign then, the secret is likely the wrong one, and
    starting empty would bury good data: raises Foreign.
    """
    candidates, reports, stranger = sorted(names), list[DamageReport](), None
    while candidates:
        try:
            base = load(files, context_id, candidates[-1], secret)
        except Damaged as damage:
            stranger = stranger or (damage if isinstance(damage, Foreign) else None)
            tail = [name for name in candidates if name > damage.manifest]
            reports.append(DamageReport(damage.manifest, damage.why, _lost(files, context_id, tail, secret)))
            candidates = [name for name in candidates if name < damage.manifest]
        else:
            return _reported(files, context_id, base, reports)
    if stranger is not None:
        raise stranger
    return _reported(files, context_id, Base(None), reports)


def _reported(files: FileStore, context_id: str, base: Base, reports: Sequence[DamageReport]) -> Base:
    """The base with what is known of the damage above it."""
    if not reports:
        return base
    unclaimed = _unclaimed(files, context_id, base, reports[0].manifest)
    return replace(base, damaged=(replace(reports[0], unclaimed=unclaimed), *reports[1:]))


def _unclaimed(files: FileStore, context_id: str, base: Base, damaged: str) -> tuple[LostVersion, ...]:
    """Data of the damaged manifest's epoch or older ones, that is newer than all that the base names."""
    newest = max((item.version for item in base.objects.values()), default="")
    last = layout.parse_pair(damaged)
    folder = layout.objects_folder(context_id)
    found = []
    for owner in persist(lambda: files.names(folder)):
        for version in files.names(f"{folder}/{owner}"):
            numbers = layout.parse_pair(version)
            if numbers and last and numbers[0] <= last[0] and version > newest:
                found.append(LostVersion(layout.text_of(owner) or owner, version))
    return tuple(found)


def _chain(files: FileStore, context_id: str, newest: str, secret: bytes) -> list[Sealed]:
    """The manifest and its predecessors down to a full one, newest first."""
    chain = [read_manifest(files, context_id, newest, secret)]
    while not chain[-1].manifest.full:
        above = chain[-1].manifest
        if above.base is None or above.base.name >= above.name or len(chain) > LONGEST_CHAIN:
            raise Damaged("manifest", above.name, "its predecessors lead to no full manifest")
        below = read_manifest(files, context_id, above.base.name, secret)
        if below.digest != above.base.digest:
            raise Damaged("manifest", above.name, f"{above.base.name} is not the predecessor it was made for")
        chain.append(below)
    return chain


def _lost(files: FileStore, context_id: str, tail: Sequence[str], secret: bytes) -> tuple[LostVersion, ...]:
    """What the manifests behind a damaged one say that they held, as far as they are good themselves."""
    lost: dict[str, str] = {}
    for name in tail:
        try:
            manifest = read_manifest(files, context_id, name, secret).manifest
        except Damaged:
            continue
        lost |= {item.name: item.version for item in manifest.objects.values()}
        lost |= dict.fromkeys(manifest.removed, "")
    return tuple(LostVersion(name, version) for name, version in sorted(lost.items()))
