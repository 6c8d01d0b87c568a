// Formats of pictures and animations: what is written is read again, by the pixel and by the record.
#include "image/picture_file.h"

#include <gif_lib.h>
#include <gtest/gtest.h>
#include <webp/demux.h>

#include <cmath>
#include <memory>

#include "core/io/byte_reader.h"
#include "core/io/crc32.h"
#include "image/animation.h"
#include "image/jpeg.h"
#include "image/png.h"
#include "image/webp.h"
#include "image/xmp.h"

namespace volley::image {
namespace {

// Smooth, so that lossy formats stay near it.
Picture test_picture(int64_t width, int64_t height, int64_t shift = 0) {
  Picture picture{.width = width, .height = height};
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      picture.rgb.push_back(static_cast<uint8_t>(255 * x / width));
      picture.rgb.push_back(static_cast<uint8_t>(255 * y / height));
      picture.rgb.push_back(static_cast<uint8_t>((40 * shift) % 256));
    }
  }
  return picture;
}

RunRecord test_record(int64_t pictures = 1) {
  RunRecord record{
      .volley = "0.1.0",
      .request = {.model = "a <model> & \"more\"",
                  .prompt = "r\xc3\xb6te \xc3\x84pfel, drei: \"gut\"",
                  .class_name = "food-fruit",
                  .count = pictures,
                  .decoder = {.name = "parallel", .options = {{"steps", "32"}, {"order", "center"}}},
                  .cfg = 1.5},
      .weights = {{"arpg", std::string(64, 'a')}, {"vq", std::string(64, 'b')}},
      .device = "cpu",
      .dtype = "f32",
      .width = 48,
      .height = 32,
      .tokens = 6};
  for (int64_t i = 0; i < pictures; ++i)
    record.pictures.push_back(
        {.index = i, .seed = 7 + static_cast<uint64_t>(i), .token_hash = std::string(64, 'c')});
  return record;
}

double mean_difference(const Picture& a, const Picture& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(a.rgb[i] - b.rgb[i]);
  return sum / static_cast<double>(a.rgb.size());
}

TEST(PictureFile, EveryFormatKeepsRecordAndPixels) {
  const Picture picture = test_picture(48, 32);
  const RunRecord record = test_record();
  struct Case {
    PictureEncoding encoding;
    bool is_lossless;
  };
  for (const Case& c :
       {Case{{.format = PictureFormat::kPng}, true}, Case{{.format = PictureFormat::kWebp}, true},
        Case{{.format = PictureFormat::kWebp, .quality = 80}, false},
        Case{{.format = PictureFormat::kJpeg}, false},
        Case{{.format = PictureFormat::kJpeg, .quality = 100}, false}}) {
    const std::string file = encode_picture(picture, c.encoding, record);
    const auto found = read_file_record(as_bytes(file));
    ASSERT_TRUE(found.ok()) << found.fault().message;
    EXPECT_EQ(found.value().format, c.encoding.format);
    EXPECT_EQ(found.value().is_lossless, c.is_lossless);
    EXPECT_EQ(found.value().text, to_json(record).dump()) << "to the byte";
    const RgbaPicture decoded = decode_picture(as_bytes(file)).value();
    const Picture shown = over(decoded, 0);
    if (c.is_lossless) {
      EXPECT_EQ(shown, picture);
    } else {
      EXPECT_NE(shown, picture);
      EXPECT_LT(mean_difference(shown, picture), 4.0);
    }
    const std::string plain = encode_picture(picture, c.encoding);
    EXPECT_FALSE(read_file_record(as_bytes(plain)).ok());
    EXPECT_EQ(over(decode_picture(as_bytes(plain)).value(), 0), shown);
  }
  EXPECT_LT(encode_picture(picture, {.format = PictureFormat::kJpeg, .quality = 10}).size(),
            encode_picture(picture, {.format = PictureFormat::kJpeg, .quality = 95}).size());
}

TEST(PictureFile, ARecordThatDoesNotFitIntoJpegIsAnError) {
  const Picture picture = test_picture(8, 8);
  EXPECT_EQ(
      read_file_record(as_bytes(encode_picture(picture, {.format = PictureFormat::kJpeg}, test_record(400))))
          .value()
          .text,
      to_json(test_record(400)).dump())
      << "as many as a grid may have";
  EXPECT_THROW(encode_picture(picture, {.format = PictureFormat::kJpeg}, test_record(1000)), Error);
  EXPECT_TRUE(
      read_file_record(as_bytes(encode_picture(picture, {.format = PictureFormat::kWebp}, test_record(1000))))
          .ok());
}

