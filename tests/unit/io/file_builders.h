#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace volley::test {

// The bytes of a number as they lie in memory.
template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

// Header length, header, data; `length` lies about the first.
std::string safetensors_bytes(std::string_view header, std::string_view data,
                              std::optional<uint64_t> length = std::nullopt);

// One member of a zip archive; the optional fields lie about it.
struct ZipEntry {
  std::string name;
  std::string bytes;
  std::optional<uint32_t> crc;
  std::optional<uint32_t> plain_size;
  std::optional<uint32_t> packed_size;
  std::optional<uint32_t> offset;
  std::optional<std::string> local_name;
  std::string extra;  // of the directory entry
  uint16_t method = 0;
  uint16_t flags = 0x0808;  // as torch.save sets them
};

// The same contents as a deflated member.
ZipEntry deflated_entry(const std::string& name, const std::string& contents);

struct ZipEnd {
  std::string comment;
  std::optional<uint16_t> members;
  std::optional<uint32_t> directory_bytes;
  std::optional<uint32_t> directory_offset;
  uint16_t disk = 0;
  std::string before;  // bytes between the directory and the end record
};

std::string zip_bytes(const std::vector<ZipEntry>& entries, const ZipEnd& end = {});

// The same archive with zip64 records; `record_offset` lies about where the zip64 end record is.
std::string zip64_bytes(const std::vector<ZipEntry>& entries,
                        std::optional<uint64_t> record_offset = std::nullopt);

// A zip64 extra field.
std::string zip64_extra(const std::vector<uint64_t>& values);

// Pickle opcodes of protocol 2.
namespace pickle {
std::string text(std::string_view value);
std::string integer(int64_t value);
std::string integers(const std::vector<int64_t>& values);  // a tuple
std::string tuple(const std::vector<std::string>& items);
std::string global(std::string_view module, std::string_view name);
std::string dict(const std::vector<std::pair<std::string, std::string>>& entries);  // text key, pickled value
std::string whole(std::string_view body);                                           // PROTO body STOP
}  // namespace pickle

// A tensor as torch.save writes it.
struct TorchTensor {
  std::string storage = "0";
  std::string type = "FloatStorage";
  int64_t elements = 4;
  int64_t offset = 0;
  std::vector<int64_t> shape = {2, 2};
  std::vector<int64_t> strides = {2, 1};
};

std::string torch_tensor(const TorchTensor& tensor);

// An archive "model/" with this pickle and these storages.
std::vector<ZipEntry> torch_entries(std::string_view pickle,
                                    const std::vector<std::pair<std::string, std::string>>& storages);

// The usual case: a bare state dict {"w": tensor} over one storage of 16 bytes.
std::string torch_bytes(const TorchTensor& tensor);
std::string torch_bytes_of_pickle(std::string_view pickle);

// The floats 0, 1, 2 ... as bytes.
std::string counting_floats(int64_t count);

}  // namespace volley::test
