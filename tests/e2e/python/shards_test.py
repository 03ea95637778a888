"""The Python package with several shards, and with mutual TLS.

    shards_test.py BUILD_DIR
"""

import pathlib
import signal
import socket
from unittest import mock

import grpc
import numpy as np

from cluster import LAYOUT, TIMEOUT, ClusterTest, all_rows, episode, main, troupe
from troupe.proto import replay_pb2
from troupe.shards import Credentials


class Several(ClusterTest):
    def fill(self, client, shard, rows):
        with client.writer(LAYOUT, first_shard=shard) as writer:
            for first in range(0, rows, 100):
                writer.add_episode(terminated=True, truncated=False, **episode(first, 100))

    def test_batches_are_drawn_from_the_union_of_uneven_shards(self):
        shards = [self.shard() for _ in range(3)]
        client = self.client(*shards)
        for i, rows in enumerate((300, 3_000, 30_000)):
            self.fill(client, i, rows)
        sampler = self.enter(client.sampler(1000, seed=3))
        batches = [sampler.next_batch(TIMEOUT) for _ in range(100)]
        drawn = np.concatenate([batch.shards for batch in batches])
        shares = np.bincount(drawn, minlength=3) / len(drawn)
        np.testing.assert_allclose(shares, np.array([300, 3_000, 30_000]) / 33_300, atol=0.005)
        probabilities = np.concatenate([batch.probabilities for batch in batches])
        np.testing.assert_allclose(probabilities, 1 / 33_300, rtol=1e-4)
        self.assertEqual(sampler.counts.inserted, 33_300)

    def test_pictures_travel_compressed_and_are_what_they_were(self):
        random = np.random.default_rng(1)
        pictures = np.zeros((1_000, 40, 40, 1), np.uint8)
        pictures[:, 5:20, 5:20] = random.integers(0, 255, (1_000, 1, 1, 1))
        pictures[::7] = random.integers(0, 255, (143, 40, 40, 1))  # noise: stored as it is
        for codec in ("lz4", "zstd"):
            layout = troupe.Layout(
                troupe.Column("observation", np.uint8, (40, 40, 1), compression=codec),
                troupe.Column("action", np.float32, (2,)), troupe.Column("reward"),
                troupe.Column("number", np.int64))
            shards = [self.shard(), self.shard()]
            client = self.client(*shards)
            with client.writer(layout, num_streams=2) as writer:
                for i in range(1_000):
                    writer.streams[i // 500].step(pictures[i], np.zeros(2), 1.0, number=i,
                                                  timeout=TIMEOUT)
            self.assertEqual(client.table(timeout=TIMEOUT).layout, layout)
            sampler = self.enter(client.sampler(64, seed=1))
            for _ in range(20):
                windows = sampler.next_batch(TIMEOUT)
                np.testing.assert_array_equal(windows.rows["observation"],
                                              pictures[windows.rows["number"]])
                np.testing.assert_array_equal(np.diff(windows.rows["number"]), 1)
            rows, _, _ = all_rows(client)
            np.testing.assert_array_equal(np.sort(rows["number"]), np.arange(1_000))
            np.testing.assert_array_equal(rows["observation"], pictures[rows["number"]])

    def test_a_dead_shard_is_left_out_and_comes_back(self):
        shards = [self.shard(), self.shard()]
        client = self.client(*shards)
        for i in range(2):
            self.fill(client, i, 1_000)
        sampler = self.enter(client.sampler(256, seed=1))
        sampler.next_batch(TIMEOUT)
        shards[1].kill()
        while sampler.shards_up > 1:
            sampler.next_batch(TIMEOUT)
        for _ in range(10):
            sampler.next_batch(TIMEOUT)
        self.assertEqual(set(sampler.next_batch(TIMEOUT).shards.tolist()), {0})
        shards[1].start()
        while set(sampler.next_batch(TIMEOUT).shards.tolist()) != {0, 1}:
            pass

    def test_a_shard_that_says_nothing_is_left_out_until_it_answers(self):
        shards = [self.shard(), self.shard()]
        client = self.client(*shards)
        for i in range(2):
            self.fill(client, i, 1_000)
        sampler = self.enter(client.sampler(256, seed=1))
        sampler.next_batch(TIMEOUT)
        shards[1].signal(signal.SIGSTOP)
        self.addCleanup(shards[1].signal, signal.SIGCONT)
        while sampler.shards_up > 1:
            sampler.next_batch(TIMEOUT)
        self.assertEqual(set(sampler.next_batch(TIMEOUT).shards.tolist()), {0})
        shards[1].signal(signal.SIGCONT)
        while set(sampler.next_batch(TIMEOUT).shards.tolist()) != {0, 1}:
            pass

    def test_shards_behind_one_name_are_known_where_they_go(self):
        first = self.shard()
        port = first.address.rpartition(":")[2]
        second = self.shard(listen=f"127.0.0.2:{port}")
        real = socket.getaddrinfo

        def look_up(host, *arguments, **more):
            if host != "replay":
                return real(host, *arguments, **more)
            return [(None, None, None, "", (address, port))
                    for address in ("127.0.0.1", "127.0.0.2")]

        patch = mock.patch("socket.getaddrinfo", look_up)
        patch.start()
        self.addCleanup(patch.stop)
        client = troupe.Client(f"replay:{port}", "tests", insecure=True)
        self.assertEqual(len(client.shards), 2)
        writer = self.enter(client.writer(LAYOUT, num_streams=2))
        for i, stream in enumerate(writer.streams):
            stream.add_episode(terminated=True, truncated=False, **episode(100 * i, 100))
        writer.flush(TIMEOUT)
        follower = self.enter(client.follow())
        seen = [rows["number"][~rows.final] for rows in follower.until_caught_up(TIMEOUT)]
        # Each comes back at the other's address, with its rows.
        for shard in (first, second):
            shard.kill()
        first.start(f"127.0.0.2:{port}")
        second.start(f"127.0.0.1:{port}")
        for i, stream in enumerate(writer.streams):
            stream.add_episode(terminated=True, truncated=False, timeout=TIMEOUT,
                               **episode(200 + 100 * i, 100))
        writer.flush(TIMEOUT)
        self.assertEqual((writer.stats.streams_renamed, writer.stats.moves), (0, 0))
        while sum(map(len, seen)) < 400:
            rows = follower.next(TIMEOUT)
            seen.append(rows["number"][~rows.final])
        self.assertEqual(follower.stats.restarts, 0)
        np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(400))

    def test_streams_are_spread_and_move_to_a_shard_that_lives(self):
        shards = [self.shard(), self.shard()]
        client = self.client(*shards)
        writer = self.enter(client.writer(LAYOUT, num_streams=2, options=troupe.WriterOptions(
            move_after_seconds=0.3, max_unacked_bytes=20_000, message_bytes=2_000)))
        writer.wait_connected(TIMEOUT)

        def append(first, rows):
            for begin in range(first, first + rows, 20):
                writer.streams[begin // 20 % 2].add_episode(
                    terminated=True, truncated=False, timeout=TIMEOUT, **episode(begin, 20))

        append(0, 4_000)
        writer.flush(TIMEOUT)
        for shard in shards:
            self.assertGreater(client.describe()[shards.index(shard)].tables[0].rows, 1_500)
        shards[1].kill()
        append(4_000, 4_000)
        self.assertGreaterEqual(writer.stats.moves, 1)
        shards[1].start()
        writer.flush(TIMEOUT)
        rows, _, _ = all_rows(client)
        steps = rows[(rows["\0flags"] & 7) == 0]
        np.testing.assert_array_equal(np.sort(steps["number"]), np.arange(8_000))

    def test_a_drained_shard_gets_what_was_made_and_nothing_more(self):
        shards = [self.shard(), self.shard()]
        client = self.client(*shards)
        writer = self.enter(client.writer(LAYOUT))
        writer.wait_connected(TIMEOUT)
        writer.add_episode(terminated=True, truncated=False, **episode(0, 1_000))

        def drain(undo=False):
            with client.shards[0].connect() as stubs:
                return stubs.drain(replay_pb2.DrainRequest(undo=undo), timeout=TIMEOUT)

        while drain().writers_to_drain:
            pass
        held = client.describe()[0].tables[0].rows
        self.assertEqual(held, 1_001)
        writer.add_episode(terminated=True, truncated=False, timeout=TIMEOUT,
                           **episode(1_000, 1_000))
        writer.flush(TIMEOUT)
        described = client.describe()
        self.assertEqual([reply.tables[0].rows for reply in described], [1_001, 1_001])
        drain(undo=True)


