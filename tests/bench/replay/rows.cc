#include "tests/bench/replay/rows.h"

#include <array>
#include <cstring>
#include <random>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

constexpr int64_t kNumPatterns = 64;
// A float32 holds whole numbers below this exactly.
constexpr uint64_t kFloatRange = uint64_t{1} << 24;

// Stream and row number as whole floats: the stream's low bits, and the number in two parts.
using RowMark = std::array<float, 3>;

RowMark MarkOf(uint64_t stream, uint64_t row) {
  return {static_cast<float>(stream % kFloatRange), static_cast<float>(row / kFloatRange),
          static_cast<float>(row % kFloatRange)};
}

uint64_t RowOf(const RowMark& mark) {
  return static_cast<uint64_t>(mark[1]) * kFloatRange + static_cast<uint64_t>(mark[2]);
}

void AddColumn(absl::string_view name, uint32_t size, proto::Layout* layout) {
  proto::Column* column = layout->add_columns();
  column->set_name(std::string(name));
  column->set_dtype(proto::FLOAT32);
  if (size > 0) column->add_shape(size);
}

// One frame of an Atari game, beside the three numbers that say which it is.
absl::StatusOr<Layout> PixelLayout() {
  proto::Layout layout;
  AddColumn(kObservation, 3, &layout);
  AddColumn(kAction, 1, &layout);
  AddColumn(kReward, 0, &layout);
  proto::Column* image = layout.add_columns();
  image->set_name(absl::StrCat(kObservationPrefix, "image"));
  image->set_dtype(proto::UINT8);
  for (const uint32_t axis : {84, 84, 1}) image->add_shape(axis);
  return Layout::FromProto(layout);
}

}  // namespace

absl::StatusOr<Layout> LayoutNamed(absl::string_view name) {
  proto::Layout layout;
  if (name == "pixels") return PixelLayout();
  if (name != "half_cheetah" && name != "humanoid") {
    return absl::InvalidArgumentError(
        absl::StrCat("--layout ", name, ": there are half_cheetah, humanoid and pixels"));
  }
  const bool humanoid = name == "humanoid";
  layout.set_environment(humanoid ? "Humanoid-v5" : "HalfCheetah-v5");
  AddColumn(kObservation, humanoid ? 348 : 17, &layout);
  AddColumn(kAction, humanoid ? 17 : 6, &layout);
  AddColumn(kReward, 0, &layout);
  return Layout::FromProto(layout);
}

absl::StatusOr<std::shared_ptr<const RowPatterns>> MakePatterns(const Layout& layout,
                                                                int64_t episode_rows,
                                                                bool with_priorities) {
  const absl::StatusOr<ColumnLayout> observation = layout.Find(kObservation);
  if (!observation.ok()) return observation.status();
  const absl::StatusOr<ColumnLayout> action = layout.Find(kAction);
  if (!action.ok()) return action.status();
  auto patterns = std::make_shared<RowPatterns>(
      RowPatterns{layout, episode_rows, observation->offset_bytes, action->offset_bytes,
                  action->size_bytes + static_cast<int64_t>(sizeof(float)),
                  std::vector<uint8_t>(kNumPatterns * layout.stride_bytes())});
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::exponential_distribution<float> priority;
  for (int64_t i = 0; i < kNumPatterns; ++i) {
    uint8_t* row = patterns->bytes.data() + i * layout.stride_bytes();
    WriteRowHeader({.priority = with_priorities ? priority(random) : 0}, row);
    for (int64_t at = observation->offset_bytes; at + 4 <= layout.stride_bytes(); at += 4) {
      const float value = normal(random);
      std::memcpy(row + at, &value, sizeof(value));
    }
  }
  return patterns;
}

RowSource::RowSource(std::shared_ptr<const RowPatterns> patterns, uint64_t stream)
    : patterns_(std::move(patterns)), stream_(stream) {}

void RowSource::Pack(int64_t num_rows, uint8_t* out) {
  const RowPatterns& patterns = *patterns_;
  const int64_t stride = patterns.layout.stride_bytes();
  for (int64_t i = 0; i < num_rows; ++i, ++next_row_, out += stride) {
    std::memcpy(out, patterns.bytes.data() + next_row_ % kNumPatterns * stride, stride);
    const RowMark mark = MarkOf(stream_, next_row_);
    std::memcpy(out + patterns.observation_offset, mark.data(), sizeof(mark));
    if ((next_row_ + 1) % patterns.episode_rows != 0) continue;
    WriteRowHeader({.flags = kTruncated}, out);
    std::memset(out + patterns.action_offset, 0, patterns.action_and_reward_bytes);
  }
}

int64_t CountWrongWindows(const RowPatterns& patterns, absl::Span<const uint8_t> windows,
                          int64_t length) {
  const size_t stride = patterns.layout.stride_bytes();
  const size_t window_bytes = stride * length;
  int64_t wrong = windows.size() % window_bytes == 0 ? 0 : 1;
  for (size_t at = 0; at + window_bytes <= windows.size(); at += window_bytes) {
    const uint8_t* row = windows.data() + at + patterns.observation_offset;
    RowMark first, next;
    std::memcpy(first.data(), row, sizeof(first));
    bool right = true;
    for (int64_t i = 1; i < length; ++i) {
      std::memcpy(next.data(), row + i * stride, sizeof(next));
      right = right && next[0] == first[0] && RowOf(next) == RowOf(first) + i;
    }
    wrong += right ? 0 : 1;
  }
  return wrong;
}

int64_t CountWrongRows(const RowPatterns& patterns, absl::Span<const uint8_t> rows, uint64_t stream,
                       uint64_t first_row) {
  const size_t stride = patterns.layout.stride_bytes();
  int64_t wrong = rows.size() % stride == 0 ? 0 : 1;
  for (size_t i = 0; i < rows.size() / stride; ++i) {
    const RowMark expected = MarkOf(stream, first_row + i);
    const uint8_t* found = rows.data() + i * stride + patterns.observation_offset;
    wrong += std::memcmp(found, expected.data(), sizeof(expected)) == 0 ? 0 : 1;
  }
  return wrong;
}

}  // namespace troupe
