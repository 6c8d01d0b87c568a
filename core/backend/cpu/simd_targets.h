#pragma once

// Include before hwy/highway.h and hwy/foreach_target.h. Kernels are compiled for single elements (Highway's fallback),
// SSE4, AVX2 and AVX-512; the steps between add build time and no speed to what we do.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
