#include "image/png.h"

#include <gtest/gtest.h>

#include <functional>

#include "core/io/byte_reader.h"
#include "core/io/crc32.h"

namespace volley::image {
namespace {

Picture test_picture(int64_t width, int64_t height) {
  Picture picture{.width = width, .height = height};
  for (int64_t i = 0; i < 3 * width * height; ++i) picture.rgb.push_back(static_cast<uint8_t>(i * 37 % 251));
  return picture;
}

std::string be32(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

std::string chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  return be32(static_cast<uint32_t>(data.size())) + body + be32(crc32(as_bytes(body)));
}

const std::string kStart("\x89PNG\r\n\x1a\n", 8);
const std::string kHeader = chunk("IHDR", be32(1) + be32(1) + std::string("\x08\x02\0\0\0", 5));
const std::string kEnd = chunk("IEND", "");

std::string fault_of(const std::string& file) {
  const auto parsed = parse_png(as_bytes(file));
  return parsed.ok() ? "" : parsed.fault().message;
}

std::string text_fault_of(const std::string& data) {
  const std::string file = kStart + kHeader + chunk("iTXt", data) + kEnd;
  const auto texts = read_png_texts(parse_png(as_bytes(file)).value());
  return texts.ok() ? "" : texts.fault().message;
}

TEST(Png, KeepsPixelsAndTexts) {
  for (auto [width, height] : {std::pair{1, 1}, {3, 5}, {64, 17}, {128, 128}}) {
    const Picture picture = test_picture(width, height);
    const std::vector<PngText> texts{{"volley.run/1", "{\"a\": \"\xc3\xa4\"}"}, {"Comment", ""}};
    const std::string file = encode_png(picture, texts);
    EXPECT_EQ(decode_png(as_bytes(file)).value(), picture);
    const auto chunks = parse_png(as_bytes(file)).value();
    EXPECT_EQ(chunks.front().type, "IHDR");
    EXPECT_EQ(chunks[1].type, "iTXt") << "texts stand before the pixels";
    EXPECT_EQ(chunks.back().type, "IEND");
    EXPECT_EQ(read_png_texts(chunks).value(), texts);
  }
}

TEST(Png, NamesWhatIsWrongWithAFile) {
  const std::string good = encode_png(test_picture(4, 4), {});
  EXPECT_EQ(fault_of(""), "is no PNG file");
  EXPECT_EQ(fault_of("GIF89a"), "is no PNG file");
  EXPECT_EQ(fault_of(kStart), "PNG ends without an IEND chunk");
  EXPECT_NE(fault_of(kStart + kEnd).find("expected IHDR"), std::string::npos);
  EXPECT_NE(fault_of(kStart + chunk("IHDR", "short") + kEnd).find("expected IHDR of 13 bytes"),
            std::string::npos);
  EXPECT_NE(fault_of(kStart + kHeader + chunk("I?AT", "") + kEnd).find("four letters"), std::string::npos);
  EXPECT_NE(fault_of(good + "x").find("behind its IEND"), std::string::npos);
  EXPECT_NE(fault_of(kStart + kHeader + be32(0xffffffff) + "IDAT").find("do not fit"), std::string::npos);
  EXPECT_NE(fault_of(kStart + kHeader + be32(100) + "IDATshort").find("do not fit"), std::string::npos);
}

TEST(Png, EveryCutAndEveryFlippedBitIsAFault) {
  const std::string good = encode_png(test_picture(5, 3), std::vector<PngText>{{"k", "some text"}});
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(parse_png(as_bytes(good.substr(0, length))).ok()) << length;
  }
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string flipped = good;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(decode_png(as_bytes(flipped)).ok()) << "bit " << bit;
  }
}

TEST(Png, RefusesTextsThatAreNone) {
  EXPECT_NE(text_fault_of("no end").find("keyword"), std::string::npos);
  EXPECT_NE(text_fault_of(std::string(1, '\0')).find("keyword"), std::string::npos);
  EXPECT_NE(text_fault_of(std::string(80, 'k') + std::string(5, '\0')).find("keyword"), std::string::npos);
  EXPECT_NE(text_fault_of(std::string("k\0\0", 3)).find("too short"), std::string::npos);
  EXPECT_NE(text_fault_of(std::string("k\0\0\0en", 6)).find("language has no end"), std::string::npos);
  EXPECT_NE(text_fault_of(std::string("k\0\0\0en\0t", 8)).find("translated keyword has no end"),
            std::string::npos);
  EXPECT_NE(text_fault_of(std::string("k\0\0\0\0\0\xff", 7)).find("not UTF-8"), std::string::npos);
  EXPECT_EQ(text_fault_of(std::string("k\0\x01\0\0\0\xff", 7)), "") << "compressed texts are passed over";
}

TEST(Png, RefusesPicturesThatAreTooLargeOrLie) {
  const auto with_size = [](uint32_t width, uint32_t height) {
    return kStart + chunk("IHDR", be32(width) + be32(height) + std::string("\x08\x02\0\0\0", 5)) +
           chunk("IDAT", "nonsense") + kEnd;
  };
  for (auto [width, height] :
       {std::pair{0u, 4u}, {20000u, 1u}, {16384u, 16384u}, {0xffffffffu, 0xffffffffu}}) {
    EXPECT_NE(decode_png(as_bytes(with_size(width, height))).fault().message.find("too large"),
              std::string::npos);
  }
  EXPECT_NE(decode_png(as_bytes(with_size(4, 4))).fault().message.find("cannot be unpacked"),
            std::string::npos);
}

}  // namespace
}  // namespace volley::image
