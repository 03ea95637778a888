"""safetensors, CRC-32C and checkpoints in Python, against their formats and other readers."""

import json
import pathlib
import struct
import tempfile
import unittest

import numpy as np
import safetensors.numpy

from troupe import checkpoint
from troupe import safetensors as ours
from troupe.crc32c import crc32c

TENSORS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([1, -2], np.int64),
           "scalar": np.array(3, np.float32), "none": np.zeros((0, 4), np.float64),
           "bytes": np.arange(7, dtype=np.uint8)}


def image(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin=0, end=4, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


class SafetensorsTest(unittest.TestCase):
    def test_what_is_written_is_read_by_us_and_by_the_safetensors_package(self):
        encoded = ours.encode(TENSORS, {"key": "wert \N{SNOWMAN}"})
        theirs = safetensors.numpy.load(encoded)
        mine = ours.parse(encoded)
        self.assertEqual(mine.metadata, {"key": "wert \N{SNOWMAN}"})
        for name, tensor in TENSORS.items():
            for read in (theirs, mine.tensors):
                self.assertEqual(read[name].dtype, tensor.dtype)
                self.assertEqual(read[name].shape, tensor.shape)
                np.testing.assert_array_equal(read[name], tensor)

    def test_what_the_safetensors_package_writes_is_read(self):
        read = ours.parse(safetensors.numpy.save(TENSORS, {"a": "b"}))
        np.testing.assert_array_equal(read.tensors["b"], TENSORS["b"])
        self.assertEqual(read.metadata, {"a": "b"})

    def test_hostile_bytes_are_refused_and_what_is_wrong_is_named(self):
        bad = {
            "too short": b"\x00" * 7,
            "a header of": struct.pack("<Q", 1 << 60),
            "are allowed": struct.pack("<Q", (1 << 20) + 1) + b" " * ((1 << 20) + 1),
            "not well-formed": image(b"{"),
            "not a JSON object": image(b"[]"),
            "there twice": image(b'{"a":{},"a":{}}'),
            "not a string": image({"__metadata__": {"a": 1}}),
            "dtype 'F16'": image({"a": entry(dtype="F16")}, b"1234"),
            "its entry": image({"a": 3}),
            "shape is no list": image({"a": entry(shape=(-1,))}, b"1234"),
            "no list of sizes": image({"a": entry(shape=[1] * 17)}, b"1234"),
            "are not F32": image({"a": entry(shape=(2,))}, b"1234"),
            "lies at": image({"a": entry(4, 8)}, b"1234"),
            "begins at byte": image({"a": entry(), "b": entry(2, 6)}, b"123456"),
            "end at byte 4 of 5": image({"a": entry()}, b"12345"),
        }
        for what, contents in bad.items():
            with self.subTest(what), self.assertRaisesRegex(ValueError, what):
                ours.parse(contents)

    def test_what_the_format_has_no_type_for_is_not_written(self):
        with self.assertRaisesRegex(ValueError, "complex"):
            ours.encode({"a": np.zeros(2, np.complex64)})


class Crc32cTest(unittest.TestCase):
    def test_published_vectors(self):
        # RFC 3720, B.4.
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)
        self.assertEqual(crc32c(b""), 0)

    def test_long_data_has_the_digest_that_bytes_one_by_one_have(self):
        data = np.random.default_rng(1).bytes(16 * 1024 + 7)
        register = 0xFFFFFFFF
        for byte in data:
            register ^= byte
            for _ in range(8):
                register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        self.assertEqual(crc32c(data), register ^ 0xFFFFFFFF)


class CheckpointTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name) / "checkpoints"

    def write(self, updates, contents=b"weights"):
        return checkpoint.write(self.folder, checkpoint.Checkpoint(
            updates, {"env_steps": 2 * updates}, {"model.safetensors": contents}))

    def test_the_newest_one_is_read_as_it_was_written(self):
        for updates in (9, 5, 1_000_000_000_000):
            self.write(updates, str(updates).encode())
        found = checkpoint.find(self.folder.parent)
        self.assertEqual(found.updates, 1_000_000_000_000)
        self.assertEqual(found.counters, {"env_steps": 2_000_000_000_000})
        self.assertEqual(found.files, {"model.safetensors": b"1000000000000"})
        self.assertEqual(checkpoint.find(self.folder / "000000000005").updates, 5)

    def test_an_older_one_stands_in_for_one_that_is_broken(self):
        self.write(1, b"old")
        newest = self.write(2, b"new")
        (newest / "model.safetensors").write_bytes(b"neq")
        self.assertEqual(checkpoint.read_newest(self.folder).updates, 1)
        with self.assertRaisesRegex(checkpoint.BrokenCheckpoint, "digest"):
            checkpoint.read_one(newest)
        (self.folder / "000000000001" / checkpoint.MARKER).write_text("{}")
        with self.assertRaisesRegex(checkpoint.BrokenCheckpoint, "every checkpoint is broken"):
            checkpoint.read_newest(self.folder)

    def test_a_marker_that_lies_is_refused(self):
        folder = self.write(3)
        marker = json.loads((folder / checkpoint.MARKER).read_text())
        for change in ({"format": "another"}, {"updates": -1}, {"updates": True},
                       {"counters": {"a": 1.5}}, {"counters": []}, {"files": {"../x": {}}},
                       {"files": {"gone": {"size": 1, "crc32c": 2}}}):
            with self.subTest(change), self.assertRaises(checkpoint.BrokenCheckpoint):
                (folder / checkpoint.MARKER).write_text(json.dumps({**marker, **change}))
                checkpoint.read_one(folder)

    def test_one_of_the_same_updates_is_replaced_and_nothing_else_is_left(self):
        self.write(4, b"first")
        self.write(4, b"second")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["000000000004"])
        self.assertEqual(checkpoint.read_newest(self.folder).files["model.safetensors"], b"second")

    def test_a_write_that_fails_leaves_the_old_ones_and_no_half(self):
        self.write(4)
        with self.assertRaisesRegex(ValueError, "no name for a file"):
            checkpoint.write(self.folder, checkpoint.Checkpoint(5, {}, {"../x": b""}))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["000000000004"])

    def test_where_there_is_none_that_is_said(self):
        with self.assertRaisesRegex(FileNotFoundError, "no checkpoint in"):
            checkpoint.find(self.folder)


if __name__ == "__main__":
    unittest.main()
