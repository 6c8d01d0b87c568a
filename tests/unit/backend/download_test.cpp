// Copies of many bytes from a device.
#include <algorithm>
#include <filesystem>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

int64_t threads_of_this_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

// More than a device copies in one go.
constexpr int64_t kElements = (int64_t{24} << 20) / 4 + 3;

TEST(DownloadTest, QueuesShareTheThreadsOfLargeDownloads) {
  const auto backend = tested_backend();
  const std::vector<float> numbers = normal_numbers(kElements, 1);
  const Buffer memory = backend->allocate(kElements * 4);
  std::vector<std::unique_ptr<Queue>> queues;
  int64_t threads = 0;
  for (int64_t q = 0; q < 4; ++q) {
    queues.push_back(backend->make_queue());
    queues.back()->upload(numbers.data(), memory.data(), kElements * 4);
    std::vector<float> found(static_cast<size_t>(kElements));
    queues.back()->download(memory.data(), found.data(), kElements * 4);
    EXPECT_EQ(found, numbers);
    if (q == 0) threads = threads_of_this_process();
    EXPECT_EQ(threads_of_this_process(), threads) << "queue " << q << " started threads";
  }
}

}  // namespace
}  // namespace volley::testing
