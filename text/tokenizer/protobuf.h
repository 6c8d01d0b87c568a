#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "core/io/byte_reader.h"

namespace volley::text {

// One field of a protocol buffer message.
struct ProtobufField {
  uint64_t number = 0;
  enum class Wire { kVarint, kFixed64, kBytes, kFixed32 } wire = Wire::kVarint;
  uint64_t value = 0;                // of the numbers, as it lies
  std::span<const std::byte> bytes;  // of kBytes

  float as_float() const {
    const auto bits = static_cast<uint32_t>(value);
    float number_read;
    std::memcpy(&number_read, &bits, sizeof(number_read));
    return number_read;
  }
};

// Walks over the fields of an untrusted message.
class ProtobufReader {
 public:
  explicit ProtobufReader(std::span<const std::byte> bytes) : reader_(bytes) {}

  bool at_end() const { return reader_.remaining() == 0; }
  size_t position() const { return reader_.position(); }

  // False where the bytes are no field: an overlong number, a group, a length beyond the end.
  [[nodiscard]] bool next(ProtobufField& field) {
    uint64_t key = 0;
    if (!read_varint(key) || key >> 3 == 0) return false;
    field = {.number = key >> 3};
    switch (key & 7) {
      case 0:
        field.wire = ProtobufField::Wire::kVarint;
        return read_varint(field.value);
      case 1:
        field.wire = ProtobufField::Wire::kFixed64;
        return reader_.read(field.value);
      case 2: {
        field.wire = ProtobufField::Wire::kBytes;
        uint64_t length = 0;
        return read_varint(length) && reader_.take(length, field.bytes);
      }
      case 5: {
        field.wire = ProtobufField::Wire::kFixed32;
        uint32_t value = 0;
        const bool is_read = reader_.read(value);
        field.value = value;
        return is_read;
      }
      default:
        return false;
    }
  }

 private:
  bool read_varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      uint8_t byte = 0;
      if (!reader_.read(byte)) return false;
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return shift < 63 || byte <= 1;
    }
    return false;
  }

  ByteReader reader_;
};

}  // namespace volley::text
