"""What the Python package makes of messages: acks, positions, replies and snapshots, wrong ones
too.
"""

import unittest

import numpy as np
from troupe import TroupeError
from troupe import sample_reply
from troupe.follow_position import FollowPosition
from troupe.proto import replay_pb2, weights_pb2
from troupe.shards import Credentials, is_loopback, resolve
from troupe.snapshots import Snapshot, SnapshotAssembler, chunks
from troupe.unacked import UnackedRows

STRIDE = 8
WINDOW = 1 << 20


def rows(first, last):
    """Row n holds n."""
    return memoryview(np.arange(first, last, dtype="<u8").tobytes())


def reply(**held):
    return replay_pb2.AppendReply(
        acks=[replay_pb2.StreamAck(stream=int(name[1:]), held_rows=rows)
              for name, rows in held.items()])


class Unacked(unittest.TestCase):
    def setUp(self):
        self.unacked = UnackedRows(STRIDE)
        self.stream = self.unacked.begin_stream()
        self.stream.id = 1

    def sent(self, window=WINDOW):
        """[(stream, first row, what rows hold)] of all that may be sent now."""
        found = []
        while (request := self.unacked.next_to_send(window)) is not None:
            found += [(run.stream, run.first_row, np.frombuffer(run.rows, "<u8").tolist())
                      for run in request.runs]
        return found

    def test_acked_messages_leave_and_the_rest_is_sent_again_from_the_row_that_is_missing(self):
        for first in (0, 3, 6):
            self.unacked.push([(self.stream, rows(first, first + 3))])
        self.assertEqual(self.sent(), [(1, 0, [0, 1, 2]), (1, 3, [3, 4, 5]), (1, 6, [6, 7, 8])])
        self.unacked.ack(reply(s1=4))
        self.assertEqual((self.unacked.bytes, self.unacked.rows_acked), (48, 4))
        self.assertEqual(self.sent(), [])
        self.unacked.resume(reply(s1=5))
        self.assertEqual(self.sent(), [(1, 5, [5]), (1, 6, [6, 7, 8])])
        self.unacked.ack(reply(s1=9))
        self.assertEqual((self.unacked.bytes, bool(self.unacked)), (0, False))

    def test_no_more_is_sent_than_the_window_holds_but_always_one_message(self):
        for first in (0, 3, 6):
            self.unacked.push([(self.stream, rows(first, first + 3))])
        self.assertEqual(len(self.sent(window=30)), 1)
        self.unacked.ack(reply(s1=3))
        self.assertEqual(len(self.sent(window=50)), 2)

    def test_what_a_shard_lost_is_followed_by_a_new_stream_from_zero(self):
        self.unacked.push([(self.stream, rows(0, 3))])
        self.sent()
        self.unacked.ack(reply(s1=3))
        self.unacked.push([(self.stream, rows(3, 6))])
        self.unacked.resume(reply(s1=0))
        renamed = self.stream.id
        self.assertNotEqual(renamed, 1)
        self.assertEqual(self.sent(), [(renamed, 0, [3, 4, 5])])
        self.unacked.ack(replay_pb2.AppendReply(
            acks=[replay_pb2.StreamAck(stream=renamed, held_rows=3)]))
        self.assertEqual((self.unacked.rows_acked, self.unacked.streams_renamed), (6, 1))

    def test_an_ack_of_what_was_never_sent_is_an_error(self):
        self.unacked.push([(self.stream, rows(0, 3))])
        with self.assertRaisesRegex(TroupeError, "ack of 1 rows.* 0 were sent"):
            self.unacked.ack(reply(s1=1))


def followed(*runs):
    return replay_pb2.FollowReply(runs=[
        replay_pb2.FollowedRows(block=block, stream=1, first_row=first, rows=bytes(STRIDE * count))
        for block, first, count in runs])


class Position(unittest.TestCase):
    def test_it_names_the_next_block_and_what_it_has_of_open_ones(self):
        position = FollowPosition(10_000, STRIDE)
        position.advance(followed((1, 0, 64), (2, 64, 10), (3, 130, 5), (2, 74, 3)))
        request = replay_pb2.FollowRequest()
        position.describe(request)
        self.assertEqual(request.next_block, 4)
        self.assertEqual({at.block: at.rows for at in request.partial}, {2: 13, 3: 5})
        again = FollowPosition(10_000, STRIDE)
        again.load_json(position.to_json())
        again.advance(followed((2, 77, 51), (3, 135, 57)))
        self.assertEqual(again.to_json(), {"next_block": 4, "partial": []})

    def test_rows_that_do_not_follow_are_an_error(self):
        for wrong in ((2, 75, 1), (1, 0, 64), (4, 60, 5), (4, 0, 0)):
            position = FollowPosition(10_000, STRIDE)
            position.advance(followed((1, 0, 64), (2, 64, 10)))
            with self.assertRaisesRegex(TroupeError, "do not follow"):
                position.advance(followed(wrong))

    def test_blocks_that_the_ring_gave_up_are_forgotten(self):
        position = FollowPosition(128, STRIDE)
        for block in range(1, 200):
            position.advance(followed((block, 0, 1)))
        request = replay_pb2.FollowRequest()
        position.describe(request)
        self.assertEqual([at.block for at in request.partial], [198, 199])


