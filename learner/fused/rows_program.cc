#include "learner/fused/rows_program.h"

#include <algorithm>

#include "learner/fused/rows_builder.h"

namespace troupe {
namespace {

// Into how many parts the sums over `width` inputs may be cut.
int PartsOf(int width) {
  const int chunks = width / kPadding;
  return chunks % 4 == 0 ? 4 : chunks % 2 == 0 ? 2 : 1;
}

// Of critic e's array of rows.
float* OfCritic(float* rows, int e, int padded_batch, int width) {
  return rows + int64_t{e} * padded_batch * width;
}

// Of critic e.
NormRows OfCritic(const NormRows& rows, int e, int padded_batch, int width) {
  if (rows.scale == nullptr) return rows;
  return {OfCritic(rows.normalized, e, padded_batch, width), rows.scale + e * padded_batch,
          OfCritic(rows.sums, e, padded_batch / kTileRows, 2 * width)};
}

constexpr int kBranches = 4;  // the policy in s' and in s, both critics

class CriticRowsBuilder final {
 public:
  CriticRowsBuilder(const DeviceNetworks& networks, int action_size, int padded_batch)
      : networks_(networks),
        num_hidden_(networks.critic_network.num_hidden()),
        padded_batch_(padded_batch),
        builder_(networks) {
    RowsLayout& layout = builder_.layout();
    layout.next_s_a = builder_.TakeRows(1, layout.input_stride);
    hidden_ = builder_.TakeRows(2 * kBranches, layout.hidden_stride);
    layout.head_stride = SharedStride(networks.actor_network.head().padded_n);
    layout.head_parts = PartsOf(networks.actor_network.head().padded_k);
    layout.head = builder_.TakeRows(2 * layout.head_parts, layout.head_stride);
    layout.log_prob = builder_.Take(2 * kTileRows * action_size);
    layout.transitions = builder_.Take(kTileRows * kFloatsOf16Bytes);
    layout.last_hidden = Hidden(num_hidden_ - 1, 2);
    layout.last_gradient = Hidden(num_hidden_, 2);
    layout.target_hidden = Hidden(2 * num_hidden_ - 1, 0);
  }

  BuiltProgram Build() {
    for (int l = 0; l < num_hidden_; ++l) AddHiddenLayer(l);
    AddHead();
    for (int l = 0; l < num_hidden_; ++l) AddTargetLayer(l);
    AddNormOfLastGradient();
    builder_.BeginStep(Before::kTemporalDifference,
                       num_hidden_ > 1 && GoesOnBelow(num_hidden_ - 1));
    for (int l = num_hidden_ - 1; l > 0; --l) AddBackward(l);
    return builder_.Finish(4);
  }

 private:
  // Two places take turns.
  int Hidden(int layer, int branch) {
    return hidden_ +
           (layer % 2 * kBranches + branch) * RowsBuilder::SizeOf(builder_.layout().hidden_stride);
  }
  const float* Critic(int e) const {
    return networks_.critics.values + e * networks_.critic_network.size;
  }

  void AddHiddenLayer(int l) {
    builder_.BeginStep(l == 0 ? Before::kGather : Before::kNothing, /*everywhere=*/true);
    for (int branch = 0; branch < kBranches; ++branch) {
      const bool is_actor = branch < 2;
      const PackedLayer& layer =
          is_actor ? networks_.actor_network.layers[l] : networks_.critic_network.layers[l];
      ProductJob job =
          RowsBuilder::Forward(layer, is_actor ? networks_.actor.values : Critic(branch - 2));
      RowsBuilder::Activate(is_actor ? networks_.actor_unit : networks_.critic_unit, job);
      FromBelow(l, l - 1, branch, branch == 0, job);
      builder_.ToHidden(Hidden(l, branch), job);
      NormRows norm;  // of branch 0 nothing is wanted later
      if (branch == 1) {
        job.kept = networks_.actor_h[l];
        norm = networks_.actor_norm[l];
      } else if (branch > 1) {
        job.kept = OfCritic(networks_.critic_h[l], branch - 2, padded_batch_, layer.padded_n);
        norm = OfCritic(networks_.critic_norm[l], branch - 2, padded_batch_, layer.padded_n);
      }
      builder_.AddHidden(layer, is_actor ? networks_.actor.values : Critic(branch - 2), norm, job);
    }
  }

