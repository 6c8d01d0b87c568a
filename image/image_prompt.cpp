#include "image/image_prompt.h"

#include <array>
#include <span>

#include "core/base/error.h"

namespace volley::image {
namespace {

// Caption rows stand at the end of the condition's places; padding before them is not fed.
PromptRows caption_rows(const LlamaGen& model, Queue& queue, Arena& arena, std::span<const float> features) {
  const int64_t rows = static_cast<int64_t>(features.size()) / model.config().caption_dim;
  PromptRows prompt{.embeddings = model.caption().project(queue, arena, features)};
  for (int64_t i = 0; i < rows; ++i) {
    prompt.rows.push_back(
        {.kind = RowKind::kEmbedding, .position = model.position(model.config().cls_token_num - rows + i)});
  }
  return prompt;
}

ImagePrompt caption_prompt(const LlamaGen& model, const ImageModel& owner, const ImageRequest& request) {
  VOLLEY_ASSERT(request.features != nullptr);
  const std::unique_ptr<Queue> queue = owner.backend()->make_queue();
  Arena arena(*owner.backend());
  ImagePrompt prompt{.given = caption_rows(model, *queue, arena, request.features->values),
                     .first_index = model.config().cls_token_num};
  if (request.cfg == 1.0) return prompt;
  // The authors give the null caption the same padding as the caption.
  const std::span<const float> null = model.caption().uncond_embedding();
  prompt.null = caption_rows(model, *queue, arena, null.last(request.features->values.size()));
  return prompt;
}

// One row: the text encoder's condition.
ImagePrompt encoded_prompt(const TextEncoder& encoder, const ImageModel& model, const ImageRequest& request) {
  const std::unique_ptr<Queue> queue = model.backend()->make_queue();
  Arena arena(*model.backend());
  const auto rows = [&](std::span<const float> condition) {
    return PromptRows{.rows = {{.kind = RowKind::kEmbedding, .position = model.step_model().position(0)}},
                      .embeddings = model.caption().project(*queue, arena, condition)};
  };
  TextEncoder::Asked asked{.prompt = request.prompt};
  if (!request.is_text()) asked = {.class_id = request.class_id};
  ImagePrompt prompt{.given = rows(encoder.encode(*queue, arena, asked))};
  if (request.cfg != 1.0) prompt.null = rows(model.caption().uncond_embedding());
  return prompt;
}

}  // namespace

ImagePrompt make_image_prompt(const ImageModel& model, const ImageRequest& request) {
  if (model.card().is_caption_model()) return caption_prompt(*model.llamagen(), model, request);
  if (model.text_encoder() != nullptr) return encoded_prompt(*model.text_encoder(), model, request);
  const std::array<int32_t, 1> given{model.class_token(request.class_id)};
  ImagePrompt prompt{.given = token_prompt(model.step_model(), given)};
  if (request.cfg == 1.0) return prompt;
  const std::array<int32_t, 1> nothing{model.null_class_token()};
  prompt.null = token_prompt(model.step_model(), nothing);
  return prompt;
}

}  // namespace volley::image
