// Builds without oneDNN.
#include "core/backend/cpu/panel_products.h"

namespace volley {

std::unique_ptr<const PanelProducts> make_library_products() {
  return nullptr;
}

void limit_library_to_avx2() {}

}  // namespace volley