  // Layer l's input: (s', a') or (s, a), or what is at `place` of the hidden layers.
  void FromBelow(int l, int place, int branch, bool of_next, ProductJob& job) {
    const RowsLayout& layout = builder_.layout();
    if (l == 0) {
      builder_.From(of_next ? layout.next_s_a : layout.s_a, layout.input_stride, job);
    } else {
      builder_.FromHidden(Hidden(place, branch), job);
    }
  }

  void AddHead() {
    const RowsLayout& layout = builder_.layout();
    builder_.BeginStep(Before::kNothing, /*everywhere=*/false);
    for (int j = 0; j < 2; ++j) {
      ProductJob job = RowsBuilder::Forward(networks_.actor_network.head(), networks_.actor.values);
      builder_.FromHidden(Hidden(num_hidden_ - 1, j), job);
      const int parts = layout.head_parts;
      builder_.AddParts(job, parts,
                        layout.head + j * parts * RowsBuilder::SizeOf(layout.head_stride),
                        layout.head_stride);
    }
  }

  void AddTargetLayer(int l) {
    builder_.BeginStep(l == 0 ? Before::kDrawActions : Before::kNothing, /*everywhere=*/true);
    const PackedLayer& layer = networks_.critic_network.layers[l];
    for (int e = 0; e < 2; ++e) {
      const float* const values = networks_.target_critics + e * networks_.critic_network.size;
      ProductJob job = RowsBuilder::Forward(layer, values);
      RowsBuilder::Activate(networks_.critic_unit, job);
      FromBelow(l, num_hidden_ + l - 1, e, /*of_next=*/true, job);
      builder_.ToHidden(Hidden(num_hidden_ + l, e), job);
      builder_.AddHidden(layer, values, {}, job);
    }
  }

  // Whether gradients by the outputs of layer l - 1 are for a layer below, or LayerNorm, too.
  bool GoesOnBelow(int l) const {
    return l > 1 || networks_.critic_network.layers[l - 1].has_norm();
  }

  void AddNormOfLastGradient() {
    const int l = num_hidden_ - 1;
    const PackedLayer& layer = networks_.critic_network.layers[l];
    for (int e = 0; layer.has_norm() && e < 2; ++e) {
      builder_.AddNormBack(layer, Critic(e),
                           OfCritic(networks_.critic_norm[l], e, padded_batch_, layer.padded_n),
                           Hidden(num_hidden_, 2 + e),
                           OfCritic(networks_.critic_d[l], e, padded_batch_, layer.padded_n));
    }
  }

  void AddBackward(int l) {
    const PackedNetwork& network = networks_.critic_network;
    const int width = network.layers[l].padded_k, last = num_hidden_ - 1;
    if (l < last) builder_.BeginStep(Before::kNothing, GoesOnBelow(l));
    for (int e = 0; e < 2; ++e) {
      ProductJob job = RowsBuilder::Backward(
          network.layers[l], networks_.critics.transposed + e * network.transposed_size);
      RowsBuilder::MultiplyBySlope(
          networks_.critic_unit, OfCritic(networks_.critic_h[l - 1], e, padded_batch_, width), job);
      builder_.FromHidden(l == last ? Hidden(num_hidden_, 2 + e) : Hidden(last - l - 1, e), job);
      job.kept = OfCritic(networks_.critic_d[l - 1], e, padded_batch_, width);
      if (GoesOnBelow(l)) builder_.ToHidden(Hidden(last - l, e), job);
      builder_.AddHidden(network.layers[l - 1], Critic(e),
                         OfCritic(networks_.critic_norm[l - 1], e, padded_batch_, width), job);
    }
  }

