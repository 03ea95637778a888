#ifndef TROUPE_COMMON_SHARD_LINK_H_
#define TROUPE_COMMON_SHARD_LINK_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/shard_directory.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace troupe {

// One client's own connection to one shard, wherever that is.  Not thread-safe.
class ShardLink final {
 public:
  ShardLink(std::shared_ptr<ShardDirectory> directory, size_t shard)
      : directory_(std::move(directory)), shard_(shard), place_(directory_->Place(shard)) {
    channel_ = directory_->MakeChannelTo(place_);
  }

  // Goes to where the shard is now.  REQUIRES: no call is under way, and the caller is no thread of
  // gRPC's.
  void Renew() {
    ShardPlace now = directory_->Place(shard_);
    if (now.moves == place_.moves) return;
    place_ = std::move(now);
    channel_ = directory_->MakeChannelTo(place_);
  }

  // The shard is elsewhere by now: nothing will come of a call on channel(), which may take long to
  // notice.
  bool IsStale() const { return directory_->Place(shard_).moves != place_.moves; }

  // Names the shard, so that no other one takes the call.
  void Address(grpc::ClientContext* context) const {
    if (place_.id != 0) context->AddMetadata("troupe-shard", absl::StrCat(absl::Hex(place_.id)));
  }

  // How a call has ended.
  void NoteEnd(const absl::Status& status) const {
    if (!status.ok() && !absl::IsCancelled(status)) directory_->Suspect(shard_);
  }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  std::string Name() const { return directory_->Name(shard_); }

 private:
  const std::shared_ptr<ShardDirectory> directory_;
  const size_t shard_;
  ShardPlace place_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace troupe

#endif  // TROUPE_COMMON_SHARD_LINK_H_
