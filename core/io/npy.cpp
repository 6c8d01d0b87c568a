#include "core/io/npy.h"

#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/io/byte_reader.h"
#include "core/io/checked_shape.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

constexpr std::array<std::pair<std::string_view, DType>, 9> kTypes{{{"<f4", DType::kF32},
                                                                    {"<f2", DType::kF16},
                                                                    {"<f8", DType::kF64},
                                                                    {"<i8", DType::kI64},
                                                                    {"<i4", DType::kI32},
                                                                    {"<i2", DType::kI16},
                                                                    {"|i1", DType::kI8},
                                                                    {"|u1", DType::kU8},
                                                                    {"|b1", DType::kBool}}};

// What stands behind 'KEY': in the header, a Python dict as text.
std::optional<std::string_view> value_of(std::string_view header, std::string_view key) {
  const std::string quoted = "'" + std::string(key) + "':";
  const size_t at = header.find(quoted);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view value = header.substr(at + quoted.size());
  value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
  return value;
}

std::optional<std::vector<int64_t>> parse_tuple(std::string_view text) {
  if (!text.starts_with('(')) return std::nullopt;
  std::vector<int64_t> extents;
  text.remove_prefix(1);
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    if (text.starts_with(')')) return extents;
    int64_t extent = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), extent);
    if (error != std::errc()) return std::nullopt;
    extents.push_back(extent);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (text.starts_with(',')) {
      text.remove_prefix(1);
    } else if (!text.starts_with(')')) {
      return std::nullopt;
    }
  }
}

std::optional<DType> parse_type(std::string_view text) {
  for (const auto& [name, type] : kTypes) {
    if (text.starts_with("'" + std::string(name) + "'")) return type;
  }
  return std::nullopt;
}

}  // namespace

Result<HostView> parse_npy(std::span<const std::byte> file) {
  if (!as_text(file).starts_with("\x93NUMPY")) return Fault{"is no .npy file"};
  ByteReader reader(file.subspan(6));
  uint8_t major = 0, minor = 0;
  uint16_t short_length = 0;
  uint32_t length = 0;
  bool ok = reader.read_all(major, minor);
  if (ok && (major < 1 || major > 3)) return Fault{"has .npy version " + std::to_string(major)};
  ok = ok && (major == 1 ? reader.read(short_length) : reader.read(length));
  if (major == 1) length = short_length;
  std::span<const std::byte> header_bytes, data;
  if (!ok || !reader.take(length, header_bytes)) return Fault{"ends within the .npy header"};
  const std::string_view header = as_text(header_bytes);

  const auto order = value_of(header, "fortran_order"), type = value_of(header, "descr"),
             extents = value_of(header, "shape");
  if (!order || !type || !extents) return Fault{".npy header lacks descr, fortran_order or shape"};
  if (!order->starts_with("False")) return Fault{"is in column-major order, expected row-major"};
  const auto dtype = parse_type(*type);
  if (!dtype)
    return Fault{"has type " + quote(type->substr(0, type->find(','))) + ", expected floats or integers"};
  const auto dimensions = parse_tuple(*extents);
  if (!dimensions) return Fault{".npy header has a shape that is no tuple of counts"};
  const Result<Shape> shape = checked_shape(*dimensions, *dtype);
  if (!shape) return shape.fault();
  HostView view{nullptr, *dtype, shape.value()};
  if (!reader.take(static_cast<uint64_t>(view.bytes()), data)) {
    return Fault{"holds " + std::to_string(reader.remaining()) + " bytes of data, expected " +
                 std::to_string(view.bytes()) + " for shape " + view.shape.to_string()};
  }
  if (reader.remaining() != 0) return Fault{std::to_string(reader.remaining()) + " bytes follow the array"};
  view.data = data.data();
  return view;
}

}  // namespace volley
