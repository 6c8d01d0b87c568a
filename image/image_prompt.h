#pragma once

#include <optional>

#include "core/decode/generation.h"
#include "image/image_request.h"

namespace volley::image {

// What stands before the codes of a picture.
struct ImagePrompt {
  PromptRows given;
  std::optional<PromptRows> null;  // the guidance partner's, if there is guidance
  int64_t first_index = -1;        // of the first code in the sequence; negative: the prompt's length
};

// A class token, the projected rows of the request's text features, or the projected condition that the
// model's text encoder makes of the class or prompt. Throws Error if guidance is asked for
// and the model was trained without a null class.
ImagePrompt make_image_prompt(const ImageModel& model, const ImageRequest& request);

}  // namespace volley::image
