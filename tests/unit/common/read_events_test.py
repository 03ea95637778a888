"""PyPI's tensorboard reads back every scalar that common/event_writer.h wrote."""

import math
import subprocess
import sys
import tempfile
import unittest

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


class ReadEvents(unittest.TestCase):
    def test_every_scalar_is_read_back(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([WRITER, folder], check=True)
            events = EventAccumulator(folder, size_guidance={"scalars": 0})
            events.Reload()
        self.assertEqual(set(events.Tags()["scalars"]), {"loss/q", "evaluation/return"})
        losses = events.Scalars("loss/q")
        self.assertEqual([e.step for e in losses], [i * 1000000 for i in range(1000)])
        for i, event in enumerate(losses):
            self.assertAlmostEqual(event.value, math.sin(i), places=6)
            self.assertEqual(event.wall_time, 1700000000 + i)
        self.assertEqual([e.value for e in events.Scalars("evaluation/return")],
                         [i * -0.5 for i in range(1000)])


if __name__ == "__main__":
    WRITER = sys.argv.pop(1)
    unittest.main()
