// Animated GIF by giflib: each frame with the 256 colours nearest to its own.
#include <gif_lib.h>

#include <array>
#include <memory>

#include "image/animation.h"

namespace volley::image {
namespace {

constexpr int kColors = 256, kBits = 8;
constexpr int64_t kMaxSide = 65535;

int append(GifFileType* gif, const GifByteType* bytes, int count) {
  static_cast<std::string*>(gif->UserData)
      ->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
  return count;
}

void require(int status, GifFileType* gif) {
  if (status == GIF_OK) return;
  const char* text = gif == nullptr ? nullptr : GifErrorString(gif->Error);
  throw Error(std::string("GIF cannot be packed: ") + (text == nullptr ? "out of memory" : text));
}

void put_loop(GifFileType* gif) {
  const std::array<GifByteType, 3> again{1, 0, 0};  // without end
  require(EGifPutExtensionLeader(gif, APPLICATION_EXT_FUNC_CODE), gif);
  require(EGifPutExtensionBlock(gif, 11, "NETSCAPE2.0"), gif);
  require(EGifPutExtensionBlock(gif, static_cast<int>(again.size()), again.data()), gif);
  require(EGifPutExtensionTrailer(gif), gif);
}

void put_frame(GifFileType* gif, const Animation::Frame& frame) {
  const Picture& picture = frame.picture;
  const auto area = static_cast<size_t>(picture.width * picture.height);
  std::array<std::vector<GifByteType>, 3> planes;
  for (size_t c = 0; c < 3; ++c) {
    planes[c].resize(area);
    for (size_t i = 0; i < area; ++i) planes[c][i] = picture.rgb[3 * i + c];
  }
  std::vector<GifByteType> indices(area);
  std::array<GifColorType, kColors> colors{};
  int count = kColors;
  const auto width = static_cast<unsigned>(picture.width), height = static_cast<unsigned>(picture.height);
  if (GifQuantizeBuffer(width, height, &count, planes[0].data(), planes[1].data(), planes[2].data(),
                        indices.data(), colors.data()) != GIF_OK) {
    throw Error("GIF cannot be packed: out of memory");
  }
  const std::unique_ptr<ColorMapObject, decltype(&GifFreeMapObject)> map(
      GifMakeMapObject(kColors, colors.data()), &GifFreeMapObject);
  if (map == nullptr) throw Error("GIF cannot be packed: out of memory");
  const GraphicsControlBlock control{.DisposalMode = DISPOSE_DO_NOT,
                                     .UserInputFlag = false,
                                     .DelayTime = static_cast<int>((frame.milliseconds + 5) / 10),
                                     .TransparentColor = NO_TRANSPARENT_COLOR};
  std::array<GifByteType, 4> extension{};
  EGifGCBToExtension(&control, extension.data());
  require(EGifPutExtension(gif, GRAPHICS_EXT_FUNC_CODE, static_cast<int>(extension.size()), extension.data()),
          gif);
  require(EGifPutImageDesc(gif, 0, 0, static_cast<int>(width), static_cast<int>(height), false, map.get()),
          gif);
  for (int64_t y = 0; y < picture.height; ++y) {
    require(EGifPutLine(gif, indices.data() + y * picture.width, static_cast<int>(width)), gif);
  }
}

}  // namespace

std::string encode_animated_gif(const Animation& animation) {
  const Picture& first = animation.frames.front().picture;
  if (first.width > kMaxSide || first.height > kMaxSide) throw Error("GIF holds at most 65535 pixels a side");
  std::string file;
  int code = 0;
  struct Close {
    void operator()(GifFileType* gif) const { EGifCloseFile(gif, nullptr); }
  };
  std::unique_ptr<GifFileType, Close> gif(EGifOpen(&file, append, &code));
  if (gif == nullptr) throw Error("GIF cannot be packed: out of memory");
  EGifSetGifVersion(gif.get(), true);
  require(EGifPutScreenDesc(gif.get(), static_cast<int>(first.width), static_cast<int>(first.height), kBits,
                            0, nullptr),
          gif.get());
  put_loop(gif.get());
  for (const Animation::Frame& frame : animation.frames) put_frame(gif.get(), frame);
  require(EGifCloseFile(gif.release(), &code), nullptr);
  return file;
}

}  // namespace volley::image