TEST(PictureFile, OtherFilesAreFaults) {
  for (const std::string& file : {std::string(), std::string("GIF89a"), std::string("\xFF\xD8"),
                                  std::string("RIFF\4\0\0\0WEBP", 12), std::string("\x89PNG")}) {
    EXPECT_FALSE(decode_picture(as_bytes(file)).ok());
    EXPECT_FALSE(read_file_record(as_bytes(file)).ok());
  }
}

// No cut of a file is read beyond its end, and none gives another record.
TEST(PictureFile, CutFilesAreFaultsOrTheSame) {
  for (const PictureFormat format : {PictureFormat::kJpeg, PictureFormat::kWebp}) {
    const std::string whole = encode_picture(test_picture(9, 7), {.format = format}, test_record());
    const std::string text = read_file_record(as_bytes(whole)).value().text;
    for (size_t length = 0; length < whole.size(); ++length) {
      const std::string cut = whole.substr(0, length);
      const auto record = read_file_record(as_bytes(cut));
      if (record.ok()) {
        EXPECT_EQ(record.value().text, text);
      }
      (void)decode_picture(as_bytes(cut));
    }
  }
}

TEST(Parameters, AreTheLineThatOtherProgramsRead) {
  RunRecord record = test_record();
  record.request.prompt = "red apple";
  record.weights.emplace("text_encoder", std::string(64, 'c'));
  const std::string png = encode_picture(test_picture(8, 8), {}, record);
  const auto chunks = parse_png(as_bytes(png)).value();
  const auto texts = read_png_texts(chunks).value();
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_EQ(texts[0].keyword, "parameters");
  EXPECT_EQ(texts[0].kind, PngText::Kind::kPlain);
  EXPECT_EQ(texts[0].text,
            "red apple\nSteps: 32, Sampler: parallel order=center, CFG scale: 1.5, Seed: 7, Size: 48x32, "
            "Model hash: aaaaaaaaaa, Model: \"a <model> & \\\"more\\\"\", Version: volley 0.1.0");
  // A prompt beyond ASCII goes into the chunk that has an encoding.
  const std::string other = encode_picture(test_picture(8, 8), {}, test_record());
  EXPECT_EQ(read_png_texts(parse_png(as_bytes(other)).value()).value()[0].kind,
            PngText::Kind::kInternational);
  // A method without steps says what one token a step takes; lines stay two.
  record.request.decoder = {.name = "jacobi"};
  record.request.prompt = "two\nlines";
  EXPECT_TRUE(parameters_text(record).starts_with("two lines\nSteps: 6, Sampler: jacobi, "))
      << parameters_text(record);
}

TEST(Xmp, KeepsWhatXmlWouldTake) {
  for (const std::string& text :
       {std::string("{\"a\": \"<b> & 'c'\"}"), std::string("]]>"), std::string("\xc3\xa4")}) {
    EXPECT_EQ(read_xmp_record(make_xmp(text)).value(), text);
  }
  const auto fault = [](const std::string& packet) { return read_xmp_record(packet).fault().message; };
  EXPECT_NE(fault("").find("no run record"), std::string::npos);
  EXPECT_NE(fault("<volley:run>x").find("no end"), std::string::npos);
  EXPECT_NE(fault("<volley:run>&what;</volley:run>").find("entity"), std::string::npos);
  EXPECT_NE(fault("<volley:run>\xff</volley:run>").find("UTF-8"), std::string::npos);
  EXPECT_NE(fault("<volley:run></volley:run><volley:run></volley:run>").find("two"), std::string::npos);
}

class AnimationTest : public testing::Test {
 protected:
  AnimationTest() {
    for (int64_t i = 0; i < 4; ++i)
      animation_.frames.push_back({.picture = test_picture(24, 16, i), .milliseconds = 50 * (i + 1)});
  }
  Animation animation_;
};

