// A process that appends is stepped through instruction by instruction; whenever the file has
// changed, a kill at that instruction is tried: the bytes as they are must recover.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <string>

#include "tests/unit/replay_server/log_builder.h"

namespace troupe {
namespace {

constexpr uint64_t kBlocks = 2;
const std::set<uint64_t> kFinals = {6, 69};

// Rows appended in one go, and to which stream.
struct Step {
  uint64_t stream;
  uint64_t count;
};
// Goes over the end of a block, evicts, and goes on in an evicted block.
constexpr Step kSteps[] = {{1, 4}, {1, 3}, {2, 60}, {2, 6}, {1, 2}, {1, 1}};

// What must hold of any image of the file when `done` steps had returned.
void ExpectRecovers(const std::string& path, int done) {
  std::unique_ptr<RowLog> log = RecoverLog(path);
  ASSERT_EQ(log->corrupt_blocks(), 0);
  ExpectRowsInPlace(*log, kFinals);
  std::map<uint64_t, uint64_t> least;
  std::map<uint64_t, uint64_t> most;
  for (int i = 0; i < static_cast<int>(std::size(kSteps)); ++i) {
    if (i < done) least[kSteps[i].stream] += kSteps[i].count;
    if (i <= done) most[kSteps[i].stream] += kSteps[i].count;
  }
  for (const uint64_t stream : {1, 2}) {
    const uint64_t held = log->HeldRows(stream);
    ASSERT_LE(held, most[stream]);
    // A stream whose rows were all evicted is not known after a restart.
    ASSERT_TRUE(held == 0 || held >= least[stream]);
  }
  // Counts are those of the commits that happened, neither fewer nor more.
  uint64_t appended = 0;
  for (const uint64_t stream : {1, 2}) {
    const uint64_t held = log->HeldRows(stream);
    appended += held > 0 ? held : least[stream];
  }
  ASSERT_EQ(log->counts().rows_appended, appended);
}

class Stepped final {
 public:
  // Runs `body` in a child that stops before it.
  template <typename Body>
  explicit Stepped(const Body& body) {
    pid_ = fork();
    if (pid_ != 0) return;
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(77);
    raise(SIGSTOP);
    body();
    _exit(0);
  }
  ~Stepped() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  // False if it cannot be traced here.
  bool Begin() { return waitpid(pid_, &status_, 0) == pid_ && WIFSTOPPED(status_); }
  // One instruction; false at the end.
  bool Step() {
    if (ptrace(PTRACE_SINGLESTEP, pid_, nullptr, nullptr) != 0) return false;
    return waitpid(pid_, &status_, 0) == pid_ && WIFSTOPPED(status_);
  }
  bool Succeeded() const { return WIFEXITED(status_) && WEXITSTATUS(status_) == 0; }

 private:
  pid_t pid_ = 0;
  int status_ = 0;
};

TEST(RowLogKillTest, RecoversFromAKillAtAnyInstruction) {
  TempDir dir;
  const std::string path = dir.File("rows");
  std::unique_ptr<RowLog> log = MakeLog(path, kBlocks);
  absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  ASSERT_TRUE(file.ok());
  auto* done = static_cast<std::atomic<int>*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  Stepped child([&] {
    std::map<uint64_t, uint64_t> next;
    for (const Step& step : kSteps) {
      const std::string rows = Rows(step.stream, next[step.stream], step.count, kFinals);
      AppendRows(log.get(), step.stream, rows);
      next[step.stream] += step.count;
      ++*done;
    }
  });
  if (!child.Begin()) FAIL() << "processes cannot be traced here";

  std::string image(reinterpret_cast<const char*>(file->data()), file->size_bytes());
  const std::string image_path = dir.File("image");
  int images = 0;
  while (child.Step()) {
    if (std::memcmp(image.data(), file->data(), image.size()) == 0) continue;
    image.assign(reinterpret_cast<const char*>(file->data()), file->size_bytes());
    std::ofstream(image_path, std::ios::binary) << image;
    ++images;
    ExpectRecovers(image_path, *done);
    if (HasFatalFailure()) FAIL() << "image " << images << " after " << *done << " steps";
  }
  EXPECT_TRUE(child.Succeeded());
  EXPECT_GT(images, 50);  // wider stores make fewer
  munmap(done, 4096);
}

}  // namespace
}  // namespace troupe