  const DeviceNetworks& networks_;
  const int num_hidden_, padded_batch_;
  RowsBuilder builder_;
  int hidden_ = 0;
};

class ActorRowsBuilder final {
 public:
  ActorRowsBuilder(const DeviceNetworks& networks, int observation_size, int action_size,
                   int padded_batch)
      : networks_(networks),
        num_hidden_(networks.critic_network.num_hidden()),
        padded_batch_(padded_batch),
        first_tile_(observation_size / kTileColumns),
        last_tile_((observation_size + action_size - 1) / kTileColumns),
        builder_(networks) {
    RowsLayout& layout = builder_.layout();
    ring_ = builder_.TakeRows(2 * kRing, layout.hidden_stride);
    layout.action_stride = SharedStride((last_tile_ - first_tile_ + 1) * kTileColumns);
    layout.action_parts = PartsOf(networks.critic_network.layers[0].transposed_n);
    layout.action_gradient = builder_.TakeRows(2 * layout.action_parts, layout.action_stride);
    layout.head_gradient_width = networks.actor_network.head().transposed_n;
    layout.head_gradient_stride = SharedStride(layout.head_gradient_width);
    layout.head_gradient = builder_.TakeRows(1, layout.head_gradient_stride);
    layout.last_hidden = Ring(num_hidden_ - 1, 0);
    layout.last_gradient = Ring(num_hidden_, 0);
  }

  BuiltProgram Build() {
    for (int l = 0; l < num_hidden_; ++l) AddCriticLayer(l);
    AddNormOfLastGradient();
    int place = num_hidden_;
    for (int l = num_hidden_ - 1; l > 0; --l, ++place) AddCriticBackward(l, place);
    AddActionGradient(place);
    AddActorHead(place);
    for (int l = num_hidden_ - 1; l > 0; --l) AddActorBackward(l, ++place);
    return builder_.Finish(2);
  }

 private:
  static constexpr int kRing = 3;

  int Ring(int place, int critic) {
    return ring_ +
           (place % kRing * 2 + critic) * RowsBuilder::SizeOf(builder_.layout().hidden_stride);
  }

  void AddCriticLayer(int l) {
    const PackedNetwork& network = networks_.critic_network;
    builder_.BeginStep(Before::kNothing, /*everywhere=*/true);
    for (int e = 0; e < 2; ++e) {
      ProductJob job = RowsBuilder::Forward(network.layers[l], Critic(e));
      RowsBuilder::Activate(networks_.critic_unit, job);
      if (l == 0) {
        builder_.From(builder_.layout().s_a, builder_.layout().input_stride, job);
      } else {
        builder_.FromHidden(Ring(l - 1, e), job);
      }
      builder_.ToHidden(Ring(l, e), job);
      job.kept = OfCritic(networks_.critic_h[l], e, padded_batch_, network.layers[l].padded_n);
      builder_.AddHidden(network.layers[l], Critic(e), NormOfCritic(l, e), job);
    }
  }

  const float* Critic(int e) const {
    return networks_.critics.values + e * networks_.critic_network.size;
  }
  // The critics' gradients by their parameters are not wanted.
  NormRows NormOfCritic(int l, int e) const {
    NormRows norm = OfCritic(networks_.critic_norm[l], e, padded_batch_,
                             networks_.critic_network.layers[l].padded_n);
    norm.sums = nullptr;
    return norm;
  }

  void AddNormOfLastGradient() {
    const int l = num_hidden_ - 1;
    const PackedLayer& layer = networks_.critic_network.layers[l];
    for (int e = 0; layer.has_norm() && e < 2; ++e) {
      builder_.AddNormBack(layer, Critic(e), NormOfCritic(l, e), Ring(num_hidden_, e), nullptr);
    }
  }

  void AddCriticBackward(int l, int place) {
    const PackedNetwork& network = networks_.critic_network;
    builder_.BeginStep(l == num_hidden_ - 1 ? Before::kValues : Before::kNothing,
                       /*everywhere=*/true);
    for (int e = 0; e < 2; ++e) {
      ProductJob job = RowsBuilder::Backward(
          network.layers[l], networks_.critics.transposed + e * network.transposed_size);
      RowsBuilder::MultiplyBySlope(
          networks_.critic_unit,
          OfCritic(networks_.critic_h[l - 1], e, padded_batch_, network.layers[l].padded_k), job);
      builder_.FromHidden(Ring(place, e), job);
      builder_.ToHidden(Ring(place + 1, e), job);
      builder_.AddHidden(network.layers[l - 1], Critic(e), NormOfCritic(l - 1, e), job);
    }
  }

