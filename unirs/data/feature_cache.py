"""What a frozen encoder sees in media, kept on disk: later epochs and later runs need not decode and encode them."""

import hashlib
import os
import re
import shutil
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from unirs.interfaces import Encoder, as_module
from unirs.tasks.media import Media
from unirs.utils.hashing import hash_tensors

_NAME = re.compile("[0-9a-f]{16}")
"""Of an encoder's folder: see `_recognise`."""

_LOOKS = 20
"""How often a cache that fills up measures its folder: other processes fill it too, and none waits for another."""


def is_frozen(encoder: Encoder) -> bool:
    """Whether an encoder sees the same in the same media for ever: nothing learns, or differs in training mode."""
    module = as_module(encoder)
    if any(parameter.requires_grad for parameter in module.parameters()):
        return False
    before = {part: part.training for part in module.modules()}
    module.train()
    changes = any(part.training for part in before)
    for part, training in before.items():
        part.training = training
    return not changes


class FeatureCache:
    """Vision tokens of media as an encoder made them, a file a medium, in a folder an encoder.

    A medium is known by its content, and an encoder by what it makes of a test frame: with other weights, code, sizes
    or numerical precision the tokens are looked for elsewhere. Any number of processes may use a folder at once. Where
    room is missing, folders of other encoders give way, those first that were not used for longest; tokens of this
    encoder never do, since an epoch that is larger than the cache would then find nothing of itself.

    Args:
        folder: for all encoders.
        fingerprint: `encoder_fingerprint` of a frozen encoder; also the name of its folder.
        shape: L and Dv of the features of one frame.
        limit: bytes of all encoders together.
    """

    def __init__(self, folder: Path, fingerprint: str, shape: tuple[int, int], limit: int) -> None:
        self.fingerprint = fingerprint
        self._root = folder
        self._folder = folder / fingerprint
        self._limit = limit
        self._grid = shape
        self._room = 0
        self._full = False
        # Tells caches of other encoders that this one is in use, where nothing is written to it any more.
        with suppress(OSError):
            os.utime(self._folder)

    def get(self, media: Media) -> torch.Tensor | None:
        """The tokens `[k, L, D]` of a medium, or None where they are not there.

        Raises:
            MediaError: a file of the medium cannot be read.
        """
        try:
            found = load_file(self._file(media))["tokens"]
        except (OSError, SafetensorError, KeyError):
            # A damaged file is as good as none: it is written again.
            return None
        return found if found.shape == (media.num_frames, *self._grid) else None

    def put(self, media: Media, tokens: torch.Tensor) -> None:
        """Keeps the tokens `[k, L, D]` of a medium while there is room; warns once when there is no more."""
        if self._full:
            return
        content = save({"tokens": tokens.detach().cpu().contiguous()})
        file = self._file(media)
        try:
            if len(content) > self._room:
                self._make_room(len(content))
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
            self._room -= len(content)
        except OSError as error:
            self._stop(f"cannot be written ({error.strerror})")

    def _file(self, media: Media) -> Path:
        # Read each time: quick beside decoding, and a list of all media would grow with the data in each worker.
        key = media.content_key()
        return self._folder / key[:2] / f"{key}.safetensors"

    def _make_room(self, needed: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        os.utime(self._folder)
        # Whatever else the folder holds is not the cache's.
        used = {folder: _size(folder) for folder in self._root.iterdir() if _NAME.fullmatch(folder.name)}
        for folder in sorted((folder for folder in used if folder != self._folder), key=_used_at):
            if sum(used.values()) + needed <= self._limit:
                break
            shutil.rmtree(folder, ignore_errors=True)
            used[folder] = 0
        # Half of what the disk has left stays free for others.
        free = min(self._limit - sum(used.values()), shutil.disk_usage(self._root).free // 2)
        if free < needed:
            self._stop(f"is full ({self._limit / 1e9:g} GB, or the disk is)")
        self._room = max(needed, min(free, self._limit // _LOOKS))

    def _stop(self, why: str) -> None:
        self._full = True
        warnings.warn(
            f"The feature cache {self._root} {why}: media that are not in it are encoded anew in each epoch. Raise "
            "data.feature_cache_gb, or name another folder as data.feature_cache.",
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


def _size(folder: Path) -> int:
    size = 0
    for below, _, names in os.walk(folder):
        for name in names:
            # Another process may just have renamed or removed it.
            with suppress(FileNotFoundError):
                size += (Path(below) / name).stat().st_size
    return size


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        # Another process has just made room.
        return 0.0
