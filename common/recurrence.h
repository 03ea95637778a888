#ifndef TROUPE_COMMON_RECURRENCE_H_
#define TROUPE_COMMON_RECURRENCE_H_

#include <cstdint>

#include "common/frame_stack.h"
#include "proto/config.pb.h"

namespace troupe {

inline bool HasMemory(const proto::Recurrence& spec) {
  return spec.kind() == proto::GRU || spec.kind() == proto::LSTM;
}

// Numbers of one state: a GRU's output, or an LSTM's output and then its cell; 0 without memory.
inline int64_t StateSize(const proto::Recurrence& spec) {
  if (!HasMemory(spec)) return 0;
  return int64_t{spec.units()} * (spec.kind() == proto::LSTM ? 2 : 1);
}

// What a recurrent layer gives to the next one; 0 without memory.
inline int64_t OutputSize(const proto::Recurrence& spec) {
  return HasMemory(spec) ? spec.units() : 0;
}

// What says which network it is, with defaults written out.
inline proto::Recurrence NetworkOf(const proto::Recurrence& spec) {
  proto::Recurrence network;
  if (!HasMemory(spec)) return network;
  network.set_kind(spec.kind());
  network.set_units(spec.units());
  return network;
}

// Of the policy that the learner trains.
inline const proto::Recurrence& PolicyRecurrence(const proto::Learner& learner) {
  return learner.has_ppo() ? learner.ppo().recurrence() : learner.sac().recurrence();
}

// Rows of a window of SAC's table.
inline int64_t SacWindowLength(const proto::Sac& sac) {
  const proto::Recurrence& memory = sac.recurrence();
  const int64_t rows = HasMemory(memory) ? memory.burn_in() + memory.sequence_length() : 1;
  return LeadRows(sac) + rows + sac.n_step();
}

}  // namespace troupe

#endif  // TROUPE_COMMON_RECURRENCE_H_