class Tls(ClusterTest):
    def setUp(self):
        self.certs = self.certificates()
        self.server = self.shard(tls_dir=self.certs / "replay_server")

    def as_role(self, role):
        return self.client(self.server, tls_dir=self.certs / role)

    def test_each_role_may_do_its_part_and_nothing_else(self):
        with self.as_role("actor").writer(LAYOUT) as writer:
            writer.add_episode(terminated=True, truncated=False, **episode(0, 1_000))
        self.assertEqual(writer.stats.rows_acked, 1_001)
        learner = self.as_role("learner")
        self.assertEqual(len(all_rows(learner)[0]), 1_001)
        self.enter(learner.sampler(64)).next_batch(TIMEOUT)
        learner.publish(b"image", learner.new_epoch())
        subscriber = self.enter(self.as_role("actor").subscribe())
        self.assertEqual(subscriber.wait_newer(0, TIMEOUT).image, b"image")

        for call in (lambda: self.enter(learner.writer(LAYOUT)).wait_connected(TIMEOUT),
                     lambda: self.as_role("actor").sampler(64),
                     lambda: self.as_role("actor").publish(b"image", 2 << 40)):
            with self.assertRaisesRegex(troupe.Refused,
                                        "role '(actor|learner)' may not") as refused:
                call()
            self.assertEqual(refused.exception.code, grpc.StatusCode.PERMISSION_DENIED)

    def test_strangers_do_not_get_in(self):
        other = self.certificates()
        for arguments in ({}, {"tls_dir": other / "actor"},
                          {"ca": self.certs / "actor" / "ca.pem",
                           "cert": other / "actor" / "cert.pem",
                           "key": other / "actor" / "key.pem"}):
            writer = self.enter(self.client(self.server, **arguments).writer(LAYOUT))
            with self.assertRaises(TimeoutError):
                writer.wait_connected(1)

    def test_a_shard_is_held_to_its_name(self):
        port = self.server.address.rpartition(":")[2]
        with self.as_role("actor").writer(LAYOUT) as writer:
            writer.wait_connected(TIMEOUT)
        client = troupe.Client(f"127.0.0.2:{port}", "tests", tls_dir=self.certs / "actor")
        with self.assertRaises(TimeoutError):
            self.enter(client.writer(LAYOUT)).wait_connected(1)

    def test_renewed_certificates_are_taken_up(self):
        writer = self.enter(self.as_role("actor").writer(LAYOUT))
        writer.add_episode(terminated=True, truncated=False, **episode(0, 10))
        writer.flush(TIMEOUT)
        keys = self.certs / "actor" / "key.pem"
        before = keys.read_bytes()
        self.server.kill()
        self.renew(self.certs)
        self.assertNotEqual(keys.read_bytes(), before)
        self.server.start()
        writer.add_episode(terminated=True, truncated=False, **episode(10, 10))
        writer.flush(TIMEOUT)
        self.assertEqual(writer.stats.rows_acked, 22)

    def test_plaintext_stays_on_this_machine(self):
        client = troupe.Client("192.0.2.7:7000", "tests")
        with self.assertRaisesRegex(troupe.TroupeError, "plaintext"):
            client.describe()
        with self.assertRaisesRegex(FileNotFoundError, "cert.pem|ca.pem|key.pem"):
            Credentials.of(pathlib.Path("/nonexistent"))


if __name__ == "__main__":
    main()
