"""Layouts, packing and windows of the Python package."""

import unittest

import numpy as np
from gymnasium import spaces
from troupe import Column, Layout, LayoutError, Rows, Windows
from troupe import transitions
from troupe.window_cutter import WindowCutter

LAYOUT = Layout(Column("observation", np.float32, (2,)), Column("action", np.int32, (1,)),
                Column("reward"))


class Layouts(unittest.TestCase):
    def test_columns_lie_at_multiples_of_their_element_and_rows_at_multiples_of_eight(self):
        layout = Layout(Column("image", np.uint8, (3,)), Column("a", np.float64), Column("b"),
                        Column("c", np.int64), Column("d", np.uint8))
        offsets = [layout.dtype.fields[name][1] for name in layout.names]
        self.assertEqual(offsets, [16, 24, 32, 40, 48])
        self.assertEqual(layout.stride_bytes, 56)

    def test_the_header_is_version_flags_priority(self):
        rows = LAYOUT.pack({"reward": [0.5]}, flags=2, policy_version=0x0102030405060708,
                           priority=1.0)
        self.assertEqual(rows.tobytes()[:16].hex(), "0807060504030201" "02000000" "0000803f")

    def test_a_layout_comes_back_from_its_message(self):
        layout = Layout(Column("observation", np.uint8, (4, 5, 3)),
                        Column("action", np.float32, (2,), low=[-1, -2], high=[1, np.inf]),
                        Column("choice", np.int32, (2,), num_choices=[3, 4]), environment="E-v1")
        again = Layout.from_proto(layout.to_proto())
        self.assertEqual(again, layout)
        self.assertEqual(again.environment, "E-v1")
        self.assertEqual(list(layout.to_proto().columns[1].high), [1, np.inf])
        self.assertEqual(list(layout.to_proto().columns[2].num_choices), [3, 4])

    def test_what_cannot_be_is_refused_by_its_column(self):
        for words, make in (
                ("column 'x': dtype float16", lambda: Column("x", np.float16)),
                ("column 'x': shape", lambda: Column("x", shape=(0,))),
                ("column '': a name", lambda: Column("")),
                ("column 'x': bounds on one side", lambda: Column("x", low=1)),
                ("column 'x': low", lambda: Column("x", shape=(2,), low=[1, 2, 3], high=4)),
                ("column 'x': a lower bound", lambda: Column("x", low=2, high=1)),
                ("column 'x': there twice", lambda: Layout(Column("x"), Column("x"))),
                ("column 'x' ends a row", lambda: Layout(Column("x", shape=(1 << 20, 1 << 10)))),
                ("no column 'y'; there are: observation", lambda: LAYOUT["y"])):
            with self.assertRaisesRegex(LayoutError, words):
                make()

    def test_spaces_of_gymnasium_become_columns(self):
        layout = Layout.of_spaces(
            spaces.Dict({"camera": spaces.Box(0, 255, (8, 8, 3), np.uint8),
                         "arm": spaces.Dict({"angle": spaces.Box(-1, 1, (4,), np.float64)})}),
            spaces.Box(-2, 2, (3,)))
        self.assertEqual([str(column) for column in layout],
                         ["'observation.arm.angle' float32[4]", "'observation.camera' uint8[8,8,3]",
                          "'action' float32[3]", "'reward' float32[]"])
        self.assertEqual(layout["action"].high, (2, 2, 2))
        box = spaces.Box(-1, 1, (1,))
        self.assertEqual(Layout.of_spaces(box, spaces.Discrete(4))["action"].num_choices, (4,))
        self.assertEqual(Layout.of_spaces(box, spaces.MultiDiscrete([2, 3]))["action"].num_choices,
                         (2, 3))
        with self.assertRaisesRegex(LayoutError, "column 'observation'"):
            Layout.of_spaces(spaces.Discrete(3), box)


