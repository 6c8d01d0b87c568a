#include "apps/pull_progress.h"

namespace volley::apps {

void PullProgress::update(int64_t done, int64_t total) {
  const auto now = std::chrono::steady_clock::now();
  if (start_ == std::chrono::steady_clock::time_point()) {
    start_ = now;
    first_ = done;
  }
  if (now - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = seconds > 0.0 ? static_cast<double>(done - first_) / seconds : 0.0;
  std::string line = label_ + "  " + byte_count(done);
  if (total > 0) {
    line += " of " + byte_count(total) + " (" +
            fixed(100.0 * static_cast<double>(done) / static_cast<double>(total), 0) + " %)";
  }
  if (rate > 0.0) {
    line += ", " + byte_count(static_cast<int64_t>(rate)) + "/s";
    if (total > done) line += ", " + fixed(static_cast<double>(total - done) / rate, 0) + " s left";
  }
  console_.progress(line);
}

DownloadResult download_showing(const DownloadRequest& request, const DownloadWords& words,
                                Program& program) {
  Console& console = program.console;
  PullProgress progress(console, words.label);
  const DownloadResult result =
      download(request, {.stop = program.stop,
                         .on_progress = [&](int64_t done, int64_t total) { progress.update(done, total); },
                         .on_note =
                             [&](const std::string& line) {
                               progress.clear();
                               console.note(line);
                             }});
  progress.clear();
  const std::string trust =
      result.is_verified ? "as published" : "which nobody vouches for: the " + words.voucher + " names none";
  console.note(words.subject + byte_count(result.bytes) + ", sha256 " + result.sha256 + ", " + trust);
  return result;
}

}  // namespace volley::apps
