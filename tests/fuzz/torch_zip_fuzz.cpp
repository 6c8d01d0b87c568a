// The whole file, and the same bytes as the pickle of a file that is whole otherwise: a mutation seldom
// keeps an archive's offsets right.

#include "core/io/torch_zip.h"

#include <string>

#include "core/io/byte_reader.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/io/file_builders.h"

namespace {

void read(std::span<const std::byte> file, volley::CrcCheck crc) {
  using namespace volley;
  const Result<TorchCheckpoint> checkpoint = parse_torch_zip(file, crc);
  if (!checkpoint) {
    fuzz::require(checkpoint.fault().message.find('\n') == std::string::npos);
    return;
  }
  const std::string* before = nullptr;
  size_t copied = 0;
  for (const NamedTensor& tensor : checkpoint.value().tensors) {
    fuzz::require(before == nullptr || *before < tensor.name);
    fuzz::touch(tensor.view);
    before = &tensor.name;
  }
  for (const auto& copy : checkpoint.value().copies) copied += copy.size();
  fuzz::require(copied <= file.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  read(volley::as_bytes(bytes), volley::CrcCheck::kVerify);
  read(volley::as_bytes(bytes), volley::CrcCheck::kSkip);
  read(volley::as_bytes(volley::test::torch_bytes_of_pickle(bytes)), volley::CrcCheck::kSkip);
  return 0;
}
