#include "core/io/file_hash.h"

#include <algorithm>
#include <utility>

#include "core/base/sha256.h"

namespace volley {
namespace {

constexpr size_t kPiece = size_t{4} << 20;

}  // namespace

std::string FileHash::hash_files(const std::vector<MappedFile>& files, std::atomic<State>& state) {
  state.wait(State::kWaiting);
  Sha256 hash;
  for (const MappedFile& file : files) {
    for (std::span<const std::byte> rest = file.bytes(); !rest.empty() && state != State::kAbandoned;) {
      const std::span<const std::byte> piece = rest.first(std::min(kPiece, rest.size()));
      hash.update(piece);
      rest = rest.subspan(piece.size());
    }
  }
  return hash.hex();
}

// Without a thread to be had, the work is done by whoever asks for the result: that is what `deferred`
// allows.
FileHash::FileHash(const std::vector<std::string>& files)
    : state_(std::make_unique<std::atomic<State>>(State::kWaiting)) {
  std::vector<MappedFile> mapped;
  for (const std::string& file : files) mapped.push_back(MappedFile::open(file).value_or_throw(file));
  result_ = std::async(std::launch::async | std::launch::deferred, [mapped = std::move(mapped),
                                                                    state = state_.get()] {
              return hash_files(mapped, *state);
            }).share();
}

FileHash::~FileHash() {
  if (!state_) return;
  *state_ = State::kAbandoned;
  state_->notify_all();
}

void FileHash::begin() const {
  State waiting = State::kWaiting;
  if (state_->compare_exchange_strong(waiting, State::kBegun)) state_->notify_all();
}

std::string FileHash::hex() const {
  begin();
  const std::shared_future<std::string> mine = result_;  // each caller waits on its own
  return mine.get();
}

}  // namespace volley
