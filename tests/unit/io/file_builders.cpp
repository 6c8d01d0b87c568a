#include "tests/unit/io/file_builders.h"

#include <zlib.h>

#include <stdexcept>

#include "core/io/byte_reader.h"
#include "core/io/crc32.h"

namespace volley::test {
namespace {

struct ZipBody {
  std::string members;
  std::string directory;
};

ZipBody zip_body(const std::vector<ZipEntry>& entries) {
  ZipBody body;
  for (const ZipEntry& entry : entries) {
    const auto offset = entry.offset.value_or(static_cast<uint32_t>(body.members.size()));
    const auto size = static_cast<uint32_t>(entry.bytes.size());
    const std::string& local = entry.local_name ? *entry.local_name : entry.name;
    // torch.save leaves CRC and sizes of the local header zero and puts a descriptor after the data.
    body.members += raw<uint32_t>(0x04034b50) + raw<uint16_t>(0) + raw(entry.flags) + raw(entry.method) +
                    std::string(16, '\0') + raw(static_cast<uint16_t>(local.size())) + raw<uint16_t>(0) +
                    local + entry.bytes;
    body.directory += raw<uint32_t>(0x02014b50) + raw<uint32_t>(0) + raw(entry.flags) + raw(entry.method) +
                      raw<uint32_t>(0) + raw(entry.crc.value_or(crc32(as_bytes(entry.bytes)))) +
                      raw(entry.packed_size.value_or(size)) + raw(entry.plain_size.value_or(size)) +
                      raw(static_cast<uint16_t>(entry.name.size())) +
                      raw(static_cast<uint16_t>(entry.extra.size())) + std::string(10, '\0') + raw(offset) +
                      entry.name + entry.extra;
  }
  return body;
}

}  // namespace

std::string safetensors_bytes(std::string_view header, std::string_view data,
                              std::optional<uint64_t> length) {
  return raw<uint64_t>(length.value_or(header.size())) + std::string(header) + std::string(data);
}

ZipEntry deflated_entry(const std::string& name, const std::string& contents) {
  z_stream stream{};
  if (deflateInit2(&stream, 6, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
    throw std::runtime_error("deflateInit2");
  std::string packed(deflateBound(&stream, contents.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(contents.data()));
  stream.avail_in = static_cast<uInt>(contents.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  const int state = deflate(&stream, Z_FINISH);
  packed.resize(packed.size() - stream.avail_out);
  deflateEnd(&stream);
  if (state != Z_STREAM_END) throw std::runtime_error("deflate");
  return {.name = name,
          .bytes = packed,
          .crc = crc32(as_bytes(contents)),
          .plain_size = static_cast<uint32_t>(contents.size()),
          .method = 8};
}

std::string zip_bytes(const std::vector<ZipEntry>& entries, const ZipEnd& end) {
  const auto [members, directory] = zip_body(entries);
  const uint16_t count = end.members.value_or(static_cast<uint16_t>(entries.size()));
  return members + directory + end.before + raw<uint32_t>(0x06054b50) + raw(end.disk) + raw(end.disk) +
         raw(count) + raw(count) +
         raw(end.directory_bytes.value_or(static_cast<uint32_t>(directory.size()))) +
         raw(end.directory_offset.value_or(static_cast<uint32_t>(members.size()))) +
         raw(static_cast<uint16_t>(end.comment.size())) + end.comment;
}

std::string zip64_bytes(const std::vector<ZipEntry>& entries, std::optional<uint64_t> record_offset) {
  const auto [members, directory] = zip_body(entries);
  const uint64_t record_at = members.size() + directory.size();
  const std::string record = raw<uint32_t>(0x06064b50) + raw<uint64_t>(44) + raw<uint32_t>(0) +
                             raw<uint64_t>(0) + raw<uint64_t>(entries.size()) +
                             raw<uint64_t>(entries.size()) + raw<uint64_t>(directory.size()) +
                             raw<uint64_t>(members.size());
  const std::string locator = raw<uint32_t>(0x07064b50) + raw<uint32_t>(0) +
                              raw<uint64_t>(record_offset.value_or(record_at)) + raw<uint32_t>(1);
  return zip_bytes(entries, {.members = 0xffff,
                             .directory_bytes = 0xffffffffu,
                             .directory_offset = 0xffffffffu,
                             .before = record + locator});
}

std::string zip64_extra(const std::vector<uint64_t>& values) {
  std::string extra = raw<uint16_t>(1) + raw(static_cast<uint16_t>(8 * values.size()));
  for (const uint64_t value : values) extra += raw(value);
  return extra;
}

namespace pickle {

std::string text(std::string_view value) {
  return "X" + raw(static_cast<uint32_t>(value.size())) + std::string(value);
}

std::string integer(int64_t value) {
  return "\x8a\x08" + raw(value);
}

std::string integers(const std::vector<int64_t>& values) {
  std::string items = "(";
  for (const int64_t value : values) items += integer(value);
  return items + "t";
}

std::string tuple(const std::vector<std::string>& items) {
  std::string all = "(";
  for (const std::string& item : items) all += item;
  return all + "t";
}

std::string global(std::string_view module, std::string_view name) {
  return "c" + std::string(module) + "\n" + std::string(name) + "\n";
}

std::string dict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string all = "}(";
  for (const auto& [key, value] : entries) all += text(key) + value;
  return all + "u";
}

std::string whole(std::string_view body) {
  return "\x80\x02" + std::string(body) + ".";
}

}  // namespace pickle

std::string torch_tensor(const TorchTensor& tensor) {
  using namespace pickle;
  const std::string storage = tuple({text("storage"), global("torch", tensor.type), text(tensor.storage),
                                     text("cpu"), integer(tensor.elements)}) +
                              "Q";
  const std::string hooks = global("collections", "OrderedDict") + ")R";
  return global("torch._utils", "_rebuild_tensor_v2") +
         tuple({storage, integer(tensor.offset), integers(tensor.shape), integers(tensor.strides), "\x89",
                hooks}) +
         "R";
}

std::vector<ZipEntry> torch_entries(std::string_view pickle,
                                    const std::vector<std::pair<std::string, std::string>>& storages) {
  std::vector<ZipEntry> entries;
  entries.push_back({.name = "model/data.pkl", .bytes = std::string(pickle)});
  entries.push_back({.name = "model/byteorder", .bytes = "little"});
  for (const auto& [key, bytes] : storages) entries.push_back({.name = "model/data/" + key, .bytes = bytes});
  entries.push_back({.name = "model/version", .bytes = "3\n"});
  return entries;
}

std::string torch_bytes(const TorchTensor& tensor) {
  return torch_bytes_of_pickle(pickle::whole(pickle::dict({{"w", torch_tensor(tensor)}})));
}

std::string torch_bytes_of_pickle(std::string_view pickle) {
  return zip_bytes(torch_entries(pickle, {{"0", counting_floats(4)}}));
}

std::string counting_floats(int64_t count) {
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) bytes += raw(static_cast<float>(i));
  return bytes;
}

}  // namespace volley::test
