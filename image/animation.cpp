#include "image/animation.h"

namespace volley::image {

std::optional<AnimationFormat> animation_format_of_path(std::string_view path) {
  std::string ending(path.substr(std::min(path.rfind('.'), path.size())));
  for (char& c : ending) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  if (ending == ".webp") return AnimationFormat::kWebp;
  if (ending == ".png" || ending == ".apng") return AnimationFormat::kPng;
  if (ending == ".gif") return AnimationFormat::kGif;
  return std::nullopt;
}

std::string encode_animation(const Animation& animation, AnimationFormat format,
                             const AnimationTexts& texts) {
  VOLLEY_ASSERT(!animation.frames.empty());
  for (const Animation::Frame& frame : animation.frames) {
    VOLLEY_ASSERT(frame.picture.width == animation.frames.front().picture.width &&
                  frame.picture.height == animation.frames.front().picture.height);
  }
  switch (format) {
    case AnimationFormat::kWebp:
      return encode_animated_webp(animation, texts.xmp);
    case AnimationFormat::kPng:
      return encode_animated_png(animation, texts.png);
    case AnimationFormat::kGif:
      return encode_animated_gif(animation, texts.xmp);
  }
  return {};
}

}  // namespace volley::image
