// Formats of pictures, and of how they filled in: what is written is read again, by the pixel and by the
// record.
#include "image/picture_file.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/io/byte_reader.h"
#include "image/animation.h"
#include "image/jpeg.h"
#include "image/png.h"
#include "image/webp.h"
#include "image/xmp.h"
#include "tests/unit/image/animation_frames.h"

namespace volley::image {
namespace {

std::vector<Picture> pictures_of(const std::vector<Animation::Frame>& frames) {
  std::vector<Picture> pictures;
  for (const Animation::Frame& frame : frames) pictures.push_back(frame.picture);
  return pictures;
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
  const Picture picture = test::smooth_picture(48, 32);
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
  const Picture picture = test::smooth_picture(8, 8);
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

Animation test_animation() {
  Animation animation;
  for (int64_t i = 0; i < 3; ++i)
    animation.frames.push_back({.picture = test::smooth_picture(24, 16, i), .milliseconds = 50});
  return animation;
}

TEST(PictureFile, AnimationsAndStepMapsKeepTheRecord) {
  const std::string text = to_json(test_record()).dump();
  for (const AnimationFormat format :
       {AnimationFormat::kWebp, AnimationFormat::kPng, AnimationFormat::kGif}) {
    const auto found = read_file_record(as_bytes(encode_animation(test_animation(), format, test_record())));
    ASSERT_TRUE(found.ok()) << found.fault().message;
    EXPECT_EQ(found.value().text, text) << "to the byte";
    EXPECT_EQ(found.value().shows, Shows::kAnimation);
    EXPECT_EQ(found.value().animation.format, format);
    EXPECT_EQ(found.value().animation.width, 24);
    EXPECT_EQ(found.value().animation.height, 16);
    EXPECT_EQ(found.value().animation.frames, 3);
    // The frames are those of a file without a record.
    const std::string with = encode_animation(test_animation(), format, test_record());
    const std::string without = encode_animation(test_animation(), format, AnimationTexts{});
    EXPECT_NE(read_file_record(as_bytes(without)).fault().message.find("holds no run record"),
              std::string::npos);
    if (format == AnimationFormat::kWebp) {
      EXPECT_EQ(pictures_of(test::read_webp_frames(with)), pictures_of(test_animation().frames));
    } else if (format == AnimationFormat::kGif) {
      EXPECT_EQ(pictures_of(test::read_gif_frames(with)), pictures_of(test::read_gif_frames(without)));
      EXPECT_EQ(test::read_gif_frames(with).size(), 3u) << "for readers that know of no XMP";
    } else {
      EXPECT_EQ(decode_png(as_bytes(with)).value(), test::smooth_picture(24, 16));
    }
  }
  const Picture map = test::smooth_picture(20, 38);
  const std::string file = encode_step_map(map, test_record());
  const FileRecord found = read_file_record(as_bytes(file)).value();
  EXPECT_EQ(found.text, text);
  EXPECT_EQ(found.shows, Shows::kStepMap);
  EXPECT_EQ(decode_png(as_bytes(file)).value(), map);
  EXPECT_EQ(read_file_record(as_bytes(encode_picture(map, {}, test_record()))).value().shows,
            Shows::kPicture);
}

// As the specification says: behind the name the packet alone, then the bytes that lead every reader to its
// end.
TEST(PictureFile, GifHoldsXmpWhereOthersReadIt) {
  const std::string file = encode_animation(test_animation(), AnimationFormat::kGif, test_record());
  const size_t extension = file.find("\x21\xFF\x0BXMP DataXMP");
  ASSERT_NE(extension, std::string::npos);
  const std::string packet = make_xmp(to_json(test_record()).dump());
  EXPECT_EQ(file.substr(extension + 14, packet.size()), packet);
  const std::string trailer = file.substr(extension + 14 + packet.size(), 258);
  EXPECT_EQ(trailer[0], '\x01');
  for (size_t i = 0; i < 256; ++i) EXPECT_EQ(static_cast<uint8_t>(trailer[1 + i]), 255 - i);
  EXPECT_EQ(trailer[257], '\0');
  // From any byte of the packet, taken for a length, lengths lead to the last byte.
  for (size_t start = 0; start < packet.size(); ++start) {
    size_t at = extension + 14 + start;
    while (file[at] != '\0') at += 1 + static_cast<uint8_t>(file[at]);
    ASSERT_EQ(at, extension + 14 + packet.size() + 257);
  }
  const auto fault_of = [&](size_t at, const std::string& bytes) {
    std::string other = file;
    other.replace(at, bytes.size(), bytes);
    return read_file_record(as_bytes(other)).fault().message;
  };
  EXPECT_EQ(fault_of(extension + 3, "Xmp"), "holds no run record (there is no XMP)");
  EXPECT_EQ(fault_of(extension + 14 + packet.size() + 200, "?"), "GIF: the XMP packet has no end");
  EXPECT_EQ(fault_of(extension, "?"), "GIF: unknown block at byte " + std::to_string(extension));
  EXPECT_EQ(fault_of(6, std::string(2, '\0')), "GIF of 0x16 pixels: too large or empty");
  EXPECT_EQ(fault_of(4, "8a"), "is no GIF file");
  std::string twice = file;
  twice.insert(extension, file.substr(extension, 14 + packet.size() + 258));
  EXPECT_EQ(read_file_record(as_bytes(twice)).fault().message, "GIF holds two XMP packets, expected one");
  EXPECT_EQ(read_file_record(as_bytes(file.substr(0, 13) + ";")).fault().message, "GIF holds no frame");
}

TEST(PictureFile, CutAnimationsAreFaults) {
  for (const AnimationFormat format :
       {AnimationFormat::kWebp, AnimationFormat::kPng, AnimationFormat::kGif}) {
    const std::string whole = encode_animation(test_animation(), format, test_record());
    for (size_t length = 0; length < whole.size(); ++length) {
      const auto record = read_file_record(as_bytes(whole.substr(0, length)));
      // Behind WebP's last chunk may stand a byte that fills it up.
      ASSERT_FALSE(record.ok() && length + 1 < whole.size()) << length << " of " << whole.size();
    }
  }
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
    const std::string whole = encode_picture(test::smooth_picture(9, 7), {.format = format}, test_record());
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
  const std::string png = encode_picture(test::smooth_picture(8, 8), {}, record);
  const auto chunks = parse_png(as_bytes(png)).value();
  const auto texts = read_png_texts(chunks).value();
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_EQ(texts[0].keyword, "parameters");
  EXPECT_EQ(texts[0].kind, PngText::Kind::kPlain);
  EXPECT_EQ(texts[0].text,
            "red apple\nSteps: 32, Sampler: parallel order=center, CFG scale: 1.5, Seed: 7, Size: 48x32, "
            "Model hash: aaaaaaaaaa, Model: \"a <model> & \\\"more\\\"\", Version: volley 0.1.0");
  // A prompt beyond ASCII goes into the chunk that has an encoding.
  const std::string other = encode_picture(test::smooth_picture(8, 8), {}, test_record());
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

}  // namespace
}  // namespace volley::image