  // Of the critics' inputs, those that are actions.
  void AddActionGradient(int place) {
    const PackedNetwork& network = networks_.critic_network;
    const RowsLayout& layout = builder_.layout();
    builder_.BeginStep(num_hidden_ == 1 ? Before::kValues : Before::kNothing,
                       /*everywhere=*/false);
    for (int e = 0; e < 2; ++e) {
      ProductJob job = RowsBuilder::Backward(
          network.layers[0], networks_.critics.transposed + e * network.transposed_size);
      job.first_tile = first_tile_;
      job.tiles = last_tile_ - first_tile_ + 1;
      builder_.FromHidden(Ring(place, e), job);
      job.output_shift = first_tile_ * kTileColumns;
      const int parts = layout.action_parts;
      builder_.AddParts(
          job, parts,
          layout.action_gradient + e * parts * RowsBuilder::SizeOf(layout.action_stride),
          layout.action_stride);
    }
  }

  // The policy's last hidden layer, by every thread block.
  void AddActorHead(int place) {
    const PackedLayer& head = networks_.actor_network.head();
    const RowsLayout& layout = builder_.layout();
    builder_.BeginStep(Before::kHeadGradients, /*everywhere=*/false);
    ProductJob job = RowsBuilder::Backward(head, networks_.actor.transposed);
    RowsBuilder::MultiplyBySlope(networks_.actor_unit, networks_.actor_h[num_hidden_ - 1], job);
    job.is_shared = 0;
    builder_.From(layout.head_gradient, layout.head_gradient_stride, job);
    builder_.ToHidden(Ring(place + 1, 0), job);
    AddActorGradient(num_hidden_ - 1, job);
  }

  // A job to the gradients by the outputs of the policy's layer.
  void AddActorGradient(int layer, ProductJob job) {
    job.kept = networks_.actor_d[layer];
    builder_.AddHidden(networks_.actor_network.layers[layer], networks_.actor.values,
                       networks_.actor_norm[layer], job);
  }

  void AddActorBackward(int l, int place) {
    const PackedNetwork& network = networks_.actor_network;
    const bool goes_on = l > 1 || network.layers[l - 1].has_norm();
    builder_.BeginStep(Before::kNothing, /*everywhere=*/goes_on);
    ProductJob job = RowsBuilder::Backward(network.layers[l], networks_.actor.transposed);
    RowsBuilder::MultiplyBySlope(networks_.actor_unit, networks_.actor_h[l - 1], job);
    builder_.FromHidden(Ring(place, 0), job);
    if (goes_on) builder_.ToHidden(Ring(place + 1, 0), job);
    AddActorGradient(l - 1, job);
  }

  const DeviceNetworks& networks_;
  const int num_hidden_, padded_batch_;
  const int first_tile_, last_tile_;  // of a critic's inputs, with actions in them
  RowsBuilder builder_;
  int ring_ = 0;
};

}  // namespace

void ShareTiles(int cluster_size, BuiltProgram& built) {
  for (int s = 0; s < built.num_steps; ++s) {
    RowsStep& step = built.program.steps[s];
    const int end = s + 1 < built.num_steps ? built.program.steps[s + 1].first_job : built.num_jobs;
    for (int j = step.first_job; j < end; ++j) {
      ProductJob& job = built.program.jobs[j];
      step.bytes += job.tiles * kTileRows * kTileColumns * static_cast<int>(sizeof(float));
      if (job.is_shared != 0) job.tiles /= cluster_size;
      step.tiles = std::max(step.tiles, job.tiles);
    }
    step.num_tasks = (end - step.first_job) * step.tiles;
    step.inverse_tiles = step.tiles > 0 ? 65536 / step.tiles + 1 : 0;
  }
}

BuiltProgram CriticRowsProgram(const DeviceNetworks& networks, int action_size, int padded_batch) {
  return CriticRowsBuilder(networks, action_size, padded_batch).Build();
}

BuiltProgram ActorRowsProgram(const DeviceNetworks& networks, int observation_size, int action_size,
                              int padded_batch) {
  return ActorRowsBuilder(networks, observation_size, action_size, padded_batch).Build();
}

}  // namespace troupe
