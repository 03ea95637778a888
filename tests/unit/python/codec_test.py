"""Rows with compressed columns: to bytes and back, as C++ does it (row_codec_test.cc)."""

import unittest
from unittest import mock

import numpy as np
from troupe import Column, Layout, LayoutError, TroupeError
from troupe.codec import RowCodec, codec_of

CODECS = ("lz4", "zstd")


def layout(codec):
    """With gaps, and a picture between other columns."""
    return Layout(Column("small", np.uint8), Column("pixels", np.uint8, (40, 40, 1),
                                                    compression=codec),
                  Column("number", np.int64), Column("reward"))


def rows(codec, count, seed=1):
    """Every third picture is noise."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((count, 40, 40, 1), np.uint8)
    pixels[:, 5:15, 5:15] = random.integers(0, 255, (count, 1, 1, 1))
    pixels[::3] = random.integers(0, 255, (len(pixels[::3]), 40, 40, 1))
    return layout(codec).pack({"small": np.arange(count).astype(np.uint8), "pixels": pixels,
                               "number": np.arange(count), "reward": np.ones(count)}, flags=1)


class Codec(unittest.TestCase):
    def test_rows_come_back_to_the_byte(self):
        for name in CODECS:
            codec = RowCodec(layout(name))
            packed = rows(name, 20).tobytes()
            encoded = codec.encode(packed)
            self.assertLess(len(encoded), len(packed) / 2)
            self.assertEqual(len(encoded) % 8, 0)
            self.assertEqual(codec.decode(encoded, 20), packed)
            self.assertEqual(codec.decode(encoded), packed)
            self.assertEqual(codec.decode(b""), b"")

    def test_noise_is_stored_as_it_is(self):
        for name in CODECS:
            codec = RowCodec(layout(name))
            row = rows(name, 1)
            encoded = codec.encode(row.tobytes())
            self.assertLessEqual(len(encoded), codec.max_row_bytes)
            self.assertIn(row["pixels"].tobytes(), encoded)

    def test_a_layout_without_compressed_columns_has_none(self):
        self.assertIsNone(codec_of(layout(None)))

    def test_what_is_no_row_is_refused(self):
        for name in CODECS:
            codec = RowCodec(layout(name))
            encoded = codec.encode(rows(name, 3).tobytes())
            one = len(codec.encode(rows(name, 3)[:1].tobytes()))
            for size in range(1, one):
                with self.assertRaises(TroupeError):
                    codec.decode(encoded[:size])
            for count in (0, 1, 2, 4):
                with self.assertRaises(TroupeError):
                    codec.decode(encoded, count)
            squares = codec.encode(rows(name, 2)[1:].tobytes())
            for at in range(len(squares)):
                broken = bytearray(squares)
                broken[at] ^= 0xff
                try:
                    self.assertEqual(len(codec.decode(bytes(broken), 1)), codec.stride_bytes)
                except TroupeError:
                    pass

    def test_bytes_that_cpp_understands_are_understood(self):
        for name, encoded in GOLDEN.items():
            codec = RowCodec(Layout(Column("small", np.uint8),
                                    Column("pixels", np.uint8, (8, 8, 1), compression=name),
                                    Column("reward")))
            row = np.frombuffer(codec.decode(bytes.fromhex(encoded), 1), np.uint8)
            self.assertEqual(bytes(row[:16]), bytes(8) + b"\2" + bytes(7))
            self.assertEqual(row[16], 7)
            self.assertEqual(bytes(row[17:81]), b"\5" * 64)
            self.assertEqual(bytes(row[81:84]), bytes(3))
            self.assertEqual(row[84:88].view("<f4")[0], 0.5)

    def test_a_missing_package_is_named_with_what_installs_it(self):
        with mock.patch.dict("sys.modules", {"lz4": None, "lz4.block": None, "zstandard": None}):
            for name in CODECS:
                with self.assertRaisesRegex(TroupeError, r"'pixels' .* pip install "
                                                         r"'troupe\[compression\]'"):
                    RowCodec(layout(name))

    def test_a_layout_comes_back_from_its_message(self):
        for name in CODECS:
            again = Layout.from_proto(layout(name).to_proto())
            self.assertEqual(again, layout(name))
            self.assertNotEqual(again, layout(None))
            self.assertIn(name, str(again["pixels"]))
        for words, make in (
                ("compression 'gzip' is none of lz4, zstd",
                 lambda: Column("x", compression="gzip")),
                ("compression_level 20", lambda: Column("x", compression_level=20))):
            with self.assertRaisesRegex(LayoutError, words):
                make()


# One row of row_codec_test.cc.
GOLDEN = {
    "lz4": "00000000000000000200000000000000070000003f0b0000001f0501002750050505050500000000",
    "zstd": "00000000000000000200000000000000070000003f1100000028b52ffd204045000010050501009300"
            "16000000000000",
}

if __name__ == "__main__":
    unittest.main()
