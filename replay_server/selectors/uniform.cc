#include <algorithm>
#include <bit>
#include <limits>

#include "absl/random/random.h"
#include "replay_server/selectors/interface.h"

namespace troupe {
namespace {

// Draws a place among all up to the last block in use until a window starts there: exact, without
// an index.  Where windows are so few that this would take long, they are listed first.
class UniformSelector final : public Selector {
 public:
  explicit UniformSelector(uint32_t num_blocks) : masks_(num_blocks, 0) {}

  void Add(uint32_t block, uint64_t mask, absl::Span<const float>) override {
    masks_[block] |= mask;
    num_windows_ += std::popcount(mask);
    blocks_in_use_ = std::max(blocks_in_use_, block + 1);
  }

  void Remove(uint32_t block, uint64_t mask) override {
    num_windows_ -= std::popcount(masks_[block] & mask);
    masks_[block] &= ~mask;
  }

  uint64_t Mask(uint32_t block) const override { return masks_[block]; }
  double Mass() const override { return static_cast<double>(num_windows_); }

  int64_t MaxBatch() const override {
    return num_windows_ > 0 ? std::numeric_limits<int64_t>::max() : 0;
  }

  void Select(int64_t n, absl::BitGenRef random, std::vector<Selection>* out) override {
    const auto probability = static_cast<float>(1.0 / static_cast<double>(num_windows_));
    const uint64_t num_places = uint64_t{blocks_in_use_} * 64;
    const double expected_tries = static_cast<double>(n) * static_cast<double>(num_places) /
                                  static_cast<double>(num_windows_);
    if (expected_tries > kTriesPerListed * static_cast<double>(blocks_in_use_ + num_windows_)) {
      SelectFromList(n, probability, random, out);
      return;
    }
    while (n > 0) {
      const uint64_t place = absl::Uniform<uint64_t>(random, 0, num_places);
      if ((masks_[place / 64] >> (place % 64) & 1) == 0) continue;
      out->push_back(At(place, probability));
      --n;
    }
  }

 private:
  // A list of all windows costs as much as this many tries for each block and window in it.
  static constexpr double kTriesPerListed = 4;

  static Selection At(uint64_t place, float probability) {
    return {static_cast<uint32_t>(place / 64), static_cast<uint32_t>(place % 64), probability};
  }

  void SelectFromList(int64_t n, float probability, absl::BitGenRef random,
                      std::vector<Selection>* out) const {
    std::vector<uint64_t> places;
    places.reserve(num_windows_);
    for (uint64_t block = 0; block < blocks_in_use_; ++block) {
      for (uint64_t rest = masks_[block]; rest != 0; rest &= rest - 1) {
        places.push_back(block * 64 + std::countr_zero(rest));
      }
    }
    for (; n > 0; --n) {
      out->push_back(At(places[absl::Uniform<size_t>(random, 0, places.size())], probability));
    }
  }

  std::vector<uint64_t> masks_;
  uint64_t num_windows_ = 0;
  uint32_t blocks_in_use_ = 0;  // no window starts at or after this block
};

}  // namespace

std::unique_ptr<Selector> NewUniformSelector(uint32_t num_blocks) {
  return std::make_unique<UniformSelector>(num_blocks);
}

}  // namespace troupe
