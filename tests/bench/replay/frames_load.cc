// troupe-frames-load: frames of 84x84 bytes through our own clients, as an actor and a learner use
// them, so that what compression costs and gains is counted on both sides.  Prints one JSON object.
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "actor/row_writer.h"
#include "common/replay_client.h"
#include "common/row_codec.h"
#include "nlohmann/json.hpp"

ABSL_FLAG(std::string, target, "", "The shard, host:port.");
ABSL_FLAG(std::string, codec, "COMPRESSION_NONE", "COMPRESSION_NONE, LZ4 or ZSTD.");
ABSL_FLAG(int, level, 1, "ZSTD's.");
ABSL_FLAG(
    std::string, frames, "sprites",
    "sprites: a game's picture, rows of bricks and twelve small textured sprites that move on "
    "two plain grounds; noise: bytes that no codec makes smaller.");
ABSL_FLAG(std::string, mode, "append", "append or sample.");
ABSL_FLAG(int64_t, rows, 0, "append: so many, instead of for a time.");
ABSL_FLAG(double, seconds, 2, "Of the measurement.");

namespace troupe {
namespace {

constexpr int kSide = 84;
constexpr int64_t kEnvs = 8;
constexpr int64_t kBatch = 32;
constexpr int64_t kPatterns = 256;  // pictures, made before anything is measured
constexpr char kPixels[] = "observation";

absl::Time Soon() { return absl::Now() + absl::Minutes(1); }

proto::Layout FramesLayout(proto::Compression codec) {
  proto::Layout layout;
  const auto add = [&layout](const char* name, proto::DType dtype) {
    proto::Column* column = layout.add_columns();
    column->set_name(name);
    column->set_dtype(dtype);
    return column;
  };
  proto::Column* pixels = add(kPixels, proto::UINT8);
  for (const uint32_t axis : {kSide, kSide, 1}) pixels->add_shape(axis);
  pixels->set_compression(codec);
  add("action", proto::INT32)->add_shape(1);
  add("reward", proto::FLOAT32);
  return layout;
}

using Picture = std::vector<uint8_t>;

Picture Noise(std::mt19937_64& random) {
  Picture picture(kSide * kSide);
  for (uint8_t& pixel : picture) pixel = static_cast<uint8_t>(random());
  return picture;
}

void DrawSprite(int number, int64_t time, Picture* picture) {
  std::mt19937_64 random(number);
  const auto vx = static_cast<int64_t>(random() % 5) - 2;
  const auto vy = static_cast<int64_t>(random() % 5) - 2;
  const int64_t left = ((static_cast<int64_t>(random() % 77) + vx * time) % 77 + 77) % 77;
  const int64_t top = 8 + ((static_cast<int64_t>(random() % 68) + vy * time) % 68 + 68) % 68;
  for (int64_t y = top; y < top + 8; ++y) {
    for (int64_t x = left; x < left + 7; ++x) {
      const auto pixel = static_cast<uint8_t>(random() % 200 + 40);
      if (random() % 3 != 0) (*picture)[y * kSide + x] = pixel;
    }
  }
}

Picture Sprites(int64_t time) {
  Picture picture(kSide * kSide, 87);
  std::fill_n(picture.begin(), 8 * kSide, 0);
  for (int y = 18; y < 36; ++y) {  // six rows of bricks, some of them gone
    for (int x = 0; x < kSide; ++x) {
      const bool gone = (y / 3 * 31 + x / 6 * 17 + time / 40) % 5 == 0;
      if (!gone && x % 6 != 5) picture[y * kSide + x] = static_cast<uint8_t>(100 + y / 3 * 20);
    }
  }
  for (int sprite = 1; sprite <= 12; ++sprite) DrawSprite(sprite, time, &picture);
  return picture;
}

std::vector<Picture> MakePictures() {
  std::mt19937_64 random(1);
  std::vector<Picture> pictures;
  for (int64_t i = 0; i < kPatterns; ++i) {
    pictures.push_back(absl::GetFlag(FLAGS_frames) == "noise" ? Noise(random) : Sprites(i));
  }
  return pictures;
}

double CpuSeconds() {
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

// Frames a second and CPU a frame, from one moment on.
struct Meter {
  absl::Time begin = absl::Now();
  double cpu_begin = CpuSeconds();

  void Print(int64_t frames) const {
    const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    const auto count = static_cast<double>(frames);
    std::cout << nlohmann::json{{"frames", frames},
                                {"frames_per_second", count / seconds},
                                {"gigabytes_per_second", 1e-9 * kSide * kSide * count / seconds},
                                {"cpu_us_per_frame", 1e6 * (CpuSeconds() - cpu_begin) / count}}
              << "\n";
  }
};

absl::Status Append(const Layout& layout, const proto::ColumnCompression& compression) {
  RowWriterOptions options;
  options.shards = {absl::GetFlag(FLAGS_target)};
  options.run = "bench";
  options.table = "replay";
  options.num_envs = kEnvs;
  options.max_unacked_bytes = 4 << 20;
  options.compression = {compression};
  auto writer = RowWriter::Create(options, layout);
  if (!writer.ok()) return writer.status();
  if (absl::Status status = (*writer)->WaitConnected(Soon()); !status.ok()) return status;
  const std::vector<Picture> pictures = MakePictures();
  const int64_t offset = layout.Find(kPixels)->offset_bytes;
  const Meter meter;
  const absl::Time end = meter.begin + absl::Seconds(absl::GetFlag(FLAGS_seconds));
  const int64_t rows = absl::GetFlag(FLAGS_rows);
  int64_t row = 0;
  for (; rows > 0 ? row < rows : absl::Now() < end; ++row) {
    const Picture& picture = pictures[(row / kEnvs + row % kEnvs * 29) % kPatterns];
    const auto appended = (*writer)->Append(row % kEnvs, [&](absl::Span<char> to) {
      std::memcpy(to.data() + offset, picture.data(), picture.size());
    });
    if (!appended.ok()) return appended.status();
  }
  if (absl::Status status = (*writer)->Flush(Soon()); !status.ok()) return status;
  meter.Print(row);
  return absl::OkStatus();
}

absl::Status Sample() {
  ReplayClientOptions options;
  options.shards = {absl::GetFlag(FLAGS_target)};
  options.run = "bench";
  options.table = "replay";
  options.batch_size = kBatch;
  auto client = ReplayClient::Create(options);
  if (!client.ok()) return client.status();
  const absl::StatusOr<TableInfo> table = (*client)->WaitForTable(Soon());
  if (!table.ok()) return table.status();
  for (int i = 0; i < 20; ++i) {  // warm up
    if (const auto batch = (*client)->NextBatch(Soon()); !batch.ok()) return batch.status();
  }
  const Meter meter;
  const absl::Time end = meter.begin + absl::Seconds(absl::GetFlag(FLAGS_seconds));
  int64_t batches = 0;
  for (; absl::Now() < end; ++batches) {
    if (const auto batch = (*client)->NextBatch(Soon()); !batch.ok()) return batch.status();
  }
  meter.Print(batches * kBatch * table->window_length);
  return absl::OkStatus();
}

absl::Status Run() {
  proto::ColumnCompression compression;
  proto::Compression codec = proto::COMPRESSION_NONE;
  if (!proto::Compression_Parse(absl::GetFlag(FLAGS_codec), &codec)) {
    return absl::InvalidArgumentError(absl::StrCat("no codec ", absl::GetFlag(FLAGS_codec)));
  }
  compression.set_column(kPixels);
  compression.set_codec(codec);
  compression.set_level(absl::GetFlag(FLAGS_level));
  const absl::StatusOr<Layout> layout = Layout::FromProto(FramesLayout(codec));
  if (!layout.ok()) return layout.status();
  return absl::GetFlag(FLAGS_mode) == "sample" ? Sample() : Append(*layout, compression);
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = troupe::Run();
  if (status.ok()) return 0;
  std::cerr << "troupe-frames-load: " << status.message() << "\n";
  return 1;
}
