"""Samplers, followers and subscribers of the Python package against a live shard.

    read_test.py BUILD_DIR
"""

import json

import numpy as np

from cluster import LAYOUT, TIMEOUT, ClusterTest, all_rows, episode, main, troupe


def fill(client, rows=10_000, length=100):
    """Steps numbered 0 .. rows - 1 in episodes of `length`."""
    with client.writer(LAYOUT) as writer:
        for first in range(0, rows, length):
            writer.add_episode(terminated=first % 200 == 0, truncated=first % 200 != 0,
                               **episode(first, length))


class Sample(ClusterTest):
    def test_windows_are_consecutive_rows_with_their_columns(self):
        client = self.client(self.shard(window="length: 4"))
        fill(client)
        sampler = self.enter(client.sampler(512, seed=1))
        seen = set()
        for _ in range(20):
            batch = sampler.next_batch(TIMEOUT)
            self.assertEqual(batch["observation"].shape, (512, 4, 3))
            self.assertEqual(batch["reward"].shape, (512, 4))
            self.assertEqual(set(batch), set(LAYOUT.names))
            first = batch["observation"][:, 0, 0]
            self.assertFalse(batch.final[:, 0].any())
            inside = ~batch.final
            np.testing.assert_array_equal(batch["number"][inside],
                                          batch["observation"][..., 0][inside])
            np.testing.assert_array_equal(batch["reward"], batch["number"] * np.float32(0.5))
            straight = ~batch.final[:, :3].any(axis=1)
            np.testing.assert_array_equal(batch["observation"][straight, 3, 0],
                                          first[straight] + 3)
            np.testing.assert_allclose(batch.probabilities, 1 / sampler.counts.inserted)
            np.testing.assert_array_equal(batch.weights(0.5), np.ones(512, np.float32))
            seen.update(first.tolist())
        self.assertGreater(len(seen), 6000)  # of 10,000, drawn 10,240 times
        self.assertEqual(len(np.unique(batch.row_ids[:, None] == batch.row_ids)), 2)

    def test_priorities_say_what_is_drawn_and_weights_make_up_for_it(self):
        client = self.client(self.shard(selector="PRIORITIZED",
                                        sets=["tables.priority_exponent=1"]))
        fill(client, rows=1000)
        sampler = self.enter(client.sampler(1000, prefetch=1))
        found = {}
        while len(found) < 1000:
            batch = sampler.next_batch(TIMEOUT)
            for i, row in enumerate(batch.row_ids.tolist()):
                found.setdefault(row, float(batch["number"][i, 0]))
            priorities = np.where(batch["number"][:, 0] < 500, 3.0, 1.0)
            sampler.update_priorities(batch, priorities)
        sampler.next_batch(TIMEOUT)  # was asked for before the last priorities
        batches = [sampler.next_batch(TIMEOUT) for _ in range(20)]
        low = np.concatenate([batch["number"][:, 0] < 500 for batch in batches])
        self.assertAlmostEqual(low.mean(), 0.75, delta=0.02)
        weights = batches[0].weights(1.0)
        likely = batches[0]["number"][:, 0] < 500
        np.testing.assert_allclose(weights[likely], 1 / 3, rtol=1e-4)
        np.testing.assert_allclose(weights[~likely], 1, rtol=1e-4)
        with self.assertRaises(ValueError):
            sampler.update_priorities(batch, -np.ones(1000))

    def test_a_sampler_goes_on_after_its_shard_was_killed(self):
        shard = self.shard()
        client = self.client(shard)
        fill(client)
        sampler = self.enter(client.sampler(256))
        for _ in range(3):
            sampler.next_batch(TIMEOUT)
            shard.kill()
            shard.start()
            for _ in range(10):
                self.assertEqual(len(sampler.next_batch(TIMEOUT).rows), 256)

    def test_waiting_in_vain_says_for_what(self):
        client = self.client(self.shard())
        with self.assertRaisesRegex(TimeoutError, "waits for a writer"):
            client.sampler(32, timeout=0.2)
        with client.writer(LAYOUT) as writer:
            writer.wait_connected(TIMEOUT)
        sampler = self.enter(client.sampler(32))
        with self.assertRaisesRegex(TimeoutError, "mass 0, 0 windows inserted"):
            sampler.next_batch(1)
        fill(client, rows=200)
        self.assertEqual(len(sampler.next_batch(TIMEOUT).rows), 32)
        with self.assertRaisesRegex(troupe.TroupeError, "no table 'other'; there are: replay"):
            client.sampler(32, "other")


