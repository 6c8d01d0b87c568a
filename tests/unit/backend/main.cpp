// GoogleTest's main with the choice of what is tested: --device=cuda:0 another device than the cpu,
// --simd=avx512|avx2|sse4|scalar caps the vector instructions,
// --products=avx512|vector the kernels of products.
#include <cstdio>
#include <string_view>

#include "hwy/targets.h"
#include "tests/unit/backend/backend_testing.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag.starts_with("--device=")) {
      volley::testing::tested_device = flag.substr(9);
    } else if (flag == "--products=avx512") {
      volley::testing::tested_products = volley::ProductKernels::kAvx512;
    } else if (flag == "--products=vector") {
      volley::testing::tested_products = volley::ProductKernels::kVector;
    } else if (flag == "--simd=avx512") {
      // Without 8-bit dot products (AVX3_DL); less where the processor has less.
      hwy::SetSupportedTargetsForTest(hwy::SupportedTargets() &
                                      (HWY_AVX3 | HWY_AVX2 | HWY_SSE4 | HWY_SCALAR));
    } else if (flag == "--simd=avx2") {
      hwy::SetSupportedTargetsForTest(HWY_AVX2 | HWY_SSE4 | HWY_SCALAR);
    } else if (flag == "--simd=sse4") {
      hwy::SetSupportedTargetsForTest(HWY_SSE4 | HWY_SCALAR);
    } else if (flag == "--simd=scalar") {
      hwy::SetSupportedTargetsForTest(HWY_SCALAR);
    } else {
      std::fprintf(stderr, "unknown flag %s\n", argv[i]);
      return 2;
    }
  }
  return RUN_ALL_TESTS();
}
