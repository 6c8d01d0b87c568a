#pragma once

// Marks what host and device code share.
#if defined(__CUDACC__)
#define VOLLEY_HOST_DEVICE __host__ __device__
#else
#define VOLLEY_HOST_DEVICE
#endif
