"""Features of a frozen encoder, cached on disk: later epochs and later runs skip decoding and encoding."""

import hashlib
import os
import re
import shutil
import tempfile
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from unirs.interfaces import Encoder, as_module
from unirs.tasks.media import Media
from unirs.utils.hashing import hash_tensors

_FINGERPRINT = re.compile("[0-9a-f]{16}")
"""Name of an encoder's folder: see `encoder_fingerprint`."""

_MEASUREMENTS = 20
"""How often the folder is measured until the cache is full: other processes write to it too, without a lock."""


def is_frozen(encoder: Encoder) -> bool:
    """Whether an encoder always computes the same features of the same frames, also in training mode."""
    module = as_module(encoder)
    if any(parameter.requires_grad for parameter in module.parameters()):
        return False
    before = {component: component.training for component in module.modules()}
    module.train()
    changes = any(component.training for component in before)
    for component, training in before.items():
        component.training = training
    return not changes


class FeatureCache:
    """Features of media on disk: one folder per encoder, one checksummed file per input.

    An input is identified by its content, an encoder by its features of a test frame: other weights, code, sizes or
    numerical precision have another folder. Any number of processes may use a folder at once. If the budget is spent,
    folders of other encoders are deleted, the least recently used first. Features of this encoder are never deleted: an
    epoch that is larger than the cache would otherwise evict each entry before its next use.

    Files rather than one LMDB, which is faster with small entries, but needs a fixed size, must be opened anew in each
    process, and cannot evict an encoder as a whole.

    Args:
        folder: for all encoders.
        fingerprint: `encoder_fingerprint` of a frozen encoder; also the name of its folder.
        shape: L and Dv of the features of one frame.
        limit: budget of all encoders together, in bytes.
    """

    def __init__(self, folder: Path, fingerprint: str, shape: tuple[int, int], limit: int) -> None:
        self.fingerprint = fingerprint
        self._root = folder
        self._folder = folder / fingerprint
        self._limit = limit
        self._shape = shape
        self._reserved = 0
        self._full = False
        # Marks the folder as recently used, also if nothing is written to it any more.
        with suppress(OSError):
            os.utime(self._folder)

    def get(self, media: Media) -> torch.Tensor | None:
        """Returns the features `[k, L, Dv]` of an input; None if they are missing or their file is damaged.

        Raises:
            MediaError: a file of the input cannot be read.
        """
        try:
            with safe_open(self._file(media), framework="pt") as file:
                features: torch.Tensor = file.get_tensor("features")
                checksum = (file.metadata() or {}).get("crc32")
        except (OSError, SafetensorError):
            return None
        intact = features.shape == (media.num_frames, *self._shape) and checksum == _checksum(features)
        return features if intact else None

    def put(self, media: Media, features: torch.Tensor) -> None:
        """Stores the features `[k, L, Dv]` of an input within the budget; warns once when the budget is spent.

        Features with NaN or infinity are refused with a warning: later runs would read the failure of this one.
        """
        if self._full:
            return
        features = features.detach().cpu().contiguous()
        # The extremes are NaN if any value is: faster than `isfinite` of all values.
        if not all(extreme.isfinite() for extreme in features.aminmax()):
            warnings.warn(
                f"The features of {media} have values that are not finite, and are not cached. Check the encoder's "
                "weights, or choose another trainer.precision.",
                stacklevel=2,
            )
            return
        content = save({"features": features}, metadata={"crc32": _checksum(features)})
        file = self._file(media)
        try:
            if len(content) > self._reserved:
                self._reserve(len(content))
            if self._full:
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor, partial = tempfile.mkstemp(dir=file.parent)
            try:
                with os.fdopen(descriptor, "wb") as writing:
                    writing.write(content)
                Path(partial).replace(file)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise
            self._reserved -= len(content)
        except OSError as error:
            self._stop(f"cannot be written ({error.strerror})")

    def _file(self, media: Media) -> Path:
        # Hashed on each call: quick compared to decoding, and an index of all media would grow in each worker.
        key = media.content_key()
        return self._folder / key[:2] / f"{key}.safetensors"

    def _reserve(self, needed: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        os.utime(self._folder)
        # Other files and folders under the root do not belong to the cache.
        used = {folder: _size(folder) for folder in self._root.iterdir() if _FINGERPRINT.fullmatch(folder.name)}
        for folder in sorted((folder for folder in used if folder != self._folder), key=_last_used):
            if sum(used.values()) + needed <= self._limit:
                break
            shutil.rmtree(folder, ignore_errors=True)
            used[folder] = 0
        # Half of the free disk space is left to other programs.
        free = min(self._limit - sum(used.values()), shutil.disk_usage(self._root).free // 2)
        if free < needed:
            self._stop(f"is full ({self._limit / 1e9:g} GB, or the disk is)")
        self._reserved = max(needed, min(free, self._limit // _MEASUREMENTS))

    def _stop(self, why: str) -> None:
        self._full = True
        warnings.warn(
            f"The feature cache {self._root} {why}: media that are not cached are encoded anew in each epoch. Raise "
            "data.feature_cache_gb, or set data.feature_cache to another folder.",
            stacklevel=2,
        )


@torch.no_grad()
def encoder_fingerprint(encoder: Encoder, context: str = "") -> str:
    """Hashes an encoder's features of a fixed random frame, its image size and its resize mode.

    Args:
        encoder: on its device.
        context: whatever else changes features, such as the numerical precision of the trainer.

    Returns:
        16 hexadecimal digits.
    """
    module = as_module(encoder)
    height, width = encoder.image_size
    device = next((one.device for one in module.parameters()), torch.device("cpu"))
    frame = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    features = encoder(frame.to(device))
    # Resizing happens before the encoder.
    identity = f"{hash_tensors({'features': features})} {encoder.image_size} {encoder.resize} {context}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _checksum(features: torch.Tensor) -> str:
    """CRC-32 of data type, shape and bytes. The file's other content is checked by safetensors."""
    begin = zlib.crc32(f"{features.dtype} {tuple(features.shape)}".encode())
    # Viewed as bytes because numpy has no bfloat16.
    return f"{zlib.crc32(features.view(torch.uint8).numpy().data, begin):08x}"


def _size(folder: Path) -> int:
    size = 0
    for below, _, names in os.walk(folder):
        for name in names:
            # Another process may rename or delete it at the same time.
            with suppress(FileNotFoundError):
                size += (Path(below) / name).stat().st_size
    return size


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        # Another process has deleted it.
        return 0.0
