"""Frames into MP4 (by ffmpeg) or GIF (by pillow)."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from typing import Any

import numpy as np

from .environments import CannotRender

# A GIF holds 256 colours a frame and no differences in time worth the name: small and slow.
_GIF_WIDTH = 320
_GIF_FRAMES_PER_SECOND = 20


def open_video(path: pathlib.Path, frames_per_second: float) -> Mp4 | Gif:
    """By the file's ending.  ValueError: another one; CannotRender: what is to be installed."""
    if path.suffix == ".mp4":
        return Mp4(path, frames_per_second)
    if path.suffix == ".gif":
        return Gif(path, frames_per_second)
    raise ValueError(f"{path}: a video is .mp4 or .gif")


class Mp4:
    """H.264 that browsers play."""

    def __init__(self, path: pathlib.Path, frames_per_second: float) -> None:
        self._path = path
        self._temporary = path.with_name(f".new-{path.name}")
        self._rate = frames_per_second
        self._process: subprocess.Popen[bytes] | None = None
        self._ffmpeg = shutil.which("ffmpeg")
        if self._ffmpeg is None:
            raise CannotRender("MP4 needs ffmpeg, which is not there: apt-get install ffmpeg; "
                               "a .gif needs none")

    def add(self, frame: np.ndarray) -> None:
        """`frame`: [height, width, 3], uint8, all of one size."""
        if self._process is None:
            self._process = self._start(frame.shape[1], frame.shape[0])
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError:
            self.close()

    def close(self) -> None:
        """CannotRender with ffmpeg's words if it failed."""
        if self._process is None:
            return
        process, self._process = self._process, None
        _, said = process.communicate()
        if process.returncode != 0:
            self._temporary.unlink(missing_ok=True)
            raise CannotRender(f"ffmpeg failed: {said.decode(errors='replace').strip()}")
        self._temporary.replace(self._path)

    def _start(self, width: int, height: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(self._ffmpeg), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
             "-s", f"{width}x{height}", "-r", str(self._rate), "-i", "-", "-an", "-c:v", "libx264",
             "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p",
             "-movflags", "+faststart", "-f", "mp4", str(self._temporary)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Gif:
    """A moving picture for a README; keeps all of it in memory."""

    def __init__(self, path: pathlib.Path, frames_per_second: float) -> None:
        self._path = path
        # Every so many frames one is kept.
        self._stride = max(1, round(frames_per_second / _GIF_FRAMES_PER_SECOND))
        self._milliseconds = 10 * max(2, round(100 * self._stride / frames_per_second))
        self._pictures: list[Any] = []
        self._count = 0

    def add(self, frame: np.ndarray) -> None:
        from PIL import Image

        self._count += 1
        if (self._count - 1) % self._stride:
            return
        picture = Image.fromarray(frame)
        if picture.width > _GIF_WIDTH:
            height = round(picture.height * _GIF_WIDTH / picture.width)
            picture = picture.resize((_GIF_WIDTH, height), Image.Resampling.LANCZOS)
        self._pictures.append(picture.quantize(256, dither=Image.Dither.NONE))

    def close(self) -> None:
        if not self._pictures:
            return
        temporary = self._path.with_name(f".new-{self._path.name}")
        first, *rest = self._pictures
        first.save(temporary, format="GIF", save_all=True, append_images=rest,
                   duration=self._milliseconds, loop=0)
        temporary.replace(self._path)
