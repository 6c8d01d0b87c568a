#include "tests/unit/image/animation_frames.h"

#include <gif_lib.h>
#include <webp/demux.h>

#include <memory>

namespace volley::test {

std::vector<image::Animation::Frame> read_webp_frames(const std::string& file) {
  const WebPData data{.bytes = reinterpret_cast<const uint8_t*>(file.data()), .size = file.size()};
  const std::unique_ptr<WebPAnimDecoder, decltype(&WebPAnimDecoderDelete)> decoder(
      WebPAnimDecoderNew(&data, nullptr), &WebPAnimDecoderDelete);
  std::vector<image::Animation::Frame> frames;
  if (decoder == nullptr) return frames;
  WebPAnimInfo info;
  WebPAnimDecoderGetInfo(decoder.get(), &info);
  int64_t before = 0;
  while (WebPAnimDecoderHasMoreFrames(decoder.get()) != 0) {
    uint8_t* rgba = nullptr;
    int time = 0;
    if (WebPAnimDecoderGetNext(decoder.get(), &rgba, &time) == 0) break;
    const int64_t width = info.canvas_width, height = info.canvas_height;
    frames.push_back({.picture = image::over(
                          {.width = width, .height = height, .rgba = {rgba, rgba + 4 * width * height}}, 0),
                      .milliseconds = time - before});
    before = time;
  }
  return frames;
}

std::vector<image::Animation::Frame> read_gif_frames(const std::string& file) {
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
  struct Close {
    void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
  };
  const std::unique_ptr<GifFileType, Close> gif(DGifOpen(&source, read, nullptr));
  std::vector<image::Animation::Frame> frames;
  if (gif == nullptr || DGifSlurp(gif.get()) != GIF_OK) return frames;
  for (int i = 0; i < gif->ImageCount; ++i) {
    const SavedImage& saved = gif->SavedImages[i];
    const auto& place = saved.ImageDesc;
    image::Animation::Frame frame{.picture = {.width = place.Width, .height = place.Height}};
    for (int p = 0; p < place.Width * place.Height; ++p) {
      const GifColorType& color = place.ColorMap->Colors[saved.RasterBits[p]];
      frame.picture.rgb.insert(frame.picture.rgb.end(), {color.Red, color.Green, color.Blue});
    }
    GraphicsControlBlock control{};
    if (DGifSavedExtensionToGCB(gif.get(), i, &control) == GIF_OK)
      frame.milliseconds = 10 * int64_t{control.DelayTime};
    frames.push_back(std::move(frame));
  }
  return frames;
}

image::Picture smooth_picture(int64_t width, int64_t height, int64_t shift) {
  image::Picture picture{.width = width, .height = height};
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      picture.rgb.push_back(static_cast<uint8_t>(255 * x / width));
      picture.rgb.push_back(static_cast<uint8_t>(255 * y / height));
      picture.rgb.push_back(static_cast<uint8_t>((40 * shift) % 256));
    }
  }
  return picture;
}

}  // namespace volley::test
