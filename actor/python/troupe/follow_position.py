"""How far a table of one shard was followed (common/follow_position.h)."""

from __future__ import annotations

from typing import Any

from troupe.errors import TroupeError
from troupe.proto import replay_pb2

ROWS_IN_BLOCK = 64
# More are not accepted in one request.
_MAX_PARTIAL_BLOCKS = 1 << 18


class FollowPosition:
    """Which of a table's rows have come, so that a new call goes on there."""

    def __init__(self, capacity_rows: int, stride_bytes: int):
        self._num_blocks = -(-capacity_rows // ROWS_IN_BLOCK)
        self._stride_bytes = stride_bytes
        self.reset()

    def reset(self) -> None:
        """Nothing has come."""
        self._next_block = 1
        self._partial: dict[int, tuple[int, int]] = {}  # block: rows received, slot of the next

    @property
    def at_the_beginning(self) -> bool:
        return self._next_block == 1

    def advance(self, reply: replay_pb2.FollowReply) -> None:
        """Takes its rows as received; TroupeError: they do not go on here."""
        for run in reply.runs:
            self._advance_run(run)
        if len(self._partial) > self._num_blocks + ROWS_IN_BLOCK:
            self._prune()

    def _advance_run(self, run: replay_pb2.FollowedRows) -> None:
        size = len(run.rows)
        count = size // self._stride_bytes
        slot = run.first_row % ROWS_IN_BLOCK
        is_new = run.block >= self._next_block
        rows, next_slot = self._partial.get(run.block, (0, -1))
        if (count == 0 or size % self._stride_bytes or slot + count > ROWS_IN_BLOCK
                or not (is_new or next_slot == slot)):
            raise TroupeError(f"{size} bytes from row {run.first_row} of block {run.block} on do "
                              f"not follow what came: {rows} rows of it, all before block "
                              f"{self._next_block}")
        if slot + count == ROWS_IN_BLOCK:
            self._partial.pop(run.block, None)
        else:
            self._partial[run.block] = (rows + count, slot + count)
        if is_new:
            self._next_block = run.block + 1

    def _prune(self) -> None:
        """Forgets blocks that the ring has given up."""
        oldest = self._next_block - self._num_blocks
        self._partial = {block: at for block, at in self._partial.items() if block >= oldest}

    def describe(self, request: replay_pb2.FollowRequest) -> None:
        """Sets where to go on."""
        self._prune()
        if len(self._partial) > _MAX_PARTIAL_BLOCKS:
            self.reset()
        if self.at_the_beginning:
            return
        request.next_block = self._next_block
        for block, (rows, _) in self._partial.items():
            request.partial.add(block=block, rows=rows)

    def to_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return {"next_block": self._next_block,
                "partial": [[block, *at] for block, at in self._partial.items()]}

    def load_json(self, saved: dict[str, Any]) -> None:
        """What to_json has made."""
        self._next_block = int(saved["next_block"])
        self._partial = {int(block): (int(rows), int(slot))
                         for block, rows, slot in saved["partial"]}
