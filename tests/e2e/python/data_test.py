"""Data sets of Minari and LeRobot go into a table that gives up no row, or the column is named.

The data sets are written here as their formats' pages describe them.

    data_test.py BUILD_DIR
"""

import contextlib
import io
import json

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet

from cluster import BUILD_DIR, ClusterTest, all_rows, main, troupe
from troupe import data

CONFIG = """
run: "tests"
tables {
  name: "replay" capacity_rows: %d never_evict: true
  window { length: 2 }
  rate_limiter { min_size: 1 samples_per_insert: 0 }
}
"""
LENGTHS = (5, 1, 30)


def box(shape, low=-np.inf, high=np.inf, dtype="float32"):
    return {"type": "Box", "dtype": dtype, "shape": list(shape),
            "low": np.full(shape, low).tolist(), "high": np.full(shape, high).tolist()}


def write_minari(folder, lengths=LENGTHS, action=None, observation=None, change=None, **metadata):
    """Episodes whose observations count 0, 1, 2, ...; every second one terminates."""
    (folder / "data").mkdir(parents=True)
    observation = observation or {"type": "Dict", "subspaces": {
        "state": box((3,), dtype="float64"), "goal": box((2,))}}
    action = action or box((2,), -1, 1)
    saved = {"total_episodes": len(lengths), "total_steps": sum(lengths), "data_format": "hdf5",
             "observation_space": json.dumps(observation), "action_space": json.dumps(action),
             "env_spec": json.dumps({"id": "PointMaze-v3"}), **metadata}
    (folder / "data" / "metadata.json").write_text(json.dumps(saved))
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for i, steps in enumerate(lengths):
            group = file.create_group(f"episode_{i}")
            count = np.arange(steps + 1) + 100 * i
            group["observations/state"] = np.stack([count, -count, 0.5 * count], 1)
            group["observations/goal"] = np.full((steps + 1, 2), i, np.float32)
            group["actions"] = (np.arange(steps)[:, None] % 2 * [1.0, -1.0]
                                if action["type"] == "Box"
                                else np.arange(steps) % action["n"] + action["start"])
            group["rewards"] = count[1:] * 1.0
            group["terminations"] = np.arange(steps) == (steps - 1 if i % 2 else -1)
            group["truncations"] = np.arange(steps) == (-1 if i % 2 else steps - 1)
            group["infos"] = np.array(["{}"] * steps, dtype=h5py.string_dtype())
            if change:
                change(i, group)
    return folder


def write_lerobot(folder, lengths=LENGTHS, change=None, **features):
    """Two files, the second episode of which goes on in the second; every second one is done."""
    (folder / "meta").mkdir(parents=True)
    (folder / "data" / "chunk-000").mkdir(parents=True)
    frames = {name: [] for name in ("observation.state", "action", "next.reward", "next.done",
                                    "frame_index", "episode_index", "index", "timestamp")}
    for i, steps in enumerate(lengths):
        for t in range(steps):
            values = ([100.0 * i + t, -t, i], [0.1 * (t % 10), -1.0], float(t),
                      bool(i % 2 and t == steps - 1), t, i, len(frames["index"]), t / 30)
            for name, value in zip(frames, values):
                frames[name].append(value)
    info = {"codebase_version": "v3.0", "robot_type": "so100", "total_episodes": len(lengths),
            "total_frames": sum(lengths), "fps": 30,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "features": {"observation.state": {"dtype": "float32", "shape": [3], "names": None},
                         "action": {"dtype": "float32", "shape": [2], "names": None},
                         "next.reward": {"dtype": "float32", "shape": [1], "names": None},
                         "next.done": {"dtype": "bool", "shape": [1], "names": None},
                         **{name: {"dtype": "int64", "shape": [1], "names": None}
                            for name in ("frame_index", "episode_index", "index")},
                         "timestamp": {"dtype": "float32", "shape": [1], "names": None},
                         **features}}
    if change:
        change(info, frames)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    (folder / "meta" / "stats.json").write_text(json.dumps(
        {"action": {"min": [0.0, -1.0], "max": [0.9, 1.0], "count": [len(frames["index"])]}}))
    types = {"observation.state": pyarrow.list_(pyarrow.float32(), 3),
             "action": pyarrow.list_(pyarrow.float32()), "next.reward": pyarrow.float32()}
    half = len(frames["index"]) // 2
    for number, part in enumerate((slice(0, half), slice(half, None))):
        table = pyarrow.table({name: pyarrow.array(values[part], types.get(name))
                               for name, values in frames.items()})
        pyarrow.parquet.write_table(
            table, folder / "data" / "chunk-000" / f"file-{number:03d}.parquet")
    return folder


