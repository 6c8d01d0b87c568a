#pragma once

#include <string_view>
#include <vector>

namespace volley::image {

// What each class of ImageNet-1k shows, by number. One name stands twice: a Cardigan is a dog, a cardigan a
// garment.
std::vector<std::string_view> imagenet_names();

}  // namespace volley::image