TEST_F(AnimationTest, WebpFramesComeBack) {
  const std::string file = encode_animation(animation_, AnimationFormat::kWebp);
  const WebPData data{.bytes = reinterpret_cast<const uint8_t*>(file.data()), .size = file.size()};
  const std::unique_ptr<WebPAnimDecoder, decltype(&WebPAnimDecoderDelete)> decoder(
      WebPAnimDecoderNew(&data, nullptr), &WebPAnimDecoderDelete);
  ASSERT_NE(decoder, nullptr);
  int time = 0;
  int64_t expected = 0;
  for (const Animation::Frame& frame : animation_.frames) {
    uint8_t* pixels = nullptr;
    ASSERT_EQ(WebPAnimDecoderGetNext(decoder.get(), &pixels, &time), 1);
    expected += frame.milliseconds;
    EXPECT_EQ(time, expected);
    EXPECT_EQ(over({.width = 24, .height = 16, .rgba = {pixels, pixels + 4 * 24 * 16}}, 0), frame.picture);
  }
  EXPECT_EQ(WebPAnimDecoderHasMoreFrames(decoder.get()), 0);
}

TEST_F(AnimationTest, PngFramesComeBack) {
  const std::string file = encode_animation(animation_, AnimationFormat::kPng);
  EXPECT_EQ(decode_png(as_bytes(file)).value(), animation_.frames[0].picture) << "a still for others";
  // Each frame as the PNG file it would be alone; sequence numbers count up over both kinds of chunks.
  std::vector<std::string> pixels;
  uint32_t sequence = 0;
  std::string header;
  std::vector<int> delays;
  const auto number = [](std::span<const std::byte> bytes) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[i]);
    return value;
  };
  const auto chunks = parse_png(as_bytes(file)).value();
  for (const PngChunk& chunk : chunks) {
    if (chunk.type == "IHDR") header = as_text(chunk.data);
    if (chunk.type == "acTL") {
      EXPECT_EQ(number(chunk.data), 4u);
    }
    if (chunk.type == "fcTL") {
      EXPECT_EQ(number(chunk.data), sequence++);
      EXPECT_EQ(number(chunk.data.subspan(4)), 24u);
      delays.push_back(std::to_integer<int>(chunk.data[20]) * 256 + std::to_integer<int>(chunk.data[21]));
      pixels.emplace_back();
    }
    if (chunk.type == "IDAT") pixels.back() += as_text(chunk.data);
    if (chunk.type == "fdAT") {
      EXPECT_EQ(number(chunk.data), sequence++);
      pixels.back() += as_text(chunk.data.subspan(4));
    }
  }
  ASSERT_EQ(pixels.size(), 4u);
  EXPECT_EQ(delays, (std::vector<int>{50, 100, 150, 200}));
  for (size_t i = 0; i < 4; ++i) {
    const std::string still = std::string("\x89PNG\r\n\x1a\n", 8) + png_chunk("IHDR", header) +
                              png_chunk("IDAT", pixels[i]) + png_chunk("IEND", "");
    EXPECT_EQ(decode_png(as_bytes(still)).value(), animation_.frames[i].picture);
  }
}

TEST_F(AnimationTest, GifFramesAreNear) {
  const std::string file = encode_animation(animation_, AnimationFormat::kGif);
  struct Source {
    const std::string& file;
    size_t place = 0;
  } source{file};
  const auto read = [](GifFileType* gif, GifByteType* bytes, int count) {
    auto& from = *static_cast<Source*>(gif->UserData);
    const size_t taken =
        from.file.copy(reinterpret_cast<char*>(bytes), static_cast<size_t>(count), from.place);
    from.place += taken;
    return static_cast<int>(taken);
  };
  int error = 0;
  GifFileType* gif = DGifOpen(&source, read, &error);
  ASSERT_NE(gif, nullptr);
  ASSERT_EQ(DGifSlurp(gif), GIF_OK);
  ASSERT_EQ(gif->ImageCount, 4);
  for (int i = 0; i < 4; ++i) {
    const SavedImage& image = gif->SavedImages[i];
    ASSERT_NE(image.ImageDesc.ColorMap, nullptr);
    Picture picture{.width = 24, .height = 16};
    for (int p = 0; p < 24 * 16; ++p) {
      const GifColorType color = image.ImageDesc.ColorMap->Colors[image.RasterBits[p]];
      picture.rgb.insert(picture.rgb.end(), {color.Red, color.Green, color.Blue});
    }
    const auto& frame = animation_.frames[static_cast<size_t>(i)];
    EXPECT_LT(mean_difference(picture, frame.picture), 6.0);
    GraphicsControlBlock control;
    EXPECT_EQ(DGifSavedExtensionToGCB(gif, i, &control), GIF_OK);
    EXPECT_EQ(control.DelayTime * 10, frame.milliseconds);
  }
  DGifCloseFile(gif, &error);
}

}  // namespace
}  // namespace volley::image
