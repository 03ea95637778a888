#include "common/shard_directory.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "common/channel.h"
#include "grpcpp/client_context.h"
#include "proto/replay.grpc.pb.h"

namespace troupe {
namespace {

constexpr absl::Duration kResolveTimeout = absl::Seconds(10);
constexpr absl::Duration kStopPoll = absl::Milliseconds(20);
constexpr absl::Duration kIdentifyTimeout = absl::Seconds(2);
// How long the first shard waits for the others.
constexpr absl::Duration kPatience = absl::Seconds(5);

std::string HostOf(const std::string& target) {
  std::string host = target.substr(0, target.rfind(':'));
  if (host.size() >= 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return host;
}

bool IsName(const std::string& target) {
  const std::string host = HostOf(target);
  in6_addr address;
  return !IsLoopback(target) && inet_pton(AF_INET, host.c_str(), &address) != 1 &&
         inet_pton(AF_INET6, host.c_str(), &address) != 1;
}

struct Lookup {
  absl::Mutex mu;
  bool done ABSL_GUARDED_BY(mu) = false;
  absl::StatusOr<std::vector<std::string>> addresses ABSL_GUARDED_BY(mu);
};

struct Question {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<proto::Replay::Stub> stub;
  grpc::ClientContext context;
  proto::IdentifyRequest request;
  proto::IdentifyReply reply;
  grpc::Status status;
  Sighting* about = nullptr;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ResolveAll(const std::string& target) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(HostOf(target).c_str(), nullptr, &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(absl::StrCat("looking up ", target, ": ", gai_strerror(error)));
  }
  const absl::Cleanup free_found = [found] { freeaddrinfo(found); };
  std::vector<std::string> addresses;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    char host[NI_MAXHOST];
    if (getnameinfo(each->ai_addr, each->ai_addrlen, host, sizeof(host), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
      continue;
    }
    const bool v6 = each->ai_family == AF_INET6;
    addresses.push_back(
        absl::StrCat(v6 ? "[" : "", host, v6 ? "]" : "", target.substr(target.rfind(':'))));
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

absl::StatusOr<std::shared_ptr<ShardDirectory>> ShardDirectory::Make(ShardDirectoryOptions options,
                                                                     bool all_fixed) {
  if (options.targets.empty()) return absl::InvalidArgumentError("no shards");
  std::shared_ptr<ShardDirectory> directory(new ShardDirectory(std::move(options)));
  absl::MutexLock lock(&directory->mu_);
  for (const std::string& target : directory->options_.targets) {
    const auto channel = directory->options_.credentials->ForChannel(target);
    if (!channel.ok()) return channel.status();
    if (!all_fixed && IsName(target)) {
      directory->names_.push_back(target);
    } else {
      directory->places_.AddFixed(target);
    }
  }
  return directory;
}

absl::StatusOr<std::shared_ptr<ShardDirectory>> ShardDirectory::Create(
    ShardDirectoryOptions options) {
  auto directory = Make(std::move(options), /*all_fixed=*/false);
  if (directory.ok() && !(*directory)->names_.empty()) {
    (*directory)->thread_ = std::thread([raw = directory->get()] { raw->Run(); });
  }
  return directory;
}

absl::StatusOr<std::shared_ptr<ShardDirectory>> ShardDirectory::OrFixed(
    std::shared_ptr<ShardDirectory> directory, const std::vector<std::string>& targets,
    std::shared_ptr<const Credentials> credentials) {
  if (directory == nullptr) {
    return Make({.targets = targets, .credentials = std::move(credentials)}, /*all_fixed=*/true);
  }
  if (directory->size() > 0) return directory;
  return absl::FailedPreconditionError("no shard is known yet");
}

ShardDirectory::~ShardDirectory() {
  {
    absl::MutexLock lock(&mu_);
    stopped_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

bool ShardDirectory::stopped() const {
  absl::MutexLock lock(&mu_);
  return stopped_;
}

bool ShardDirectory::Ready(absl::Time now) const {
  if (names_.empty()) return true;
  return !places_.shards().empty() && (amiss_.empty() || now >= first_found_ + kPatience);
}

absl::Status ShardDirectory::WaitForShards(absl::Time deadline) {
  absl::MutexLock lock(&mu_);
  const auto ready = [this] {
    mu_.AssertReaderHeld();
    return Ready(absl::Now());
  };
  while (!ready() && absl::Now() < deadline) {
    mu_.AwaitWithDeadline(absl::Condition(&ready), std::min(deadline, first_found_ + kPatience));
  }
  if (ready()) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("not all shards were found: ", amiss_));
}

size_t ShardDirectory::size() const {
  absl::MutexLock lock(&mu_);
  return places_.shards().size();
}

ShardPlace ShardDirectory::Place(size_t shard) const {
  absl::MutexLock lock(&mu_);
  return places_.shards()[shard];
}

std::string ShardDirectory::Name(size_t shard) const {
  const ShardPlace place = Place(shard);
  return place.id == 0 ? place.target : absl::StrCat(place.target, " (", place.address, ")");
}

std::string ShardDirectory::Names() const {
  std::string names;
  for (size_t i = 0; i < size(); ++i) absl::StrAppend(&names, i == 0 ? "" : ", ", Name(i));
  return names;
}

size_t ShardDirectory::Choose(uint64_t index) const {
  absl::MutexLock lock(&mu_);
  return places_.Choose(index);
}

void ShardDirectory::Suspect(size_t shard) {
  if (names_.empty()) return;
  absl::MutexLock lock(&mu_);
  places_.Suspect(shard);
  hurry_ |= places_.shards()[shard].suspect;
}

std::shared_ptr<grpc::Channel> ShardDirectory::MakeChannelTo(const ShardPlace& place) const {
  // Create has tried the credentials.
  return MakeChannel(place.target, *options_.credentials, place.address).value();
}

int ShardDirectory::AddListener(std::function<void()> changed) {
  absl::MutexLock lock(&listeners_mu_);
  listeners_[next_listener_] = std::move(changed);
  return next_listener_++;
}

void ShardDirectory::RemoveListener(int id) {
  absl::MutexLock lock(&listeners_mu_);
  listeners_.erase(id);
}

void ShardDirectory::Run() {
  absl::Duration pause = options_.least;
  while (true) {
    const std::string amiss = Look();
    absl::MutexLock lock(&mu_);
    amiss_ = amiss;
    const bool settled = amiss.empty() && !places_.AnySuspect();
    pause = settled ? options_.most : std::min(pause * 2, options_.most);
    // In a hurry, but not without a pause: many calls may fail at once.
    if (mu_.AwaitWithTimeout(absl::Condition(&stopped_), std::min(options_.least, pause))) return;
    const auto due = [this] {
      mu_.AssertReaderHeld();
      return stopped_ || hurry_;
    };
    if (mu_.AwaitWithTimeout(absl::Condition(&due), pause - std::min(options_.least, pause)) &&
        !stopped_) {
      pause = options_.least;
    }
    hurry_ = false;
    if (stopped_) return;
  }
}

std::string ShardDirectory::Look() {
  std::string amiss;
  std::vector<Sighting> sightings = ResolveNames(&amiss);
  Ask(&sightings, &amiss);
  Apply(sightings);
  return amiss;
}

// On a thread of its own, which may outlive the directory: where no name server answers, it takes
// longer than a program may take to end.
absl::StatusOr<std::vector<std::string>> ShardDirectory::Resolve(const std::string& name) const {
  const auto lookup = std::make_shared<Lookup>();
  std::thread([lookup, name, resolve = options_.resolve] {
    absl::StatusOr<std::vector<std::string>> addresses = resolve(name);
    absl::MutexLock lock(&lookup->mu);
    lookup->addresses = std::move(addresses);
    lookup->done = true;
  }).detach();
  const absl::Time deadline = absl::Now() + kResolveTimeout;
  absl::MutexLock lock(&lookup->mu);
  while (!lookup->mu.AwaitWithTimeout(absl::Condition(&lookup->done), kStopPoll)) {
    if (absl::Now() < deadline && !stopped()) continue;
    return absl::UnavailableError(absl::StrCat("looking up ", name, ": no answer"));
  }
  return lookup->addresses;
}

std::vector<Sighting> ShardDirectory::ResolveNames(std::string* amiss) {
  std::vector<Sighting> sightings;
  for (const std::string& name : names_) {
    absl::StatusOr<std::vector<std::string>> addresses = Resolve(name);
    if (addresses.ok()) {
      found_[name] = *std::move(addresses);
    } else {
      absl::StrAppend(amiss, amiss->empty() ? "" : "; ", addresses.status().message());
    }
    for (const std::string& address : found_[name]) {
      sightings.push_back({.target = name, .address = address});
    }
  }
  return sightings;
}

void ShardDirectory::Ask(std::vector<Sighting>* sightings, std::string* amiss) const {
  std::deque<Question> questions;
  for (Sighting& sighting : *sightings) {
    absl::MutexLock lock(&mu_);
    if (places_.MustAsk(sighting.address)) questions.emplace_back().about = &sighting;
  }
  absl::BlockingCounter unanswered(static_cast<int>(questions.size()));
  for (Question& question : questions) {
    question.channel = MakeChannelTo(
        {.target = question.about->target, .address = question.about->address, .id = 1});
    question.stub = proto::Replay::NewStub(question.channel);
    question.context.set_deadline(absl::ToChronoTime(absl::Now() + kIdentifyTimeout));
    question.stub->async()->Identify(&question.context, &question.request, &question.reply,
                                     [&question, &unanswered](grpc::Status status) {
                                       question.status = std::move(status);
                                       unanswered.DecrementCount();
                                     });
  }
  unanswered.Wait();
  for (const Question& question : questions) {
    question.about->id = question.status.ok() ? question.reply.shard() : 0;
    if (*question.about->id != 0) continue;
    absl::StrAppend(amiss, amiss->empty() ? "" : "; ", question.about->target, " at ",
                    question.about->address, ": ",
                    question.status.ok() ? "no number" : question.status.error_message());
  }
}

void ShardDirectory::Apply(const std::vector<Sighting>& sightings) {
  std::vector<ShardPlace> before;
  {
    absl::MutexLock lock(&mu_);
    before = places_.shards();
    if (!places_.Apply(sightings)) return;
    if (first_found_ == absl::InfiniteFuture()) first_found_ = absl::Now();
  }
  LogChanges(before);
  absl::MutexLock lock(&listeners_mu_);
  for (const auto& [id, changed] : listeners_) changed();
}

void ShardDirectory::LogChanges(const std::vector<ShardPlace>& before) const {
  for (size_t i = 0; i < size(); ++i) {
    const ShardPlace now = Place(i);
    if (i < before.size() && before[i].moves == now.moves) continue;
    options_.log(
        absl::StrCat("shard ", absl::Hex(now.id), " of ", now.target, " is ",
                     i < before.size() ? "now at " : "at ", now.address,
                     i < before.size() ? absl::StrCat(", was at ", before[i].address) : ""));
  }
}

}  // namespace troupe
