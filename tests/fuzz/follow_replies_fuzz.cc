// What a shard may answer to a learner that follows it: messages, each after two bytes of its
// length.  What the position takes goes into a replica, of which nothing that may be drawn is ever
// overwritten, whatever streams and rows are said to come.
#include "common/follow_position.h"
#include "learner/ram_replica_store.h"
#include "learner/replica_builder.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/replica/made_up_rows.h"

namespace troupe {
namespace {

constexpr int64_t kCapacityRows = 128;

class CheckedStore final : public ReplicaStore {
 public:
  explicit CheckedStore(const ReplicaShape& shape) : ram_(shape) {}

  const ReplicaShape& shape() const override { return ram_.shape(); }
  absl::Status WriteRows(uint32_t first_slot, absl::Span<const float> rows) override {
    const uint64_t count = rows.size() / shape().row_floats();
    Require(first_slot + count <= shape().capacity, "rows beyond the last slot");
    for (uint64_t number = ram_.tail(); number < ram_.head(); ++number) {
      const ReplicaTransition& transition = ram_.transition(number);
      for (const uint32_t slot : {transition.state_slot, transition.next_slot}) {
        Require(slot < first_slot || slot >= first_slot + count, "slot ", slot, " overwritten");
      }
    }
    return ram_.WriteRows(first_slot, rows);
  }
  absl::Status WriteTransitions(uint64_t first_number,
                                absl::Span<const ReplicaTransition> transitions) override {
    Require(first_number + transitions.size() <= ram_.tail() + shape().capacity, "too many");
    for (const ReplicaTransition& transition : transitions) {
      Require(transition.state_slot < shape().capacity, "a state beyond the last slot");
      Require(transition.next_slot < shape().capacity, "a next state beyond the last slot");
    }
    return ram_.WriteTransitions(first_number, transitions);
  }
  absl::Status SetRange(uint64_t tail, uint64_t head) override {
    Require(ram_.tail() <= tail && tail <= head && head <= tail + shape().capacity, "no range");
    return ram_.SetRange(tail, head);
  }

 private:
  RamReplicaStore ram_;
};

void TestOne(absl::string_view input) {
  static const Layout* const layout = new Layout(MadeUpLayout());
  if (input.size() < 4) return;
  const ReplicaBuilder::Options options = {.n_step = 1 + static_cast<uint8_t>(input[0]) % 8,
                                           .gamma = 0.9,
                                           .window_stride = 1 + static_cast<uint8_t>(input[1]) % 3,
                                           .start_at_final_rows = input[1] < 0,
                                           .capacity_rows = kCapacityRows};
  input.remove_prefix(2);
  CheckedStore store(ReplicaBuilder::ShapeFor(*layout, options).value());
  const auto builder = ReplicaBuilder::Create(*layout, options, &store).value();
  FollowPosition position(kCapacityRows, layout->stride_bytes());
  proto::FollowRequest request;
  while (input.size() >= 2) {
    const absl::string_view message = TakeMessage(&input);
    proto::FollowReply reply;
    if (!reply.ParseFromArray(message.data(), static_cast<int>(message.size()))) return;
    const bool is_taken = position.Advance(reply).ok();
    // The shard is then followed from its first row, so that rows come again.
    if (!is_taken) position.Reset();
    position.Describe(&request);
    if (!is_taken) continue;
    for (const proto::FollowedRows& run : reply.runs()) {
      const absl::Status added = builder->Add(run.stream(), run.first_row(), run.rows());
      Require(added.ok(), added);
    }
    Require(builder->Flush().ok(), "a flush failed");
  }
}

}  // namespace
}  // namespace troupe

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::TestOne(troupe::AsText(data, size));
  return 0;
}
