#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/replay_client_impl.h"

namespace troupe {
namespace {

// How long new priorities wait for a request that they can ride on.
constexpr absl::Duration kMaxDelay = absl::Milliseconds(10);
// In one request, which stays below the smallest replay_server.max_message_bytes: 12 bytes each.
constexpr int kMaxInRequest = 4096;
// For one shard; if it reads too slowly, those beyond are dropped.
constexpr int kMaxWaiting = 1 << 20;
constexpr float kMaxPriority = 1e30f;

absl::Status CheckPriorities(absl::Span<const int32_t> shards, absl::Span<const uint64_t> row_ids,
                             absl::Span<const float> priorities, size_t num_shards) {
  if (shards.size() != row_ids.size() || shards.size() != priorities.size()) {
    return absl::InvalidArgumentError(absl::StrCat("new priorities: ", shards.size(), " shards, ",
                                                   row_ids.size(), " row ids and ",
                                                   priorities.size(), " priorities"));
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    if (shards[i] < 0 || static_cast<size_t>(shards[i]) >= num_shards) {
      return absl::InvalidArgumentError(absl::StrCat("new priority of a window of shard ",
                                                     shards[i], ": there are ", num_shards));
    }
    if (!(priorities[i] >= 0 && priorities[i] <= kMaxPriority)) {
      return absl::InvalidArgumentError(absl::StrCat("new priority ", priorities[i], " of window ",
                                                     row_ids[i], ": must be 0 to ", kMaxPriority));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReplayClient::Impl::UpdatePriorities(absl::Span<const int32_t> shards,
                                                  absl::Span<const uint64_t> row_ids,
                                                  absl::Span<const float> priorities) {
  absl::MutexLock lock(&mu_);
  absl::Status status = CheckPriorities(shards, row_ids, priorities, lanes_.size());
  if (!status.ok()) return status;
  for (size_t i = 0; i < shards.size(); ++i) {
    Lane& lane = lanes_[shards[i]];
    if (!lane.up || lane.priorities.row_ids_size() >= kMaxWaiting) {
      ++stats_.priorities_dropped;
      continue;
    }
    lane.priorities.add_row_ids(row_ids[i]);
    lane.priorities.add_priorities(priorities[i]);
  }
  const absl::Time due = absl::Now() + kMaxDelay;
  for (size_t shard = 0; shard < lanes_.size(); ++shard) {
    Lane& lane = lanes_[shard];
    if (lane.priorities.row_ids_size() == 0) continue;
    if (lane.priorities_due == absl::InfiniteFuture()) {
      lane.priorities_due = due;
      timer_.Signal();
    }
    if (lane.priorities.row_ids_size() < kMaxInRequest) continue;
    lane.priorities_go_alone = true;
    SendNext(shard);
  }
  return absl::OkStatus();
}

// Moves as many as one request may carry into `request`; the rest follows at once.
void ReplayClient::Impl::TakePriorities(Lane& lane, proto::SampleRequest& request) {
  proto::PriorityUpdates& waiting = lane.priorities;
  const int count = std::min(waiting.row_ids_size(), kMaxInRequest);
  if (count == 0) return;
  proto::PriorityUpdates& taken = *request.mutable_priorities();
  if (count == waiting.row_ids_size()) {
    taken.Swap(&waiting);
  } else {
    auto& ids = *waiting.mutable_row_ids();
    auto& values = *waiting.mutable_priorities();
    taken.mutable_row_ids()->Add(ids.begin(), ids.begin() + count);
    taken.mutable_priorities()->Add(values.begin(), values.begin() + count);
    ids.erase(ids.begin(), ids.begin() + count);
    values.erase(values.begin(), values.begin() + count);
  }
  stats_.priorities_sent += count;
  lane.priorities_go_alone = waiting.row_ids_size() > 0;
  if (!lane.priorities_go_alone) lane.priorities_due = absl::InfiniteFuture();
}

void ReplayClient::Impl::DropPriorities(Lane& lane) {
  stats_.priorities_dropped += lane.priorities.row_ids_size();
  lane.priorities.Clear();
  lane.priorities_go_alone = false;
  lane.priorities_due = absl::InfiniteFuture();
}

}  // namespace troupe
