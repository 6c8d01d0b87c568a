#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/panel_products.h"
#include "hwy/targets.h"

namespace volley {

void limit_to_avx2() {
  hwy::DisableTargets(HWY_AVX2 - 1);  // better targets have lower bits
  limit_library_to_avx2();
}

}  // namespace volley
