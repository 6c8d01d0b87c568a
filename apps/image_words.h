#pragma once

#include <string>

#include "image/image_card.h"
#include "image/image_request.h"

namespace volley::apps {

// What volley image says of a run, each fit for a line.

// "seed 7", "seeds 0 to 3" or "seeds 1, 5, 9".
std::string seeds_text(const image::ImageRequest& request);
// How pictures are decided: method, guidance, sampling, seeds, what is changed.
std::string method_line(const image::ImageRequest& request);
// What is drawn, classes by the names that they have.
std::string subject_text(const image::ImageCard& card, const image::ImageRequest& request);

}  // namespace volley::apps
