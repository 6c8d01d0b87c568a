#pragma once

#include <stop_token>
#include <string>
#include <string_view>

#include "apps/url.h"

namespace volley::apps {

// The hub names the commit of a repository that an answer is of. Ref: huggingface_hub, constants.py.
inline constexpr const char* kRevisionHeader = "X-Repo-Commit";

// `text` if it is a commit of git (40 or 64 digits of lower-case hex), else nothing: it becomes part of
// addresses.
std::string commit_or_nothing(std::string_view text);

// The revision that the files in a model's folder are of, in a file ".revision" there.
class KeptRevision {
 public:
  explicit KeptRevision(const std::string& folder);

  // A commit; empty: none is known.
  const std::string& commit() const { return commit_; }
  // Both throw Error naming the file when the system refuses.
  void keep(const std::string& commit);
  void forget();

 private:
  std::string path_;
  std::string commit_;
};

struct RevisionRequest {
  Url url;
  std::string token;  // as that of a DownloadRequest
};
// What an address answers at first, followed as long as it stays with its host; no body is read.
struct RevisionAnswer {
  bool is_there = false;  // a file, or a redirect to one elsewhere
  std::string commit;     // empty: the server names none
};
// Throws Error naming the address if there is no answer, and Interrupted.
RevisionAnswer ask_revision(const RevisionRequest& request, const std::stop_token& stop);

}  // namespace volley::apps
