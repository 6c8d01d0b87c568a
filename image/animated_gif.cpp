// Animated GIF by giflib: each frame with a palette of its own.
#include <gif_lib.h>

#include <array>
#include <memory>

#include "image/animation.h"
#include "image/gif.h"
#include "image/palette.h"

namespace volley::image {
namespace {

constexpr int kBits = 8;
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
  IndexedPicture indexed = index_colors(picture);
  const int bits = GifBitSize(static_cast<int>(indexed.palette.size()));
  std::vector<GifColorType> colors(size_t{1} << bits);
  for (size_t i = 0; i < indexed.palette.size(); ++i) {
    const auto& [red, green, blue] = indexed.palette[i];
    colors[i] = {.Red = red, .Green = green, .Blue = blue};
  }
  const std::unique_ptr<ColorMapObject, decltype(&GifFreeMapObject)> map(
      GifMakeMapObject(static_cast<int>(colors.size()), colors.data()), &GifFreeMapObject);
  if (map == nullptr) throw Error("GIF cannot be packed: out of memory");
  const GraphicsControlBlock control{.DisposalMode = DISPOSE_DO_NOT,
                                     .UserInputFlag = false,
                                     .DelayTime = static_cast<int>((frame.milliseconds + 5) / 10),
                                     .TransparentColor = NO_TRANSPARENT_COLOR};
  std::array<GifByteType, 4> extension{};
  EGifGCBToExtension(&control, extension.data());
  require(EGifPutExtension(gif, GRAPHICS_EXT_FUNC_CODE, static_cast<int>(extension.size()), extension.data()),
          gif);
  const int width = static_cast<int>(picture.width), height = static_cast<int>(picture.height);
  require(EGifPutImageDesc(gif, 0, 0, width, height, false, map.get()), gif);
  for (int64_t y = 0; y < picture.height; ++y)
    require(EGifPutLine(gif, indexed.indices.data() + y * picture.width, width), gif);
}

}  // namespace

std::string encode_animated_gif(const Animation& animation, std::string_view xmp) {
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
  if (!xmp.empty()) file += gif_xmp_extension(xmp);  // the library keeps nothing back
  for (const Animation::Frame& frame : animation.frames) put_frame(gif.get(), frame);
  require(EGifCloseFile(gif.release(), &code), nullptr);
  return file;
}

}  // namespace volley::image
