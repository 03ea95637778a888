#ifndef TROUPE_LEARNER_TRAINER_H_
#define TROUPE_LEARNER_TRAINER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/checkpoint.h"
#include "common/program.h"
#include "common/replay_client.h"
#include "common/snapshot_client.h"
#include "common/version.h"
#include "learner/algorithm.h"
#include "learner/batch_source.h"
#include "learner/policy_lag.h"
#include "learner/progress_log.h"
#include "learner/rank_group.h"
#include "learner/replica.h"
#include "proto/config.pb.h"

namespace troupe {

// What a run that goes on knows of itself besides the algorithm's state.
struct RunState {
  PolicyVersion version;       // of the last published snapshot; counter 0: none of this epoch
  int64_t saved_updates = -1;  // of the newest checkpoint; -1: none
  int64_t env_steps = 0;       // of the run at that checkpoint
};

// The loop of the learner: batches into the algorithm, snapshots, checkpoints and progress out,
// until every environment step of the run has been learned from.
//
// Not thread-safe.  Owns none of its parts; they outlive it.
class Trainer final {
 public:
  struct Parts {
    ReplayClient& replay;
    BatchSource& batches;
    SnapshotPublisher& publisher;
    Algorithm& algorithm;
    CheckpointDirectory& checkpoints;
    ProgressLog& log;
    const StopToken& stop;
    Replica* replica = nullptr;  // what the algorithm draws from; null: it gets `batches`
    RankGroup* ranks = nullptr;  // the algorithm's; of them only rank 0 publishes and saves
  };

  Trainer(const proto::Config& config, const Parts& parts, const RunState& state);

  // OK: the run is complete (the final snapshot is out), or a stop was requested, of any rank; a
  // checkpoint is written either way.  FAILED_PRECONDITION: another learner has taken over the run.
  // UNAVAILABLE: another rank is gone; INTERNAL: ranks have come to differ.
  absl::Status Run();

  // Gradient steps of the whole run; 0: not known before, a batch of PPO makes as many as it has
  // minibatches.
  int64_t target_updates() const { return target_updates_; }

 private:
  bool Complete() const;
  bool IsFirst() const { return parts_.ranks == nullptr || parts_.ranks->rank() == 0; }
  bool Stopped() const;
  // How many of the `ready` updates all ranks take now; stops them all if one is told to.
  absl::StatusOr<int64_t> Agree(int64_t ready);
  // One batch, or some updates from the replica, if they may be within a short time, and what is
  // due after them.
  absl::Status UpdateOnce();
  // One batch, if one comes within a short time.
  absl::Status UpdateFromShards();
  // Batches for UpdateFromReplica; 0: none for now.
  absl::StatusOr<int64_t> AwaitDraws();
  absl::StatusOr<int64_t> AdmitDraws(absl::Time deadline);
  // How many updates there may be before something is due.
  int64_t UpdatesAtOnce() const;
  absl::Status EndWarmup();
  // Environment steps of the run; for an on-policy algorithm the most that any rank knows of, for
  // all of them must end with the same batch.
  absl::StatusOr<int64_t> EnvSteps();
  // `update` is given the run's environment steps.
  absl::Status Learn(absl::FunctionRef<absl::Status(int64_t)> update);
  // `before`: gradient steps before the last batch.
  absl::Status DoWhatIsDue(int64_t before);
  absl::Status Finish();
  // Lets the actors' last environment steps arrive: the target counts steps, not batches.
  absl::Status AwaitLastSteps();
  absl::Status Publish(bool final_one);
  absl::Status SaveCheckpoint();
  // Writes the newest checkpoint again: its policy is then the run's last one.
  absl::Status SaveLastPolicy();
  absl::Status WriteCheckpoint(std::map<std::string, std::string> files);
  absl::Status Log(bool done);
  // INTERNAL names the first statistic that is not finite.
  absl::Status CheckFinite() const;
  // INTERNAL if the states of the ranks, as `files`, are not the same bits.
  absl::Status CheckSame(const std::map<std::string, std::string>& files);
  absl::StatusOr<WindowBatch> NextBatch();
  void CountWait(absl::Time begin);

  const proto::Config config_;
  const Parts parts_;
  const bool on_policy_;
  const int64_t target_updates_;
  RunState state_;
  bool learning_;                     // the warm-up is over
  bool one_stopped_ = false;          // of the ranks
  std::optional<WindowBatch> batch_;  // that waits for the other ranks
  int64_t admitted_ = 0;              // draws that wait for them
  bool policy_taken_ = false;         // and is to be published after the next updates have begun
  SnapshotPtr published_;             // the newest; null: none
  int64_t learned_env_steps_;         // of the run when the last batch was learned from
  // Since the last line of progress.
  absl::Time logged_;
  int64_t logged_updates_;
  uint64_t counted_missed_ = 0;
  double seconds_per_update_ = 0;  // of the last ones; 0: there were none
  int64_t counted_too_old_ = 0;
  absl::Duration waited_;
  PolicyLag lag_;  // of what an on-policy algorithm learned from
};

// Loads the newest checkpoint under `checkpoints` into `algorithm`, if there is one, and picks an
// epoch above `max_epoch` and the checkpoint's.  FAILED_PRECONDITION: a checkpoint of another run;
// DATA_LOSS: all are broken.
absl::StatusOr<RunState> Resume(const CheckpointDirectory& checkpoints, const std::string& run,
                                uint64_t max_epoch, Algorithm& algorithm);

// The same for all `ranks`: rank 0 loads, and the others take over the state of its algorithm.
// Errors are also RankGroup's.
absl::StatusOr<RunState> ResumeTogether(const CheckpointDirectory& checkpoints,
                                        const std::string& run, uint64_t max_epoch,
                                        RankGroup& ranks, Algorithm& algorithm);

}  // namespace troupe

#endif  // TROUPE_LEARNER_TRAINER_H_
