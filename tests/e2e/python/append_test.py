"""Writers of the Python package: every acked row is stored once, whatever becomes of the shard.

    append_test.py BUILD_DIR
"""

import contextlib
import shutil
import threading

import grpc
import numpy as np

from cluster import LAYOUT, TIMEOUT, ClusterTest, all_rows, episode, main, troupe


class Append(ClusterTest):
    def assert_each_once(self, client, count):
        """`number`s of all steps are 0 .. count - 1, each in one row, streams without a gap."""
        rows, streams, numbers = all_rows(client)
        steps = rows[(rows["\0flags"] & 7) == 0]
        np.testing.assert_array_equal(np.sort(steps["number"]), np.arange(count))
        for stream in np.unique(streams):
            np.testing.assert_array_equal(numbers[streams == stream],
                                          np.arange((streams == stream).sum()))

    def test_a_step_becomes_a_row_and_an_end_a_final_row(self):
        client = self.client(self.shard())
        with client.writer(LAYOUT) as writer:
            writer.step(observation=[1, 2, 3], action=[0.5, -0.5], reward=1.5, number=7)
            writer.step(observation=[4, 5, 6], action=[0, 1], reward=2, number=8, terminated=True,
                        next_observation=[7, 8, 9], policy_version=5, priority=0.25)
        rows, _, numbers = all_rows(client)
        np.testing.assert_array_equal(numbers, [0, 1, 2])
        np.testing.assert_array_equal(rows["observation"], [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
        np.testing.assert_array_equal(rows["action"], [[0.5, -0.5], [0, 1], [0, 0]])
        np.testing.assert_array_equal(rows["reward"], [1.5, 2, 0])
        np.testing.assert_array_equal(rows["number"], [7, 8, 0])
        np.testing.assert_array_equal(rows["\0flags"], [0, 0, 1])
        np.testing.assert_array_equal(rows["\0policy_version"], [0, 5, 5])
        np.testing.assert_array_equal(rows["\0priority"], np.float32([0, 0.25, 0]))

    def test_steps_of_all_streams_at_once_are_those_of_each(self):
        """With next-step autoreset, as Gymnasium's vector environments have it."""
        shard = self.shard()
        client = self.client(shard)
        envs, steps = 5, 700
        random = np.random.default_rng(1)
        expected = [[] for _ in range(envs)]
        with client.writer(LAYOUT, num_streams=envs, options=troupe.WriterOptions(
                message_bytes=5_000)) as writer:
            names = [stream.id for stream in writer.streams]
            ended = np.zeros(envs, bool)
            for t in range(steps):
                before, after = random.normal(size=(2, envs, 3)).astype(np.float32)
                actions = random.uniform(-1, 1, (envs, 2)).astype(np.float32)
                terminated, truncated = random.random((2, envs)) < 0.1
                numbers = np.arange(envs) * steps + t
                writer.step_all(before, actions, np.full(envs, 0.5), number=numbers,
                                terminated=terminated, truncated=truncated,
                                next_observations=after, mask=~ended, policy_version=t)
                for i in np.flatnonzero(~ended):
                    expected[i].append((before[i], actions[i], 0.5, numbers[i], 0, t))
                    if terminated[i] or truncated[i]:
                        flags = 1 * terminated[i] + 2 * truncated[i]
                        expected[i].append((after[i], [0, 0], 0, 0, flags, t))
                ended = ~ended & (terminated | truncated)
            with self.assertRaisesRegex(troupe.LayoutError,
                                        "column 'action'.*\\[4, 2\\].*\\[5, 2\\]"):
                writer.step_all(before, actions[:4], np.zeros(envs))
        rows, streams, _ = all_rows(client)
        for name, mine in zip(names, expected):
            stored = rows[streams == name]
            for column, values in zip(("observation", "action", "reward", "number", "\0flags",
                                       "\0policy_version"), zip(*mine)):
                np.testing.assert_array_equal(stored[column], np.stack(values))

    def test_steps_of_changing_kinds_are_those_that_were_made(self):
        """Whatever the steps before were like, of which a stream remembers what fits."""
        layout = troupe.Layout(troupe.Column("observation", np.float32, (3,)),
                               troupe.Column("action", np.float32, (2,)), troupe.Column("reward"))
        client = self.client(self.shard())
        random = np.random.default_rng(1)
        expected = []
        with client.writer(layout) as writer:
            for t in range(2_000):
                observation = random.normal(size=3).astype(random.choice(["f4", "f8", "i2"]))
                action = random.normal(size=2).astype(np.float32)
                reward = (float(t), np.float32(t), t)[random.integers(3)]
                stamp = {"policy_version": t, "priority": 0.5} if random.random() < 0.5 else {}
                writer.step(observation, action if random.random() < 0.8 else list(action), reward,
                            **stamp)
                expected.append((observation, action, t, stamp.get("policy_version", 0),
                                 stamp.get("priority", 0)))
                if random.random() < 0.1:
                    for wrong in (observation[:2], observation.astype("c8")):
                        with self.assertRaisesRegex(troupe.LayoutError, "column 'observation'"):
                            writer.step(wrong, action, reward)
        rows, _, _ = all_rows(client)
        for column, values in zip(("observation", "action", "reward", "\0policy_version",
                                   "\0priority"), zip(*expected)):
            np.testing.assert_array_equal(rows[column], np.stack(values).astype(rows[column].dtype))

    def test_what_does_not_fit_is_refused_by_its_column_and_appends_nothing(self):
        with self.client(self.shard()).writer(LAYOUT) as writer:
            good = {"observation": [1, 2, 3], "action": [0, 0], "reward": 0.0, "number": 1}
            for wrong, words in (({"observation": [1, 2]},
                                  "column 'observation'.*\\[2\\].*\\[3\\]"),
                                 ({"action": ["a", "b"]}, "column 'action'"),
                                 ({"number": 1.5}, "column 'number': float64 is no int64"),
                                 ({"torque": 1.0}, "no column 'torque'; there are: observation"),
                                 ({"terminated": True}, "which next_observation")):
                with self.assertRaisesRegex(troupe.LayoutError, words):
                    writer.step(**{**good, **wrong})
            writer.step(**good)
            writer.flush(TIMEOUT)
            self.assertEqual(writer.stats.rows_acked, 1)

    def test_a_million_rows_come_back_bit_by_bit(self):
        layout = troupe.Layout(troupe.Column("observation", np.float32, (17,)),
                               troupe.Column("image", np.uint8, (5,)),
                               troupe.Column("action", np.float64, (6,)),
                               troupe.Column("reward"), troupe.Column("label", np.int32))
        client = self.client(self.shard(capacity_rows=1_100_000))
        random = np.random.default_rng(1)
        sent = {}
        with client.writer(layout, num_streams=4) as writer:
            for stream in writer.streams:
                rows = np.frombuffer(random.bytes(250_000 * layout.stride_bytes),
                                     layout.dtype).copy()
                rows["\0flags"] = 0  # NaNs, denormals and all else are just bits
                rows["\0flags"][999::1000] = 2
                stream.append(rows)
                sent[stream.id] = rows
        rows, streams, numbers = all_rows(client)
        self.assertEqual(len(rows), 1_000_000)
        for stream, expected in sent.items():
            mine = rows[streams == stream]
            np.testing.assert_array_equal(numbers[streams == stream], np.arange(250_000))
            for name in layout.dtype.names:
                self.assertEqual(np.ascontiguousarray(mine[name]).tobytes(),
                                 np.ascontiguousarray(expected[name]).tobytes(), name)

    def test_acked_rows_survive_kills_of_the_shard_and_none_is_there_twice(self):
        shard = self.shard()
        client = self.client(shard)
        writer = self.enter(client.writer(LAYOUT, num_streams=3, options=troupe.WriterOptions(
            max_unacked_bytes=200_000, message_bytes=8_000)))
        total, kills = 60_000, 8
        enough = [threading.Event() for _ in range(kills)]

        def append():
            for first in range(0, total, 100):
                stream = writer.streams[first // 100 % 3]
                if first % 200:
                    stream.add_episode(terminated=False, truncated=True, **episode(first, 100))
                else:
                    steps = episode(first, 100)
                    for i in range(100):
                        stream.step(steps["observations"][i], steps["action"][i],
                                    steps["reward"][i], number=first + i, truncated=i == 99,
                                    next_observation=steps["observations"][100])
                if first % (total // kills) == 0:
                    enough[first // (total // kills)].set()

        thread = threading.Thread(target=append)
        thread.start()
        for event in enough:
            self.assertTrue(event.wait(TIMEOUT))
            writer.wait_connected(TIMEOUT)
            acked = writer.stats.rows_acked
            shard.kill()
            shard.start()
            self.assertGreaterEqual(len(all_rows(client)[0]), acked)
        thread.join(TIMEOUT)
        writer.flush(TIMEOUT)
        stats = writer.stats
        self.assertEqual(stats.rows_acked, stats.rows_appended)
        self.assertGreaterEqual(stats.reconnects, kills)
        self.assert_each_once(client, total)

    def test_a_shard_that_lost_its_rows_gets_the_rest_in_a_new_stream(self):
        shard = self.shard()
        client = self.client(shard)
        writer = self.enter(client.writer(LAYOUT))
        writer.add_episode(terminated=True, truncated=False, **episode(0, 100))
        writer.flush(TIMEOUT)
        before = writer.streams[0].id
        shard.kill()
        shutil.rmtree(shard.data_dir)
        shard.data_dir.mkdir()
        shard.start()
        writer.add_episode(terminated=True, truncated=False, **episode(100, 50))
        writer.flush(TIMEOUT)
        self.assertNotEqual(writer.streams[0].id, before)
        self.assertEqual(writer.stats.streams_renamed, 1)
        rows, _, numbers = all_rows(client)
        np.testing.assert_array_equal(numbers, np.arange(51))
        np.testing.assert_array_equal(rows["number"][:50], np.arange(100, 150))

    def test_a_full_buffer_and_a_held_back_writer_wait_and_say_for_what(self):
        limit = ["tables.rate_limiter.samples_per_insert=1", "tables.rate_limiter.slack=300"]
        shard = self.shard(sets=limit)
        client = self.client(shard)
        writer = self.enter(client.writer(LAYOUT, options=troupe.WriterOptions(
            message_bytes=4_000, max_unacked_bytes=40_000)))
        with self.assertRaisesRegex(TimeoutError, "held_back"):
            for first in range(0, 10**6, 10):
                writer.add_episode(terminated=True, truncated=False, timeout=0.3,
                                   **episode(first, 10))
        # Four batches at once, as are asked for first, would never be let through.
        sampler = self.enter(client.sampler(200, prefetch=8))
        while writer.stats.rows_acked < writer.stats.rows_appended:
            with contextlib.suppress(TimeoutError):  # all are in by now, and too few for a batch
                sampler.next_batch(0.1)  # each sampled window lets one more in
        self.assertGreater(sampler.counts.sampled, 0)

    def test_another_layout_and_another_run_are_refused(self):
        shard = self.shard()
        client = self.client(shard)
        with client.writer(LAYOUT) as writer:
            writer.wait_connected(TIMEOUT)
        other = troupe.Layout(troupe.Column("observation", np.float32, (4,)))
        writer = self.enter(client.writer(other))
        with self.assertRaisesRegex(troupe.Refused, "column"):
            writer.wait_connected(TIMEOUT)
        writer = self.enter(troupe.Client(shard.address, "others").writer(LAYOUT))
        with self.assertRaisesRegex(troupe.Refused, "others") as refused:
            writer.step(observation=[1, 2, 3])
            writer.flush(TIMEOUT)
        self.assertEqual(refused.exception.code, grpc.StatusCode.FAILED_PRECONDITION)


if __name__ == "__main__":
    main()
