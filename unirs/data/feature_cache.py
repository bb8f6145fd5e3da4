"""Features of a frozen encoder, cached on disk: later epochs and later runs skip decoding and encoding."""

import hashlib
import os
import re
import shutil
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from unirs.data.memory_features import Keyed
from unirs.interfaces import Encoder, as_module
from unirs.utils.hashing import hash_tensors
from unirs.utils.io import check_regular, replacing_file

# Name of an encoder's folder: see `encoder_fingerprint`.
_FINGERPRINT = re.compile("[0-9a-f]{16}")

# How often the folder is measured until the cache is full: other processes write to it too, without a lock.
_MEASUREMENTS = 20


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
    """Features of media on disk: one folder per encoder, one checksummed file per input, identified by its content.

    Any number of processes may use a folder at once. If the budget is spent, folders of other encoders are deleted, the
    least recently used first. Features of this encoder are never deleted: an epoch that is larger than the cache would
    otherwise evict each entry before its next use.

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
        self._root, self._folder = folder, folder / fingerprint
        self._limit, self._shape = limit, shape
        self._reserved = 0
        self._full = False
        # Marks the folder as recently used, even if it is only read.
        with suppress(OSError):
            os.utime(self._folder)

    def get(self, media: Keyed) -> torch.Tensor | None:
        """The features `[k, L, Dv]` of an input, which must be readable; None if they are missing or damaged."""
        path = self._file(media)
        try:
            check_regular(path)
            with safe_open(path, framework="pt") as file:
                features: torch.Tensor = file.get_tensor("features")
                checksum = (file.metadata() or {}).get("crc32")
        except (OSError, SafetensorError):
            return None
        # Images may have tiles: the number of frames is not that of the media.
        intact = features.shape[1:] == self._shape and checksum == _checksum(features)
        return features if intact else None

    def put(self, media: Keyed, features: torch.Tensor) -> None:
        """Stores the features `[k, L, Dv]` of an input within the budget; warns once when the budget is spent.

        Features with NaN or infinity are rejected with a warning, since they would fail later runs too.
        """
        if self._full:
            return
        features = features.detach().cpu().contiguous()
        # Faster than `isfinite` of all values; the extremes are NaN if any value is.
        if not all(extreme.isfinite() for extreme in features.aminmax()):
            problem = f"The features of {media} have values that are not finite, and are not cached."
            warnings.warn(f"{problem} Check the encoder's weights, or choose another trainer.precision.", stacklevel=2)
            return
        content = save({"features": features}, metadata={"crc32": _checksum(features)})
        try:
            if len(content) > self._reserved:
                self._reserve(len(content))
            if not self._full:
                # A damaged file is noticed by its checksum.
                with replacing_file(self._file(media), durable=False) as file:
                    file.write(content)
                self._reserved -= len(content)
        except OSError as error:
            self._stop(f"cannot be written ({error.strerror})")

    def _file(self, media: Keyed) -> Path:
        # Hashed on each call, which is quick compared to decoding: a table of keys would grow in each worker.
        key = media.content_key()
        return self._folder / key[:2] / f"{key}.safetensors"

    def _reserve(self, needed: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        os.utime(self._folder)
        # Only these folders under the root belong to the cache.
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

    def _stop(self, reason: str) -> None:
        self._full = True
        effect = "media that are not cached are encoded anew in each epoch"
        remedy = "Raise data.feature_cache_gb, or set data.feature_cache to another folder."
        warnings.warn(f"The feature cache {self._root} {reason}: {effect}. {remedy}", stacklevel=2)


@torch.no_grad()
def encoder_fingerprint(encoder: Encoder, context: str = "") -> str:
    """Hashes an encoder's features of a fixed random frame, its image size and its resize mode, as 16 hex digits.

    `context` is anything else that changes features, such as the numerical precision of the trainer.
    """
    module = as_module(encoder)
    height, width = encoder.image_size
    device = next((one.device for one in module.parameters()), torch.device("cpu"))
    frame = torch.randint(0, 256, (1, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    features = encoder(frame.to(device))
    # The size and resize mode are hashed too, since frames are resized before they are encoded.
    identity = f"{hash_tensors({'features': features})} {encoder.image_size} {encoder.resize} {context}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _checksum(features: torch.Tensor) -> str:
    """CRC-32 of dtype, shape and bytes; safetensors checks the rest of the file."""
    begin = zlib.crc32(f"{features.dtype} {tuple(features.shape)}".encode())
    # Viewed as bytes because numpy has no bfloat16.
    return f"{zlib.crc32(features.view(torch.uint8).numpy().data, begin):08x}"


def _size(folder: Path) -> int:
    paths = (Path(below) / name for below, _, names in os.walk(folder) for name in names)
    return sum(status.st_size for status in map(_stat, paths) if status)


def _last_used(folder: Path) -> float:
    status = _stat(folder)
    return status.st_mtime if status else 0.0


def _stat(path: Path) -> os.stat_result | None:
    """Size and times of a file or folder; None if another process has deleted it."""
    with suppress(FileNotFoundError):
        return path.stat()
    return None