class Transitions(unittest.TestCase):
    def test_an_episode_is_its_steps_and_a_final_row(self):
        rows = transitions.episode_rows(
            LAYOUT, np.arange(8.0).reshape(4, 2), {"action": [[1], [2], [3]], "reward": [1, 2, 3]},
            terminated=True, truncated=True, policy_version=9)
        np.testing.assert_array_equal(rows["observation"][:, 0], [0, 2, 4, 6])
        np.testing.assert_array_equal(rows["reward"], [1, 2, 3, 0])
        np.testing.assert_array_equal(rows["\0flags"], [0, 0, 0, 3])
        np.testing.assert_array_equal(rows["\0policy_version"], [9, 9, 9, 9])
        with self.assertRaisesRegex(LayoutError, "terminated, truncated or both"):
            transitions.episode_rows(LAYOUT, np.zeros((2, 2)), {}, terminated=False,
                                     truncated=False)
        with self.assertRaisesRegex(LayoutError, "column 'reward'.*\\[2\\] where \\[1\\]"):
            transitions.episode_rows(LAYOUT, np.zeros((2, 2)), {"reward": [1, 2]}, terminated=True,
                                     truncated=False)

    def test_transitions_get_a_final_row_after_each_end(self):
        before = np.arange(10.0).reshape(5, 2)
        rows = transitions.transition_rows(
            LAYOUT, before, before + 100, {"reward": [1, 2, 3, 4, 5]},
            terminated=[False, True, False, False, False],
            truncated=[False, False, False, True, False])
        np.testing.assert_array_equal(rows["observation"][:, 0], [0, 2, 102, 4, 6, 106, 8])
        np.testing.assert_array_equal(rows["reward"], [1, 2, 0, 3, 4, 0, 5])
        np.testing.assert_array_equal(rows["\0flags"], [0, 0, 1, 0, 0, 2, 0])


def rows_of(numbers, stream=7, finals=()):
    rows = LAYOUT.empty(len(numbers))
    rows["reward"] = numbers
    rows["\0flags"] = np.isin(numbers, finals)
    count = len(numbers)
    return Rows(LAYOUT, rows, np.full(count, stream, np.uint64), np.array(numbers, np.uint64),
                np.array(numbers, np.uint64) + 1000, 0)


class Cutting(unittest.TestCase):
    def cut(self, cutter, *parts):
        return [window["reward"].tolist() for part in parts for window in cutter.cut(part).rows]

    def test_windows_go_across_replies_and_begin_at_no_final_row(self):
        windows = self.cut(WindowCutter(3), rows_of([0, 1]), rows_of([2]),
                           rows_of([3, 4], finals=[4]), rows_of([5, 6, 7, 8]))
        self.assertEqual(windows, [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [5, 6, 7],
                                   [6, 7, 8]])

    def test_windows_begin_at_multiples_of_their_stride(self):
        cutter = WindowCutter(2, 2, start_at_final_rows=True)
        self.assertEqual(self.cut(cutter, rows_of([0, 1, 2], finals=[2]), rows_of([3, 4])),
                         [[0, 1], [2, 3]])

    def test_rows_that_were_missed_are_in_no_window(self):
        self.assertEqual(self.cut(WindowCutter(2), rows_of([0, 1]), rows_of([3, 4])),
                         [[0, 1], [3, 4]])

    def test_streams_do_not_mix_and_ids_are_those_of_the_first_rows(self):
        cutter = WindowCutter(2)
        self.assertEqual(self.cut(cutter, rows_of([0], 1), rows_of([0], 2), rows_of([1], 1)),
                         [[0, 1]])
        self.assertEqual(cutter.cut(rows_of([1, 2], 2)).row_ids.tolist(), [1000, 1001])


class Weights(unittest.TestCase):
    def test_weights_are_against_the_odds_and_at_most_one(self):
        windows = Windows(LAYOUT, LAYOUT.empty(6).reshape(3, 2), np.arange(3), np.zeros(3),
                          np.array([0.1, 0.4, 0.2], np.float32))
        np.testing.assert_allclose(windows.weights(0.5), [1, 0.5, 0.5**0.5], rtol=1e-6)
        with self.assertRaises(ValueError):
            Windows(LAYOUT, windows.rows, np.arange(3), np.zeros(3)).weights(1)

    def test_a_batch_is_a_mapping_of_its_columns(self):
        windows = Windows(LAYOUT, LAYOUT.empty(6).reshape(3, 2), np.arange(3), np.zeros(3))
        self.assertEqual({name: values.shape for name, values in windows.items()},
                         {"observation": (3, 2, 2), "action": (3, 2, 1), "reward": (3, 2)})
        self.assertIsNone(windows.get("torque"))


if __name__ == "__main__":
    unittest.main()
