// Memory that is taken piece by piece and given back as a whole.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace fulmen {

// Memory in huge pages where the system gives them: weights are read once a step, a page table walk for each 4 KiB.
class Arena {
  public:
    Arena() = default;
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() {
        for (auto& chunk : chunks_) munmap(chunk.start, chunk.bytes);
    }

    uint8_t* take(size_t bytes) {
        bytes = (bytes + 255) & ~(size_t)255;
        if (left_ < bytes) {
            const size_t size = std::max(bytes, CHUNK);
            void* start = mmap(nullptr, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (start == MAP_FAILED) throw std::bad_alloc();
            chunks_.push_back({start, size + HUGE});
            next_ = (uint8_t*)(((uintptr_t)start + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
            left_ = size;
#if defined(MADV_HUGEPAGE)
            if (size >= CHUNK) madvise(next_, size, MADV_HUGEPAGE);
#endif
        }
        uint8_t* taken = next_;
        next_ += bytes;
        left_ -= bytes;
        bytes_ += bytes;
        return taken;
    }
    template <class T>
    T* array(size_t count) {
        return (T*)take(count * sizeof(T));
    }
    size_t bytes() const { return bytes_; }

  private:
    static constexpr size_t HUGE = 2 << 20, CHUNK = 32 << 20;
    struct Chunk {
        void* start;
        size_t bytes;
    };
    std::vector<Chunk> chunks_;
    uint8_t* next_ = nullptr;
    size_t left_ = 0, bytes_ = 0;
};

}  // namespace fulmen
