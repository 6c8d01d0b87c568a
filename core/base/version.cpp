#include "core/base/version.h"

namespace volley {

std::string_view version() {
  return VOLLEY_VERSION;
}

}  // namespace volley
