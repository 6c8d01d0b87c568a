#include "core/io/file_hash.h"

#include <algorithm>
#include <utility>

#include "core/base/sha256.h"
#include "core/io/mapped_file.h"

namespace volley {
namespace {

constexpr size_t kPiece = size_t{4} << 20;

std::string hash_files(const std::vector<MappedFile>& files, const std::atomic<bool>& is_abandoned) {
  Sha256 hash;
  for (const MappedFile& file : files) {
    for (std::span<const std::byte> rest = file.bytes(); !rest.empty() && !is_abandoned;) {
      const std::span<const std::byte> piece = rest.first(std::min(kPiece, rest.size()));
      hash.update(piece);
      rest = rest.subspan(piece.size());
    }
  }
  return hash.hex();
}

}  // namespace

// Without a thread to be had, the work is done by whoever asks for the result: that is what `deferred`
// allows.
FileHash::FileHash(const std::vector<std::string>& files)
    : is_abandoned_(std::make_unique<std::atomic<bool>>(false)) {
  std::vector<MappedFile> mapped;
  for (const std::string& file : files) mapped.push_back(MappedFile::open(file).value_or_throw(file));
  result_ = std::async(std::launch::async | std::launch::deferred, [mapped = std::move(mapped),
                                                                    abandoned = is_abandoned_.get()] {
              return hash_files(mapped, *abandoned);
            }).share();
}

FileHash::~FileHash() {
  if (is_abandoned_) *is_abandoned_ = true;
}

std::string FileHash::hex() const {
  const std::shared_future<std::string> mine = result_;  // each caller waits on its own
  return mine.get();
}

}  // namespace volley
