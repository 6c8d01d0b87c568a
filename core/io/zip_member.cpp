// Contents of zip members.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <string>

#include "core/io/crc32.h"
#include "core/io/zip.h"

namespace volley {
namespace {

constexpr size_t kPiece = size_t{256} << 10;

// A raw deflate stream, expanded piece by piece.
class Inflater {
 public:
  explicit Inflater(std::span<const std::byte> packed) : packed_(packed) {
    is_open_ = inflateInit2(&stream_, -MAX_WBITS) == Z_OK;
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() {
    if (is_open_) inflateEnd(&stream_);
  }

  // The next bytes, as many as `room` holds unless the stream ends; nothing behind its end.
  Result<std::span<const std::byte>> next(std::span<std::byte> room) {
    if (!is_open_) return Fault{"no memory to expand it"};
    stream_.next_out = reinterpret_cast<Bytef*>(room.data());
    stream_.avail_out = static_cast<uInt>(room.size());
    while (stream_.avail_out > 0 && !is_at_end_) {
      if (stream_.avail_in == 0) feed();
      const int state = inflate(&stream_, Z_NO_FLUSH);
      if (state == Z_STREAM_END) {
        is_at_end_ = true;
      } else if (state == Z_MEM_ERROR) {
        return Fault{"no memory to expand it"};
      } else if (state != Z_OK) {  // Z_BUF_ERROR: more is needed than there is
        return Fault{"its deflate stream is broken or cut short"};
      }
    }
    return std::span<const std::byte>(room.first(room.size() - stream_.avail_out));
  }
  bool has_rest() const { return !packed_.empty() || stream_.avail_in > 0; }

 private:
  // zlib counts input in 32 bits.
  void feed() {
    const size_t count = std::min<size_t>(packed_.size(), std::numeric_limits<uInt>::max());
    stream_.next_in = reinterpret_cast<z_const Bytef*>(const_cast<std::byte*>(packed_.data()));
    stream_.avail_in = static_cast<uInt>(count);
    packed_ = packed_.subspan(count);
  }

  std::span<const std::byte> packed_;  // what zlib has not been given
  z_stream stream_{};
  bool is_open_ = false, is_at_end_ = false;
};

}  // namespace

std::optional<Fault> read_zip_member(const ZipMember& member,
                                     const std::function<void(std::span<const std::byte>)>& take) {
  uint64_t left = member.size;
  uint32_t crc = 0;
  const auto give = [&](std::span<const std::byte> piece) {
    left -= piece.size();
    crc = crc32(piece, crc);
    take(piece);
  };
  if (member.method == ZipMethod::kStored) {
    for (std::span<const std::byte> rest = member.bytes; !rest.empty();) {
      const size_t count = std::min(rest.size(), kPiece);
      give(rest.first(count));
      rest = rest.subspan(count);
    }
  } else {
    Inflater inflater(member.bytes);
    const auto room = std::make_unique<std::array<std::byte, kPiece>>();
    while (true) {
      const auto piece = inflater.next(*room);
      if (!piece) return piece.fault();
      if (piece.value().size() > left)
        return Fault{"expands to more than its " + std::to_string(member.size) + " bytes"};
      if (piece.value().empty()) break;
      give(piece.value());
    }
    if (inflater.has_rest()) return Fault{"bytes follow the end of its deflate stream"};
  }
  if (left != 0) {
    return Fault{"expands to " + std::to_string(member.size - left) + " bytes, expected " +
                 std::to_string(member.size)};
  }
  if (crc != member.crc) return Fault{"has a wrong CRC"};
  return std::nullopt;
}

}  // namespace volley
