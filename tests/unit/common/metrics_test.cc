#include "common/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace troupe {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Metrics, SaysWhatRunsAndSinceWhen) {
  const Metrics metrics("troupe-test");
  EXPECT_THAT(metrics.Text(), HasSubstr("troupe_build_info{"));
  EXPECT_THAT(metrics.Text(), HasSubstr("program=\"troupe-test\""));
  for (const char* name : {"process_start_time_seconds ", "process_cpu_seconds_total ",
                           "process_resident_memory_bytes ", "process_anonymous_memory_bytes ",
                           "process_threads ", "process_open_fds ", "process_max_fds "}) {
    const std::string text = metrics.Text();
    const size_t line = text.find(absl::StrCat("\n", name));
    ASSERT_NE(line, std::string::npos) << name << " is not in\n" << text;
    EXPECT_GT(std::stod(text.substr(text.find(' ', line))), 0) << name;
  }
}

TEST(Metrics, ShowsWhatWasCounted) {
  Metrics metrics("troupe-test");
  metrics.AddCounter("troupe_steps_total", "Steps.").Increment(3);
  metrics.AddGauge("troupe_rows", "Rows.", {{"table", "replay"}}).Set(7);
  metrics.AddHistogram("troupe_wait_seconds", "Waits.", DurationBounds()).Observe(0.003);
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("troupe_steps_total 3"));
  EXPECT_THAT(text, HasSubstr("troupe_rows{table=\"replay\"} 7"));
  EXPECT_THAT(text, HasSubstr("troupe_wait_seconds_bucket{le=\"0.005\"} 1"));
  EXPECT_THAT(text, HasSubstr("troupe_wait_seconds_bucket{le=\"0.002\"} 0"));
}

TEST(Metrics, LabelSetsOfOneNameShareItsHeader) {
  Metrics metrics("troupe-test");
  metrics.AddSampledCounter("troupe_x_total", "X.", [] { return 1.0; }, {{"a", "1"}});
  metrics.AddSampledGauge("troupe_y", "Y.", [] { return 5.0; });
  metrics.AddSampledCounter("troupe_x_total", "X.", [] { return 2.0; }, {{"a", "2"}});
  const std::string text = metrics.Text();
  const std::string header = "# TYPE troupe_x_total counter";
  const size_t first = text.find(header);
  ASSERT_NE(first, std::string::npos) << text;
  EXPECT_EQ(text.find(header, first + 1), std::string::npos) << text;
  EXPECT_THAT(text, HasSubstr("troupe_x_total{a=\"2\"} 2"));
}

TEST(Metrics, SampledValuesAreReadAtTheScrape) {
  Metrics metrics("troupe-test");
  double rows = 1;
  metrics.AddSampledGauge("troupe_rows", "Rows.", [&rows] { return rows; });
  rows = 42;
  EXPECT_THAT(metrics.Text(), HasSubstr("troupe_rows 42"));
}

TEST(Metrics, SampledValuesMayShareWhatIsGatheredOnceAScrape) {
  Metrics metrics("troupe-test");
  int gathered = 0;
  metrics.BeforeSampling([&gathered] { ++gathered; });
  metrics.AddSampledGauge("troupe_rows", "Rows.", [&gathered] { return gathered; });
  metrics.AddSampledGauge("troupe_blocks", "Blocks.", [&gathered] { return 10 * gathered; });
  EXPECT_THAT(metrics.Text(), HasSubstr("troupe_rows 1"));
  EXPECT_THAT(metrics.Text(), HasSubstr("troupe_blocks 20"));
}

TEST(Metrics, RoomOnADiskIsReadAtTheScrape) {
  Metrics metrics("troupe-test");
  metrics.AddDisk("/proc/");  // a file system without room
  EXPECT_THAT(metrics.Text(), HasSubstr("troupe_disk_free_bytes 0"));
  Metrics others("troupe-test");
  others.AddDisk("/dev/shm");
  EXPECT_THAT(others.Text(), Not(HasSubstr("troupe_disk_size_bytes 0")));
  Metrics gone("troupe-test");
  gone.AddDisk("/nowhere");
  EXPECT_THAT(gone.Text(), HasSubstr("troupe_disk_free_bytes Nan"));
}

TEST(Metrics, APortInUseIsNamed) {
  Metrics first("troupe-test");
  const absl::StatusOr<int> port = first.Serve("127.0.0.1", 0);
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_GT(*port, 0);
  Metrics second("troupe-test");
  const absl::StatusOr<int> taken = second.Serve("127.0.0.1", *port);
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(taken.status().message()),
              HasSubstr("127.0.0.1:" + std::to_string(*port)));
}

}  // namespace
}  // namespace troupe
