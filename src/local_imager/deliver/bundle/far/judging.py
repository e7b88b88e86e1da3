"""What of a bundle may become visible: each item is judged by its documents, before its layers.

An image passes the same gate as always, under this site's policy. An asset or a document has no
signature of its own: somebody has to vouch for the bundle. What an item says it consists of is
compared with what its own manifests say, so that nothing is found missing after it was named.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from local_imager.deliver.bundle.far.staged import BundleSource, StagedFiles
from local_imager.deliver.bundle.form.model import Bundle, Item
from local_imager.errors import (
    InputError,
    LocalImagerError,
    NotFound,
    SettingsError,
    SourceError,
    VerificationRefused,
)
from local_imager.events import EventSink, printable
from local_imager.oci.model import (
    MAX_MANIFEST_BYTES,
    MEDIA_EMPTY,
    Descriptor,
    Digest,
    Manifest,
    Reference,
    parse_manifest,
)
from local_imager.oci.names import attached_to, fallback_tag
from local_imager.profile.assetname import AssetName
from local_imager.profile.version import TalosVersion
from local_imager.sources.keep import ATTACHED_SUFFIXES
from local_imager.sources.locate import UNNAMED
from local_imager.sources.memory import LogMemory
from local_imager.sources.outline import Outline, outline_image
from local_imager.sources.trust import TrustPolicy
from local_imager.sources.verify import verify_image
from local_imager.store.records import (
    ANNOTATION_BUILD_KEY,
    ANNOTATION_PRIVATE,
    StoredAsset,
    stored_asset,
)

# A build record and a log, each perhaps signed; more is not one of ours.
MAX_ATTACHED: Final = 256
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

Verdict = Literal["accepted", "refused", "unreadable"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found about one item from its documents.

    ``unreadable``: a document of it is missing or damaged, so nothing can be said yet. ``needs``
    are the blobs besides documents that it takes, ``private`` those that only their owner may
    read. ``outline`` are an image's manifests; ``entry`` is an asset's in the index, ``attached``
    are the manifests that belong to it, by what they are attached to; ``layer`` is a document's
    file.
    """

    item: Item
    verdict: Verdict
    code: str = ""
    message: str = ""
    hint: str = ""
    tried: tuple[str, ...] = ()
    signer: str = ""
    policy: str = ""
    unverified: bool = False
    needs: frozenset[Digest] = frozenset()
    private: frozenset[Digest] = frozenset()
    outline: Outline | None = None
    entry: Descriptor | None = None
    layer: Descriptor | None = None
    attached: tuple[tuple[Digest, tuple[Descriptor, ...]], ...] = ()


class QuietMemory(LogMemory):
    """Compares with what was accepted before, and remembers nothing: nothing is named yet."""

    def remember(self, reference: object, digest: object, accepted: object) -> None:
        """Leave the memory as it is."""


