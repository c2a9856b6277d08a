// What the files of exported functions share. `bf16` says what `void*` elements are: bfloat16, or float.
#pragma once

#include <cstdint>

#define EXPORT extern "C" __attribute__((visibility("default"))) void
#define TYPED(call)                \
    do {                           \
        if (bf16) {                \
            using T = uint16_t;    \
            call;                  \
        } else {                   \
            using T = float;       \
            call;                  \
        }                          \
    } while (0)
