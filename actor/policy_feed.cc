#include "actor/policy_feed.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"

namespace troupe {

namespace {

absl::Status CheckImages(const PolicyMetadata& policy, const EnvSpec& spec) {
  const bool fits = policy.image_shape.empty()
                        ? spec.images.empty()
                        : spec.images.size() == 1 && spec.images[0].shape == policy.image_shape;
  if (fits) return absl::OkStatus();
  const auto join = [](std::string* out, const ObservationColumn& image) {
    absl::StrAppend(out, "[", absl::StrJoin(image.shape, ","), "]");
  };
  return absl::FailedPreconditionError(
      absl::StrCat("the policy of run '", policy.run, "' sees images of [",
                   absl::StrJoin(policy.image_shape, ","), "], but ", spec.id, " shows ",
                   spec.images.empty() ? "none" : absl::StrJoin(spec.images, ", ", join)));
}

}  // namespace

absl::Status CheckFits(const PolicyMetadata& policy, const EnvSpec& spec) {
  if (policy.observation_size == spec.observation_size && policy.action_size == spec.action_size &&
      policy.num_choices == spec.num_choices) {
    return CheckImages(policy, spec);
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the policy of run '", policy.run, "' maps ", policy.observation_size, " observations to ",
      policy.action_size, " actions of [", absl::StrJoin(policy.num_choices, ","),
      "] choices, but ", spec.id, " has ", spec.observation_size, ", ", spec.action_size, " and [",
      absl::StrJoin(spec.num_choices, ","), "]"));
}

PolicyFeed::PolicyFeed(SnapshotSubscriber& subscriber, const EnvSpec& spec,
                       std::function<void()> on_over)
    : subscriber_(subscriber),
      spec_(spec),
      on_over_(std::move(on_over)),
      thread_([this] { Run(); }) {}

PolicyFeed::~PolicyFeed() {
  Stop();
  thread_.join();
}

void PolicyFeed::Run() {
  uint64_t version = 0;
  while (true) {
    absl::StatusOr<SnapshotPtr> snapshot = subscriber_.WaitNewer(version, absl::InfiniteFuture());
    absl::Status status = snapshot.status();
    if (status.ok()) status = Accept(*snapshot);
    if (!status.ok()) {
      End(status);
      return on_over_();
    }
    version = (*snapshot)->version;
  }
}

absl::Status PolicyFeed::Accept(const SnapshotPtr& snapshot) {
  absl::StatusOr<std::unique_ptr<Policy>> policy = Policy::FromSnapshot(*snapshot);
  if (!policy.ok()) return policy.status();
  if (absl::Status fits = CheckFits((*policy)->metadata(), spec_); !fits.ok()) return fits;
  const bool final_one = (*policy)->metadata().final_one;
  {
    absl::MutexLock lock(&mu_);
    newest_ = *std::move(policy);
    run_is_over_ = final_one;
  }
  if (final_one) on_over_();
  return absl::OkStatus();
}

void PolicyFeed::End(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (!absl::IsCancelled(status)) status_ = status;
  ended_ = true;
}

std::unique_ptr<Policy> PolicyFeed::Take() {
  absl::MutexLock lock(&mu_);
  return std::move(newest_);
}

absl::StatusOr<std::unique_ptr<Policy>> PolicyFeed::WaitAndTake(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  auto ready = [this] {
    mu_.AssertReaderHeld();
    return newest_ != nullptr || ended_;
  };
  const bool in_time = mu_.AwaitWithTimeout(absl::Condition(&ready), timeout);
  if (newest_ != nullptr || !in_time) return std::move(newest_);
  if (!status_.ok()) return status_;
  return absl::CancelledError("stopped while waiting for a policy");
}

bool PolicyFeed::run_is_over() const {
  absl::MutexLock lock(&mu_);
  return run_is_over_;
}

absl::Status PolicyFeed::status() const {
  absl::MutexLock lock(&mu_);
  return status_;
}

void PolicyFeed::Stop() {
  subscriber_.Stop();
  End(absl::CancelledError("stopped"));
}

}  // namespace troupe
