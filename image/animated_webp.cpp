// Animated WebP by libwebpmux, without loss.
#include <webp/encode.h>
#include <webp/mux.h>

#include <memory>

#include "image/animation.h"
#include "image/picture_limits.h"
#include "image/webp.h"

namespace volley::image {
namespace {

struct FreePicture {
  void operator()(WebPPicture* picture) const { WebPPictureFree(picture); }
};

}  // namespace

std::string encode_animated_webp(const Animation& animation, std::string_view xmp) {
  const Picture& first = animation.frames.front().picture;
  if (first.width > kMaxWebpSide || first.height > kMaxWebpSide) {
    throw Error("WebP holds at most " + std::to_string(kMaxWebpSide) + " pixels a side, the animation has " +
                std::to_string(first.width) + "x" + std::to_string(first.height));
  }
  const int width = static_cast<int>(first.width), height = static_cast<int>(first.height);
  WebPAnimEncoderOptions options;
  WebPConfig config;
  WebPPicture storage;
  if (WebPAnimEncoderOptionsInit(&options) == 0 || WebPConfigInit(&config) == 0 ||
      WebPConfigLosslessPreset(&config, 4) == 0 || WebPPictureInit(&storage) == 0) {
    throw Error("WebP: the library is of another version than its headers");
  }
  const std::unique_ptr<WebPAnimEncoder, decltype(&WebPAnimEncoderDelete)> encoder(
      WebPAnimEncoderNew(width, height, &options), &WebPAnimEncoderDelete);
  if (encoder == nullptr) throw_no_memory(width, height);
  const std::unique_ptr<WebPPicture, FreePicture> picture(&storage);
  picture->width = width;
  picture->height = height;
  picture->use_argb = 1;
  int64_t time = 0;
  for (const Animation::Frame& frame : animation.frames) {
    if (WebPPictureImportRGB(picture.get(), frame.picture.rgb.data(), 3 * width) == 0 ||
        WebPAnimEncoderAdd(encoder.get(), picture.get(), static_cast<int>(time), &config) == 0) {
      throw_no_memory(width, height);
    }
    time += frame.milliseconds;
  }
  WebPData whole{};
  if (WebPAnimEncoderAdd(encoder.get(), nullptr, static_cast<int>(time), nullptr) == 0 ||
      WebPAnimEncoderAssemble(encoder.get(), &whole) == 0) {
    throw_no_memory(width, height);
  }
  const std::string file(reinterpret_cast<const char*>(whole.bytes), whole.size);
  WebPDataClear(&whole);
  return xmp.empty() ? file : with_webp_xmp(file, xmp);
}

}  // namespace volley::image
