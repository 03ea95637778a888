"""The writer's calls of Append: one a shard, made anew when it breaks."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc

from troupe.errors import Refused, TroupeError
from troupe.proto import replay_pb2
from troupe.shards import Backoff, to_error
from troupe.writer_state import Lane, WriterState

# What protobuf adds to the rows of one stream in a message.
_RUN_OVERHEAD_BYTES = 32
_POLL_SECONDS = 0.5


class Session:
    """One call."""

    over = False


class AppendCalls:
    """Sends what lanes have, and takes what shards say; `run` is a thread for each lane."""

    def __init__(self, state: WriterState):
        self._state = state

    def _wanted(self, lane: Lane) -> bool:
        state = self._state
        return (bool(lane.streams) or bool(lane.unacked)
                or any(state.is_away(other) for other in state.lanes if other is not lane))

    def run(self, lane: Lane) -> None:
        state = self._state
        backoff = Backoff()
        while True:
            with state.lock:
                while not state.stopped and not self._wanted(lane):
                    state.changed.wait(_POLL_SECONDS)
                if state.stopped or state.permanent is not None:
                    return
            error = self._session(lane, backoff)
            with state.lock:
                if state.stopped:
                    return
                if isinstance(error, Refused) and state.permanent is None:
                    state.permanent = error
                lane.last_break = str(error)
                state.reconnects += 1
                state.changed.notify_all()
                if state.permanent is None:
                    state.changed.wait_for(lambda: state.stopped, backoff.next())
            lane.shard.look_again()

    def _session(self, lane: Lane, backoff: Backoff) -> Exception:
        """One call, until it ends; returns why."""
        state = self._state
        session = Session()
        what = f"appending to {lane.shard.name}"
        error: Exception = TroupeError(f"{what}: the shard ended the call")
        try:
            with lane.shard.connect() as stubs:
                call = stubs.append(self._requests(lane, session), metadata=lane.shard.metadata)
                with state.lock:
                    lane.call = call
                    if state.stopped:
                        call.cancel()
                for reply in call:
                    with state.lock:
                        self._on_reply(lane, reply, backoff)
        except grpc.RpcError as broken:
            error = to_error(broken, what)
        except (TroupeError, OSError) as broken:
            error = broken
        with state.lock:
            session.over = True
            if lane.open:
                lane.away_since = time.monotonic()
            lane.open = lane.held_back = lane.draining = lane.drained = False
            lane.call = None
            lane.sender.notify_all()
        return error

    def _open_request(self, lane: Lane) -> replay_pb2.AppendRequest:
        state = self._state
        # A message is sealed when it is full, and the last rows of each stream may make it fuller.
        biggest = (max(state.options.message_bytes, state.layout.stride_bytes)
                   + 2 * state.layout.stride_bytes * state.num_streams)
        # Encoded rows may be a little larger than packed ones.
        biggest = -(-biggest // state.layout.stride_bytes) * state.max_row_bytes
        return replay_pb2.AppendRequest(open=replay_pb2.AppendOpen(
            run=state.run, table=state.table, layout=state.layout.to_proto(),
            streams=[stream.id for stream in lane.unacked.live_streams],
            preload=state.options.preload,
            max_message_bytes=biggest + _RUN_OVERHEAD_BYTES * (state.num_streams + 1)))

    def _requests(self, lane: Lane, session: Session) -> Iterator[replay_pb2.AppendRequest]:
        """What the call sends; runs on a thread of gRPC's."""
        state = self._state
        with state.lock:
            first = self._open_request(lane)
        yield first
        while True:
            with state.lock:
                request = None
                while request is None:
                    if session.over or state.stopped:
                        return
                    request = self._next_request(lane)
                    if request is None:
                        lane.sender.wait(self._until_seal(lane))
            yield request

    def _until_seal(self, lane: Lane) -> float | None:
        if not lane.open or not lane.pending_bytes:
            return None
        return max(0.0, lane.seal_at - time.monotonic())

    def _next_request(self, lane: Lane) -> replay_pb2.AppendRequest | None:
        state = self._state
        if not lane.open:
            return None
        if lane.pending_bytes and time.monotonic() >= lane.seal_at:
            state.seal(lane)
        request = lane.unacked.next_to_send(lane.window_bytes)
        if request is not None or not lane.draining or lane.drained or lane.unacked:
            return request
        lane.drained = True
        return replay_pb2.AppendRequest(drained=True)

    def _on_reply(self, lane: Lane, reply: replay_pb2.AppendReply, backoff: Backoff) -> None:
        state = self._state
        if lane.open:
            lane.unacked.ack(reply)
            # Rows made before the older ones are in would only stand in a queue and grow old.
            if reply.held_back or not lane.unacked:
                lane.held_back = reply.held_back
        else:
            state.seal(lane)
            lane.unacked.resume(reply)
            lane.open, lane.held_back = True, reply.held_back
            lane.window_bytes = reply.window_bytes
            backoff.reset()
        if lane.draining != reply.draining:
            lane.draining, lane.drained = reply.draining, False
            state.seal(lane)
        lane.sender.notify()
        state.changed.notify_all()
