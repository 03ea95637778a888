#ifndef TROUPE_TESTS_UNIT_RANKS_RUN_RANKS_H_
#define TROUPE_TESTS_UNIT_RANKS_RUN_RANKS_H_

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "learner/rank_group.h"

namespace troupe {

// An address of this machine where nobody listens.
inline std::string FreeAddress() {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
}

// Runs `one` for each rank, in a thread of its own.
inline void RunRanks(int size, const std::function<void(std::unique_ptr<RankGroup>)>& one) {
  const std::string rendezvous = FreeAddress();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto group =
          JoinRanks({.rank = rank, .size = size, .rendezvous = rendezvous}, [] { return false; });
      ASSERT_TRUE(group.ok()) << group.status();
      one(*std::move(group));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace troupe

#endif  // TROUPE_TESTS_UNIT_RANKS_RUN_RANKS_H_
