#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include "apps/url.h"
#include "core/base/error.h"

namespace volley::apps {

struct DownloadRequest {
  Url url;
  std::string path;  // of the finished file; <path>.part grows beside it and stays if the download ends early
  std::string token;   // empty: none; sent to the host of `url` only, and only where nobody can read it
  std::string sha256;  // the file's; empty: the server's word counts, if it gives one
  std::string help;    // what to do about a refused access, for messages
  // Called with the commit that the host of `url` says its answer is of, before any byte of the file is kept;
  // may throw. Never called where it names none.
  std::function<void(const std::string& commit)> on_revision;
};

struct DownloadControl {
  std::stop_token stop;
  std::function<void(int64_t done, int64_t total)> on_progress;  // total 0: not known
  std::function<void(const std::string& line)> on_note;
};

struct DownloadResult {
  int64_t bytes = 0;
  std::string sha256;
  bool is_verified = false;  // against a known SHA-256
  int64_t resumed_at = 0;    // bytes that were there already
};

// The server has no such file: answers 404 and 410.
class NotThere : public Error {
 public:
  explicit NotThere(std::string message) : Error(std::move(message), ErrorKind::kModelMissing) {}
};

// Gets a file over HTTP, following redirects, going on where an earlier attempt ended if the file is still
// the same one. Throws Error naming the address and the fault: NotThere, kModelMissing for
// what is not allowed; and Interrupted when stopped.
DownloadResult download(const DownloadRequest& request, const DownloadControl& control);

}  // namespace volley::apps
