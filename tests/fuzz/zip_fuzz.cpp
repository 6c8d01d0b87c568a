// The whole file, and the same bytes as the deflate stream of an archive that is whole otherwise, with two
// bytes in front that say its size.

#include "core/io/zip.h"

#include <string>

#include "core/io/byte_reader.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/io/file_builders.h"

namespace {

void read(std::span<const std::byte> file) {
  using namespace volley;
  const Result<ZipIndex> index = parse_zip(file, ZipMethod::kDeflated);
  if (!index) {
    fuzz::require(index.fault().message.find('\n') == std::string::npos);
    return;
  }
  size_t packed = 0;
  for (const ZipMember& member : index.value().members()) {
    fuzz::require(index.value().find(member.name) == &member);
    packed += member.bytes.size();
    uint64_t given = 0;
    const auto fault = read_zip_member(member, [&](std::span<const std::byte> piece) {
      given += piece.size();
      fuzz::require(given <= member.size);
    });
    fuzz::require(fault.has_value() || given == member.size);
    if (fault) fuzz::require(fault->message.find('\n') == std::string::npos);
  }
  fuzz::require(packed <= file.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  read(volley::as_bytes(bytes));
  if (size < 2) return 0;
  const uint32_t plain = data[0] + 256u * data[1];
  const auto packed = static_cast<uint32_t>(size - 2);
  read(volley::as_bytes(volley::test::zip_bytes({{.name = "m",
                                                  .bytes = std::string(bytes.substr(2)),
                                                  .plain_size = plain,
                                                  .packed_size = packed,
                                                  .method = 8}})));
  return 0;
}
