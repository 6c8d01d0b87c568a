#include <algorithm>
#include <tuple>

#include "core/io/atomic_file.h"
#include "core/io/byte_reader.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

using nlohmann::json;

constexpr int64_t kCacheLine = 64;

std::string safetensors_dtype(DType dtype) {
  std::string name(dtype_name(dtype));
  for (char& c : name) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return name;
}

void check_text(const std::string& path, const char* what, const std::string& text) {
  if (!is_valid_utf8(text)) throw Error(path + ": " + what + " " + quote(text) + " is not UTF-8");
}

}  // namespace

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& tensor : tensors) order.push_back(&tensor);
  std::ranges::sort(order, {}, [](const NamedTensor* tensor) {
    return std::tuple(tensor->view.bytes() % kCacheLine != 0, -dtype_size(tensor->view.dtype),
                      std::string_view(tensor->name));
  });

  json header = json::object();
  for (const auto& [key, value] : metadata) {
    check_text(path, "metadata key", key);
    check_text(path, "metadata value", value);
    header["__metadata__"][key] = value;
  }
  int64_t offset = 0;
  for (const NamedTensor* tensor : order) {
    check_text(path, "tensor name", tensor->name);
    if (tensor->name == "__metadata__" || header.contains(tensor->name)) {
      throw Error(path + ": tensor name " + quote(tensor->name) + " is reserved or repeats");
    }
    const HostView& view = tensor->view;
    if (is_block_type(view.dtype)) {
      throw Error(path + ": tensor " + quote(tensor->name) + ": safetensors files hold no " +
                  std::string(dtype_name(view.dtype)));
    }
    json& entry = header[tensor->name];
    entry["dtype"] = safetensors_dtype(view.dtype);
    entry["shape"] = view.shape.extents();
    entry["data_offsets"] = {offset, offset + view.bytes()};
    offset += view.bytes();
  }
  std::string text = header.dump();
  constexpr size_t kLengthBytes = 8;
  while ((kLengthBytes + text.size()) % kCacheLine != 0) text += ' ';
  const uint64_t length = text.size();

  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const NamedTensor* tensor : order) {
    file.write({tensor->view.data, static_cast<size_t>(tensor->view.bytes())});
  }
  file.commit();
}

}  // namespace volley
