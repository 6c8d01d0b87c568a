// WebP files by libwebp: pixels, and the container with its XMP chunk.
#include "image/webp.h"

#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include <memory>

#include "core/io/byte_reader.h"
#include "image/picture_limits.h"

namespace volley::image {
namespace {

struct FreeBytes {
  void operator()(uint8_t* bytes) const { WebPFree(bytes); }
};
using Bytes = std::unique_ptr<uint8_t, FreeBytes>;

const uint8_t* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const uint8_t*>(bytes.data());
}

// A picture or animation of a size that is taken.
Result<WebPBitstreamFeatures> features_of(std::span<const std::byte> file) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(raw(file), file.size(), &features) != VP8_STATUS_OK) return Fault{"is no WebP file"};
  const std::string fault = size_fault(features.width, features.height);
  if (!fault.empty()) return Fault{"WebP of " + fault};
  return features;
}

}  // namespace

std::string encode_webp(const Picture& picture, std::optional<int64_t> quality, std::string_view xmp) {
  if (picture.width > kMaxWebpSide || picture.height > kMaxWebpSide) {
    throw Error("WebP holds at most " + std::to_string(kMaxWebpSide) + " pixels a side, the picture has " +
                std::to_string(picture.width) + "x" + std::to_string(picture.height));
  }
  const int width = static_cast<int>(picture.width), height = static_cast<int>(picture.height);
  uint8_t* packed = nullptr;
  const size_t size = quality ? WebPEncodeRGB(picture.rgb.data(), width, height, 3 * width,
                                              static_cast<float>(*quality), &packed)
                              : WebPEncodeLosslessRGB(picture.rgb.data(), width, height, 3 * width, &packed);
  const Bytes owner(packed);
  if (size == 0) throw_no_memory(width, height);
  const std::string_view file(reinterpret_cast<const char*>(packed), size);
  return xmp.empty() ? std::string(file) : with_webp_xmp(file, xmp);
}

std::string with_webp_xmp(std::string_view file, std::string_view xmp) {
  const WebPData without{.bytes = raw(as_bytes(file)), .size = file.size()};
  const WebPData text{.bytes = raw(as_bytes(xmp)), .size = xmp.size()};
  const std::unique_ptr<WebPMux, decltype(&WebPMuxDelete)> mux(WebPMuxCreate(&without, 0), &WebPMuxDelete);
  WebPData whole{};
  if (mux == nullptr || WebPMuxSetChunk(mux.get(), "XMP ", &text, 0) != WEBP_MUX_OK ||
      WebPMuxAssemble(mux.get(), &whole) != WEBP_MUX_OK) {
    throw Error("out of memory: cannot pack a WebP file of " + std::to_string(file.size()) + " bytes");
  }
  const Bytes owner(const_cast<uint8_t*>(whole.bytes));
  return {reinterpret_cast<const char*>(whole.bytes), whole.size};
}

Result<WebpInfo> read_webp_info(std::span<const std::byte> file) {
  const auto features = features_of(file);
  if (!features.ok()) return features.fault();
  WebpInfo info{.width = features.value().width,
                .height = features.value().height,
                .is_animation = features.value().has_animation != 0,
                .is_lossless = features.value().format == 2};
  const WebPData data{.bytes = raw(file), .size = file.size()};
  const std::unique_ptr<WebPDemuxer, decltype(&WebPDemuxDelete)> demuxer(WebPDemux(&data), &WebPDemuxDelete);
  if (demuxer == nullptr) return Fault{"WebP container is broken"};
  info.frames = WebPDemuxGetI(demuxer.get(), WEBP_FF_FRAME_COUNT);
  const auto keep_chunk = [&](const char* name, std::optional<std::string>& text) {
    WebPChunkIterator chunk;
    if (WebPDemuxGetChunk(demuxer.get(), name, 1, &chunk) == 0) return;
    text.emplace(reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size);
    WebPDemuxReleaseChunkIterator(&chunk);
  };
  keep_chunk("XMP ", info.xmp);
  keep_chunk("EXIF", info.exif);
  return info;
}

Result<RgbaPicture> decode_webp(std::span<const std::byte> file) {
  const auto features = features_of(file);
  if (!features.ok()) return features.fault();
  if (features.value().has_animation != 0) return Fault{"WebP is an animation, expected a still picture"};
  RgbaPicture picture{.width = features.value().width, .height = features.value().height};
  picture.rgba.resize(static_cast<size_t>(4 * picture.width * picture.height));
  if (WebPDecodeRGBAInto(raw(file), file.size(), picture.rgba.data(), picture.rgba.size(),
                         static_cast<int>(4 * picture.width)) == nullptr) {
    return Fault{"WebP pixels cannot be unpacked"};
  }
  return picture;
}

}  // namespace volley::image
