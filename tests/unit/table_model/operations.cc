#include "tests/unit/table_model/operations.h"

#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace troupe {
namespace {

using rc::Gen;
namespace gen = rc::gen;

// From 1 on, mostly few, at most `most`.
Gen<uint64_t> Few(uint64_t few, uint64_t most) {
  return gen::weightedOneOf<uint64_t>(
      {{3, gen::inRange<uint64_t>(1, few + 1)}, {1, gen::inRange<uint64_t>(1, most + 1)}});
}

// Half of them 0.
Gen<int64_t> MaybeUpTo(int64_t most) {
  return gen::oneOf(gen::just<int64_t>(0), gen::inRange<int64_t>(0, most + 1));
}

Gen<bool> Seldom() {
  return gen::map(gen::inRange(0, 6), [](int n) { return n == 5; });
}

Gen<float> AnyPriority() {
  const float infinity = std::numeric_limits<float>::infinity();
  return gen::weightedOneOf<float>({{12, gen::element(1.0f, 0.0f, 0.5f, 2.0f, 3.0f, 10.0f, -0.0f)},
                                    {3, gen::element(1e-38f, 1e-3f, 1e30f)},
                                    {1, gen::element(-1.0f, std::nanf(""), infinity, 2e30f)}});
}

Gen<Run> AnyRun() {
  const auto place = gen::weightedOneOf<Run::Place>(
      {{30, gen::just(Run::kNext)},
       {8, gen::just(Run::kResent)},
       {1, gen::element(Run::kGap, Run::kNearTheLimit, Run::kBeyondTheLimit)}});
  const auto bytes_too_many = gen::weightedOneOf<uint64_t>(
      {{40, gen::just<uint64_t>(0)}, {1, gen::inRange<uint64_t>(1, 32)}});
  return gen::build<Run>(
      gen::set(&Run::stream, gen::inRange<uint64_t>(0, 4)), gen::set(&Run::place, place),
      gen::set(&Run::distance, gen::inRange<uint64_t>(1, 80)), gen::set(&Run::count, Few(70, 200)),
      gen::set(&Run::finals, gen::container<std::vector<uint64_t>>(gen::inRange<uint64_t>(0, 70))),
      gen::set(&Run::bytes_too_many, bytes_too_many),
      gen::set(&Run::own_priority, gen::oneOf(gen::just(0.0f), AnyPriority())));
}

// One run or two, now and then none or more.
Gen<std::vector<Run>> AnyRuns() {
  return gen::mapcat(gen::weightedElement<int>({{8, 1}, {4, 2}, {1, 0}, {1, 5}}),
                     [](int count) { return gen::container<std::vector<Run>>(count, AnyRun()); });
}

template <typename T>
Gen<Operation> AsOperation(Gen<T> values) {
  return gen::map(std::move(values), [](T value) { return Operation(std::move(value)); });
}

Gen<SetPriorities> AnyPriorities() {
  const auto change = gen::build<NewPriority>(
      gen::set(&NewPriority::which, gen::inRange<uint64_t>(0, 600)),
      gen::set(&NewPriority::is_absurd, Seldom()), gen::set(&NewPriority::priority, AnyPriority()));
  return gen::build<SetPriorities>(
      gen::set(&SetPriorities::changes, gen::container<std::vector<NewPriority>>(change)),
      gen::set(&SetPriorities::one_missing, Seldom()),
      gen::set(&SetPriorities::of_all_rows, Seldom()));
}

Gen<NoteOthers> AnyOthers() {
  const auto windows = gen::oneOf(gen::just<uint64_t>(0), gen::inRange<uint64_t>(0, 300));
  return gen::build<NoteOthers>(gen::set(&NoteOthers::inserted, windows),
                                gen::set(&NoteOthers::preloaded, windows),
                                gen::set(&NoteOthers::sampled, windows));
}

struct Printer {
  std::string operator()(const Run& run) const {
    static constexpr const char* kPlaces[] = {"next", "resent", "gap", "near the limit",
                                              "beyond the limit"};
    std::string text = absl::StrCat(run.count, " rows of ", run.stream, " ", kPlaces[run.place]);
    if (run.place != Run::kNext) absl::StrAppend(&text, " by ", run.distance);
    if (!run.finals.empty()) absl::StrAppend(&text, ", finals ", absl::StrJoin(run.finals, " "));
    if (run.bytes_too_many > 0) absl::StrAppend(&text, " + ", run.bytes_too_many, " bytes");
    if (run.own_priority != 0) absl::StrAppend(&text, ", own priority ", run.own_priority);
    return text;
  }
  std::string operator()(const AppendRuns& append) const {
    std::string text = append.preload ? "preload" : "append";
    for (const Run& run : append.runs) absl::StrAppend(&text, " {", (*this)(run), "}");
    return text;
  }
  std::string operator()(const Draw& draw) const {
    return absl::StrCat("draw ", draw.num_windows, draw.stays ? ", waiting" : "");
  }
  std::string operator()(const DrawAll&) const { return "draw all"; }
  std::string operator()(const Poll& poll) const {
    return absl::StrCat("poll for more than ", poll.more_than);
  }
  std::string operator()(const AskToWrite& ask) const {
    return ask.stays ? "ask to write, waiting" : "ask to write";
  }
  std::string operator()(const GiveUp& give_up) const {
    return absl::StrCat("waiter ", give_up.which, " gives up");
  }
  std::string operator()(const SetPriorities& set) const {
    std::string text = "set priorities";
    for (const NewPriority& change : set.changes) {
      absl::StrAppend(&text, change.is_absurd ? " absurd " : " row ", change.which, ": ",
                      change.priority, ";");
    }
    return absl::StrCat(text, set.of_all_rows ? " of all rows" : "",
                        set.one_missing ? " the last is missing" : "");
  }
  std::string operator()(const NoteOthers& others) const {
    return absl::StrCat("others: ", others.inserted, " inserted, ", others.preloaded,
                        " preloaded, ", others.sampled, " sampled");
  }
  std::string operator()(const Restart&) const { return "restart"; }
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const Operation& operation) {
  return out << "\n  " << std::visit(Printer(), operation);
}

std::ostream& operator<<(std::ostream& out, const TableOptions& options) {
  const RateLimit& limit = options.rate_limit;
  return out << proto::SelectorKind_Name(options.selector) << ", capacity " << options.capacity_rows
             << (options.never_evict ? " never evicting" : "") << ", window "
             << options.window.length << " by " << options.window.stride
             << (options.window.start_at_final_rows ? " also from final rows" : "") << ", exponent "
             << options.priority_exponent << ", at most " << int{options.max_times_sampled}
             << " times, min_size " << limit.min_size << ", samples_per_insert "
             << limit.samples_per_insert << ", slack " << limit.slack << ", queue_length "
             << limit.queue_length << ", shards " << options.num_shards;
}

Gen<Operation> AnyOperation() {
  const auto append = gen::build<AppendRuns>(gen::set(&AppendRuns::runs, AnyRuns()),
                                             gen::set(&AppendRuns::preload, Seldom()));
  const auto draw = gen::build<Draw>(gen::set(&Draw::num_windows, Few(20, 300)),
                                     gen::set(&Draw::stays, Seldom()));
  const auto poll = gen::build<Poll>(gen::set(&Poll::more_than, gen::inRange<uint64_t>(0, 300)));
  const auto ask = gen::build<AskToWrite>(gen::set(&AskToWrite::stays, Seldom()));
  const auto give_up = gen::build<GiveUp>(gen::set(&GiveUp::which, gen::inRange<uint64_t>(0, 9)));
  return gen::weightedOneOf<Operation>({{12, AsOperation<AppendRuns>(append)},
                                        {8, AsOperation<Draw>(draw)},
                                        {1, gen::just(Operation(DrawAll()))},
                                        {1, AsOperation<Poll>(poll)},
                                        {3, AsOperation<AskToWrite>(ask)},
                                        {1, AsOperation<GiveUp>(give_up)},
                                        {5, AsOperation<SetPriorities>(AnyPriorities())},
                                        {2, AsOperation<NoteOthers>(AnyOthers())},
                                        {2, gen::just(Operation(Restart()))}});
}

Gen<TableOptions> AnyOptions(proto::SelectorKind selector) {
  const auto window =
      gen::build<WindowRule>(gen::set(&WindowRule::length, gen::cast<uint32_t>(Few(4, 70))),
                             gen::set(&WindowRule::stride, gen::inRange<uint32_t>(1, 6)),
                             gen::set(&WindowRule::start_at_final_rows, gen::arbitrary<bool>()));
  const auto limit = gen::build<RateLimit>(
      gen::set(&RateLimit::min_size, gen::inRange<int64_t>(1, 100)),
      gen::set(&RateLimit::samples_per_insert,
               gen::weightedElement<double>({{4, 0}, {1, 0.5}, {2, 1}, {1, 3}, {1, 8}})),
      gen::set(&RateLimit::slack, gen::cast<double>(gen::inRange(0, 200))),
      gen::set(&RateLimit::queue_length, MaybeUpTo(150)));
  const auto max_times = gen::weightedElement<uint8_t>({{4, 0}, {2, 1}, {1, 2}, {1, 5}, {1, 255}});
  return gen::build<TableOptions>(
      gen::set(&TableOptions::name, gen::just<std::string>("replay")),
      gen::set(&TableOptions::capacity_rows, gen::inRange<uint64_t>(65, 513)),
      gen::set(&TableOptions::window, window),
      gen::set(&TableOptions::selector, gen::just(selector)),
      gen::set(&TableOptions::priority_exponent, gen::element(1.0, 0.0, 0.5, 0.6)),
      gen::set(&TableOptions::never_evict, Seldom()),
      gen::set(&TableOptions::max_times_sampled, max_times),
      gen::set(&TableOptions::rate_limit, limit),
      gen::set(&TableOptions::num_shards, gen::inRange(1, 4)));
}

}  // namespace troupe