class Data(ClusterTest):
    def table(self, capacity_rows=1_000):
        shard = troupe.LocalShard(CONFIG % capacity_rows, self.folder(),
                                  build_dir=BUILD_DIR)
        self.addCleanup(shard.close)
        return shard

    def run_tool(self, *arguments):
        """(exit code, report, standard error)"""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = data.main([str(word) for word in arguments])
        return code, json.loads(out.getvalue() or "{}"), err.getvalue()

    def bring(self, *arguments, shard=None):
        """The report, and the table's rows."""
        shard = shard or self.table()
        code, report, error = self.run_tool(*arguments, "--shards", shard.address, "--run", "tests")
        self.assertEqual(code, 0, error)
        return report, all_rows(self.client(shard))[0]

    def assert_refused(self, words, *arguments):
        code, _, error = self.run_tool(*arguments, "--check")
        self.assertEqual(code, 1)
        self.assertRegex(error, words)

    def test_minari_comes_in_with_its_counts_and_ranges(self):
        folder = write_minari(self.folder() / "maze")
        report, rows = self.bring("minari", folder)
        self.assertEqual((report["episodes"], report["steps"], report["rows_acked"]),
                         (3, 36, 39))
        self.assertEqual(report["ranges"]["action"], [-1, 1])
        self.assertEqual(report["ranges"]["observation.state"], [-230, 230])
        self.assertEqual(report["environment"], "PointMaze-v3")
        self.assertEqual(len(rows), 39)
        last = np.flatnonzero(rows["\0flags"])
        np.testing.assert_array_equal(last, [5, 7, 38])
        np.testing.assert_array_equal(rows["\0flags"][last], [2, 1, 2])
        np.testing.assert_array_equal(rows["observation.state"][:6, 0], np.arange(6))
        np.testing.assert_array_equal(rows["observation.state"][8:, 2], np.arange(200, 231) / 2)
        np.testing.assert_array_equal(rows["reward"][:6], [1, 2, 3, 4, 5, 0])
        np.testing.assert_array_equal(rows["observation.goal"][7], [1, 1])

    def test_preloaded_rows_are_there_for_samplers_and_not_for_the_ratio(self):
        shard = self.table()
        self.bring("minari", write_minari(self.folder() / "maze"), shard=shard)
        counts = self.client(shard).describe()[0].tables[0].counts
        self.assertEqual((counts.inserted, counts.preloaded), (0, 36))

    def test_discrete_actions_begin_at_zero(self):
        action = {"type": "Discrete", "dtype": "int64", "start": 2, "n": 3}
        report, rows = self.bring("minari", write_minari(self.folder() / "maze", action=action))
        self.assertEqual(report["ranges"]["action"], [0, 2])
        np.testing.assert_array_equal(rows["action"][:5, 0], [0, 1, 2, 0, 1])

    def test_minari_is_refused_by_the_column_that_does_not_fit(self):
        def put(path, value, at):
            def change(i, group):
                if i == 2:
                    group[path][at] = value
            return change

        def shorter(i, group):
            del group["actions"]
            group["actions"] = np.zeros((3, 2))

        def without_goal(i, group):
            del group["observations/goal"]

        def jpegs(i, group):
            del group["observations/state"]
            group.create_dataset("observations/state", (4,), h5py.vlen_dtype(np.uint8))

        text = {"type": "Dict", "subspaces": {
            "mission": {"type": "Text", "max_length": 9, "min_length": 1, "charset": "ab"},
            "state": box((3,))}}
        for words, arguments in (
                ("column 'action': episode 2, step 7, element \\[1\\] is 1.5, outside of "
                 "\\[-1, 1\\]",
                 {"change": put("actions", 1.5, (7, 1))}),
                ("column 'reward': episode 2, step 0.* is nan",
                 {"change": put("rewards", np.nan, 0)}),
                ("column 'observation.state': episode 2, step 3.*1e\\+39",
                 {"change": put("observations/state", 1e39, (3, 0))}),
                ("column 'terminations': true at step 4 of episode 2",
                 {"change": put("terminations", True, 4)}),
                ("column 'action': episode 0 has values of shape \\[3, 2\\]", {"change": shorter}),
                ("column 'observation.goal': episode 0", {"change": without_goal}),
                ("column 'observation.state': holds JPEG", {"change": jpegs}),
                ("37 steps|36 steps where the data set says 37", {"total_steps": 37}),
                ("3 episodes where the data set says 4", {"total_episodes": 4}),
                ("column 'observation.mission': a space of type Text.*--skip observation.mission",
                 {"observation": text}),
                ("column 'action': a space of type Text", {"action": text["subspaces"]["mission"]
                                                           | {"n": 1, "start": 0}})):
            self.assert_refused(words, "minari", write_minari(self.folder() / "maze", **arguments))

    def test_what_is_outside_of_its_bounds_is_clipped_when_asked_to(self):
        def change(i, group):
            group["actions"][0, 0] = 7
        folder = write_minari(self.folder() / "maze", change=change)
        code, report, _ = self.run_tool("minari", folder, "--check", "--clip")
        self.assertEqual((code, report["ranges"]["action"]), (0, [-1, 1]))

    def test_a_table_with_another_layout_names_the_column(self):
        shard = self.table()
        self.bring("minari", write_minari(self.folder() / "a"), shard=shard)
        flat = write_minari(self.folder() / "b", observation={"type": "Dict", "subspaces": {
            "state": box((3,))}})
        code, _, error = self.run_tool("minari", flat, "--shards", shard.address, "--run", "tests")
        self.assertEqual(code, 1)
        self.assertRegex(error, "column 'observation.goal' float32\\[2\\] of the table is not in")
        code, _, error = self.run_tool("minari", flat, "--shards", shard.address, "--run", "tests",
                                       "--rename", "observation.state=observation.goal")
        self.assertRegex(error, "column 'observation.state' float32\\[3\\] of the table is not in")
        self.assertEqual(len(all_rows(self.client(shard))[0]), 39)

    def test_a_table_that_is_too_small_or_gives_up_rows_is_refused_before_a_row_is_sent(self):
        folder = write_minari(self.folder() / "maze", lengths=(300,))
        shard = self.table(capacity_rows=128)
        code, _, error = self.run_tool("minari", folder, "--shards", shard.address, "--run",
                                       "tests")
        self.assertEqual(code, 1)
        self.assertRegex(error, "room for 128 rows, and 365 are to come")
        ordinary = self.shard()
        code, _, error = self.run_tool("minari", folder, "--shards", ordinary.address, "--run",
                                       "tests")
        self.assertRegex(error, "never_evict")
        self.assertFalse(self.client(ordinary).describe()[0].tables[0].HasField("layout"))

    def test_lerobot_comes_in_with_final_rows_for_what_is_known(self):
        report, rows = self.bring("lerobot", write_lerobot(self.folder() / "so100"),
                                  "--rename", "observation.state=observation")
        # The episodes that are not done lose their last action, as nobody knows where it led.
        self.assertEqual((report["episodes"], report["steps"], report["rows"]), (3, 34, 37))
        self.assertIn("2 last actions dropped", report["remarks"][0])
        self.assertEqual(report["left_out"], ["episode_index", "frame_index", "index", "timestamp"])
        last = np.flatnonzero(rows["\0flags"])
        np.testing.assert_array_equal(last, [4, 6, 36])
        np.testing.assert_array_equal(rows["\0flags"][last], [2, 1, 2])
        np.testing.assert_array_equal(rows["observation"][7:, 0], 200 + np.arange(30))
        np.testing.assert_array_equal(rows["observation"][5:7, 0], [100, 100])
        np.testing.assert_array_equal(rows["reward"][7:], [*range(29), 0])
        np.testing.assert_allclose(rows["action"][7:17, 0], 0.1 * np.arange(10), rtol=1e-6)

    def test_lerobot_is_refused_by_the_column_that_does_not_fit(self):
        def feature(name, dtype, shape):
            return {name: {"dtype": dtype, "shape": shape, "names": None}}

        def change(part, name, value):
            def apply(info, frames):
                (info if part == "info" else frames)[name] = value
            return apply

        def set_frame(name, at, value):
            def apply(info, frames):
                frames[name][at] = value
            return apply

        def drop(name):
            def apply(info, frames):
                del info["features"][name]
            return apply

        for words, arguments in (
                ("column 'observation.images.top': of dtype video.*--skip",
                 feature("observation.images.top", "video", [3, 4, 4])),
                ("version 'v2.1', not v3", {"change": change("info", "codebase_version", "v2.1")}),
                ("column 'action'.*1.5, outside of \\[-1, 1\\]; --clip",
                 {"change": set_frame("action", 3, [0.0, 1.5])}),
                ("column 'frame_index': that of episode 2",
                 {"change": set_frame("frame_index", 20, 3)}),
                ("column 'next.done': true at step 2 of episode 0",
                 {"change": set_frame("next.done", 2, True)}),
                ("column 'next.reward': the data set has none; --final_reward",
                 {"change": drop("next.reward")}),
                ("column 'action': the data set has none", {"change": drop("action")}),
                ("column 'observation.force': file-000.parquet has none",
                 feature("observation.force", "float32", [1])),
                ("column 'index': 36 frames where meta/info.json says 40",
                 {"change": change("info", "total_frames", 40)})):
            self.assert_refused(words, "lerobot",
                                write_lerobot(self.folder() / "so100", **arguments))

    def test_lerobot_without_rewards_gets_one_at_the_end(self):
        folder = write_lerobot(self.folder() / "so100",
                               change=lambda info, frames: info["features"].pop("next.reward"))
        _, rows = self.bring("lerobot", folder, "--final_reward", "1", "--action_bounds=-1,1")
        np.testing.assert_array_equal(np.flatnonzero(rows["reward"]), [3, 5, 35])


if __name__ == "__main__":
    main()
