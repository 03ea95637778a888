"""Frames into MP4 (by ffmpeg) or GIF (by pillow)."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from typing import Any

import numpy as np

from .environments import CannotRender

# GIFs grow with every pixel: small and slow, with one palette, that of the first seconds.
_GIF_WIDTH = 320
_GIF_FRAMES_PER_SECOND = 20
_GIF_COLOURS = 128
_PALETTE_FRAMES = 64


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
    """A moving picture for a README; keeps all of it in memory, a byte a pixel."""

    def __init__(self, path: pathlib.Path, frames_per_second: float) -> None:
        self._path = path
        # Every so many frames one is kept.
        self._stride = max(1, round(frames_per_second / _GIF_FRAMES_PER_SECOND))
        self._milliseconds = 10 * max(2, round(100 * self._stride / frames_per_second))
        self._fresh: list[Any] = []  # not in the palette's colours yet
        self._pictures: list[Any] = []
        self._palette: Any = None
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
        self._fresh.append(picture)
        if len(self._fresh) == _PALETTE_FRAMES:
            self._take_fresh()

    def close(self) -> None:
        self._take_fresh()
        if not self._pictures:
            return
        temporary = self._path.with_name(f".new-{self._path.name}")
        first, *rest = self._pictures
        first.save(temporary, format="GIF", save_all=True, append_images=rest,
                   duration=self._milliseconds, loop=0)
        temporary.replace(self._path)

    def _take_fresh(self) -> None:
        from PIL import Image

        fresh, self._fresh = self._fresh, []
        if fresh and self._palette is None:
            some = np.concatenate([np.asarray(picture) for picture in fresh[::8]])
            self._palette = Image.fromarray(some).quantize(_GIF_COLOURS)
        self._pictures += [picture.quantize(palette=self._palette, dither=Image.Dither.NONE)
                           for picture in fresh]