class SampleReply(unittest.TestCase):
    def message(self, **fields):
        whole = {"windows": bytes(range(32)), "row_ids": [5, 1 << 60], "mass": 2.5,
                 "probabilities": [0.25, 0.5], "num_windows": 300,
                 "counts": replay_pb2.TableCounts(inserted=7)}
        return replay_pb2.SampleReply(**{**whole, **fields}).SerializeToString()

    def test_it_is_read_as_protobuf_reads_it(self):
        found = sample_reply.parse(self.message(), 2, 16)
        self.assertEqual(bytes(found.windows), bytes(range(32)))
        self.assertEqual(found.row_ids.tolist(), [5, 1 << 60])
        self.assertEqual(found.probabilities.tolist(), [0.25, 0.5])
        self.assertEqual((found.mass, found.counts.inserted), (2.5, 7))
        empty = sample_reply.parse(b"", 2, 16)
        self.assertEqual((len(empty.windows), len(empty.row_ids), empty.mass), (0, 0, 0))

    def test_what_is_no_answer_is_an_error(self):
        for data in (self.message(windows=bytes(31)), self.message(probabilities=[1]),
                     self.message(mass=float("nan")), self.message(mass=-1.0),
                     self.message(row_ids=[1, 2, 3], probabilities=[1, 1, 1], windows=bytes(48)),
                     self.message()[:-1], b"\x0a\xff\xff\xff\xff\x7f", b"\x0a", b"\x03",
                     b"\xff" * 12):
            with self.assertRaises(TroupeError):
                sample_reply.parse(data, 2, 16)


class Assembling(unittest.TestCase):
    def test_a_snapshot_goes_through_chunks_and_back(self):
        snapshot = Snapshot("r", 3 << 40 | 5, 9, np.random.default_rng(1).bytes((2 << 20) + 17))
        assembler = SnapshotAssembler("r")
        self.assertEqual([got for chunk in chunks(snapshot) if (got := assembler.add(chunk))],
                         [snapshot])

    def test_wrong_chunks_are_errors(self):
        header, data = chunks(Snapshot("r", 1, 0, b"image"))

        def changed(**fields):
            chunk = weights_pb2.SnapshotChunk()
            chunk.CopyFrom(header)
            for name, value in fields.items():
                setattr(chunk.header, name, value)
            return chunk

        more = weights_pb2.SnapshotChunk(data=b"images")
        for words, parts in (("before any header", [data]), ("more than the 5", [header, more]),
                             ("digest", [changed(crc32c=1), data]),
                             ("breaks off", [header, header]),
                             ("of run 'q'", [changed(run="q")]),
                             ("has 0 bytes", [changed(size_bytes=0)]),
                             ("version 0", [changed(version=0)])):
            assembler = SnapshotAssembler("r")
            with self.assertRaisesRegex(TroupeError, words):
                for part in parts:
                    assembler.add(part)


class Names(unittest.TestCase):
    def test_only_literal_loopback_addresses_and_localhost_are_this_machine(self):
        for target in ("localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/tmp/x"):
            self.assertTrue(is_loopback(target), target)
        for target in ("replay-0:1", "10.0.0.1:1", "127.0.0.1.example:1", "[::2]:1", "0.0.0.0:1"):
            self.assertFalse(is_loopback(target), target)

    def test_addresses_stand_for_themselves_and_unknown_names_for_nothing(self):
        for target in ("10.0.0.1:7000", "[::1]:7000", "localhost:7000"):
            self.assertEqual(resolve(target), [target])
        self.assertEqual(resolve("no.such.host.invalid:7000"), [])

    def test_certificates_are_a_folder_or_three_files(self):
        for wrong in ({"tls_dir": "/x", "ca": "/y"}, {"ca": "/x"}):
            with self.assertRaises(ValueError):
                Credentials.of(**wrong)
        self.assertEqual(Credentials.of(insecure=True), Credentials(insecure=True))


if __name__ == "__main__":
    unittest.main()
