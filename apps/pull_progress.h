#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "apps/console.h"
#include "apps/download.h"
#include "apps/verbs.h"

namespace volley::apps {

// A line of progress of a file, drawn ten times a second.
class PullProgress {
 public:
  PullProgress(Console& console, std::string label) : console_(console), label_(std::move(label)) {}

  void update(int64_t done, int64_t total);  // total 0: not known
  void clear() { console_.progress({}); }

 private:
  Console& console_;
  std::string label_;
  std::chrono::steady_clock::time_point start_{}, drawn_{};
  int64_t first_ = 0;
};

// What a download is called on the terminal.
struct DownloadWords {
  std::string label;    // of its progress
  std::string subject;  // that its size and hash are noted behind
  std::string voucher;  // who should have named its hash: "server", "index"
};
// download() with a line of progress, and a note at its end.
DownloadResult download_showing(const DownloadRequest& request, const DownloadWords& words, Program& program);

}  // namespace volley::apps
