#include "apps/image_words.h"

#include <utility>

#include "apps/console.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

using image::ImageRequest;

std::string guidance_text(const ImageRequest& request) {
  return request.cfg == 1.0
             ? "no guidance"
             : "cfg " + shortest(request.cfg) + " " + std::string(image::guidance_name(request.guidance));
}

// As --outpaint takes it.
std::string margins_text(const image::Margins& margins) {
  std::string text;
  for (const auto& [side, cells] : {std::pair{"left", margins.left},
                                    {"right", margins.right},
                                    {"up", margins.up},
                                    {"down", margins.down}}) {
    if (cells > 0) text += (text.empty() ? "" : ",") + std::string(side) + "=" + std::to_string(cells);
  }
  return text;
}

std::string edit_text(const image::EditRequest& edit) {
  std::string text = ", from " + printable(edit.init.name, 100);
  if (edit.mask) text += " where " + printable(edit.mask->name, 100) + " is white";
  if (edit.outpaint.any()) text += ", widened by cells: " + margins_text(edit.outpaint);
  if (edit.strength > 0.0) text += ", strength " + shortest(edit.strength);
  return text;
}

}  // namespace

std::string seeds_text(const ImageRequest& request) {
  const std::string first = std::to_string(request.seed_of(0));
  if (request.count == 1) return "seed " + first;
  if (request.seeds.empty())
    return "seeds " + first + " to " + std::to_string(request.seed_of(request.count - 1));
  std::string text = "seeds";
  for (int64_t item = 0; item < request.count; ++item)
    text += (item > 0 ? ", " : " ") + std::to_string(request.seed_of(item));
  return text;
}

std::string method_line(const ImageRequest& request) {
  return image::decoder_text(request.decoder) + " (" +
         std::string(decoder_class_name(decoder_class(request.decoder))) + "), " + guidance_text(request) +
         ", temperature " + shortest(request.temperature) + ", top-k " + std::to_string(request.top_k) +
         ", top-p " + shortest(request.top_p) + ", " + seeds_text(request) +
         (request.edit ? edit_text(*request.edit) : "");
}

std::string subject_text(const image::ImageCard& card, const ImageRequest& request) {
  const bool is_class = !request.class_name.empty() && request.features_hash.empty();
  return printable(is_class ? image::class_label(card, request.class_id) : request.subject(), 100);
}

}  // namespace volley::apps