class Follow(ClusterTest):
    def test_a_position_goes_on_in_another_follower_after_a_kill(self):
        shard = self.shard()
        client = self.client(shard)
        numbers = []

        def take(follower):
            for rows in follower.until_caught_up(TIMEOUT):
                numbers.extend(rows["number"][~rows.final].tolist())
            return json.dumps(follower.position)

        fill(client, 5_000)
        with client.follow() as follower:
            position = take(follower)
        with client.writer(LAYOUT) as writer:  # another stream, whose block stays open
            writer.add_episode(terminated=True, truncated=False, **episode(5_000, 30))
            writer.flush(TIMEOUT)
            shard.kill()
            shard.start()
            with client.follow(position=json.loads(position)) as follower:
                position = take(follower)
            writer.add_episode(terminated=True, truncated=False, **episode(5_030, 70))
        with client.follow(position=json.loads(position)) as follower:
            take(follower)
            self.assertEqual(follower.stats.rows_missed, 0)
            self.assertEqual(follower.stats.restarts, 0)
        self.assertEqual(sorted(numbers), list(range(5_100)))

    def test_a_follower_whose_shard_is_killed_gets_every_row_once(self):
        shard = self.shard()
        client = self.client(shard)
        fill(client, 500_000, 5000)  # far more than is on its way at the kill
        with client.follow() as follower:
            numbers = []
            for i, rows in enumerate(follower.until_caught_up(TIMEOUT)):
                numbers.append(rows["number"][~rows.final])
                if i == 3:
                    shard.kill()
                    shard.start()
                    # Nothing is asked for again before what has come was taken.
                    for _ in range(100):
                        self.assertEqual(client.describe()[0].tables[0].follow_calls, 0)
            self.assertEqual(follower.stats.restarts, 0)
            self.assertGreaterEqual(follower.stats.reconnects, 1)
        np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(500_000))

    def test_followed_windows_are_those_that_the_shard_cuts(self):
        for length, stride, more in ((3, 1, ""), (5, 5, "stride: 5 start_at_final_rows: true")):
            client = self.client(self.shard(window=f"length: {length} {more}"))
            fill(client, 4_000, 37 if stride == 1 else 64)
            with client.follow() as follower:
                found = list(follower.windows(length, stride, start_at_final_rows=stride > 1,
                                              until_caught_up=True, timeout=TIMEOUT))
            ids = np.concatenate([windows.row_ids for windows in found])
            self.assertEqual(len(np.unique(ids)), len(ids))
            described = client.describe()[0].tables[0]
            self.assertEqual(len(ids), described.counts.inserted)
            sampled = self.enter(client.sampler(2048)).next_batch(TIMEOUT)
            by_id = {int(row): windows.rows[i] for windows in found
                     for i, row in enumerate(windows.row_ids)}
            for row, window in zip(sampled.row_ids.tolist(), sampled.rows):
                self.assertEqual(by_id[row].tobytes(), window.tobytes())

    def test_rows_that_came_while_following_are_followed(self):
        client = self.client(self.shard())
        writer = self.enter(client.writer(LAYOUT))
        writer.wait_connected(TIMEOUT)
        follower = self.enter(client.follow())
        for first in range(0, 500, 10):
            writer.add_episode(terminated=True, truncated=False, **episode(first, 10))
            came = []
            while len(came) < 10:
                rows = follower.next(TIMEOUT)
                came += rows["number"][~rows.final].tolist()
            self.assertEqual(came, list(range(first, first + 10)))


class Snapshots(ClusterTest):
    def test_subscribers_get_the_newest_snapshot_whole_and_again_after_a_kill(self):
        shard = self.shard()
        client = self.client(shard)
        subscriber = self.enter(client.subscribe())
        with self.assertRaisesRegex(TimeoutError, "no snapshot newer than 0"):
            subscriber.wait_newer(0, 0.2)
        version = client.new_epoch()
        self.assertEqual(version, 1 << 40 | 1)
        image = np.random.default_rng(1).bytes(3_000_001)
        client.publish(image, version)
        snapshot = subscriber.wait_newer(0, TIMEOUT)
        self.assertEqual((snapshot.image, snapshot.epoch, snapshot.counter), (image, 1, 1))
        shard.kill()
        shard.start()
        client.publish(image[:1000], version + 1)
        self.assertEqual(subscriber.wait_newer(version, TIMEOUT).image, image[:1000])
        self.assertEqual(client.new_epoch(), 2 << 40 | 1)
        client.publish(b"newer", 2 << 40 | 1)
        with self.assertRaisesRegex(troupe.Refused, "epoch"):
            client.publish(b"of a learner believed dead", version + 2)


class Rest(ClusterTest):
    def test_descriptions_name_who_is_connected(self):
        client = self.client(self.shard())
        fill(client, 100)
        rows, _, _ = all_rows(client)
        table = client.table()
        self.assertEqual((table.layout, table.window_length, len(rows)), (LAYOUT, 2, 101))
        self.assertEqual(table.layout.environment, "Test-v0")
        np.testing.assert_array_equal(table.layout["action"].low, [-1, -1])


if __name__ == "__main__":
    main()