@dataclass
class Judge:
    """Judges the items of one bundle.

    ``voucher`` are the signer and the rule by which its assets and documents count; None for
    nobody, and then ``unvouched`` says why.
    """

    bundle: Bundle
    files: StagedFiles
    policy: TrustPolicy
    voucher: tuple[str, str] | None
    unvouched: str
    memory: LogMemory | None
    sink: EventSink
    source: BundleSource = field(init=False)

    def __post_init__(self) -> None:
        self.source = BundleSource(self.files)

    def judge(self, item: Item) -> Judgement:
        """Return what may happen with an item; raises only for faults of this machine."""
        for digest in item.blobs:
            if self.bundle.by_digest[digest].document and self.files.size(digest) is None:
                text = f"its document {digest.short} is damaged or missing"
                return Judgement(item, "unreadable", "document", text)
        try:
            if item.kind == "image":
                return self._image(item)
            if self.voucher is None:
                return Judgement(item, "refused", "unvouched", self.unvouched)
            return self._asset(item) if item.kind == "asset" else self._document(item)
        except SettingsError:  # a policy that cannot be asked refuses nobody
            raise
        except (VerificationRefused, SourceError, InputError) as error:
            return _refused(item, error)

    def _image(self, item: Item) -> Judgement:
        reference = Reference.parse(item.name)
        if str(reference) != item.name or not (reference.tag or reference.digest):
            raise _malformed(f"{item.name!r} is not the full name of an image")
        if attached_to(reference.tag) is not None:
            # Any signed image under it would take the place of another image's signatures.
            raise _malformed("its tag is one under which signatures are kept")
        found = self.source.resolve(reference)
        if found.digest != item.descriptor.digest:
            raise _malformed(f"bundle.json and index.json name two images {item.name}")
        image = verify_image(
            self.source, reference, found, self.policy, sink=self.sink, memory=self.memory
        )
        outline = outline_image([self.source], reference, found.digest, item.arches)
        layers = (
            blob
            for one in outline.manifests
            if isinstance(one, Manifest)
            for blob in (one.config, *one.layers)
        )
        return Judgement(
            item,
            "accepted",
            signer=image.signer,
            policy=image.policy,
            unverified=image.unverified,
            needs=self._needs(item, layers, self._of_attachments(item, reference, outline)),
            outline=outline,
        )

    def _of_attachments(
        self, item: Item, reference: Reference, outline: Outline
    ) -> Iterator[Descriptor]:
        """Yield the blobs of what is attached to an image, and to that, as far as it lists them."""
        waiting, seen = list(outline.subjects), set(outline.subjects)
        found = list(outline.attestations)
        while waiting or found:
            for entry in found:
                if entry.digest in seen or entry.digest not in item.blobs:
                    continue
                seen.add(entry.digest)
                waiting.append(entry.digest)
                if self.bundle.by_digest[entry.digest].document:
                    manifest = self._manifest(entry)
                    yield from (manifest.config, *manifest.layers)
            found = list(self._attached_to(reference, waiting.pop())) if waiting else []

    def _attached_to(self, reference: Reference, subject: Digest) -> Iterator[Descriptor]:
        yield from self.source.referrers(reference, subject)
        for suffix in ATTACHED_SUFFIXES:
            with contextlib.suppress(NotFound):
                yield self.source.resolve(reference.with_tag(f"{fallback_tag(subject)}.{suffix}"))

    def _needs(
        self, item: Item, named: Iterable[Descriptor], attached: Iterable[Descriptor] = ()
    ) -> frozenset[Digest]:
        """Return what an item takes besides documents: it lists all of that, and nothing else."""
        known = set()
        for blob in named:
            known.add(blob.digest)
            listed = self.bundle.by_digest.get(blob.digest)
            if listed is None or blob.digest not in item.blobs:
                raise _malformed(f"the bundle does not list {blob.digest.short}, which it needs")
            if listed.size_bytes != blob.size_bytes:
                raise _malformed(f"two sizes are told of its blob {blob.digest.short}")
        known.update(blob.digest for blob in attached)
        blobs = [self.bundle.by_digest[digest] for digest in item.blobs]
        known |= {blob.rebuild.payload for blob in blobs if blob.rebuild and blob.digest in known}
        needed = frozenset(blob.digest for blob in blobs if not blob.document)
        if not needed <= known:  # it would come into the store with a name that says nothing of it
            stray = min(needed - known)
            raise _malformed(f"it lists {stray.short}, which no manifest of it names")
        return needed

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        data = self.files.read(descriptor.digest, MAX_MANIFEST_BYTES)
        manifest = parse_manifest(data, descriptor.media_type, f"manifest {descriptor.digest}")
        if not isinstance(manifest, Manifest):
            raise _malformed("it is an index of several")
        return manifest

    def _entry(self, item: Item) -> Descriptor:
        for entry in self.source.entries:
            if entry.ref_name == item.name and entry.digest == item.descriptor.digest:
                return entry
        raise _malformed("index.json of the bundle does not name it")

    def _asset(self, item: Item) -> Judgement:
        entry = self._entry(item)
        manifest = self._manifest(entry)
        asset = stored_asset(entry, manifest, Path())
        if asset is None or asset.name != item.name:
            raise _malformed("its manifest is not that of an asset of this name")
        if entry.annotations.get(ANNOTATION_BUILD_KEY, "") != asset.build_key:
            raise _malformed("its manifest gives it another build key")
        _check_asset(asset)
        attached = tuple(self._attached(item))
        more = [self._manifest(one) for _, found in attached for one in found]
        blobs = [blob for one in (manifest, *more) for blob in (one.config, *one.layers)]
        return self._vouched(
            item,
            needs=self._needs(item, blobs),
            private=_private(blobs) if asset.private else frozenset(),
            entry=asset.entry(),
            attached=attached,
        )

    def _vouched(self, item: Item, **found: Any) -> Judgement:
        signer, policy = self.voucher or ("", "")
        return Judgement(item, "accepted", signer=signer, policy=policy, **found)

    def _attached(self, item: Item) -> Iterator[tuple[Digest, tuple[Descriptor, ...]]]:
        """Yield what is attached to an asset, and to that, as far as the item lists it."""
        waiting, count = [item.descriptor.digest], 0
        while waiting:
            subject = waiting.pop()
            listed = self.source.referrers(UNNAMED, subject)
            found = tuple(one for one in listed if one.digest in item.blobs)
            count += len(found)
            if count > MAX_ATTACHED:
                raise _malformed(f"more than {MAX_ATTACHED} documents are attached to it")
            for one in found:
                named = self._manifest(one).subject
                if named is None or named.digest != subject:
                    raise _malformed("what is attached to it belongs to something else")
            if found:
                yield subject, found
            waiting += [one.digest for one in found]

    def _document(self, item: Item) -> Judgement:
        manifest = self._manifest(item.descriptor)
        if len(manifest.layers) != 1:
            raise _malformed("a document has exactly one file")
        blobs = (manifest.config, *manifest.layers)
        secret = manifest.annotations.get(ANNOTATION_PRIVATE) == "true"
        return self._vouched(
            item,
            needs=self._needs(item, blobs),
            private=_private(blobs) if secret else frozenset(),
            layer=manifest.layers[0],
        )


def _check_asset(asset: StoredAsset) -> None:
    """Refuse an asset under a name that no build of ours gives; it would be looked up by it."""
    try:
        AssetName.parse(asset.asset)
        spelt = str(TalosVersion.parse(asset.version))
    except InputError as error:
        raise _malformed(f"it has no name of an asset: {error.message}") from error
    ids = (asset.schematic_id, asset.build_key)
    if spelt != asset.version or not all(map(_SHA256.fullmatch, ids)):
        raise _malformed("its version, schematic or build key is not spelt as one")


def _private(blobs: Iterable[Descriptor]) -> frozenset[Digest]:
    """Leave out the empty configuration, which every artifact shares."""
    return frozenset(blob.digest for blob in blobs if blob.media_type != MEDIA_EMPTY)


def _malformed(problem: str) -> SourceError:
    hint = "the bundle was made wrong or changed: get another from whoever made it"
    return SourceError(problem, hint=hint, code="malformed")


def _refused(item: Item, error: LocalImagerError) -> Judgement:
    tried = error.tried if isinstance(error, VerificationRefused) else ()
    message = printable(error.message)
    return Judgement(item, "refused", error.code, message, printable(error.hint), tried)
