// Pictures that their files hold turned or mirrored.
#include "image/exif.h"

#include <gtest/gtest.h>

#include "core/io/byte_reader.h"
#include "image/jpeg.h"
#include "image/picture_file.h"
#include "image/png.h"
#include "image/webp.h"

namespace volley::image {
namespace {

// TIFF of one directory: another tag, then the orientation, whose type and count may be others.
struct Tag {
  uint16_t value = 0;
  uint16_t type = 3;
  uint32_t count = 1;
};
std::string tiff(const Tag& tag, bool is_big) {
  const auto number = [&](uint32_t value, size_t bytes) {
    std::string text;
    for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(value >> 8 * (is_big ? bytes - 1 - i : i));
    return text;
  };
  return (is_big ? "MM" : "II") + number(42, 2) + number(8, 4) + number(2, 2) +  // directory at byte 8
         number(0x0100, 2) + number(4, 2) + number(1, 4) + number(640, 4) +      // width
         number(0x0112, 2) + number(tag.type, 2) + number(tag.count, 4) + number(tag.value, 2) +
         number(0, 2) + number(0, 4);
}

constexpr std::string_view kName("Exif\0\0", 6);

TEST(Exif, TheOrientationIsReadInBothByteOrders) {
  for (const bool is_big : {false, true}) {
    for (uint16_t value = 1; value <= 8; ++value) {
      const std::string data = tiff({.value = value}, is_big);
      EXPECT_EQ(static_cast<int>(read_orientation(as_bytes(data))), value);
      EXPECT_EQ(static_cast<int>(read_orientation(as_bytes(std::string(kName) + data))), value);
    }
  }
}

TEST(Exif, WhatStatesNoneLeavesThePixels) {
  for (const bool is_big : {false, true}) {
    const std::string whole = tiff({.value = 6}, is_big);
    // The entry ends four bytes before the data does.
    for (size_t length = 0; length < whole.size() - 4; ++length)
      EXPECT_EQ(read_orientation(as_bytes(whole.substr(0, length))), Orientation::kTopLeft) << length;
    for (const Tag& tag : {Tag{.value = 0}, Tag{.value = 9}, Tag{.value = 6, .type = 4},
                           Tag{.value = 6, .count = 2}, Tag{.value = 0xffff}})
      EXPECT_EQ(read_orientation(as_bytes(tiff(tag, is_big))), Orientation::kTopLeft);
    std::string far = whole;
    for (size_t i = 4; i < 8; ++i) far[i] = '\xff';  // the directory behind the end
    EXPECT_EQ(read_orientation(as_bytes(far)), Orientation::kTopLeft);
    std::string other = whole;
    other[is_big ? 3 : 2] = 43;
    EXPECT_EQ(read_orientation(as_bytes(other)), Orientation::kTopLeft);
  }
}

// Pixels by letters, three or two a row.
RgbaPicture lettered(const std::string& letters, int64_t width) {
  RgbaPicture picture{.width = width, .height = std::ssize(letters) / width};
  for (const char letter : letters) {
    const auto value = static_cast<uint8_t>(letter);
    picture.rgba.insert(picture.rgba.end(), {value, static_cast<uint8_t>(2 * value), 7, value});
  }
  return picture;
}

TEST(Exif, EachOrientationTurnsThePixels) {
  const RgbaPicture stored = lettered("abcdef", 3);
  const std::vector<RgbaPicture> meant{lettered("abcdef", 3), lettered("cbafed", 3), lettered("fedcba", 3),
                                       lettered("defabc", 3), lettered("adbecf", 2), lettered("daebfc", 2),
                                       lettered("fcebda", 2), lettered("cfbead", 2)};
  for (size_t i = 0; i < meant.size(); ++i) {
    const RgbaPicture turned = upright(stored, static_cast<Orientation>(i + 1));
    EXPECT_EQ(turned.width, meant[i].width) << i + 1;
    EXPECT_EQ(turned.height, meant[i].height) << i + 1;
    EXPECT_EQ(turned.rgba, meant[i].rgba) << i + 1;
  }
}

Picture test_picture() {
  Picture picture{.width = 32, .height = 16};
  for (int64_t i = 0; i < 32 * 16; ++i) {
    picture.rgb.push_back(static_cast<uint8_t>(8 * (i % 32)));
    picture.rgb.push_back(static_cast<uint8_t>(16 * (i / 32)));
    picture.rgb.push_back(60);
  }
  return picture;
}

std::string little_endian(size_t value) {
  std::string text;
  for (size_t i = 0; i < 4; ++i) text += static_cast<char>(value >> 8 * i);
  return text;
}

// A file of that format with EXIF data.
std::string file_with_exif(PictureFormat format, const std::string& exif) {
  if (format == PictureFormat::kPng)
    return encode_png(test_picture(), {}).insert(33, png_chunk("eXIf", exif));  // behind IHDR
  if (format == PictureFormat::kJpeg) {
    const std::string body = std::string(kName) + exif;
    const size_t length = body.size() + 2;
    std::string file = encode_jpeg(test_picture(), 95, {});
    return file.insert(2, std::string("\xFF\xE1") + static_cast<char>(length >> 8) +
                              static_cast<char>(length & 0xff) + body);
  }
  std::string file = encode_webp(test_picture(), {}, "<x/>");  // XMP brings the extended header
  file += "EXIF" + little_endian(exif.size()) + exif + (exif.size() % 2 == 1 ? std::string(1, '\0') : "");
  file[20] = static_cast<char>(file[20] | 8);
  return file.replace(4, 4, little_endian(file.size() - 8));
}

TEST(Exif, EveryFormatIsReadUpright) {
  for (const PictureFormat format : {PictureFormat::kPng, PictureFormat::kJpeg, PictureFormat::kWebp}) {
    for (uint16_t value = 1; value <= 8; ++value) {
      const std::string file = file_with_exif(format, tiff({.value = value}, value % 2 == 0));
      const auto stored = decode_picture(as_bytes(file)), meant = decode_upright_picture(as_bytes(file));
      ASSERT_TRUE(stored.ok()) << stored.fault().message;
      ASSERT_TRUE(meant.ok()) << meant.fault().message;
      EXPECT_EQ(meant.value().width, value < 5 ? 32 : 16) << format_ending(format) << " " << value;
      EXPECT_EQ(meant.value().rgba, upright(stored.value(), static_cast<Orientation>(value)).rgba);
    }
    const std::string broken = file_with_exif(format, "nothing of the kind");
    EXPECT_EQ(decode_upright_picture(as_bytes(broken)).value().width, 32) << "broken data takes nothing";
  }
  EXPECT_FALSE(decode_upright_picture(as_bytes("GIF89a")).ok());
}

}  // namespace
}  // namespace volley::image
